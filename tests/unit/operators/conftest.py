"""What the tests of the operators share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from clear_errors import assert_clear
from support import FakeTaskInstance, Project

from airflow_provider_cdf import task_state
from airflow_provider_cdf.cdf import submitting
from airflow_provider_cdf.emulator import CdfEmulator, Pace
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.operators import deadline, reporting, starts


@pytest.fixture(params=[False, True], ids=["on the worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def clear(cdf: CdfEmulator) -> Callable[..., str]:
    """Check that an error is one clear message without secret and stack of HTTP; return the message."""

    def check(error: BaseException, *names: str) -> str:
        return assert_clear(error, *names, secrets=[cdf.client_secret])

    return check


@pytest.fixture(scope="session")
def cdf() -> Iterator[CdfEmulator]:
    """An emulator in which what takes its time in CDF is quick."""
    pace = Pace(pickup=0.01, function=0.05, retry_delay=0.2)
    with CdfEmulator(pace=pace, max_concurrent_executions=10_000) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def project(cdf: CdfEmulator) -> Project:
    return Project(cdf)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """What a kill has begun is over before the next test, whose faults it would take."""
    yield
    for thread in threading.enumerate():
        if thread.name == "cdf-cancel":
            thread.join(timeout=20)
            assert not thread.is_alive()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks that give up at once: how requests are repeated is tested with the client."""
    defaults = {**(CdfHook.__init__.__kwdefaults__ or {}), "retry_for": 0.0}
    monkeypatch.setattr(CdfHook.__init__, "__kwdefaults__", defaults)
    monkeypatch.setattr(starts, "LOOK_AGAIN_AFTER", 0.05)
    monkeypatch.setattr(starts, "LISTED_AFTER", 1.0)
    monkeypatch.setattr(starts, "QUICK", 60.0)  # however busy this machine is
    # One callback may take them all: none is left to look for what has not appeared yet.
    monkeypatch.setattr(deadline, "CALLBACK_PATIENCE", deadline.ALL_CALLBACKS_WITHIN)
    monkeypatch.setattr(submitting, "NONCE_DEAD_AFTER", 0.2)
    monkeypatch.setattr(reporting, "LOOK_AGAIN_AFTER", 0.01)


@pytest.fixture
def airflow_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of Airflow 2 reads the states of tasks from the database."""
    monkeypatch.delattr(FakeTaskInstance, "get_task_states")
    monkeypatch.setattr(task_state, "HAS_TASK_API", False)
