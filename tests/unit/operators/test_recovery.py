"""One logical run of the Airflow task is one execution: retries, clears, kills and orphans."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, TaskDeferred
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.operators import recovery
from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator, report_failure
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator, cancel_orphan

pytestmark = pytest.mark.usefixtures("cdf_default")


@pytest.fixture
def workflow(project: Project) -> str:
    """A workflow whose only task waits for a report."""
    return project.define(function_task("approve", waits=True))


def run(workflow: str, ti: FakeTaskInstance, **arguments: Any) -> Any:
    arguments = {"wait_for_completion": False, **arguments}
    operator = CdfWorkflowRunOperator(
        task_id=ti.task_id, workflow_external_id=workflow, version="1", poll_interval=0.05, **arguments
    )
    return operator.execute(context(ti, operator))


def context(ti: FakeTaskInstance, operator: Any = None) -> dict[str, Any]:
    dag_run = SimpleNamespace(run_after=datetime.now(UTC), conf={})
    dag = operator.get_dag() if operator is not None else None
    return {"ti": ti, "task": operator, "dag": dag, "dag_run": dag_run}


def statuses(project: Project, workflow: str) -> list[str]:
    return [execution["status"] for execution in project.executions(workflow)]


def end_badly(project: Project, execution_id: str) -> None:
    project.update(project.task(execution_id, "approve")["id"], "FAILED")
    for _ in range(100):
        if project.execution(execution_id)["status"] == "FAILED":
            return
        time.sleep(0.02)


def test_a_first_try_costs_no_extra_call(cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance) -> None:
    before = len(cdf.journal.requests("POST", "*/projects/*"))
    run(workflow, ti)
    sent = [request.path.rsplit("/", 1)[-1] for request in cdf.journal.requests("POST", "*/projects/*")]
    assert sent[before:] == ["sessions", "run"]


def test_a_retry_goes_on_with_the_execution_of_the_try_before(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    first = run(workflow, ti)
    ti.try_number = 2
    assert run(workflow, ti) == first
    assert statuses(project, workflow) == ["RUNNING"]


def test_a_retry_takes_the_result_of_an_execution_that_completed_meanwhile(
    project: Project, ti: FakeTaskInstance
) -> None:
    workflow = project.define(function_task("quick"))
    first = run(workflow, ti, wait_for_completion=True)
    ti.try_number = 2
    assert run(workflow, ti, wait_for_completion=True, task_outputs=["quick"]) == first
    assert "response" in ti.xcoms["task_outputs"]["quick"]
    assert statuses(project, workflow) == ["COMPLETED"]


def test_a_retry_of_an_execution_that_ended_badly_starts_a_new_one(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    first = run(workflow, ti)
    end_badly(project, first)
    ti.try_number = 2
    assert run(workflow, ti) != first
    assert sorted(statuses(project, workflow)) == ["FAILED", "RUNNING"]


def test_retry_from_failure_runs_the_same_execution_again(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    first = run(workflow, ti)
    end_badly(project, first)
    ti.try_number = 2
    assert run(workflow, ti, retry_from_failure=True) == first
    assert statuses(project, workflow) == ["RUNNING"]


def test_retry_from_failure_leaves_other_logical_runs_alone(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    end_badly(project, run(workflow, ti))
    next_scheduled = FakeTaskInstance(run_id="scheduled__2", try_number=2)
    run(workflow, next_scheduled, retry_from_failure=True)
    assert sorted(statuses(project, workflow)) == ["FAILED", "RUNNING"]


def test_an_edit_of_retries_between_two_tries_makes_no_second_run(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    first = run(workflow, ti, retries=1)
    ti.try_number = 2
    assert run(workflow, ti, retries=5) == first


def test_a_cleared_task_starts_a_new_execution_and_cancels_the_old_one(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    first = run(workflow, ti)
    ti.try_number, ti.max_tries = 2, 1  # what Airflow makes of a clear
    second = run(workflow, ti)
    assert second != first
    assert project.execution(first)["status"] == "TERMINATED"
    assert project.execution(second)["status"] == "RUNNING"


def test_another_tasks_execution_is_never_touched(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    others = run(workflow, FakeTaskInstance(task_id="other"))
    ti.try_number, ti.max_tries = 2, 1
    assert run(workflow, ti) != others
    assert project.execution(others)["status"] == "RUNNING"


def test_an_execution_that_the_list_shows_late_is_found_by_the_second_look(
    cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LOOK_AGAIN_AFTER", 0.6)
    with cdf.turn() as engine:
        engine.hide_new_executions(0.5)
    try:
        first = run(workflow, ti)
        ti.try_number = 2
        assert run(workflow, ti) == first
    finally:
        with cdf.turn() as engine:
            engine.hide_new_executions(0)


def test_one_budget_of_time_for_all_tries(project: Project, workflow: str, ti: FakeTaskInstance) -> None:
    first = run(workflow, ti)
    ti.try_number = 2
    operator = CdfWorkflowRunOperator(
        task_id="task", workflow_external_id=workflow, version="1", deferrable=True, timeout=1000
    )
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context(ti))
    created = project.execution(first)["createdTime"] / 1000
    assert deferred.value.trigger.end_time == created + 1000


def test_a_kill_that_arrives_while_cdf_starts_the_run_cancels_it(
    cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    operator = CdfWorkflowRunOperator(task_id="task", workflow_external_id=workflow, version="1")
    start = operator._start

    def killed_meanwhile(context: Any) -> Any:
        operator.on_kill()
        return start(context)

    operator._start = killed_meanwhile  # type: ignore[method-assign]
    with pytest.raises(AirflowException, match=r"was killed\. Execution \S+ was cancelled"):
        operator.execute(context(ti))
    assert statuses(project, workflow) == ["TERMINATED"]


def _theirs(context: Any) -> None:
    """Stands for a callback of the user's."""


