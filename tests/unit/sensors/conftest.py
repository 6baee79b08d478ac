"""What the tests of the sensors share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support import Project

from airflow_provider_cdf import waiting
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.emulator.pace import Pace
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.operators import recovery
from airflow_provider_cdf.waiting import Patience


@pytest.fixture(params=[False, True], ids=["on the worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def force(cdf: CdfEmulator) -> Callable[..., None]:
    """Put a task into a status that nothing in the emulator leads to while the execution is RUNNING."""

    def force(execution_id: str, external_id: str, status: str, reason: str | None = None) -> None:
        with cdf.turn() as engine:
            for task in engine.execution(execution_id).tasks():
                if task.external_id == external_id:
                    task.status, task.reason = status, reason

    return force


@pytest.fixture
def later() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Do something shortly, while a sensor waits."""
    threads: list[threading.Thread] = []

    def later(action: Callable[[], None]) -> None:
        def wait_and_act() -> None:
            time.sleep(0.08)
            action()

        threads.append(threading.Thread(target=wait_and_act))
        threads[-1].start()

    yield later
    for thread in threads:
        thread.join()


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
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks that give up at once: how requests are repeated is tested with the client."""
    defaults = {**(CdfHook.__init__.__kwdefaults__ or {}), "retry_for": 0.0}
    monkeypatch.setattr(CdfHook.__init__, "__kwdefaults__", defaults)
    monkeypatch.setattr(recovery, "LOOK_AGAIN_AFTER", 0.05)
    monkeypatch.setattr(Patience, "REFUSED_FOR", 0.0)
    monkeypatch.setattr(waiting, "LAG", 0.0)
