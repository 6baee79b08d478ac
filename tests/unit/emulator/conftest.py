"""A running emulator and clients for it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from emulator_http import Api

from airflow_provider_cdf.emulator import CdfEmulator


@pytest.fixture(scope="module")
def cdf() -> Iterator[CdfEmulator]:
    with CdfEmulator(project="plant") as emulator:
        yield emulator


@pytest.fixture(scope="module")
def api(cdf: CdfEmulator) -> Iterator[Api]:
    with httpx.Client(base_url=cdf.url, timeout=60) as client:
        yield Api(cdf, client)
