"""Both sensors when a deferral comes back, perhaps hours later, in a process that knows nothing of before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.errors import CdfError, CdfRefusedError, CdfWaitImpossibleError
from airflow_provider_cdf.cdf.retry import RETRY_FOR
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.sensors.base import ExecutionSensor
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor
from airflow_provider_cdf.waiting import Pace

pytestmark = pytest.mark.usefixtures("cdf_default")

SKIPPING = pytest.mark.parametrize("option", ["soft_fail", "never_fail"])


class Approval:
    """
    An execution whose one task, ``approve``, waits for its approval.

    :param cdf: where it runs.
    :param project: that of the emulator.
    """

    def __init__(self, cdf: CdfEmulator, project: Project) -> None:
        self._cdf, self._project = cdf, project
        self.execution_id = project.run(project.define(function_task("approve", waits=True)))
        self.task_id = project.task(self.execution_id, "approve")["id"]
        self._path = f"*/executions/{self.execution_id}"
        self._looks_before = cdf.journal.count("GET", self._path)

    def approve(self) -> None:
        self._project.update(self.task_id, "COMPLETED", {"approved_by": "Anna"})

    def cancel(self) -> None:
        self._project.cancel(self.execution_id)

    def retry(self) -> None:
        """Do what a person does in Fusion."""
        nonce = {"authentication": {"nonce": self._project.nonce()}}
        self._project.post(f"/workflows/executions/{self.execution_id}/retry", nonce)

    def fail_next(self, times: int = 1, status: int = 503) -> None:
        """Let the next looks fail."""
        self._cdf.faults.add("GET", self._path, times=times, status=status)

    @property
    def looks(self) -> int:
        return self._cdf.journal.count("GET", self._path) - self._looks_before


@pytest.fixture
def approval(cdf: CdfEmulator, project: Project) -> Iterator[Approval]:
    yield Approval(cdf, project)
    cdf.faults.clear()


@pytest.fixture
def after_two_looks(approval: Approval) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Do something as soon as a sensor has looked twice."""
    threads: list[threading.Thread] = []

    def after_two_looks(action: Callable[[], None]) -> None:
        def wait_and_act() -> None:
            for _ in range(1000):
                if approval.looks >= 2:
                    return action()
                time.sleep(0.01)

        threads.append(threading.Thread(target=wait_and_act))
        threads[-1].start()

    yield after_two_looks
    for thread in threads:
        thread.join()


@pytest.fixture(params=["task", "workflow"])
def sensor(request: pytest.FixtureRequest, approval: Approval) -> Callable[..., ExecutionSensor]:
    """Make either sensor anew, as each process does. They wait for the approval."""

    def sensor(**arguments: Any) -> ExecutionSensor:
        arguments = {"execution_id": approval.execution_id, "poke_interval": 0.05, "timeout": 60, **arguments}
        if request.param == "workflow":
            return CdfWorkflowSensor(task_id="wait", deferrable=True, **arguments)
        target = {"task_external_id": "approve", "target_status": "COMPLETED"}
        return CdfTaskSensor(task_id="wait", deferrable=True, **{**target, **arguments})

    return sensor


@pytest.fixture
def check_result(approval: Approval, ti: FakeTaskInstance) -> Callable[[ExecutionSensor, Any], None]:
    def check_result(sensor: ExecutionSensor, value: Any) -> None:
        if isinstance(sensor, CdfWorkflowSensor):
            assert value == approval.execution_id
        else:
            assert value == approval.task_id
            assert ti.xcoms["status"] == "COMPLETED"
            assert ti.xcoms["output"]["approved_by"] == "Anna"

    return check_result


def resume(
    sensor: ExecutionSensor, ti: FakeTaskInstance, outcome: str, end_time: float | None = None, **more: Any
) -> Any:
    """Resume a sensor with the event of its trigger and with what it has deferred with."""
    event = {
        "outcome": outcome,
        "execution_id": sensor.execution_id,
        "message": "What the trigger saw hours ago.",
        **more,
    }
    kept = {"end_time": end_time or time.time() + 60}
    return sensor.resume_execution("execute_complete", {**kept, "event": event}, {"ti": ti})


