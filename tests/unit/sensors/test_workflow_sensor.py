"""CdfWorkflowSensor against the emulator."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from operators.clear_errors import assert_clear
from support import FakeTaskInstance, Project, function_task, run_to_end
from triggers.scripted_cdf import execution, scripted_cdf

from airflow_provider_cdf.emulator import CdfEmulator, Reply
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor

pytestmark = pytest.mark.usefixtures("cdf_default")

UNKNOWN = "11111111-2222-4333-8444-555555555555"


def make(execution_id: Any, **arguments: Any) -> CdfWorkflowSensor:
    defaults: dict[str, Any] = {"poke_interval": 0.05, "timeout": 10}
    sensor = CdfWorkflowSensor(task_id="wait", execution_id="{{ templated }}", **{**defaults, **arguments})
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


def test_waits_until_the_execution_is_completed_and_returns_its_id(
    project: Project, ti: FakeTaskInstance, deferrable: bool
) -> None:
    execution_id = project.run(project.define(function_task("score")))

    assert wait(ti, execution_id, deferrable=deferrable) == execution_id

    assert project.execution(execution_id)["status"] == "COMPLETED"


def test_an_execution_that_is_completed_already_does_not_defer(
    execution_id: str, project: Project, ti: FakeTaskInstance
) -> None:
    project.update(project.task(execution_id, "approve")["id"], "COMPLETED")

    assert make(execution_id, deferrable=True).execute({"ti": ti}) == execution_id


def test_reschedule_mode_pokes(execution_id: str, project: Project, ti: FakeTaskInstance) -> None:
    sensor = make(execution_id, mode="reschedule")
    assert not sensor.poke({"ti": ti})
    project.update(project.task(execution_id, "approve")["id"], "COMPLETED")

    assert sensor.poke({"ti": ti})


@pytest.mark.parametrize("seen", ["at the first look", "later"])
def test_a_failed_execution_fails_at_once_naming_the_failed_task_and_why(
    seen: str, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance, deferrable: bool
) -> None:
    cdf.set_function("explodes", Reply(error="the pump curve is missing"))
    execution_id = project.run(project.define(function_task("explodes"), function_task("b", waits=True)))
    if seen == "at the first look":
        project.task(execution_id, "explodes", "FAILED")

    with pytest.raises(AirflowException) as error:
        wait(ti, execution_id, deferrable=deferrable)

    assert_clear(error.value, execution_id, "explodes", "FAILED", "the pump curve is missing")


def test_a_cancelled_execution_fails_at_once_with_the_reason(
    execution_id: str, project: Project, ti: FakeTaskInstance, deferrable: bool, later: Any
) -> None:
    later(lambda: project.cancel(execution_id, "Anna stopped it"))

    with pytest.raises(AirflowException) as error:
        wait(ti, execution_id, deferrable=deferrable)

    assert_clear(error.value, execution_id, "TERMINATED", "Anna stopped it")


def test_an_execution_that_took_too_long_for_cdf_fails_at_once(
    ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    with scripted_cdf() as cdf:
        monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection())
        reason = "The execution took longer than 24 hours"
        cdf.looks = [execution("RUNNING"), execution("TIMED_OUT", reasonForIncompletion=reason)]

        with pytest.raises(AirflowException) as error:
            wait(ti, UNKNOWN, deferrable=deferrable)

    assert_clear(error.value, UNKNOWN, "TIMED_OUT", reason)
    assert not isinstance(error.value, AirflowSensorTimeout)


def test_a_task_that_may_fail_does_not_fail_the_wait(
    cdf: CdfEmulator, project: Project, ti: FakeTaskInstance, deferrable: bool
) -> None:
    cdf.set_function("explodes", Reply(error="no"))
    execution_id = project.run(project.define(function_task("explodes", onFailure="skipTask")))

    assert wait(ti, execution_id, deferrable=deferrable) == execution_id


@pytest.mark.parametrize("seen", ["at the first look", "later"])
@pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
def test_a_bad_end_skips_where_told_to(
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
        wait(ti, execution_id, deferrable=deferrable, **{option: True})


def test_a_timeout_raises_what_airflow_does_not_retry(
    execution_id: str, project: Project, ti: FakeTaskInstance, deferrable: bool
) -> None:
    with pytest.raises(AirflowSensorTimeout):
        wait(ti, execution_id, timeout=0.1, deferrable=deferrable)

    assert project.execution(execution_id)["status"] == "RUNNING"


def test_a_timeout_skips_with_soft_fail(execution_id: str, ti: FakeTaskInstance, deferrable: bool) -> None:
    with pytest.raises(AirflowSkipException):
        wait(ti, execution_id, timeout=0.1, deferrable=deferrable, soft_fail=True)


@pytest.mark.parametrize("execution_id", [UNKNOWN, "../../sessions", "None", None, ""])
def test_an_execution_that_does_not_exist_is_named(
    execution_id: Any, ti: FakeTaskInstance, deferrable: bool, cdf: CdfEmulator
) -> None:
    with pytest.raises(AirflowException) as error:
        wait(ti, execution_id, deferrable=deferrable)

    assert_clear(error.value, str(execution_id), secrets=[cdf.client_secret])


def test_pokes_every_10_seconds_unless_told_otherwise(execution_id: str, ti: FakeTaskInstance) -> None:
    sensor = CdfWorkflowSensor(task_id="wait", execution_id=execution_id, deferrable=True)

    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({"ti": ti})

    assert sensor.poke_interval == 10
    assert deferred.value.trigger.serialize()[1]["poll_interval"] == 10


@pytest.mark.parametrize("name", ["execution_id", "cdf_conn_id"])
def test_is_templated(name: str) -> None:
    assert name in CdfWorkflowSensor.template_fields
