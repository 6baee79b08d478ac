"""The steps of a conversation with CDF, which takes more than one call."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from airflow_provider_cdf.cdf.calls import Call

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Pause:
    """A step of a conversation: nothing is sent for some seconds."""

    seconds: float


#: A conversation with CDF: yields calls and pauses, is sent the answers, returns its result. Written once,
#: and performed by either client.
Conversation: TypeAlias = Generator[Call[Any] | Pause, Any, ResultT]
