"""What a wait does with a snapshot that brings nothing new: a thousand do it at every poll."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_cdf import progress
from airflow_provider_cdf.cdf.errors import CdfUnreachableError
from airflow_provider_cdf.cdf.models import WorkflowExecution, WorkflowExecutionDetails
from airflow_provider_cdf.triggers import waits
from airflow_provider_cdf.triggers.streams import Snapshot, Stream
from airflow_provider_cdf.triggers.waits import Wait
from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger

EXECUTION = "11111111-2222-4333-8444-555555555555"
SAID = {"id": EXECUTION, "workflowExternalId": "pumps", "status": "RUNNING"}


def listed(**more: Any) -> WorkflowExecution:

    return WorkflowExecution.model_validate({**SAID, **more})


class Trigger(CdfWorkflowTrigger):
    """Counts how often it decides."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(execution_id=EXECUTION, **arguments)
        self.decided = 0

    def decide(self, execution: WorkflowExecution) -> Any:
        self.decided += 1
        return super().decide(execution)


def told(trigger: Trigger, *polls: Any) -> dict[str, Any]:
    """Wait with what so many polls have brought, and a last one that ends the wait."""
    stream = Stream(SimpleNamespace())  # type: ignore[arg-type]  # nobody looks closer
    end = WorkflowExecutionDetails.model_validate({**SAID, "status": "COMPLETED"})

    async def snapshots() -> AsyncIterator[Snapshot]:
        for one in (*polls, end):
            yield Snapshot(stream, {EXECUTION: one} if isinstance(one, WorkflowExecution) else one)

    return asyncio.run(Wait(trigger).outcome(snapshots()))


def test_what_has_not_changed_is_not_decided_again(log: pytest.LogCaptureFixture) -> None:
    trigger, same = Trigger(), listed()
    assert told(trigger, *[same] * 10, listed(startTime=1), same)["outcome"] == "reached"
    assert trigger.decided == 3 + 1
    assert [line for line in log.messages if line.startswith("Waiting: RUNNING")] == [
        f"Waiting: RUNNING. [execution {EXECUTION}]"
    ]


def test_it_is_told_again_after_ten_minutes(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    told(Trigger(), *[listed()] * 3)
    assert len([line for line in log.messages if line.startswith("Waiting: RUNNING")]) == 3


def test_it_ends_an_outage_all_the_same(log: pytest.LogCaptureFixture) -> None:
    same, error = listed(), CdfUnreachableError("no answer", sent=True)
    told(Trigger(), same, error, error, same, error, same)
    assert len([line for line in log.messages if line.startswith("CDF answers again, after 2 failed")]) == 1
    assert len([line for line in log.messages if line.startswith("CDF answers again, after 1 failed")]) == 1


@pytest.mark.parametrize("end_time", [None, lambda: time.time() + 9000], ids=["no end", "an end"])
def test_a_wait_keeps_its_timer(
    end_time: Callable[[], float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: list[float | None] = []
    reschedule = asyncio.Timeout.reschedule

    def noted(timer: asyncio.Timeout, when: float | None) -> None:
        set_to.append(when)
        reschedule(timer, when)

    monkeypatch.setattr(asyncio.Timeout, "reschedule", noted)
    told(Trigger(end_time=end_time and end_time()), *[listed() for _ in range(20)])
    assert len([when for when in set_to if when is not None]) == (0 if end_time is None else 1)


def test_a_clock_that_is_set_forward_ends_a_wait_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end is on the wall clock, because another triggerer may go on with the wait."""
    now = time.time()
    monkeypatch.setattr(
        waits,
        "time",
        SimpleNamespace(monotonic=time.monotonic, time=lambda: now + 10_000 * (trigger.decided > 1)),
    )
    trigger = Trigger(end_time=now + 9000)
    assert told(trigger, *[listed() for _ in range(20)])["outcome"] == "timeout"
    assert trigger.decided == 2