def resume_broken(sensor: ExecutionSensor, ti: FakeTaskInstance, error: str = "Trigger failure") -> Any:
    """Resume a sensor as Airflow does where its trigger has crashed, or has not fired in time."""
    return sensor.resume_execution("__fail__", {"error": error}, {"ti": ti})


class TestReached:
    def test_takes_the_result_from_cdf(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance, check_result: Any
    ) -> None:
        approval.approve()

        check_result(sensor(), resume(sensor(), ti, "reached", cdf_task_id=approval.task_id))

    def test_defers_again_until_the_same_end_where_the_look_fails(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance
    ) -> None:
        approval.approve()
        approval.fail_next()
        end_time = time.time() + 60

        with pytest.raises(TaskDeferred) as deferred:
            resume(sensor(), ti, "reached", end_time=end_time)

        assert deferred.value.trigger.end_time == end_time
        assert deferred.value.method_name == "execute_complete"

    def test_is_no_timeout_only_because_a_look_fails_after_the_end_of_the_wait(
        self,
        sensor: Any,
        approval: Approval,
        ti: FakeTaskInstance,
        check_result: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # It was reached in time, and then waited for a worker until its time was over.
        approval.approve()
        approval.fail_next()
        # Whoever repeats the look is right, be it the hook ...
        monkeypatch.setitem(CdfHook.__init__.__kwdefaults__ or {}, "retry_for", RETRY_FOR)
        monkeypatch.setattr(clock, "sleep", lambda seconds: None)

        try:
            value = resume(sensor(), ti, "reached", cdf_task_id=approval.task_id, end_time=time.time() - 1)
        except TaskDeferred:
            return  # ... or a trigger
        check_result(sensor(), value)


class TestTaskThatTheTriggerSaw:
    """A task has moved on between the trigger's look and the worker's."""

    @pytest.fixture
    def execution_id(self, project: Project) -> str:
        """One that goes on after ``approve``."""
        other = function_task("other", waits=True)
        execution_id = project.run(project.define(function_task("approve", waits=True), other))
        project.task(execution_id, "approve")
        return execution_id

    def resume(self, execution_id: str, ti: FakeTaskInstance, cdf_task_id: str, target: str) -> Any:
        sensor = CdfTaskSensor(
            task_id="wait",
            execution_id=execution_id,
            task_external_id="approve",
            target_status=target,
            deferrable=True,
        )
        return resume(sensor, ti, "reached", cdf_task_id=cdf_task_id)

    def test_counts_while_it_goes_on(self, execution_id: str, project: Project, ti: FakeTaskInstance) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]

        assert self.resume(execution_id, ti, cdf_task_id, "SCHEDULED") == cdf_task_id

        assert ti.xcoms["status"] == "IN_PROGRESS"

    def test_does_not_count_where_the_trigger_saw_another_attempt(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        other = project.task(execution_id, "other")["id"]
        assert project.task(execution_id, "approve")["id"] != other

        with pytest.raises(TaskDeferred):
            self.resume(execution_id, ti, "11111111-2222-4333-8444-555555555555", "SCHEDULED")

    @pytest.mark.parametrize("status", ["COMPLETED", "FAILED_WITH_TERMINAL_ERROR"])
    def test_has_ended_so_that_nothing_can_be_done_about_it_any_more(
        self, status: str, execution_id: str, project: Project, ti: FakeTaskInstance, force: Any
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        force(execution_id, "approve", status, "Anna was quicker")

        with pytest.raises(CdfWaitImpossibleError) as error:
            self.resume(execution_id, ti, cdf_task_id, "IN_PROGRESS")

        for word in ("approve", execution_id, status, "Anna was quicker"):
            assert word in str(error.value)
        assert ti.xcoms == {}

    def test_has_ended_together_with_the_execution(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        project.update(cdf_task_id, "FAILED")
        assert project.execution(execution_id)["status"] == "FAILED"

        with pytest.raises(CdfWaitImpossibleError, match=r"then ended FAILED: .* The workflow is FAILED\."):
            self.resume(execution_id, ti, cdf_task_id, "IN_PROGRESS")

    def test_was_left_behind_by_an_execution_that_has_ended(
        self, execution_id: str, project: Project, cdf: CdfEmulator, ti: FakeTaskInstance
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        with cdf.turn() as engine:
            engine.execution(execution_id).status = "TIMED_OUT"
        assert project.task(execution_id, "approve", "IN_PROGRESS")

        with pytest.raises(CdfWaitImpossibleError, match="TIMED_OUT"):
            self.resume(execution_id, ti, cdf_task_id, "SCHEDULED")

    def test_has_failed_and_may_be_followed_by_another_attempt(
        self, execution_id: str, project: Project, ti: FakeTaskInstance, force: Any
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        force(execution_id, "approve", "FAILED")

        with pytest.raises(TaskDeferred):
            self.resume(execution_id, ti, cdf_task_id, "IN_PROGRESS")

    def test_is_not_said_to_have_ended_before_it_was_what_the_trigger_saw(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        project.update(cdf_task_id, "COMPLETED")

        with pytest.raises(CdfWaitImpossibleError) as error:
            self.resume(execution_id, ti, cdf_task_id, "IN_PROGRESS")

        assert "before it was IN_PROGRESS" not in str(error.value)


class TestImpossible:
    def test_fails_for_good_with_the_reason_that_cdf_gives_now(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance
    ) -> None:
        approval.cancel()

        with pytest.raises(CdfWaitImpossibleError, match="TERMINATED") as error:
            resume(sensor(), ti, "impossible")

        assert approval.execution_id in str(error.value)
        assert "hours ago" not in str(error.value)
        assert isinstance(error.value, AirflowFailException)

    @SKIPPING
    def test_skips_where_told_to(
        self, option: str, sensor: Any, approval: Approval, ti: FakeTaskInstance
    ) -> None:
        approval.cancel()

        with pytest.raises(AirflowSkipException):
            resume(sensor(**{option: True}), ti, "impossible")

    def test_goes_on_waiting_where_somebody_has_retried_the_execution_since(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance
    ) -> None:
        approval.cancel()
        approval.retry()
        end_time = time.time() + 60

        with pytest.raises(TaskDeferred) as deferred:
            resume(sensor(), ti, "impossible", end_time=end_time)

        assert deferred.value.trigger.end_time == end_time


class TestTimeout:
    def test_looks_once_more_and_takes_the_result(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance, check_result: Any
    ) -> None:
        approval.approve()

        check_result(sensor(), resume(sensor(), ti, "timeout", end_time=time.time() - 1))

        assert approval.looks == 1

    def test_fails_for_good_where_it_has_not_happened(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance
    ) -> None:
        with pytest.raises(AirflowSensorTimeout) as error:
            resume(sensor(), ti, "timeout", end_time=time.time() - 1)

        assert sensor().goal in str(error.value)
        assert "IN_PROGRESS. It is IN_PROGRESS" not in str(error.value)
        assert ". It is IN_PROGRESS." in str(error.value) or ". It is RUNNING." in str(error.value)
        assert approval.looks == 1

    def test_says_what_the_trigger_saw_last_where_cdf_is_silent_now(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance
    ) -> None:
        approval.fail_next()

        with pytest.raises(AirflowSensorTimeout, match="It is PAUSED"):
            resume(sensor(), ti, "timeout", end_time=time.time() - 1, observed="PAUSED")

    @SKIPPING
    def test_skips_where_told_to(self, option: str, sensor: Any, ti: FakeTaskInstance) -> None:
        with pytest.raises(AirflowSkipException):
            resume(sensor(**{option: True}), ti, "timeout", end_time=time.time() - 1)


class TestError:
    @pytest.mark.parametrize("is_permanent", [True, False])
    def test_is_retried_by_airflow_unless_it_is_permanent(
        self, is_permanent: bool, sensor: Any, approval: Approval, ti: FakeTaskInstance
    ) -> None:
        with pytest.raises(CdfError) as error:
            resume(sensor(), ti, "error", message="CDF is silent.", is_permanent=is_permanent)

        assert str(error.value) == (
            f"CDF is silent. The execution was left as it is. [execution {approval.execution_id}]"
        )
        assert isinstance(error.value, AirflowFailException) is is_permanent
        assert approval.looks == 0

    @SKIPPING
    def test_skips_where_told_to(self, option: str, sensor: Any, ti: FakeTaskInstance) -> None:
        with pytest.raises(AirflowSkipException):
            resume(sensor(**{option: True}), ti, "error", is_permanent=True)


class TestBrokenTrigger:
    """What Airflow calls ``__fail__``. No event tells anything then."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Pace, "SHORTEST_AFTER_FAILURE", 0.01)

    def test_that_crashed_is_waited_for_on_the_worker(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance, check_result: Any, after_two_looks: Any
    ) -> None:
        after_two_looks(approval.approve)

        check_result(sensor(), resume_broken(sensor(), ti))

    def test_that_crashed_without_a_word_is_waited_for_too(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance, check_result: Any
    ) -> None:
        approval.approve()

        check_result(sensor(), sensor().resume_execution("__fail__", None, {"ti": ti}))

    def test_looks_that_fail_do_not_end_the_wait_on_the_worker(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance, check_result: Any
    ) -> None:
        approval.approve()
        approval.fail_next(2)

        check_result(sensor(), resume_broken(sensor(), ti))

        assert approval.looks == 3

    def test_what_cdf_refuses_three_times_is_not_waited_for(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance
    ) -> None:
        approval.fail_next(3, status=403)

        with pytest.raises(CdfRefusedError, match=r"403.* Nothing was changed in CDF\."):
            resume_broken(sensor(), ti)

        assert approval.looks == 3

    def test_what_can_no_longer_happen_is_not_waited_for(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance, after_two_looks: Any
    ) -> None:
        after_two_looks(approval.cancel)

        with pytest.raises(CdfWaitImpossibleError, match="TERMINATED"):
            resume_broken(sensor(), ti)

    def test_the_time_on_the_worker_counts_from_the_start_of_the_try(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance
    ) -> None:
        ti.start_date = datetime.now(UTC) - timedelta(seconds=61)

        with pytest.raises(AirflowSensorTimeout, match="timeout=60 s"):
            resume_broken(sensor(timeout=60), ti)

        assert approval.looks == 1

    def test_the_time_on_the_worker_counts_from_now_where_that_start_is_not_known(
        self, sensor: Any, ti: FakeTaskInstance
    ) -> None:
        ti.start_date = None  # type: ignore[assignment]

        with pytest.raises(AirflowSensorTimeout, match=r"timeout=0\.1 s"):
            resume_broken(sensor(timeout=0.1), ti)

    def test_that_was_given_up_leaves_one_look_which_takes_the_result(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance, check_result: Any
    ) -> None:
        approval.approve()

        check_result(sensor(), resume_broken(sensor(), ti, "Trigger timeout"))

    def test_that_was_given_up_leaves_one_look_and_then_the_time_is_over(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance
    ) -> None:
        with pytest.raises(AirflowSensorTimeout) as error:
            resume_broken(sensor(), ti, "Trigger timeout")

        assert sensor().goal in str(error.value)
        assert approval.looks == 1

    def test_that_was_given_up_while_cdf_is_silent_claims_no_state(
        self, sensor: Any, approval: Approval, ti: FakeTaskInstance
    ) -> None:
        approval.fail_next()

        with pytest.raises(AirflowSensorTimeout, match="Its state is not known"):
            resume_broken(sensor(), ti, "Trigger timeout")

    @SKIPPING
    @pytest.mark.parametrize("error", ["Trigger failure", "Trigger timeout"])
    def test_skips_where_told_to(
        self, error: str, option: str, sensor: Any, approval: Approval, ti: FakeTaskInstance
    ) -> None:
        if error == "Trigger failure":
            approval.cancel()

        with pytest.raises(AirflowSkipException):
            resume_broken(sensor(**{option: True}), ti, error)
