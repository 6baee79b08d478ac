"""CdfTaskUpdateOperator against the emulator."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    TriggerRule,
    task,
    task_group,
)
from moved import EmptyOperator
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.cdf.errors import CdfInputError
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator

pytestmark = pytest.mark.usefixtures("cdf_default")

UNKNOWN = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def execution_id(project: Project) -> str:
    """An execution whose task ``approve`` is IN_PROGRESS."""
    execution_id = project.run(project.define(function_task("approve", waits=True)))
    project.task(execution_id, "approve")
    return execution_id


def make(execution_id: Any = None, **arguments: Any) -> CdfTaskUpdateOperator:
    if "cdf_task_id" not in arguments:
        arguments.setdefault("task_external_id", "approve")
        arguments["execution_id"] = execution_id
    elif execution_id is not None:
        arguments["execution_id"] = execution_id
    return CdfTaskUpdateOperator(task_id="report", **arguments)


def report(ti: FakeTaskInstance, execution_id: Any = None, **arguments: Any) -> Any:
    return make(execution_id, **arguments).execute({"ti": ti})


def report_rendered(
    ti: FakeTaskInstance, execution_id: Any, rendered: dict[str, Any], **arguments: Any
) -> Any:
    """Report with what templates have become, which a DAG file cannot know."""
    operator = make(execution_id, **{"status": "{{ status }}", **arguments})
    for name, value in rendered.items():
        setattr(operator, name, value)
    return operator.execute({"ti": ti})


class TestReport:
    def test_by_execution_and_external_id_ends_the_task(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        cdf_task_id = report(ti, execution_id, status="COMPLETED")

        assert cdf_task_id == project.task(execution_id, "approve", "COMPLETED")["id"]
        assert project.execution(execution_id)["status"] == "COMPLETED"

    @pytest.mark.parametrize("with_execution", [True, False])
    def test_by_cdf_task_id_ends_the_task(
        self, with_execution: bool, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        more = {"execution_id": execution_id} if with_execution else {}

        assert report(ti, cdf_task_id=cdf_task_id, status="COMPLETED", **more) == cdf_task_id

        assert project.execution(execution_id)["status"] == "COMPLETED"

    @pytest.mark.parametrize(
        ("status", "sent"),
        [
            ("completed", "COMPLETED"),
            ("Completed", "COMPLETED"),
            ("failed", "FAILED"),
            ("FAILED", "FAILED"),
            ("failed_with_terminal_error", "FAILED_WITH_TERMINAL_ERROR"),
        ],
    )
    def test_takes_statuses_in_any_case(
        self, status: str, sent: str, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        # A status that was given is a report like any other: this task has done what it was told to.
        assert report(ti, execution_id, status=status)

        assert project.task(execution_id, "approve", sent)

    def test_merges_the_output_into_that_of_the_task(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance
    ) -> None:
        cdf.set_function("merge", {"ticket": 7})
        execution_id = project.run(project.define(function_task("merge", waits=True)))
        for _ in range(200):
            if project.task(execution_id, "merge")["output"]:
                break

        report(ti, execution_id, task_external_id="merge", status="completed", output={"risk": 0.72})

        output = project.task(execution_id, "merge", "COMPLETED")["output"]
        assert output["risk"] == 0.72
        assert output["response"] == {"ticket": 7}

    def test_an_output_of_exactly_100_000_bytes_is_sent(
        self, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        padding = "x" * (100_000 - len('{"a":""}'))

        report(ti, execution_id, status="completed", output={"a": padding})

        assert project.task(execution_id, "approve", "COMPLETED")["output"]["a"] == padding

    @pytest.mark.parametrize("addressed_by", ["external id", "cdf task id and execution"])
    @pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR"])
    def test_a_task_that_is_in_the_wanted_status_already_is_fine(
        self, status: str, addressed_by: str, execution_id: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        project.update(cdf_task_id, status)
        address = {} if addressed_by == "external id" else {"cdf_task_id": cdf_task_id}

        again = report(ti, **{"execution_id": execution_id, **address}, status=status.lower())

        assert again == cdf_task_id

    @pytest.mark.parametrize("reported_while", ["SCHEDULED", "IN_PROGRESS"])
    def test_reports_on_the_attempt_that_goes_on(
        self, reported_while: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        execution_id = project.run(project.define(function_task("approve", waits=True, retries=1)))
        first = project.task(execution_id, "approve")["id"]
        project.update(first, "FAILED")
        second = project.task(execution_id, "approve", reported_while)["id"]

        assert report(ti, execution_id, status="completed") == second

        assert project.execution(execution_id)["status"] == "COMPLETED"

    def test_a_report_for_a_retried_task_that_has_arrived_already_is_fine(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        execution_id = project.run(project.define(function_task("approve", waits=True, retries=1)))
        project.update(project.task(execution_id, "approve")["id"], "FAILED")
        second = project.task(execution_id, "approve", "SCHEDULED")["id"]
        project.update(second, "COMPLETED")

        assert report(ti, execution_id, status="completed") == second

    def test_output_is_templated(self) -> None:
        operator = make("{{ id }}", status="completed", output={"risk": "{{ risk }}"})

        operator.render_template_fields({"id": UNKNOWN, "risk": "high"})

        assert operator.execution_id == UNKNOWN
        assert operator.task_output == {"risk": "high"}

    @pytest.mark.parametrize(
        "name", ["status", "execution_id", "task_external_id", "cdf_task_id", "cdf_conn_id"]
    )
    def test_is_templated(self, name: str) -> None:
        assert name in CdfTaskUpdateOperator.template_fields


class TestRefusal:
    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"execution_id": UNKNOWN},
            {"task_external_id": "approve"},
            {"task_external_id": "approve", "cdf_task_id": UNKNOWN},
            {"task_external_id": "approve", "cdf_task_id": UNKNOWN, "execution_id": UNKNOWN},
        ],
        ids=lambda arguments: " and ".join(arguments) or "nothing",
    )
    def test_of_arguments_that_name_no_task_or_two_when_the_operator_is_made(self, arguments: Any) -> None:
        with pytest.raises(Exception, match="task_external_id"):
            CdfTaskUpdateOperator(task_id="report", status="completed", **arguments)

    @pytest.mark.parametrize("status", ["IN_PROGRESS", "TIMED_OUT", "done", ""])
    def test_of_a_status_that_cannot_be_reported(
        self, status: str, execution_id: str, project: Project, ti: FakeTaskInstance, clear: Any
    ) -> None:
        with pytest.raises(CdfInputError) as error:
            report_rendered(ti, execution_id, {"status": status})

        message = clear(error.value, repr(status), "COMPLETED", "FAILED_WITH_TERMINAL_ERROR")
        # The callback is about to send something.
        assert "Nothing was sent" not in message
        assert project.task(execution_id, "approve", "IN_PROGRESS")

    @pytest.mark.parametrize("addressed_by", ["external id", "cdf task id"])
    @pytest.mark.parametrize(
        ("output", "named"),
        [
            ({"a": "x" * 100_000}, ["100008", "100000"]),
            ({"a": float("nan")}, []),
            ({"a": {1, 2}}, []),
            ({"a": float("inf")}, []),
            (["a", "list"], []),
        ],
        ids=["too large", "NaN", "a set", "infinite", "a list"],
    )
    def test_of_an_output_that_cdf_does_not_take_with_nothing_sent(
        self,
        output: Any,
        named: list[str],
        addressed_by: str,
        execution_id: str,
        project: Project,
        ti: FakeTaskInstance,
        clear: Any,
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        address = {"cdf_task_id": cdf_task_id} if addressed_by == "cdf task id" else {}

        with pytest.raises(CdfInputError) as error:
            report_rendered(ti, execution_id, {"status": "completed", "task_output": output}, **address)

        digits = clear(error.value, "output").replace(" ", "").replace(",", "").replace("_", "")
        for number in named:
            assert number in digits
        assert project.task(execution_id, "approve", "IN_PROGRESS")


class TestNothingToReportTo:
    """One sentence, no chained error, no stack of HTTP, no retry."""

    @pytest.fixture
    def refused(self, ti: FakeTaskInstance, cdf: CdfEmulator) -> Callable[..., str]:
        from clear_errors import assert_clear

        def refused(operator: CdfTaskUpdateOperator, *names: str) -> str:
            ti.start_date -= timedelta(minutes=5)  # what CDF does not know by now, it never will
            with pytest.raises(AirflowException) as error:
                operator.execute({"ti": ti})
            message = assert_clear(error.value, *names, secrets=[cdf.client_secret], http_frames=False)
            assert isinstance(error.value, AirflowFailException), f"will be retried: {error.value!r}"
            return message

        return refused

    @pytest.mark.parametrize("missing", [None, "None", ""], ids=repr)
    def test_the_run_never_started(self, missing: Any, refused: Any) -> None:
        operator = make("{{ templated }}", status="completed")
        operator.execution_id = missing  # as rendering an XCom that is not there does

        refused(operator, "approve", "There is no execution id to report")

    @pytest.mark.parametrize("missing", [None, "None", ""], ids=repr)
    def test_there_is_no_cdf_task_id(self, missing: Any, refused: Any) -> None:
        operator = make(cdf_task_id="{{ templated }}", status="completed")
        operator.cdf_task_id = missing

        assert "task None" not in refused(operator, "cdf_task_id")

    def test_unknown_execution(self, refused: Any) -> None:
        refused(make(UNKNOWN, status="completed"), UNKNOWN)

    def test_execution_id_that_is_no_uuid(self, refused: Any) -> None:
        operator = make("{{ templated }}", status="completed")
        operator.execution_id = "../../sessions"  # as it comes out of the template
        refused(operator, "../../sessions")

    def test_unknown_cdf_task_id(self, refused: Any) -> None:
        refused(make(cdf_task_id=UNKNOWN, status="completed"), UNKNOWN)

    def test_unknown_cdf_task_id_of_a_known_execution(self, execution_id: str, refused: Any) -> None:
        refused(make(cdf_task_id=UNKNOWN, execution_id=execution_id, status="completed"), UNKNOWN)

    def test_task_that_has_not_started(self, project: Project, refused: Any) -> None:
        later = function_task("later", waits=True, dependsOn=[{"externalId": "approve"}])
        execution_id = project.run(project.define(function_task("approve", waits=True), later))

        refused(
            make(execution_id, task_external_id="later", status="completed"),
            "later",
            execution_id,
            "not started",
            "RUNNING",
        )

    def test_task_that_the_workflow_does_not_have(self, execution_id: str, refused: Any) -> None:
        refused(make(execution_id, task_external_id="typo", status="completed"), "typo", execution_id)

    @pytest.mark.parametrize("addressed_by", ["external id", "cdf task id", "cdf task id and execution"])
    def test_task_that_has_ended_in_another_status(
        self, addressed_by: str, project: Project, refused: Any
    ) -> None:
        execution_id = project.run(
            project.define(
                function_task("approve", waits=True, onFailure="skipTask"), function_task("b", waits=True)
            )
        )
        cdf_task_id = project.task(execution_id, "approve")["id"]
        project.update(cdf_task_id, "COMPLETED")
        address: dict[str, Any] = {"execution_id": execution_id}
        if addressed_by != "external id":
            address = {"cdf_task_id": cdf_task_id} | (address if "execution" in addressed_by else {})

        message = refused(make(**address, status="failed"), "COMPLETED", "FAILED")

        assert execution_id in message or addressed_by == "cdf task id"
        assert project.task(execution_id, "approve", "COMPLETED")

    @pytest.mark.parametrize("addressed_by", ["external id", "cdf task id", "cdf task id and execution"])
    def test_task_whose_execution_was_cancelled(
        self, addressed_by: str, execution_id: str, project: Project, refused: Any
    ) -> None:
        cdf_task_id = project.task(execution_id, "approve")["id"]
        project.cancel(execution_id, "Anna stopped it")
        address: dict[str, Any] = {"execution_id": execution_id}
        if addressed_by != "external id":
            address = {"cdf_task_id": cdf_task_id} | (address if "execution" in addressed_by else {})

        refused(make(**address, status="completed"), "CANCELED")

    def test_task_that_never_started_in_an_execution_that_has_ended(
        self, project: Project, refused: Any
    ) -> None:
        later = function_task("later", waits=True, dependsOn=[{"externalId": "approve"}])
        execution_id = project.run(project.define(function_task("approve", waits=True), later))
        project.task(execution_id, "approve")
        project.cancel(execution_id)

        refused(make(execution_id, task_external_id="later", status="completed"), "later", "TERMINATED")

    def test_attempt_that_cdf_has_retried_is_stale(self, project: Project, refused: Any) -> None:
        execution_id = project.run(project.define(function_task("approve", waits=True, retries=1)))
        first = project.task(execution_id, "approve")["id"]
        project.update(first, "FAILED")

        refused(make(cdf_task_id=first, execution_id=execution_id, status="completed"), first, "FAILED")


class DagRun(FakeTaskInstance):
    """Answers ``get_task_states`` as Airflow's API server does: mapped task instances as ``task_id_N``."""

    #: By task id and map index.
    instances: dict[tuple[str, int], str]

    def by_task_and_index(self) -> dict[tuple[str, int], str]:
        return self.instances

    def get_task_states(  # type: ignore[override]
        self,
        dag_id: str,
        map_index: int | None = None,
        task_ids: list[str] | None = None,
        task_group_id: str | None = None,
        logical_dates: Any = None,
        run_ids: list[str] | None = None,
    ) -> dict[str, Any]:
        assert dag_id == self.dag_id
        assert run_ids is None or self.run_id in run_ids
        found = {}
        for (task_id, index), state in self.instances.items():
            if task_ids is not None and task_id not in task_ids:
                continue
            if map_index is not None and index != map_index:
                continue
            found[task_id if index < 0 else f"{task_id}_{index}"] = state
        return {self.run_id: found} if found else {}


