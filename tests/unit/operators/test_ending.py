"""What a report says of the work before it: never COMPLETED where no work was done."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, XComArg, task, task_group
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.operators.ending import Ending, ending, work_before
from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator
from airflow_provider_cdf.operators.upstream import Upstream
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor

#: States of the tasks before a report, of which "run" does no work, and what is reported then: as a task, and
#: as a teardown.
TABLE: list[tuple[dict[str, str], str | None, str | None]] = [
    ({}, "COMPLETED", "COMPLETED"),
    ({"run": "success"}, "COMPLETED", "COMPLETED"),
    ({"run": "success", "a": "success"}, "COMPLETED", "COMPLETED"),
    ({"run": "success", "a": "success", "b": "skipped"}, "COMPLETED, skipped", "not done: b"),
    ({"run": "success", "a": "skipped"}, "not done: a", "not done: a"),
    ({"run": "success", "a": "skipped", "b": "skipped"}, "not done: a b", "not done: a b"),
    ({"run": "skipped", "a": "success"}, "COMPLETED, skipped", "not done: run"),
    ({"run": "skipped"}, "not done: run", "not done: run"),
    ({"run": "success", "a": "failed"}, "failed: a", "failed: a"),
    ({"run": "failed", "a": "upstream_failed"}, "failed: run a", "failed: run a"),
    ({"a": "success", "b": "upstream_failed"}, "failed: b", "failed: b"),
    ({"a": "skipped", "b": "failed"}, "failed: b", "failed: b"),
    ({"a": "no state"}, "failed: a", "failed: a"),
    ({"a": "running", "b": "skipped"}, "failed: a", "failed: a"),
    ({"a": "removed"}, "failed: a", "failed: a"),
]


def decided(states: dict[str, str], **how: Any) -> Ending:
    before = [Upstream(name, -1, state) for name, state in states.items()]
    arguments = {"is_teardown": False, "has_execution": True, "skipped_status": None, **how}
    return ending(before, {"a", "b"}, **arguments)


def in_words(end: Ending) -> str:
    if not end.blamed:
        return f"{end.status}{', skipped' * end.skipped}"
    what = "failed" if "skipped" in end.good else "not done"
    return f"{what}: {' '.join(one.task_id for one in end.blamed)}"


@pytest.mark.parametrize("is_teardown", [False, True], ids=["task", "teardown"])
@pytest.mark.parametrize(("states", "of_task", "of_teardown"), TABLE, ids=lambda cell: str(cell or "nothing"))
def test_what_is_reported(states: dict[str, str], of_task: str, of_teardown: str, is_teardown: bool) -> None:
    end = decided(states, is_teardown=is_teardown)
    assert in_words(end) == (of_teardown if is_teardown else of_task)
    assert (end.status == "COMPLETED") is not bool(end.blamed)


@pytest.mark.parametrize("is_teardown", [False, True], ids=["task", "teardown"])
def test_skipped_work_is_what_the_dag_file_says(is_teardown: bool) -> None:
    states = {"run": "success", "a": "skipped"}
    done = decided(states, is_teardown=is_teardown, skipped_status="COMPLETED")
    assert in_words(done) == "COMPLETED, skipped"
    assert decided(states, is_teardown=is_teardown, skipped_status="FAILED").status == "FAILED"
    failed = decided({"a": "failed"}, is_teardown=is_teardown, skipped_status="COMPLETED")
    assert failed.status == "FAILED_WITH_TERMINAL_ERROR"


def test_without_an_execution_there_is_nothing_to_report_to_unless_something_failed() -> None:
    assert decided({"run": "skipped"}, has_execution=False).status is None
    assert decided({"run": "failed"}, has_execution=False).blamed


class TestWork:
    """Which of the tasks before a report are its work."""

    def run(self) -> CdfWorkflowRunOperator:
        return CdfWorkflowRunOperator(
            task_id="run", workflow_external_id="w", version="1", wait_for_completion=False
        )

    def test_is_not_what_says_which_cdf_task_it_is(self) -> None:
        with DAG("plant"):
            report = CdfTaskUpdateOperator(
                task_id="report",
                execution_id=work("started")["id"],
                task_external_id=work("named"),
                parent_task_external_id=work("parent"),
                output={"a": work("judge")},
            )
        assert report.upstream_task_ids == {"started", "named", "parent", "judge"}
        assert work_before(report.prepare_for_execution()) == {"judge"}

    def test_is_not_the_sensor_that_the_output_names(self) -> None:
        with DAG("plant"):
            run = self.run()
            waits = CdfTaskSensor(task_id="waits", execution_id=run.output, task_external_id="score")
            report = CdfTaskUpdateOperator(
                task_id="report",
                execution_id=run.output,
                task_external_id="score",
                output={"risk": work("judge"), "of": waits.output["input"], "execution": run.output},
            )
        assert work_before(report) == {"judge"}

    def test_is_not_the_start_of_its_workflow_also_where_the_address_is_a_template(self) -> None:
        with DAG("plant"):
            report = CdfTaskUpdateOperator(
                task_id="report",
                execution_id="{{ ti.xcom_pull(task_ids='run') }}",
                task_external_id="score",
            )
            [self.run(), work("judge")] >> report
        assert work_before(report) == {"judge"}

    def test_is_not_a_mapped_start_or_sensor(self) -> None:
        with DAG("plant"):
            runs = CdfWorkflowRunOperator.partial(
                task_id="runs", version="1", wait_for_completion=False
            ).expand(workflow_external_id=["a", "b"])
            waits = CdfTaskSensor.partial(task_id="waits", execution_id="{{ x }}").expand(
                task_external_id=["a", "b"]
            )
            report = CdfTaskUpdateOperator(task_id="report", cdf_task_id="{{ x }}")
            [runs, waits, work("judge")] >> report
        assert work_before(report) == {"judge"}

    def test_may_be_another_workflow_that_airflow_has_waited_for(self) -> None:
        with DAG("plant"):
            another = CdfWorkflowRunOperator(task_id="another", workflow_external_id="w", version="1")
            ended = CdfWorkflowSensor(task_id="ended", execution_id="{{ x }}")
            report = CdfTaskUpdateOperator(task_id="report", cdf_task_id="{{ x }}")
            [another, ended] >> report
        assert work_before(report) == {"another", "ended"}

    def test_is_not_what_a_mapped_report_gets_its_address_from(self) -> None:
        with DAG("plant") as dag:
            started = work("started")
            names = work("names")
            partial = CdfTaskUpdateOperator.partial(task_id="report", execution_id=started)
            partial.expand(task_external_id=names, output=work("judge"))
            literal = CdfTaskUpdateOperator.partial(task_id="literal").expand_kwargs(
                [{"execution_id": started, "task_external_id": names, "output": work("judge_too")}]
            )
            whole = CdfTaskUpdateOperator.partial(task_id="whole").expand_kwargs(work("arguments"))
        report = dag.get_task("report")
        assert report.upstream_task_ids == {"started", "names", "judge"}
        assert work_before(report.unmap({"task_external_id": "a", "output": {}})) == {"judge"}
        assert work_before(literal.unmap({"execution_id": "a", "task_external_id": "a"})) == {"judge_too"}
        # It gives the output, too.
        assert work_before(whole.unmap({"cdf_task_id": "a"})) == {"arguments"}

    def test_is_not_what_a_mapped_group_is_mapped_over(self) -> None:
        with DAG("plant") as dag:

            @task_group
            def each(name: str) -> None:
                work("judge") >> CdfTaskUpdateOperator(
                    task_id="report", execution_id="{{ x }}", task_external_id=name, output={"name": name}
                )

            each.expand(name=work("names"))
        report = dag.get_task("each.report")
        assert report.upstream_task_ids == {"each.judge", "names"}
        assert work_before(report) == {"each.judge"}


def work(task_id: str) -> XComArg:
    """Make a task of a user's own."""

    @task(task_id=task_id)
    def does_it() -> None: ...

    return does_it()


@pytest.mark.usefixtures("cdf_default")
def test_a_mapped_report_whose_work_was_skipped_is_a_failure(project: Project) -> None:
    execution_id = project.run(project.define(function_task("score", waits=True)))
    project.task(execution_id, "score")
    with DAG("plant") as dag:
        names = work("names")
        partial = CdfTaskUpdateOperator.partial(task_id="report", execution_id="{{ x }}")
        work("judge") >> partial.expand(task_external_id=names)
    report = dag.get_task("report").unmap({"execution_id": execution_id, "task_external_id": "score"})
    ti = FakeTaskInstance(task_id="report", map_index=0)
    ti.states = {"names": {"names": "success"}, "judge": {"judge": "skipped"}}
    with pytest.raises(AirflowFailException, match="The work has not been done"):
        report.execute({"ti": ti})
    assert project.task(execution_id, "score", "FAILED_WITH_TERMINAL_ERROR")
