from __future__ import annotations

import pytest
from cdf_support import FakeTime, Sender

from airflow_provider_cdf.cdf import auth, clock


@pytest.fixture(autouse=True)
def _nothing_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    # The tokens of a process are shared by all of its clients.
    monkeypatch.setattr(auth, "_shared", {})
    # A proxy of the machine that runs the tests must not get what is meant for a loopback server.
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(params=["sync", "async"])
def sender(request: pytest.FixtureRequest) -> Sender:
    """Each of the two clients in turn."""
    return Sender(is_async=request.param == "async")


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """Pauses that take no time, and a clock that they move."""
    fake = FakeTime()
    for name in ("now", "sleep", "asleep"):
        monkeypatch.setattr(clock, name, getattr(fake, name))
    return fake


@pytest.fixture
def longest_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each random pause is as long as it can be."""
    monkeypatch.setattr("random.uniform", lambda low, high: high)
