"""A report is made once, to the task that waits for it, and a refusal is not the end of it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.cdf.client import CdfClient
from airflow_provider_cdf.cdf.errors import (
    CdfAmbiguousTaskError,
    CdfApiError,
    CdfError,
    CdfNothingToReportToError,
    CdfRefusedError,
    CdfReportRefusedError,
)
from airflow_provider_cdf.cdf.models import TaskStatus, TokenInspection
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.operators import callbacks, deadline, reporting
from airflow_provider_cdf.operators.callbacks import report_failure
from airflow_provider_cdf.operators.identity import run_key
from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator

pytestmark = pytest.mark.usefixtures("cdf_default")

UNKNOWN = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def execution_id(project: Project) -> str:
    execution_id = project.run(project.define(function_task("approve", waits=True)))
    project.task(execution_id, "approve")
    return execution_id


@pytest.fixture
def retried(project: Project) -> str:
    """An execution whose task ``approve`` CDF retries once."""
    execution_id = project.run(project.define(function_task("approve", waits=True, retries=1)))
    project.task(execution_id, "approve")
    return execution_id


@pytest.fixture(autouse=True)
def no_faults(cdf: CdfEmulator) -> Any:
    yield
    cdf.faults.clear()


def make(execution_id: str, **arguments: Any) -> CdfTaskUpdateOperator:
    if "cdf_task_id" not in arguments:
        arguments.setdefault("task_external_id", "approve")
    return CdfTaskUpdateOperator(
        task_id="report", execution_id=execution_id, **{"status": "COMPLETED", **arguments}
    )


# -- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["external id", "cdf task id"])
@pytest.mark.parametrize("code", [400, 403, 404, 409, 422])
def test_a_refusal_while_the_task_waits_is_an_error_that_airflow_retries(
    code: int, by: str, execution_id: str, project: Project, cdf: CdfEmulator, ti: FakeTaskInstance
) -> None:
    # The hooks of these tests give up at once, as a client whose time is over.
    address = {"cdf_task_id": project.task(execution_id, "approve")["id"]} if "cdf" in by else {}
    cdf.faults.add("POST", "*/tasks/*/update", status=code)

    with pytest.raises(CdfReportRefusedError) as caught:
        make(execution_id, **address).execute({"ti": ti})

    assert not isinstance(caught.value, AirflowFailException)
    assert str(caught.value).startswith("CDF refuses the report, though its task still waits for one.")
    # Airflow's next try is accepted.
    make(execution_id, **address).execute({"ti": ti})
    assert project.task(execution_id, "approve", "COMPLETED")


def test_an_execution_that_is_unknown_for_a_moment_is_looked_for_again(
    execution_id: str, project: Project, cdf: CdfEmulator, ti: FakeTaskInstance
) -> None:
    cdf.faults.add("GET", "*/executions/*", status=404, times=5)

    make(execution_id).execute({"ti": ti})

    assert project.task(execution_id, "approve", "COMPLETED")


def test_a_long_time_after_the_start_two_refusals_are_not_believed_and_three_are(
    execution_id: str, project: Project, cdf: CdfEmulator, ti: FakeTaskInstance
) -> None:
    ti.start_date = datetime.now(UTC) - timedelta(minutes=5)
    cdf.faults.add("GET", "*/executions/*", status=404, times=3)
    with pytest.raises(CdfNothingToReportToError, match="There is no execution to report COMPLETED to"):
        make(execution_id).execute({"ti": ti})
    cdf.faults.add("GET", "*/executions/*", status=404, times=2)
    make(execution_id).execute({"ti": ti})
    assert project.task(execution_id, "approve", "COMPLETED")


def test_the_callback_does_not_look_for_longer_than_it_lives(
    cdf: CdfEmulator, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the operator's patience it would look again.
    assert deadline.CALLBACK_PATIENCE + 1 < reporting.PATIENCE
    monkeypatch.setattr(reporting, "LOOK_AGAIN_AFTER", deadline.CALLBACK_PATIENCE + 1)
    cdf.journal.clear()
    report_failure({"ti": ti, "task": make(UNKNOWN)})
    assert cdf.journal.count("GET", f"*{UNKNOWN}*") == 1


def test_a_read_that_is_forbidden_for_a_moment_is_made_again(
    execution_id: str, project: Project, cdf: CdfEmulator, ti: FakeTaskInstance
) -> None:
    ti.start_date = datetime.now(UTC) - timedelta(minutes=5)
    cdf.faults.add("GET", "*/executions/*", status=403, times=2)

    make(execution_id).execute({"ti": ti})

    assert project.task(execution_id, "approve", "COMPLETED")


def test_a_read_that_stays_forbidden_though_the_token_may_read_is_tried_again_by_airflow(
    execution_id: str, project: Project, cdf: CdfEmulator, ti: FakeTaskInstance
) -> None:
    cdf.faults.add("GET", "*/executions/*", status=403, times=3)
    operator = make(execution_id)

    with pytest.raises(CdfApiError, match="the CDF task is as it was") as caught:
        operator.execute({"ti": ti})

    assert caught.value.code == 403
    assert not isinstance(caught.value, AirflowFailException)
    # Had that been the last try, CDF would be told why there is no report.
    report_failure({"ti": ti, "task": operator, "exception": caught.value})
    task = project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")
    said = task["output"]["airflow"]["error"]
    assert said["type"] == "CdfApiError"
    assert said["message"].startswith("CDF refused to read the execution (HTTP 403)")
    assert "Nothing was reported, and the CDF task is as it was." in said["message"]


def test_a_callback_for_a_lost_worker_tells_nothing_where_airflow_tries_again(
    execution_id: str, project: Project, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The DAG processor of Airflow 3.0 to 3.2 calls it all the same.
    monkeypatch.setattr(callbacks, "CALLS_BACK_ONCE", False)
    ti.max_tries, ti.hostname = 1, "worker-1"
    report_failure({"ti": ti, "task": make(execution_id)})
    assert project.task(execution_id, "approve")
    ti.try_number = 2
    report_failure({"ti": ti, "task": make(execution_id)})
    assert project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")


def test_a_read_that_the_token_may_not_make_is_final_and_says_that_nothing_was_reported(
    execution_id: str, cdf: CdfEmulator, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = TokenInspection.model_validate({"projects": [{"projectUrlName": cdf.project}]})
    monkeypatch.setattr(CdfClient, "_inspect", lambda *_: none)
    cdf.faults.add("GET", "*/executions/*", status=403)
    with pytest.raises(CdfRefusedError, match="the CDF task is as it was") as caught:
        make(execution_id).execute({"ti": ti})
    assert isinstance(caught.value, AirflowFailException)
    assert not isinstance(caught.value, CdfNothingToReportToError)


def test_a_report_that_is_forbidden_though_the_token_may_write_is_tried_again_by_airflow(
    execution_id: str, project: Project, cdf: CdfEmulator, ti: FakeTaskInstance
) -> None:
    # Without the execution id there is nothing to be read back.
    cdf_task_id = project.task(execution_id, "approve")["id"]
    cdf.faults.add("POST", "*/tasks/*/update", status=403, times=3)
    operator = CdfTaskUpdateOperator(task_id="report", cdf_task_id=cdf_task_id, status="COMPLETED")
    with pytest.raises(CdfApiError, match="refused to set the task") as caught:
        operator.execute({"ti": ti})
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("what", ["read", "report"])
def test_a_gateways_page_is_no_word_of_cdf_about_an_id(
    what: str, execution_id: str, project: Project, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the client makes of an answer that is not CDF's own.
    page = CdfApiError("CDF refused (HTTP 404): Not Found, with an HTML page.", code=404)

    def refuse(*_: Any, **__: Any) -> Any:
        raise page

    monkeypatch.setattr(CdfHook, "get_execution" if what == "read" else "update_task", refuse)
    ti.start_date = datetime.now(UTC) - timedelta(minutes=5)
    with pytest.raises(CdfApiError, match="HTML page") as caught:
        make(execution_id).execute({"ti": ti})
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("code", [400, 404, 409, 422])
def test_a_refusal_that_cannot_be_read_back_is_believed(
    code: int, execution_id: str, project: Project, cdf: CdfEmulator, ti: FakeTaskInstance
) -> None:
    cdf_task_id = project.task(execution_id, "approve")["id"]
    cdf.faults.add("POST", "*/tasks/*/update", status=code, times=3)
    operator = CdfTaskUpdateOperator(task_id="report", cdf_task_id=cdf_task_id, status="COMPLETED")
    with pytest.raises(CdfNothingToReportToError, match="There is no task to report COMPLETED to"):
        operator.execute({"ti": ti})


@pytest.mark.parametrize("code", [429, 500, 503])
def test_an_answer_that_says_nothing_about_the_task_is_not_nothing_to_report_to(
    code: int, execution_id: str, project: Project, cdf: CdfEmulator, ti: FakeTaskInstance
) -> None:
    cdf_task_id = project.task(execution_id, "approve")["id"]
    cdf.faults.add("POST", "*/tasks/*/update", status=code)
    operator = CdfTaskUpdateOperator(task_id="report", cdf_task_id=cdf_task_id, status="COMPLETED")

    with pytest.raises(CdfError) as caught:
        operator.execute({"ti": ti})

    assert not isinstance(caught.value, AirflowFailException)
    assert project.task(execution_id, "approve", "IN_PROGRESS")


# -- to which task ------------------------------------------------------------------------------------------


def test_a_task_that_is_not_asynchronous_is_not_reported_to(
    project: Project, cdf: CdfEmulator, ti: FakeTaskInstance
) -> None:
    go_on = threading.Event()
    cdf.set_function("slow", lambda data: go_on.wait(60))
    try:
        execution_id = project.run(project.define(function_task("slow")))
        project.task(execution_id, "slow")

        with pytest.raises(CdfNothingToReportToError, match="isAsyncComplete") as caught:
            make(execution_id, task_external_id="slow").execute({"ti": ti})

        assert "IN_PROGRESS" in str(caught.value) or "RUNNING" in str(caught.value)
        assert project.task(execution_id, "slow", "IN_PROGRESS")
    finally:
        go_on.set()


def test_a_task_that_cdf_has_ended_itself_had_no_report(project: Project, ti: FakeTaskInstance) -> None:
    """Else the wrong name of a task is green, and the one that was meant waits on."""
    execution_id = project.run(project.define(function_task("read"), function_task("score", waits=True)))
    read = project.task(execution_id, "read", "COMPLETED")

    with pytest.raises(CdfNothingToReportToError, match="not asynchronous") as caught:
        make(execution_id, task_external_id="read").execute({"ti": ti})
    assert "Nothing was changed in CDF" in str(caught.value)
    by_id = CdfTaskUpdateOperator(
        task_id="by_id", cdf_task_id=read["id"], execution_id=execution_id, status="COMPLETED"
    )
    with pytest.raises(CdfNothingToReportToError, match="not asynchronous"):
        by_id.execute({"ti": ti})


def test_an_output_that_cdf_does_not_take_any_more_is_told(
    execution_id: str, project: Project, ti: FakeTaskInstance, caplog: pytest.LogCaptureFixture
) -> None:
    project.update(project.task(execution_id, "approve")["id"], "COMPLETED", {"risk": 0.1})
    for output in ({"risk": 0.1}, {"risk": 0.2}):
        caplog.clear()
        make(execution_id, output=output).execute({"ti": ti})
        assert ("keeps that" in caplog.text) == (output["risk"] != 0.1)


def of_two_children(project: Project) -> str:
    """An execution in which two subworkflows have a child ``approve`` that waits."""
    sites = [
        {
            "externalId": site,
            "type": "subworkflow",
            "parameters": {"subworkflow": {"tasks": [function_task("approve", waits=True)]}},
        }
        for site in ("north", "south")
    ]
    execution_id = project.run(project.define(*sites))
    for _ in range(500):
        tasks = project.execution(execution_id)["executedTasks"]
        if [one["status"] for one in tasks if one["externalId"] == "approve"] == ["IN_PROGRESS"] * 2:
            return execution_id
        time.sleep(0.02)
    raise AssertionError(tasks)


def children(project: Project, execution_id: str) -> dict[str, str]:
    tasks = project.execution(execution_id)["executedTasks"]
    return {one["parentTaskExternalId"]: one["status"] for one in tasks if one["externalId"] == "approve"}


def test_of_two_children_the_one_of_the_given_parent_is_reported_to(
    project: Project, ti: FakeTaskInstance
) -> None:
    execution_id = of_two_children(project)
    make(execution_id, parent_task_external_id="south").execute({"ti": ti})
    assert children(project, execution_id) == {"north": "IN_PROGRESS", "south": "COMPLETED"}


@pytest.mark.parametrize("parent", ["", "None"])
def test_a_parent_that_a_template_left_empty_is_none(
    parent: str, project: Project, ti: FakeTaskInstance
) -> None:
    execution_id = project.run(project.define(function_task("approve", waits=True)))
    project.task(execution_id, "approve")
    make(execution_id, parent_task_external_id=parent).execute({"ti": ti})
    assert project.task(execution_id, "approve", status="COMPLETED")["status"] == "COMPLETED"


def test_of_two_children_none_is_reported_to_without_a_parent(project: Project, ti: FakeTaskInstance) -> None:
    execution_id = of_two_children(project)
    with pytest.raises(CdfAmbiguousTaskError, match=r"parent_task_external_id.*'north', 'south'"):
        make(execution_id).execute({"ti": ti})
    assert children(project, execution_id) == {"north": "IN_PROGRESS", "south": "IN_PROGRESS"}


def test_what_was_reported_to_another_child_is_reported_to_this_one_too(
    project: Project, ti: FakeTaskInstance
) -> None:
    execution_id = of_two_children(project)
    make(execution_id, parent_task_external_id="north", status="FAILED").execute({"ti": ti})
    # The same task instance, with an edited parent: the mark of the first report is that of another task.
    for _ in range(200):
        if children(project, execution_id)["north"] != "IN_PROGRESS":
            break
        time.sleep(0.02)
    assert children(project, execution_id)["south"] in ("IN_PROGRESS", "CANCELED")


# -- once ---------------------------------------------------------------------------------------------------


def next_attempt(project: Project, execution_id: str) -> dict[str, Any]:
    """The attempt with which CDF follows one that was reported as FAILED."""
    return project.task(execution_id, "approve", "IN_PROGRESS")


def test_a_report_of_failed_that_is_made_again_leaves_the_next_attempt_alone(
    retried: str, project: Project, ti: FakeTaskInstance
) -> None:
    first = make(retried, status="FAILED", output={"why": "no wind"}).execute({"ti": ti})
    waiting = next_attempt(project, retried)
    assert waiting["id"] != first

    again = make(retried, status="FAILED", output={"why": "no wind"}).execute(
        {"ti": replace(ti, try_number=2)}
    )

    assert again == first
    assert next_attempt(project, retried)["id"] == waiting["id"]
    failed = project.task(retried, "approve", "FAILED")["output"]
    assert failed["why"] == "no wind"
    assert failed["airflow"]["reported_by"] == run_key(ti)  # type: ignore[arg-type]


def test_a_report_of_failed_by_another_task_fails_the_next_attempt(
    retried: str, project: Project, ti: FakeTaskInstance
) -> None:
    first = make(retried, status="FAILED").execute({"ti": ti})
    next_attempt(project, retried)

    second = make(retried, status="FAILED").execute({"ti": FakeTaskInstance(task_id="another")})

    assert second != first
    assert project.execution(retried)["status"] == "FAILED"


@pytest.mark.parametrize("size", [99_800, 99_907, 99_908, 99_950, 100_000])
def test_an_output_that_leaves_no_room_for_the_mark_is_sent_and_recognized(
    size: int, retried: str, project: Project, ti: FakeTaskInstance
) -> None:
    output = {"a": "x" * (size - len('{"a":""}'))}
    first = make(retried, status="FAILED", output=output).execute({"ti": ti})
    waiting = next_attempt(project, retried)

    again = make(retried, status="FAILED", output=output).execute({"ti": replace(ti, try_number=2)})

    assert again == first
    assert next_attempt(project, retried)["id"] == waiting["id"]
    assert project.task(retried, "approve", "FAILED")["output"]["a"] == output["a"]


def test_another_full_output_is_another_report(retried: str, project: Project, ti: FakeTaskInstance) -> None:
    first = make(retried, status="FAILED", output={"a": "x" * 99_990}).execute({"ti": ti})
    next_attempt(project, retried)

    second = make(retried, status="FAILED", output={"a": "y" * 99_990}).execute({"ti": ti})

    assert second != first


def test_between_two_attempts_airflow_is_to_try_again(project: Project, ti: FakeTaskInstance) -> None:
    execution_id = project.run(project.define(function_task("approve", waits=True, retries=1)))
    waiting = project.task(execution_id, "approve")
    operator = make(execution_id)
    execution = operator.hook.get_execution(execution_id)
    # As CDF may answer before it lists the next attempt.
    failed = execution.executed_tasks[0].model_copy(update={"status": TaskStatus.FAILED, "end_time": 1})
    between = execution.model_copy(update={"executed_tasks": [failed]})
    target = reporting.Target(execution_id, "approve")

    with pytest.raises(CdfError, match="waits for no report just now") as caught:
        reporting._task_to_report_to(between, target, "COMPLETED", None, "a reporter")

    assert not isinstance(caught.value, AirflowFailException)
    assert project.task(execution_id, "approve")["id"] == waiting["id"]


def test_a_failure_that_the_workflow_skips_is_reported(project: Project, ti: FakeTaskInstance) -> None:
    # What becomes of the task is COMPLETED_WITH_ERRORS; the other one keeps the execution RUNNING.
    execution_id = project.run(
        project.define(
            function_task("approve", waits=True, onFailure="skipTask"), function_task("b", waits=True)
        )
    )
    project.task(execution_id, "approve")
    operator = make(execution_id, status="FAILED_WITH_TERMINAL_ERROR")

    first = operator.execute({"ti": ti})

    project.task(execution_id, "approve", "COMPLETED_WITH_ERRORS")
    assert make(execution_id, status="FAILED_WITH_TERMINAL_ERROR").execute({"ti": ti}) == first


def test_the_message_about_a_task_that_has_not_begun_suggests_the_sensor(
    project: Project, ti: FakeTaskInstance
) -> None:
    later = function_task("later", waits=True, dependsOn=[{"externalId": "approve"}])
    execution_id = project.run(project.define(function_task("approve", waits=True), later))
    project.task(execution_id, "approve")
    with pytest.raises(CdfNothingToReportToError, match="CdfTaskSensor"):
        make(execution_id, task_external_id="later").execute({"ti": ti})
