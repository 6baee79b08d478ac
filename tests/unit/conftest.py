"""The emulator, as the Airflow connection ``cdf_default``, for unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import FakeTaskInstance, Project

from airflow_provider_cdf.emulator import CdfEmulator


@pytest.fixture(scope="session")
def cdf() -> Iterator[CdfEmulator]:
    """An emulator for the whole session; tests define workflows of their own in it."""
    with CdfEmulator() as emulator:
        yield emulator


@pytest.fixture
def cdf_default(cdf: CdfEmulator, monkeypatch: pytest.MonkeyPatch) -> CdfEmulator:
    """The emulator as Airflow connection ``cdf_default``."""
    monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection_uri())
    return cdf


@pytest.fixture(scope="session")
def project(cdf: CdfEmulator) -> Project:
    return Project(cdf)


@pytest.fixture
def ti() -> FakeTaskInstance:
    return FakeTaskInstance()
