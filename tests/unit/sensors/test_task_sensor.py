"""CdfTaskSensor against the emulator."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    PokeReturnValue,
    TaskDeferred,
)
from moved import AirflowRescheduleException
from operators.clear_errors import assert_clear
from support import FakeTaskInstance, Project, first_event, function_task, run_to_end
from triggers.scripted_cdf import HANG_UP, NOT_JSON, execution, scripted_cdf, task

from airflow_provider_cdf.cdf.errors import CdfRefusedError
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.versions import HAS_TASK_API
from airflow_provider_cdf.waiting import Pace

pytestmark = pytest.mark.usefixtures("cdf_default")

UNKNOWN = "11111111-2222-4333-8444-555555555555"


def make(execution_id: Any, **arguments: Any) -> CdfTaskSensor:
    defaults: dict[str, Any] = {"task_external_id": "approve", "poke_interval": 0.05, "timeout": 10}
    sensor = CdfTaskSensor(task_id="wait", execution_id="{{ templated }}", **{**defaults, **arguments})
    sensor.execution_id = execution_id  # as it is rendered
    return sensor


def wait(ti: FakeTaskInstance, execution_id: Any, **arguments: Any) -> Any:
    return run_to_end(make(execution_id, **arguments), {"ti": ti})


@pytest.fixture
def execution_id(project: Project) -> str:
    """An execution whose task ``approve`` is IN_PROGRESS."""
    execution_id = project.run(project.define(function_task("approve", waits=True)))
    project.task(execution_id, "approve")
    return execution_id


class TestArrival:
    def test_waits_for_a_task_in_progress_and_returns_its_id(
        self, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        first = function_task("first")
        approve = function_task("approve", waits=True, dependsOn=[{"externalId": "first"}])
        execution_id = project.run(project.define(first, approve))

        # Not listed yet, then SCHEDULED, then IN_PROGRESS.
        cdf_task_id = wait(ti, execution_id, deferrable=deferrable)

        assert cdf_task_id == project.task(execution_id, "approve")["id"]

    def test_pushes_status_input_and_output(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        execution_id = project.run(
            project.define(function_task("approve", waits=True)), input={"pump": "P-77"}
        )
        task = project.task(execution_id, "approve")
        project.update(task["id"], "COMPLETED", {"risk": 0.72})

        wait(ti, execution_id, target_status="COMPLETED", deferrable=deferrable)

        assert ti.xcoms["status"] == "COMPLETED"
        assert type(ti.xcoms["status"]) is str
        assert ti.xcoms["input"]["function"]["data"] == {"pump": "P-77"}
        assert ti.xcoms["output"]["risk"] == 0.72

    def test_pushes_what_the_task_has_when_it_arrives_while_deferred(
        self, project: Project, ti: FakeTaskInstance, execution_id: str, later: Any
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        later(lambda: project.update(cdf_task_id, "COMPLETED", {"risk": 0.72}))

        assert wait(ti, execution_id, target_status="completed", deferrable=True) == cdf_task_id

        assert ti.xcoms["status"] == "COMPLETED"
        assert ti.xcoms["input"]["function"]["data"] == {"pump": "P-101"}
        assert ti.xcoms["output"]["risk"] == 0.72

    @pytest.mark.parametrize("target", ["in_progress", ["completed", "In_Progress"], ("IN_PROGRESS",)])
    def test_takes_one_status_or_several_in_any_case(
        self, target: Any, execution_id: str, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        assert wait(ti, execution_id, target_status=target, deferrable=deferrable)

        assert ti.xcoms["status"] == "IN_PROGRESS"

    @pytest.mark.parametrize("target", ["FAILED", "FAILED_WITH_TERMINAL_ERROR"])
    def test_can_wait_for_a_failure(
        self, target: str, execution_id: str, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        project.update(project.task(execution_id, "approve")["id"], target)

        assert wait(ti, execution_id, target_status=target, deferrable=deferrable)

    def test_what_is_there_already_does_not_defer(self, execution_id: str, ti: FakeTaskInstance) -> None:
        assert make(execution_id, deferrable=True).execute({"ti": ti})

    def test_what_is_not_there_yet_defers(self, execution_id: str, ti: FakeTaskInstance) -> None:
        with pytest.raises(TaskDeferred):
            make(execution_id, target_status="COMPLETED", deferrable=True).execute({"ti": ti})

    def test_the_wanted_status_counts_although_the_execution_has_ended(
        self, execution_id: str, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        project.update(project.task(execution_id, "approve")["id"], "COMPLETED")
        assert project.execution(execution_id)["status"] == "COMPLETED"

        assert wait(ti, execution_id, target_status="COMPLETED", deferrable=deferrable)

    def test_waits_for_a_task_that_a_dynamic_task_has_yet_to_make(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        cdf.set_function("plan", {"tasks": [function_task("child", waits=True)]})
        dynamic = {
            "externalId": "spread",
            "type": "dynamic",
            "parameters": {"dynamic": {"tasks": "${plan.output.response.tasks}"}},
            "dependsOn": [{"externalId": "plan"}],
        }
        execution_id = project.run(project.define(function_task("plan"), dynamic))

        cdf_task_id = wait(ti, execution_id, task_external_id="child", deferrable=deferrable)

        assert cdf_task_id == project.task(execution_id, "child")["id"]

    @pytest.mark.parametrize("inline", [True, False], ids=["inline", "by reference"])
    def test_waits_for_a_task_of_a_subworkflow(
        self, inline: bool, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        subworkflow: dict[str, Any] = {"tasks": [function_task("child", waits=True)]}
        if not inline:
            other = project.define(function_task("child", waits=True))
            subworkflow = {"workflowExternalId": other, "version": "1"}
        nested = {
            "externalId": "nested",
            "type": "subworkflow",
            "parameters": {"subworkflow": subworkflow},
            "dependsOn": [{"externalId": "first"}],
        }
        execution_id = project.run(project.define(function_task("first"), nested))

        assert wait(ti, execution_id, task_external_id="child", deferrable=deferrable)


class TestReschedule:
    def test_poke_says_whether_it_has_happened(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        sensor = make(execution_id, target_status="COMPLETED", mode="reschedule")
        assert not sensor.poke({"ti": ti})
        cdf_task_id = project.task(execution_id, "approve")["id"]
        project.update(cdf_task_id, "COMPLETED")

        result = sensor.poke({"ti": ti})

        assert isinstance(result, PokeReturnValue)
        assert result.is_done
        assert result.xcom_value == cdf_task_id
        assert ti.xcoms["status"] == "COMPLETED"

    def test_gives_its_slot_back_and_goes_on_in_another_process(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        ti.get_first_reschedule_date = lambda context: None  # type: ignore[attr-defined]
        with pytest.raises(AirflowRescheduleException):
            make(execution_id, target_status="COMPLETED", mode="reschedule").execute({"ti": ti})
        cdf_task_id = project.task(execution_id, "approve")["id"]
        project.update(cdf_task_id, "COMPLETED")

        again = make(execution_id, target_status="COMPLETED", mode="reschedule")

        assert again.execute({"ti": ti}) == cdf_task_id

    @pytest.mark.parametrize("status", [404, 503])
    def test_one_failing_look_does_not_end_the_wait(
        self, cdf: CdfEmulator, execution_id: str, ti: FakeTaskInstance, monkeypatch: Any, status: int
    ) -> None:
        monkeypatch.setattr(ti, "get_first_reschedule_date", lambda context: datetime.now(UTC))
        if not HAS_TASK_API:
            monkeypatch.setattr("airflow.sensors.base._orig_start_date", lambda *_: datetime.now(UTC))
        cdf.faults.add("GET", f"*/executions/{execution_id}", status=status)

        sensor = make(execution_id, target_status="COMPLETED", mode="reschedule")

        assert not sensor.poke({"ti": ti}).is_done

    def test_the_first_look_of_all_that_is_refused_does(
        self, cdf: CdfEmulator, execution_id: str, ti: FakeTaskInstance
    ) -> None:
        cdf.faults.add("GET", f"*/executions/{execution_id}", status=404)

        with pytest.raises(CdfRefusedError):
            make(execution_id, target_status="COMPLETED", mode="reschedule").poke({"ti": ti})


@pytest.mark.parametrize("silence", [2, timedelta(seconds=2)])
def test_tells_its_trigger_how_long_cdf_may_be_silent(
    execution_id: str, ti: FakeTaskInstance, silence: Any
) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        make(execution_id, target_status="COMPLETED", deferrable=True, max_poll_silence=silence).execute(
            {"ti": ti}
        )
    assert deferred.value.trigger.max_poll_silence == 2


class TestWhatCanNoLongerHappen:
    @pytest.mark.parametrize("status", ["COMPLETED", "COMPLETED_WITH_ERRORS", "CANCELED", "SKIPPED"])
    @pytest.mark.parametrize("seen", ["at the first look", "later"])
    def test_a_task_that_ended_in_another_status_fails_at_once_with_the_reason_that_cdf_gives(
        self,
        status: str,
        seen: str,
        project: Project,
        ti: FakeTaskInstance,
        deferrable: bool,
        force: Any,
        later: Any,
    ) -> None:
        self.check(status, seen, project, ti, deferrable, force, later)

    def check(
        self, status: str, seen: str, project: Project, ti: Any, deferrable: bool, force: Any, later: Any
    ) -> None:
        execution_id = project.run(
            project.define(function_task("approve", waits=True), function_task("b", waits=True))
        )
        project.task(execution_id, "approve")

        def end() -> None:
            force(execution_id, "approve", status, "the pump curve is missing")

        later(end) if seen == "later" else end()

        with pytest.raises(AirflowException) as error:
            wait(ti, execution_id, target_status="TIMED_OUT", deferrable=deferrable)

        assert_clear(
            error.value,
            "approve",
            execution_id,
            status,
            "TIMED_OUT",
            "the pump curve is missing",
            "RUNNING",
        )
        assert not isinstance(error.value, AirflowSensorTimeout)

    def test_a_terminal_error_is_final_while_the_execution_is_still_running(
        self, project: Project, ti: FakeTaskInstance, deferrable: bool, force: Any, later: Any
    ) -> None:
        self.check("FAILED_WITH_TERMINAL_ERROR", "later", project, ti, deferrable, force, later)

    @pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT"])
    def test_a_failure_that_cdf_may_retry_is_not_final_while_the_execution_is_running(
        self, status: str, project: Project, ti: FakeTaskInstance, deferrable: bool, force: Any
    ) -> None:
        execution_id = project.run(
            project.define(function_task("approve", waits=True), function_task("b", waits=True))
        )
        project.task(execution_id, "approve")
        force(execution_id, "approve", status)

        with pytest.raises(AirflowSensorTimeout):
            wait(ti, execution_id, target_status="COMPLETED", timeout=0.1, deferrable=deferrable)

    def test_the_next_attempt_is_waited_for(
        self, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        execution_id = project.run(project.define(function_task("approve", waits=True, retries=1)))
        first = project.task(execution_id, "approve")["id"]
        project.update(first, "FAILED")

        second = wait(ti, execution_id, deferrable=deferrable)

        assert second != first
        assert second == project.task(execution_id, "approve")["id"]

    def test_of_several_ended_attempts_the_latest_counts(
        self, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        execution_id = project.run(project.define(function_task("approve", waits=True, retries=1)))
        project.update(project.task(execution_id, "approve")["id"], "FAILED")
        second = project.task(execution_id, "approve")["id"]
        project.update(second, "COMPLETED")

        assert wait(ti, execution_id, target_status="COMPLETED", deferrable=deferrable) == second

    def test_an_attempt_that_ended_before_it_was_in_progress_is_the_latest_too(
        self, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        execution_id = project.run(project.define(function_task("approve", waits=True, retries=1)))
        project.update(project.task(execution_id, "approve")["id"], "FAILED")
        second = project.task(execution_id, "approve", "SCHEDULED")["id"]
        project.update(second, "COMPLETED")

        assert wait(ti, execution_id, target_status="COMPLETED", deferrable=deferrable) == second

    @pytest.mark.parametrize("seen", ["at the first look", "later"])
    def test_a_failure_is_final_once_the_execution_has_ended(
        self,
        seen: str,
        execution_id: str,
        project: Project,
        ti: FakeTaskInstance,
        deferrable: bool,
        later: Any,
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]

        def end() -> None:
            project.update(cdf_task_id, "FAILED")

        later(end) if seen == "later" else end()

        with pytest.raises(AirflowException) as error:
            wait(ti, execution_id, target_status="COMPLETED", deferrable=deferrable)

        reason = project.task(execution_id, "approve", "FAILED")["reasonForIncompletion"]
        message = assert_clear(error.value)
        assert message == (
            f"Task 'approve' ended FAILED before it was COMPLETED: {reason}."
            f" The workflow is FAILED. [execution {execution_id}]"
        )

    def test_a_task_that_never_started_in_an_execution_that_has_ended(
        self, project: Project, ti: FakeTaskInstance, deferrable: bool, later: Any
    ) -> None:
        first = function_task("first", waits=True)
        approve = function_task("approve", waits=True, dependsOn=[{"externalId": "first"}])
        execution_id = project.run(project.define(first, approve))
        project.task(execution_id, "first")
        later(lambda: project.cancel(execution_id, "Anna stopped it"))

        with pytest.raises(AirflowException) as error:
            wait(ti, execution_id, deferrable=deferrable)

        assert_clear(error.value, "approve", execution_id, "TERMINATED", "Anna stopped it")

    def test_is_not_retried(self, execution_id: str, project: Project, ti: FakeTaskInstance) -> None:
        project.cancel(execution_id)

        with pytest.raises(AirflowFailException):
            wait(ti, execution_id)

    @pytest.mark.parametrize("seen", ["at the first look", "later"])
    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_skips_where_told_to(
        self,
        option: str,
        seen: str,
        execution_id: str,
        project: Project,
        ti: FakeTaskInstance,
        deferrable: bool,
        later: Any,
    ) -> None:
        def end() -> None:
            project.cancel(execution_id)

        later(end) if seen == "later" else end()

        with pytest.raises(AirflowSkipException):
            wait(ti, execution_id, target_status="COMPLETED", deferrable=deferrable, **{option: True})


class TestTimeout:
    def test_raises_what_airflow_does_not_retry(
        self, execution_id: str, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        with pytest.raises(AirflowSensorTimeout):
            wait(ti, execution_id, target_status="COMPLETED", timeout=0.1, deferrable=deferrable)

        assert project.execution(execution_id)["status"] == "RUNNING"

    def test_of_a_deferred_wait_names_what_was_waited_for(
        self, execution_id: str, ti: FakeTaskInstance
    ) -> None:
        with pytest.raises(AirflowSensorTimeout) as error:
            wait(ti, execution_id, target_status="COMPLETED", timeout=0.1, deferrable=True)

        assert_clear(error.value, execution_id, "approve", "COMPLETED", "IN_PROGRESS")

    def test_may_be_a_timedelta(self, execution_id: str, ti: FakeTaskInstance, deferrable: bool) -> None:
        with pytest.raises(AirflowSensorTimeout):
            wait(
                ti,
                execution_id,
                target_status="COMPLETED",
                timeout=timedelta(seconds=0.1),
                poke_interval=timedelta(seconds=0.05),
                deferrable=deferrable,
            )

    def test_skips_with_soft_fail(self, execution_id: str, ti: FakeTaskInstance, deferrable: bool) -> None:
        with pytest.raises(AirflowSkipException):
            wait(
                ti,
                execution_id,
                target_status="COMPLETED",
                timeout=0.1,
                soft_fail=True,
                deferrable=deferrable,
            )

    def test_that_airflow_notices_itself_is_one_too(self, execution_id: str, ti: FakeTaskInstance) -> None:
        sensor = make(execution_id, target_status="COMPLETED", deferrable=True)

        with pytest.raises(AirflowSensorTimeout):
            sensor.resume_execution("__fail__", {"error": "Trigger timeout"}, {"ti": ti})

    def test_what_arrived_while_the_task_waited_to_be_resumed_counts(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        sensor = make(execution_id, target_status="COMPLETED", timeout=0.1, deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute({"ti": ti})
        event = asyncio.run(first_event(deferred.value.trigger))
        cdf_task_id = project.task(execution_id, "approve")["id"]
        project.update(cdf_task_id, "COMPLETED")

        resumed = sensor.resume_execution(deferred.value.method_name, {"event": event}, {"ti": ti})

        assert resumed == cdf_task_id

    def test_leaves_airflow_time_to_hear_of_the_end_of_the_wait(
        self, execution_id: str, ti: FakeTaskInstance
    ) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            make(execution_id, target_status="COMPLETED", timeout=60, deferrable=True).execute({"ti": ti})

        assert deferred.value.timeout is not None
        assert deferred.value.timeout.total_seconds() > 60


class TestRefusal:
    @pytest.mark.parametrize("target", ["done", "", [], ["completed", "nix"]], ids=repr)
    def test_of_statuses_that_cdf_does_not_have(
        self, target: Any, execution_id: str, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        with pytest.raises(AirflowException) as error:
            wait(ti, execution_id, target_status=target, deferrable=deferrable)

        assert_clear(error.value, "nix" if "nix" in target else "tatus")

    def test_of_an_execution_id_that_is_no_uuid(
        self, ti: FakeTaskInstance, deferrable: bool, cdf: CdfEmulator
    ) -> None:
        with pytest.raises(AirflowException) as error:
            wait(ti, "../../sessions", deferrable=deferrable)

        assert_clear(error.value, "../../sessions", "UUID")

    @pytest.mark.parametrize("missing", [None, "None", ""], ids=repr)
    def test_of_an_execution_id_that_nobody_has_provided(
        self, missing: Any, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        with pytest.raises(AirflowException) as error:
            wait(ti, missing, deferrable=deferrable)

        assert_clear(error.value, "execution_id")

    def test_of_an_execution_that_does_not_exist(
        self, ti: FakeTaskInstance, deferrable: bool, cdf: CdfEmulator
    ) -> None:
        with pytest.raises(AirflowException) as error:
            wait(ti, UNKNOWN, deferrable=deferrable)

        assert_clear(error.value, UNKNOWN, secrets=[cdf.client_secret])

    @pytest.mark.parametrize("event", [None, {}, {"outcome": "new in 2.0"}], ids=repr)
    def test_of_an_event_that_it_does_not_know(
        self, event: Any, execution_id: str, ti: FakeTaskInstance
    ) -> None:
        sensor = make(execution_id, target_status="COMPLETED", deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute({"ti": ti})

        with pytest.raises((AirflowException, TaskDeferred)):
            sensor.resume_execution(deferred.value.method_name, {"event": event}, {"ti": ti})


class TestCdfThatStumbles:
    @pytest.mark.parametrize("stumble", [500, HANG_UP, NOT_JSON])
    def test_a_failing_look_does_not_end_the_wait(
        self, stumble: Any, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch, deferrable: bool
    ) -> None:
        running = execution("RUNNING", task("approve", "IN_PROGRESS"))
        arrived = execution("RUNNING", task("approve", "COMPLETED"))
        with scripted_cdf() as cdf:
            monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection())
            monkeypatch.setattr(Pace, "SHORTEST_AFTER_FAILURE", 0.01)
            cdf.looks = [running, stumble, stumble, running, arrived]

            cdf_task_id = wait(ti, UNKNOWN, target_status="COMPLETED", deferrable=deferrable)

        assert cdf_task_id == arrived["executedTasks"][0]["id"]

    def test_a_status_that_cdf_has_invented_since_is_waited_through(
        self, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch, deferrable: bool
    ) -> None:
        arrived = execution("RUNNING", task("approve", "COMPLETED"))
        with scripted_cdf() as cdf:
            monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection())
            cdf.looks = [execution("PAUSED", task("approve", "ASLEEP")), execution("RUNNING"), arrived]

            assert wait(ti, UNKNOWN, target_status="COMPLETED", deferrable=deferrable)


def test_pokes_every_10_seconds_unless_told_otherwise() -> None:
    sensor = CdfTaskSensor(task_id="wait", execution_id=UNKNOWN, task_external_id="approve")

    assert sensor.poke_interval == 10


def test_tells_its_trigger_how_often_to_poll(execution_id: str, ti: FakeTaskInstance) -> None:
    sensor = CdfTaskSensor(
        task_id="wait",
        execution_id=execution_id,
        task_external_id="approve",
        target_status="COMPLETED",
        deferrable=True,
    )

    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({"ti": ti})

    assert deferred.value.trigger.serialize()[1]["poll_interval"] == 10


@pytest.mark.parametrize("name", ["execution_id", "task_external_id", "target_status", "cdf_conn_id"])
def test_is_templated(name: str) -> None:
    assert name in CdfTaskSensor.template_fields
