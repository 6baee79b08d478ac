"""CdfWorkflowTrigger.on_kill: it cancels for a person, not for a trigger that moves."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.providers.common.compat.sdk import TaskInstanceState
from pytest_mock import MockerFixture
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.triggers import workflow
from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger
from airflow_provider_cdf.versions import HAS_ON_KILL

pytestmark = [
    pytest.mark.usefixtures("cdf_default"),
    pytest.mark.skipif(not HAS_ON_KILL, reason="Airflow below 3.3 tells a deferred task nothing"),
]

#: What Airflow says of a task that waits for the execution, was resumed and waits for a slot, or will look
#: for the execution again. One that was cleared, and is to run again, is in these, and cancels it itself.
COUNTS_ON_IT = [
    "deferred",
    "scheduled",
    "queued",
    "running",
    "restarting",
    "up_for_retry",
    "up_for_reschedule",
]
#: What it says of a task that a person, or the scheduler on a person's behalf, has ended or cleared.
IS_DONE_WITH_IT = [
    None,  # cleared
    "failed",
    "success",
    "removed",
    "skipped",
    "upstream_failed",
]


@pytest.fixture
def states(mocker: MockerFixture) -> Mock:
    """Airflow's question for the states of tasks, which only a real Airflow answers."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    return mocker.patch.object(RuntimeTaskInstance, "get_task_states", autospec=True)


