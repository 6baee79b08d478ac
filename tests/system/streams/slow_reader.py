"""A trigger that does not read what its stream brings, as one does that is stuck."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger

#: Seconds before it reads. Airflow keeps so many snapshots for it as a test says.
STUCK_FOR = float(os.environ.get("STREAMS_STUCK_FOR", "0"))


class StuckTrigger(CdfWorkflowTrigger):
    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
        await asyncio.sleep(STUCK_FOR)
        async for event in super().filter_shared_stream(shared_stream):
            yield event
