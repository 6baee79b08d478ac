"""What the tests of the triggers share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from support import Project

from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.triggers.polling import ExecutionTrigger


@pytest.fixture(scope="session")
def cdf() -> Iterator[CdfEmulator]:
    """An emulator in which the executions that these tests leave RUNNING are in nobody's way."""
    with CdfEmulator(max_concurrent_executions=10_000) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def project(cdf: CdfEmulator) -> Project:
    return Project(cdf)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What triggers log, from INFO on. Airflow's own loggers do not lead to pytest."""
    logger = logging.getLogger("trigger under test")
    monkeypatch.setattr(ExecutionTrigger, "log", logger)
    caplog.set_level(logging.INFO, logger.name)
    return caplog