@pytest.fixture
def execution_id(project: Project) -> str:
    """An execution that goes on until somebody ends it."""
    return project.run(project.define(function_task("approve", waits=True)))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that gives up at once: how requests are repeated is tested with the client."""
    monkeypatch.setattr(
        CdfHook.__init__, "__kwdefaults__", {**(CdfHook.__init__.__kwdefaults__ or {}), "retry_for": 0.0}
    )


def trigger(execution_id: str, ti: FakeTaskInstance | None, **arguments: Any) -> CdfWorkflowTrigger:
    made = CdfWorkflowTrigger(execution_id=execution_id, **{"cancel_on_kill": True, **arguments})
    # As the triggerer does; what it has there knows its ids, and asks nothing.
    ids = ("dag_id", "run_id", "task_id", "map_index")
    made.task_instance = ti and SimpleNamespace(**{name: getattr(ti, name) for name in ids})
    return made


def kill(execution_id: str, ti: FakeTaskInstance | None, **arguments: Any) -> None:
    asyncio.run(asyncio.wait_for(trigger(execution_id, ti, **arguments).on_kill(), 20))


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]


def test_every_state_of_airflow_is_in_one_of_these_lists() -> None:
    known = {state.value for state in TaskInstanceState} | {None}
    # A task that waits for a person's input does not wait for an execution.
    assert known - {"awaiting_input"} <= {*COUNTS_ON_IT, *IS_DONE_WITH_IT}


@pytest.mark.parametrize("state", IS_DONE_WITH_IT)
def test_the_execution_of_a_task_that_was_ended_or_cleared_is_cancelled(
    state: str | None, states: Mock, execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    states.return_value = {ti.run_id: {ti.task_id: state}}

    kill(execution_id, ti)

    execution = project.execution(execution_id)
    assert execution["status"] == "TERMINATED"
    assert "ended or cleared" in execution["reasonForIncompletion"]
    states.assert_called_once_with(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])


@pytest.mark.parametrize("state", COUNTS_ON_IT)
def test_the_execution_of_a_task_that_counts_on_it_goes_on(
    state: str,
    states: Mock,
    execution_id: str,
    project: Project,
    ti: FakeTaskInstance,
    log: pytest.LogCaptureFixture,
) -> None:
    states.return_value = {ti.run_id: {ti.task_id: state}}

    kill(execution_id, ti)

    assert project.execution(execution_id)["status"] == "RUNNING"
    told = f"The execution goes on: its task is {state}, only the trigger moves. [execution {execution_id}]"
    assert told in log.messages


def test_where_cancelling_is_not_wanted_nobody_is_asked(
    states: Mock,
    execution_id: str,
    project: Project,
    cdf: CdfEmulator,
    ti: FakeTaskInstance,
    log: pytest.LogCaptureFixture,
) -> None:
    states.return_value = {ti.run_id: {ti.task_id: "failed"}}

    kill(execution_id, ti, cancel_on_kill=False)

    states.assert_not_called()
    assert cdf.journal.count(path=f"*/{execution_id}*") == 0
    # A sensor has no argument cancel_on_kill.
    assert log.messages == [
        "The execution goes on in CDF, whatever has become of the task that waited. "
        f"[execution {execution_id}]"
    ]
    assert project.execution(execution_id)["status"] == "RUNNING"


def test_a_trigger_of_no_task_has_nobody_who_could_be_killed(
    states: Mock, execution_id: str, project: Project, log: pytest.LogCaptureFixture
) -> None:
    kill(execution_id, None)

    states.assert_not_called()
    assert warnings(log) == []
    assert project.execution(execution_id)["status"] == "RUNNING"


@pytest.mark.parametrize(("own", "status"), [("failed", "TERMINATED"), ("deferred", "RUNNING")])
def test_of_a_mapped_task_the_own_instance_counts(
    own: str, status: str, states: Mock, execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    others = "deferred" if own == "failed" else "failed"
    states.return_value = {ti.run_id: {"task_0": others, "task_1": others, "task_2": own, "task": others}}

    kill(execution_id, replace(ti, map_index=2))

    assert project.execution(execution_id)["status"] == status


@pytest.mark.parametrize("own", ["failed", "deferred"])
def test_the_first_of_a_mapped_task_is_not_taken_for_one_that_is_not_mapped(
    own: str, states: Mock, execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    states.return_value = {ti.run_id: {"task_0": own, "task": "failed" if own == "deferred" else "deferred"}}

    kill(execution_id, replace(ti, map_index=0))

    assert project.execution(execution_id)["status"] == ("TERMINATED" if own == "failed" else "RUNNING")


def test_nothing_is_cancelled_unless_it_is_asked_for(
    states: Mock, execution_id: str, project: Project
) -> None:
    """A sensor that watches an execution has this trigger, too."""
    ti = FakeTaskInstance()
    states.return_value = {ti.run_id: {ti.task_id: "failed"}}
    watching = CdfWorkflowTrigger(execution_id=execution_id)
    watching.task_instance = ti

    asyncio.run(watching.on_kill())

    assert project.execution(execution_id)["status"] == "RUNNING"


@pytest.mark.parametrize("map_index", [-1, None])
def test_a_task_that_is_not_mapped_goes_by_its_bare_id(
    map_index: Any, states: Mock, execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    states.return_value = {ti.run_id: {"task": "failed"}}

    kill(execution_id, replace(ti, map_index=map_index))

    assert project.execution(execution_id)["status"] == "TERMINATED"


@pytest.mark.parametrize(
    "answer",
    [{}, {"another run": {"task": "failed"}}, {"run": {}}, {"run": {"another task": "failed"}}, None],
    ids=str,
)
def test_what_airflow_does_not_say_is_no_reason_to_cancel(
    answer: Any,
    states: Mock,
    execution_id: str,
    project: Project,
    ti: FakeTaskInstance,
    log: pytest.LogCaptureFixture,
) -> None:
    states.return_value = answer

    kill(execution_id, replace(ti, run_id="run"))

    assert project.execution(execution_id)["status"] == "RUNNING"
    (warning,) = warnings(log)
    assert execution_id in warning
    assert "it is not known whether its task was killed" in warning


def test_an_airflow_that_cannot_be_asked_is_no_reason_to_cancel(
    states: Mock, execution_id: str, project: Project, ti: FakeTaskInstance, log: pytest.LogCaptureFixture
) -> None:
    states.side_effect = RuntimeError("the api-server is down")

    kill(execution_id, ti)

    assert project.execution(execution_id)["status"] == "RUNNING"
    (warning,) = warnings(log)
    assert execution_id in warning
    assert "the api-server is down" in warning


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED", "TERMINATED"])
def test_an_execution_that_has_ended_already_keeps_its_end(
    end: str,
    states: Mock,
    execution_id: str,
    project: Project,
    ti: FakeTaskInstance,
    log: pytest.LogCaptureFixture,
) -> None:
    states.return_value = {ti.run_id: {ti.task_id: "failed"}}
    if end == "TERMINATED":
        project.cancel(execution_id, "Anna stopped it")
    else:
        project.update(project.task(execution_id, "approve")["id"], end)

    kill(execution_id, ti)

    execution = project.execution(execution_id)
    assert execution["status"] == end
    assert "ended or cleared" not in (execution.get("reasonForIncompletion") or "")
    assert warnings(log) == []
    assert log.messages[-1].endswith(f"it is {end}. [execution {execution_id}]")


class TestCdfThatDoesNotCancel:
    """Nobody could do anything about an exception: the trigger ends all the same. So the log must say it."""

    @pytest.fixture(autouse=True)
    def killed(self, states: Mock, ti: FakeTaskInstance, impatient: None) -> None:
        states.return_value = {ti.run_id: {ti.task_id: "failed"}}

    def check(self, execution_id: str, ti: FakeTaskInstance, log: pytest.LogCaptureFixture) -> str:
        kill(execution_id, ti)

        (warning,) = warnings(log)
        assert warning.startswith("An execution may still run in CDF, because it could not be cancelled. ")
        assert f"[execution {execution_id}" in warning
        return warning

    def test_because_it_is_not_allowed(
        self, execution_id: str, cdf: CdfEmulator, ti: FakeTaskInstance, log: pytest.LogCaptureFixture
    ) -> None:
        cdf.faults.add("POST", f"*/{execution_id}/cancel", status=403)

        assert "403" in self.check(execution_id, ti, log)

    def test_because_it_cannot_be_reached(
        self,
        execution_id: str,
        ti: FakeTaskInstance,
        log: pytest.LogCaptureFixture,
        connect: Callable[..., None],
    ) -> None:
        connect(host="http://127.0.0.1:9")

        assert "127.0.0.1:9" in self.check(execution_id, ti, log)

    def test_because_the_connection_is_gone(
        self,
        execution_id: str,
        ti: FakeTaskInstance,
        log: pytest.LogCaptureFixture,
        connect: Callable[..., None],
    ) -> None:
        connect({"project": ""})

        assert "cdf_default" in self.check(execution_id, ti, log)


def test_a_cancelled_coroutine_passes_it_on_and_the_execution_is_cancelled_nevertheless(
    states: Mock, execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    # Airflow 3.3 cancels the trigger's coroutine anew with each heartbeat, while on_kill runs in it.
    asked, may_answer = threading.Event(), threading.Event()

    def slow_answer(**_: Any) -> Any:
        asked.set()
        assert may_answer.wait(20)
        return {ti.run_id: {ti.task_id: "failed"}}

    states.side_effect = slow_answer

    async def heartbeat() -> None:
        killing = asyncio.create_task(trigger(execution_id, ti).on_kill())
        await asyncio.to_thread(asked.wait, 20)
        killing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killing
        # The event loop itself would let it be collected.
        left_behind = asyncio.all_tasks() - {asyncio.current_task()}
        assert left_behind
        assert left_behind == workflow._cancellations
        may_answer.set()
        async with asyncio.timeout(20):
            await asyncio.gather(*left_behind)
        await asyncio.sleep(0)
        assert not workflow._cancellations

    asyncio.run(heartbeat())

    assert project.execution(execution_id)["status"] == "TERMINATED"


def test_airflow_is_asked_in_another_thread_than_that_of_all_triggers(
    states: Mock, execution_id: str, ti: FakeTaskInstance
) -> None:
    asked_in: list[int] = []

    def answer(**_: Any) -> Any:
        asked_in.append(threading.get_ident())
        return {ti.run_id: {ti.task_id: "deferred"}}

    states.side_effect = answer

    kill(execution_id, ti)

    assert len(asked_in) == 1
    assert threading.get_ident() not in asked_in  # asyncio.run() is in this one