class TestOrphans:
    def orphan(self, workflow: str, ti: FakeTaskInstance, **arguments: Any) -> tuple[str, Any]:
        """Start an execution in a process that then dies; return its id and the DAG processor's operator."""
        execution_id = run(workflow, ti)
        with DAG("plant"):
            fresh = CdfWorkflowRunOperator(
                task_id="task", workflow_external_id=workflow, version="1", **arguments
            )
        return execution_id, fresh

    def test_what_a_dead_worker_left_running_is_cancelled(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        execution_id, fresh = self.orphan(workflow, ti)
        for callback in fresh.on_failure_callback:
            callback(context(ti, fresh))
        assert project.execution(execution_id)["status"] == "TERMINATED"

    def test_not_where_that_is_not_wanted(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        execution_id, fresh = self.orphan(workflow, ti, cancel_on_kill=False)
        for callback in fresh.on_failure_callback:
            callback(context(ti, fresh))
        assert project.execution(execution_id)["status"] == "RUNNING"

    def test_not_where_the_operator_has_decided_itself(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        operator = CdfWorkflowRunOperator(
            task_id="task",
            workflow_external_id=workflow,
            version="1",
            timeout=0.05,
            poll_interval=0.05,
            cancel_on_timeout=False,
        )
        with pytest.raises(AirflowException, match="goes on in CDF"):
            operator.execute(context(ti, operator))
        for callback in operator.on_failure_callback:
            callback(context(ti, operator))
        assert statuses(project, workflow) == ["RUNNING"]

    def test_the_users_own_callbacks_are_kept(self) -> None:
        called: list[str] = []
        with DAG("plant", default_args={"on_failure_callback": lambda context: called.append("theirs")}):
            operator = CdfWorkflowRunOperator(task_id="task", workflow_external_id="w", version="1")
            update = CdfTaskUpdateOperator(task_id="report", cdf_task_id="x")
        assert len(operator.on_failure_callback) == len(update.on_failure_callback) == 2
        operator.on_failure_callback[0]({})
        assert called == ["theirs"]

    def test_what_a_dead_worker_of_a_mapped_task_left_running_is_cancelled(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        of_each = [run(workflow, replace(ti, map_index=index)) for index in range(2)]
        with DAG("plant", default_args={"on_failure_callback": _theirs}):
            mapped = CdfWorkflowRunOperator.partial(task_id="task", version="1").expand(
                workflow_external_id=[workflow, workflow]
            )
        assert list(mapped.on_failure_callback) == [_theirs, cancel_orphan]

        about_the_second = context(replace(ti, map_index=1), mapped)
        cancel_orphan(about_the_second)

        assert [project.execution(one)["status"] for one in of_each] == ["RUNNING", "TERMINATED"]
        assert list(about_the_second["task"].on_failure_callback) == [_theirs, cancel_orphan]

    def test_a_report_of_a_mapped_task_that_never_happened_becomes_a_failure(
        self, project: Project, workflow: str
    ) -> None:
        of_each = [run(workflow, FakeTaskInstance(map_index=index)) for index in range(2)]
        with DAG("plant", default_args={"on_failure_callback": _theirs}):
            mapped = CdfTaskUpdateOperator.partial(task_id="report", task_external_id="approve").expand(
                execution_id=of_each
            )
        assert list(mapped.on_failure_callback) == [_theirs, report_failure]
        for one in of_each:
            project.task(one, "approve")

        report_failure(context(FakeTaskInstance(task_id="report", map_index=1), mapped))

        assert project.task(of_each[0], "approve", "IN_PROGRESS")
        assert project.task(of_each[1], "approve", "FAILED_WITH_TERMINAL_ERROR")

    def test_a_report_that_never_happened_becomes_a_failure(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        execution_id = run(workflow, ti)
        with DAG("plant"):
            fresh = CdfTaskUpdateOperator(
                task_id="report", execution_id=execution_id, task_external_id="approve", output={"a": 1}
            )
        project.task(execution_id, "approve")
        report_failure(context(FakeTaskInstance(task_id="report"), fresh))
        task = project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")
        assert task["output"]["airflow"]["failed_tasks"] == {"report": "failed"}

    def test_a_report_that_has_arrived_is_left_alone(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        execution_id = run(workflow, ti)
        project.update(project.task(execution_id, "approve")["id"], "COMPLETED")
        with DAG("plant"):
            fresh = CdfTaskUpdateOperator(
                task_id="report", execution_id=execution_id, task_external_id="approve"
            )
        report_failure(context(FakeTaskInstance(task_id="report"), fresh))
        assert project.task(execution_id, "approve", "COMPLETED")
