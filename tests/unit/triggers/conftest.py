"""What the tests of the triggers share."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_cdf.triggers.polling import ExecutionTrigger


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What triggers log, from INFO on. Airflow's own loggers do not lead to pytest."""
    logger = logging.getLogger("trigger under test")
    monkeypatch.setattr(ExecutionTrigger, "log", logger)
    caplog.set_level(logging.INFO, logger.name)
    return caplog