class TestStatusThatFollowsFromTheWorkBefore:
    def run(
        self,
        operator: CdfTaskUpdateOperator,
        instances: dict[tuple[str, int] | str, str],
        *,
        map_index: int = -1,
    ) -> Any:
        ti = DagRun(dag_id="plant", task_id=operator.task_id, map_index=map_index)
        ti.instances = {(key, -1) if isinstance(key, str) else key: state for key, state in instances.items()}
        return operator.execute({"ti": ti})

    def assert_completed(self, project: Project, execution_id: str) -> dict[str, Any]:
        task = project.task(execution_id, "approve", "COMPLETED")
        output = task["output"]
        assert isinstance(output, dict)
        return output

    def assert_failed(self, project: Project, execution_id: str, *failed: str, but_not: str = "") -> None:
        task = project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")
        told = task["output"]["airflow"]
        named = [
            one["task_id"] + (f"[{one['map_index']}]" if "map_index" in one else "")
            for one in told["failed_tasks"]
        ]
        assert set(failed) <= set(named)
        assert told["failed_task_count"] == len(named)
        if but_not:
            assert but_not not in named

    @pytest.mark.parametrize(
        "states",
        [
            {"one": "success", "two": "success"},
            {"one": "success", "two": "skipped"},
        ],
        ids=lambda states: " and ".join(states.values()),
    )
    def test_is_completed_with_the_output_if_all_succeeded_or_were_skipped(
        self, states: Any, execution_id: str, project: Project
    ) -> None:
        with DAG("plant"):
            operator = make(execution_id, output={"risk": 0.72})
            [EmptyOperator(task_id="one"), EmptyOperator(task_id="two")] >> operator

        assert self.run(operator, states) == project.task(execution_id, "approve", "COMPLETED")["id"]

        assert self.assert_completed(project, execution_id)["risk"] == 0.72

    @pytest.mark.parametrize("addressed_by", ["external id", "cdf task id"])
    @pytest.mark.parametrize("state", ["failed", "upstream_failed"])
    def test_is_a_terminal_failure_that_names_what_failed_and_turns_the_dag_run_red(
        self, state: str, addressed_by: str, execution_id: str, project: Project, clear: Any
    ) -> None:
        address = {}
        if addressed_by == "cdf task id":
            address = {"cdf_task_id": project.task(execution_id, "approve")["id"]}
        with DAG("plant"):
            operator = make(execution_id, output={"risk": 0.72}, **address)
            [EmptyOperator(task_id="alpha"), EmptyOperator(task_id="omega")] >> operator

        with pytest.raises(AirflowFailException) as error:
            self.run(operator, {"alpha": "success", "omega": state})

        clear(error.value, "omega")
        self.assert_failed(project, execution_id, "omega", but_not="alpha")
        assert project.execution(execution_id)["status"] == "FAILED"

    @pytest.mark.parametrize("state", [None, "running", "a new state"], ids=str)
    def test_a_state_that_is_neither_success_nor_skip_is_never_reported_as_completed(
        self, state: Any, execution_id: str, project: Project
    ) -> None:
        with DAG("plant"):
            operator = make(execution_id)
            EmptyOperator(task_id="work") >> operator

        with pytest.raises(AirflowException):
            self.run(operator, {"work": state})

        statuses = {task["status"] for task in project.execution(execution_id)["executedTasks"]}
        assert "COMPLETED" not in statuses

    def test_an_upstream_task_of_which_nothing_is_known_is_never_reported_as_completed(
        self, execution_id: str, project: Project
    ) -> None:
        with DAG("plant"):
            operator = make(execution_id)
            EmptyOperator(task_id="work") >> operator

        with pytest.raises(AirflowException):
            self.run(operator, {})

        statuses = {task["status"] for task in project.execution(execution_id)["executedTasks"]}
        assert "COMPLETED" not in statuses

    def test_looks_at_the_direct_upstream_tasks_only(self, execution_id: str, project: Project) -> None:
        with DAG("plant"):
            operator = make(execution_id)
            (
                EmptyOperator(task_id="far")
                >> EmptyOperator(task_id="near")
                >> operator
                >> EmptyOperator(task_id="after")
            )

        self.run(operator, {"far": "failed", "near": "success", "after": None})

        self.assert_completed(project, execution_id)

    @pytest.mark.parametrize(("last", "ends"), [("success", "COMPLETED"), ("failed", "FAILED")])
    def test_counts_every_instance_of_a_mapped_task(
        self, last: str, ends: str, execution_id: str, project: Project
    ) -> None:
        with DAG("plant"):
            operator = make(execution_id)

            @task
            def work(number: int) -> None: ...

            work.expand(number=[1, 2, 3]) >> operator

        states = {("work", 0): "success", ("work", 1): "skipped", ("work", 2): last}
        if ends == "COMPLETED":
            self.run(operator, states)
            self.assert_completed(project, execution_id)
        else:
            with pytest.raises(AirflowFailException, match="work"):
                self.run(operator, states)
            self.assert_failed(project, execution_id, "work[2]", but_not="work[0]")

    def test_a_mapped_task_that_could_not_be_expanded_counts_as_failed(
        self, execution_id: str, project: Project
    ) -> None:
        with DAG("plant"):
            operator = make(execution_id)

            @task
            def numbers() -> list[int]:
                return []

            @task
            def work(number: int) -> None: ...

            work.expand(number=numbers()) >> operator

        # Its one instance has no map index yet.
        with pytest.raises(AirflowFailException):
            self.run(operator, {"numbers": "failed", "work": "upstream_failed"})

        self.assert_failed(project, execution_id, "numbers")

    def test_where_all_were_skipped_nothing_was_done(self, execution_id: str, project: Project) -> None:
        with DAG("plant"):
            operator = make(execution_id, output={"risk": 0.72})
            [EmptyOperator(task_id="one"), EmptyOperator(task_id="two")] >> operator

        with pytest.raises(AirflowFailException, match=r"^The work has not been done: Airflow tasks 'one' "):
            self.run(operator, {"one": "skipped", "two": "skipped"})

        self.assert_failed(project, execution_id, "one", "two")

    def test_a_task_mapped_over_nothing_counts_as_skipped(self, execution_id: str, project: Project) -> None:
        with DAG("plant"):
            operator = make(execution_id, skipped_status="COMPLETED")

            @task
            def work(number: int) -> None: ...

            work.expand(number=[]) >> operator

        self.run(operator, {"work": "skipped"})

        self.assert_completed(project, execution_id)

    def test_a_task_whose_id_looks_like_an_instance_of_a_mapped_one_is_another_task(
        self, execution_id: str, project: Project
    ) -> None:
        with DAG("plant"):
            operator = make(execution_id)
            EmptyOperator(task_id="work_0")
            EmptyOperator(task_id="work") >> operator

        self.run(operator, {"work_0": "failed", "work": "success"})

        self.assert_completed(project, execution_id)

    def in_mapped_group(self, execution_id: str) -> CdfTaskUpdateOperator:
        made = []
        with DAG("plant"):
            before = EmptyOperator(task_id="before")

            @task_group
            def pump(number: int) -> None:
                operator = make(execution_id)
                made.append(operator)
                [EmptyOperator(task_id="work"), before] >> operator

            pump.expand(number=[1, 2])
        (operator,) = made
        return operator

    def test_in_a_mapped_task_group_the_other_instances_do_not_count(
        self, execution_id: str, project: Project
    ) -> None:
        operator = self.in_mapped_group(execution_id)
        states = {"before": "success", ("pump.work", 0): "failed", ("pump.work", 1): "success"}

        self.run(operator, states, map_index=1)

        self.assert_completed(project, execution_id)

    def test_in_a_mapped_task_group_the_own_instance_counts(
        self, execution_id: str, project: Project
    ) -> None:
        operator = self.in_mapped_group(execution_id)
        states = {"before": "success", ("pump.work", 0): "failed", ("pump.work", 1): "success"}

        with pytest.raises(AirflowFailException, match="work"):
            self.run(operator, states, map_index=0)

        self.assert_failed(project, execution_id, "pump.work[0]", but_not="pump.work[1]")

    def test_in_a_mapped_task_group_a_task_outside_of_it_counts(
        self, execution_id: str, project: Project
    ) -> None:
        operator = self.in_mapped_group(execution_id)
        states = {"before": "failed", ("pump.work", 0): "success", ("pump.work", 1): "success"}

        with pytest.raises(AirflowFailException, match="before"):
            self.run(operator, states, map_index=1)

        self.assert_failed(project, execution_id, "before", but_not="pump.work[0]")

    @pytest.mark.parametrize(("last", "ends"), [("success", "COMPLETED"), ("failed", "FAILED")])
    def test_after_a_mapped_task_group_every_instance_counts(
        self, last: str, ends: str, execution_id: str, project: Project
    ) -> None:
        with DAG("plant"):
            operator = make(execution_id)

            @task_group
            def pump(number: int) -> None:
                EmptyOperator(task_id="work")

            pump.expand(number=[1, 2]) >> operator
        states = {("pump.work", 0): "success", ("pump.work", 1): last}

        if ends == "COMPLETED":
            self.run(operator, states)
            self.assert_completed(project, execution_id)
        else:
            with pytest.raises(AirflowFailException):
                self.run(operator, states)
            self.assert_failed(project, execution_id, "pump.work[1]", but_not="pump.work[0]")

    def test_a_failure_that_was_reported_already_still_turns_the_dag_run_red(
        self, execution_id: str, project: Project
    ) -> None:
        project.update(project.task(execution_id, "approve")["id"], "FAILED_WITH_TERMINAL_ERROR")
        with DAG("plant"):
            operator = make(execution_id)
            EmptyOperator(task_id="work") >> operator

        with pytest.raises(AirflowFailException, match="work"):
            self.run(operator, {"work": "failed"})

    def test_a_failure_with_nothing_to_report_to_is_one_sentence(self, clear: Any) -> None:
        with DAG("plant"):
            operator = make("{{ templated }}")
            EmptyOperator(task_id="start") >> operator
        operator.execution_id = None

        with pytest.raises(AirflowFailException) as error:
            self.run(operator, {"start": "failed"})

        clear(error.value, "approve")

    def test_a_thousand_failed_instances_still_fit_into_the_output(
        self, execution_id: str, project: Project
    ) -> None:
        with DAG("plant"):
            operator = make(execution_id)

            @task(task_id="w" * 240)
            def work(number: int) -> None: ...

            work.expand(number=list(range(1000))) >> operator

        with pytest.raises(AirflowFailException):
            self.run(operator, {("w" * 240, index): "failed" for index in range(1000)})

        (reported,) = project.execution(execution_id)["executedTasks"]
        assert reported["status"] == "FAILED_WITH_TERMINAL_ERROR"

    def test_all_upstream_tasks_are_waited_for_however_they_end(self) -> None:
        with DAG("plant"):
            operator = make(UNKNOWN)

        assert operator.trigger_rule == TriggerRule.ALL_DONE

    def test_a_given_status_leaves_the_trigger_rule_alone(self) -> None:
        with DAG("plant"):
            assert make(UNKNOWN, status="completed").trigger_rule == TriggerRule.ALL_SUCCESS

    def test_a_given_trigger_rule_is_kept_where_a_status_is_given(self) -> None:
        with DAG("plant"):
            operator = make(UNKNOWN, status="failed", trigger_rule="one_failed")

        assert operator.trigger_rule == TriggerRule.ONE_FAILED

    def test_default_args_of_the_dag_do_not_keep_a_failure_from_being_reported(self) -> None:
        with DAG("plant", default_args={"trigger_rule": "all_success"}):
            operator = make(UNKNOWN)

        assert operator.trigger_rule == TriggerRule.ALL_DONE

    def test_is_mapped_with_the_same_trigger_rule(self) -> None:
        with DAG("plant") as dag:
            CdfTaskUpdateOperator.partial(task_id="report", task_external_id="approve").expand(
                execution_id=[UNKNOWN, str(uuid.uuid4())]
            )

        assert dag.get_task("report").trigger_rule == TriggerRule.ALL_DONE
