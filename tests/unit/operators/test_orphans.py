"""What a task that was killed, or has failed for good, leaves in CDF: nothing that runs."""

from __future__ import annotations

import uuid
from collections import UserList
from dataclasses import replace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
)
from operator_support import Store, context, key, make, run, statuses, when_sending
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.cdf import clock, submitting
from airflow_provider_cdf.cdf.errors import (
    CdfInputError,
    CdfRefusedError,
    CdfTimeoutError,
    CdfUnreachableError,
)
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.operators import callbacks
from airflow_provider_cdf.operators.callbacks import report_failure
from airflow_provider_cdf.operators.task import CdfTaskOperator, CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator, cancel_orphan

pytestmark = pytest.mark.usefixtures("cdf_default")


@pytest.fixture
def workflow(project: Project) -> str:
    """A workflow whose only task waits for a report."""
    return project.define(function_task("approve", waits=True))


def _theirs(context: Any) -> None:
    """Stands for a callback of the user's."""


def _raise_runtime_error(**_: Any) -> None:
    raise RuntimeError("Airflow's API is down.")


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

    @pytest.mark.parametrize(
        ("try_number", "hostname", "calls_back_once", "status"),
        [
            (1, "worker-1", False, "RUNNING"),
            (2, "worker-1", False, "TERMINATED"),  # the last one
            (1, "", False, "TERMINATED"),  # given up in the queue, which is for good
            (1, "worker-1", True, "TERMINATED"),
        ],
    )
    def test_not_where_airflow_calls_back_and_tries_again(
        self,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        monkeypatch: pytest.MonkeyPatch,
        try_number: int,
        hostname: str,
        calls_back_once: bool,
        status: str,
    ) -> None:
        # The DAG processor of Airflow 3.0 to 3.2, after a worker was lost.
        monkeypatch.setattr(callbacks, "CALLS_BACK_ONCE", calls_back_once)
        ti.max_tries, ti.hostname = 1, hostname
        execution_id, fresh = self.orphan(workflow, ti)
        ti.try_number = try_number
        for callback in fresh.on_failure_callback:
            callback(context(ti, fresh))
        assert project.execution(execution_id)["status"] == status

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

    def fail_for_good(
        self, operator: Any, ti: FakeTaskInstance, error: type[BaseException], store: Store | None = None
    ) -> None:
        """Let an operator fail, and run its failure callbacks as Airflow does, in the same process."""
        with pytest.raises(error) as caught:
            operator.execute(context(ti, operator, store=Store() if store is None else store))
        for callback in operator.on_failure_callback:
            callback({**context(ti, operator), "exception": caught.value})

    def test_an_id_that_could_not_be_stored_leaves_nothing_running(
        self, project: Project, workflow: str, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ti, "xcom_push", _raise_runtime_error, raising=False)
        self.fail_for_good(make(workflow, ti), ti, RuntimeError)
        assert statuses(project, workflow) == ["TERMINATED"]

    def test_a_start_that_stayed_unclear_leaves_nothing_running(
        self,
        cdf: CdfEmulator,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(submitting, "SUBMIT_WITHIN", 0.0)
        cdf.faults.add("POST", f"*/{workflow}/*/run", drop="after")
        cdf.faults.add("POST", "*/executions/list", status=503)
        self.fail_for_good(make(workflow, ti), ti, CdfUnreachableError)
        assert statuses(project, workflow) == ["TERMINATED"]

    def test_a_first_try_that_started_nothing_asks_cdf_for_nothing(
        self, cdf: CdfEmulator, ti: FakeTaskInstance
    ) -> None:
        before = len(cdf.journal.requests("POST", "*/executions/list"))
        self.fail_for_good(make("no-such-workflow", ti), ti, CdfRefusedError)
        assert len(cdf.journal.requests("POST", "*/executions/list")) == before

    @pytest.mark.parametrize("store", [Store(), None], ids=["3.3", "without a store"])
    def test_a_first_try_that_failed_before_it_began_asks_cdf_for_nothing(
        self, store: Store | None, cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance
    ) -> None:
        operator = make(workflow, ti)
        before = len(cdf.journal.requests())
        cancel_orphan(context(ti, operator, store=store, exception=RuntimeError("in pre_execute")))
        assert len(cdf.journal.requests()) == before

    @pytest.mark.parametrize("what", ["noted", "in an XCom", "a second try", "another process"])
    def test_one_that_failed_before_it_began_again_leaves_nothing_running(
        self, what: str, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        # Deferred, and resumed in this process; or of another try; or not of this process at all.
        store = Store() if what == "noted" else None
        execution_id, fresh = run(workflow, ti, store=store), make(workflow, ti)
        if what != "in an XCom":
            ti.xcoms.clear()
        ti.try_number = 2 if what == "a second try" else 1
        error = "killed" if what == "another process" else RuntimeError("in pre_execute")
        cancel_orphan(context(ti, fresh, store=store, exception=error))
        assert project.execution(execution_id)["status"] == "TERMINATED"

    def test_what_goes_on_by_itself_is_cancelled_if_its_task_fails_after_all(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        operator = make(workflow, ti, wait_for_completion=False)
        execution_id = operator.execute(context(ti, operator))
        operator.on_kill()  # its process ends, and it has succeeded
        assert project.execution(execution_id)["status"] == "RUNNING"
        cancel_orphan(context(ti, operator, exception=RuntimeError("in post_execute")))
        assert project.execution(execution_id)["status"] == "TERMINATED"

    def test_what_goes_on_by_itself_is_named_where_it_is_not_to_be_cancelled(
        self, project: Project, workflow: str, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operator = make(workflow, ti, wait_for_completion=False, cancel_on_kill=False)
        execution_id = operator.execute(context(ti, operator))
        warnings: list[str] = []
        monkeypatch.setattr(operator.log, "warning", lambda text, *more: warnings.append(text % more))
        cancel_orphan(context(ti, operator, exception=RuntimeError("in post_execute")))
        assert project.execution(execution_id)["status"] == "RUNNING"
        assert execution_id in "".join(warnings)

    def test_airflows_execution_timeout_during_the_start_leaves_nothing_running(
        self,
        cdf: CdfEmulator,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        operator = make(workflow, ti)

        def interrupted() -> None:
            raise AirflowTaskTimeout

        when_sending(operator, "/run", interrupted, after=True)
        self.fail_for_good(operator, ti, AirflowTaskTimeout)
        assert statuses(project, workflow) == ["TERMINATED"]

    def test_a_last_try_that_could_start_nothing_leaves_nothing_of_the_try_before(
        self, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        execution_id = run(workflow, ti, store=(store := Store()))
        ti.try_number = 2
        cdf.faults.add("POST", "*/executions/list", status=403)
        self.fail_for_good(make(workflow, ti), ti, CdfRefusedError, store)
        assert project.execution(execution_id)["status"] == "TERMINATED"

    def test_of_several_only_the_own_one_where_it_is_known(
        self, project: Project, workflow: str, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # That of another process of the task, which may be in the middle of going on with it.
        another = project.run(workflow, metadata={"airflow_run_key": key(ti)})
        monkeypatch.setattr(ti, "xcom_push", _raise_runtime_error, raising=False)
        operator = make(workflow, ti)
        self.fail_for_good(operator, ti, RuntimeError)
        assert project.execution(str(operator.execution_id))["status"] == "TERMINATED"
        assert project.execution(another)["status"] == "RUNNING"

    def test_what_could_not_be_cancelled_when_its_time_was_over_is_tried_again(
        self, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        cdf.faults.add("POST", "*/cancel", status=403)
        operator = make(workflow, ti, wait_for_completion=True, timeout=0.01)
        self.fail_for_good(operator, ti, CdfTimeoutError)
        assert statuses(project, workflow) == ["TERMINATED"]

    def test_a_cdf_that_stumbles_is_asked_again(
        self,
        cdf: CdfEmulator,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(clock, "sleep", lambda seconds: None)
        execution_id, fresh = self.orphan(workflow, ti)
        cdf.faults.add("POST", "*/executions/list", status=503)
        cancel_orphan(context(ti, fresh))
        assert project.execution(execution_id)["status"] == "TERMINATED"

    def test_its_connection_may_be_a_template(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        execution_id, fresh = self.orphan(workflow, ti, cdf_conn_id="cdf_{{ 'default' }}")
        cancel_orphan(context(ti, fresh))
        assert project.execution(execution_id)["status"] == "TERMINATED"

    def test_where_cdf_does_not_say_what_runs_nothing_is_raised(
        self, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        execution_id, fresh = self.orphan(workflow, ti)
        cdf.faults.add("POST", "*/executions/list", status=403)
        cancel_orphan(context(ti, fresh))
        assert project.execution(execution_id)["status"] == "RUNNING"

    def test_one_that_cannot_be_cancelled_does_not_save_the_others(
        self, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        for number in range(3):
            submit_id = f"{ti.id}.1.{number}"
            metadata = {"airflow_run_key": key(ti), "airflow_submit_id": submit_id}
            project.run(workflow, metadata=metadata)
        fresh = make(workflow, ti)
        cdf.faults.add("POST", "*/cancel", status=403)
        cancel_orphan(context(ti, fresh))
        assert sorted(statuses(project, workflow)) == ["RUNNING", "TERMINATED", "TERMINATED"]

    def test_an_input_that_cannot_be_rendered_is_not_in_the_way(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        execution_id, fresh = self.orphan(workflow, ti, input={"a": "{{ nothing.of_that_kind }}"})
        cancel_orphan(context(ti, fresh))
        assert project.execution(execution_id)["status"] == "TERMINATED"

    def test_the_users_own_callbacks_are_kept(self) -> None:
        called: list[str] = []
        with DAG("plant", default_args={"on_failure_callback": lambda context: called.append("theirs")}):
            operator = CdfWorkflowRunOperator(task_id="task", workflow_external_id="w", version="1")
            update = CdfTaskUpdateOperator(task_id="report", cdf_task_id="{{ x }}")
        assert len(operator.on_failure_callback) == len(update.on_failure_callback) == 2
        operator.on_failure_callback[0]({})
        assert called == ["theirs"]

    def test_what_a_dead_worker_of_a_mapped_task_left_running_is_cancelled(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        tis = [replace(ti, map_index=index, uuid=str(uuid.uuid4())) for index in range(2)]
        of_each = [run(workflow, one) for one in tis]
        with DAG("plant", default_args={"on_failure_callback": _theirs}):
            mapped = CdfWorkflowRunOperator.partial(task_id="task", version="1").expand(
                workflow_external_id=[workflow, workflow]
            )
        assert list(mapped.on_failure_callback) == [_theirs, cancel_orphan]

        about_the_second = context(tis[1], mapped)
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

    def test_of_a_mapped_task_too_only_what_is_needed_must_be_renderable(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        unrenderable = {"a": "{{ nothing.of_that_kind }}"}
        first = replace(ti, map_index=0)
        to_cancel, to_report = run(workflow, first), run(workflow, FakeTaskInstance())
        with DAG("plant"):
            mapped_run = CdfWorkflowRunOperator.partial(
                task_id="task", version="1", input=unrenderable
            ).expand(workflow_external_id=[workflow])
            mapped_report = CdfTaskUpdateOperator.partial(
                task_id="report", task_external_id="approve", output=unrenderable
            ).expand(execution_id=["{{ '" + to_report + "' }}"])
        project.task(to_report, "approve")

        cancel_orphan(context(first, mapped_run))
        report_failure(context(FakeTaskInstance(task_id="report", map_index=0), mapped_report))

        assert project.execution(to_cancel)["status"] == "TERMINATED"
        assert project.task(to_report, "approve", "FAILED_WITH_TERMINAL_ERROR")

    def test_a_report_that_never_happened_becomes_a_failure(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        execution_id = run(workflow, ti)
        with DAG("plant"):
            fresh = CdfTaskUpdateOperator(
                task_id="report", execution_id=execution_id, task_external_id="approve", output={"a": 1}
            )
        project.task(execution_id, "approve")
        reporter = FakeTaskInstance(task_id="report")
        del reporter.start_date  # which the DAG processor does not know
        report_failure(context(reporter, fresh))
        task = project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")
        (failed,) = task["output"]["airflow"]["failed_tasks"]
        assert (failed["task_id"], failed["state"]) == ("report", "failed")

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


class TestMappedOverWhatCannotBe:
    """
    A mapped task is given a value that it does not take: its operator says so, and CDF is told.

    A UserList stands for another task's result, which no DAG file shows.
    """

    def fail(self, mapped: Any, ti: FakeTaskInstance, error: type[BaseException], match: str) -> Any:
        """Let a map index fail as in Airflow: render, execute, and its failure callbacks, in one process."""
        about = context(ti, mapped, store=Store())

        def work() -> None:
            mapped.render_template_fields(about)
            about["task"].execute(about)

        with pytest.raises(error, match=match) as caught:
            work()
        about["exception"] = caught.value
        task: Any = about["task"]
        for callback in task.on_failure_callback:
            callback(about)
        return task

    def mapped_report(self, **arguments: Any) -> Any:
        with DAG("plant"):
            return CdfTaskUpdateOperator.partial(task_id="report", task_external_id="approve", **arguments)

    @pytest.mark.parametrize("bad", ["oops", ["a", "list"], {"airflow": 1}])
    def test_an_output_is_reported_as_a_failure_by_the_report_itself(
        self, bad: Any, project: Project, workflow: str
    ) -> None:
        execution_id = project.run(workflow)
        project.task(execution_id, "approve", "IN_PROGRESS")
        mapped = self.mapped_report(execution_id=execution_id).expand(output=UserList([bad]))
        ti = FakeTaskInstance(task_id="report", map_index=0)
        operator = self.fail(mapped, ti, AirflowFailException, "FAILED_WITH_TERMINAL_ERROR")
        assert operator.has_reported
        assert project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")

    def test_an_address_that_is_missing_is_said_by_the_report_itself(
        self, project: Project, workflow: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        mapped = self.mapped_report().expand_kwargs(UserList([{"output": {"a": 1}}]))
        ti = FakeTaskInstance(task_id="report", map_index=0)
        caplog.set_level("INFO")
        self.fail(mapped, ti, CdfInputError, "needs the execution_id")
        assert "may still wait for a report. Which one is not known" in caplog.text
        assert "There is no execution id" not in caplog.text

    def test_an_argument_given_twice_still_lets_cdf_know(self, project: Project, workflow: str) -> None:
        execution_id = project.run(workflow)
        project.task(execution_id, "approve", "IN_PROGRESS")
        mapped = self.mapped_report(execution_id="{{ '" + execution_id + "' }}", output={}).expand_kwargs(
            [{"task_output": {"a": 1}}]
        )
        ti = FakeTaskInstance(task_id="report", map_index=0)
        self.fail(mapped, ti, TypeError, "already specified")
        assert project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")

    def test_what_the_task_of_a_function_is_not_given_right_still_lets_cdf_know(
        self, project: Project, workflow: str
    ) -> None:
        execution_id = project.run(workflow)
        project.task(execution_id, "approve", "IN_PROGRESS")
        with DAG("plant"):
            mapped = CdfTaskOperator.partial(
                task_id="report", task_external_id="approve", python_callable=print, poll_interval=-1
            ).expand(execution_id=[execution_id])
        ti = FakeTaskInstance(task_id="report", map_index=0)
        self.fail(mapped, ti, ValueError, "poll_interval")
        assert project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")

    def test_what_it_is_mapped_over_cannot_be_read(self, caplog: pytest.LogCaptureFixture) -> None:
        mapped = self.mapped_report().expand_kwargs(UserList([{"execution_id": "a"}]))
        ti = FakeTaskInstance(task_id="report", map_index=1)
        report_failure(context(ti, mapped))
        assert "may still wait" in caplog.text

    def test_an_input_is_refused_by_the_run_itself(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        ti = replace(ti, map_index=0)
        with DAG("plant"):
            mapped = CdfWorkflowRunOperator.partial(
                task_id="task", version="1", workflow_external_id=workflow
            ).expand(input=UserList(["a"]))
        self.fail(mapped, ti, CdfInputError, "must be a JSON object")
        assert statuses(project, workflow) == []

    def test_what_a_run_that_cannot_be_made_left_running_is_cancelled(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        execution_id = run(workflow, first := replace(ti, map_index=0))
        with DAG("plant"):
            mapped = CdfWorkflowRunOperator.partial(
                task_id="task", version="1", workflow_external_id=workflow
            ).expand(poll_interval=[-1])
        cancel_orphan(about := context(first, mapped))
        assert project.execution(execution_id)["status"] == "TERMINATED"
        assert about["task"] is mapped
