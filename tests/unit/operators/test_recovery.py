"""One logical run of the Airflow task is one execution: retries, clears, kills and orphans."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, TaskDeferred
from airflow.sdk.exceptions import AirflowTaskTimeout
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.cdf import clock, conversations
from airflow_provider_cdf.cdf.errors import CdfRefusedError, CdfTimeoutError, CdfUnreachableError
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.operators import recovery
from airflow_provider_cdf.operators.cancelling import TASK_HAS_DIED, TASK_WAS_KILLED
from airflow_provider_cdf.operators.identity import run_key
from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator, report_failure
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator, cancel_orphan

pytestmark = pytest.mark.usefixtures("cdf_default")


@pytest.fixture
def workflow(project: Project) -> str:
    """A workflow whose only task waits for a report."""
    return project.define(function_task("approve", waits=True))


def make(workflow: str, ti: FakeTaskInstance, **arguments: Any) -> CdfWorkflowRunOperator:
    arguments = {"version": "1", "wait_for_completion": False, "retry_delay": 0, **arguments}
    with DAG(ti.dag_id):
        return CdfWorkflowRunOperator(
            task_id=ti.task_id, workflow_external_id=workflow, poll_interval=0.05, **arguments
        )


def run(workflow: str, ti: FakeTaskInstance, **arguments: Any) -> Any:
    operator = make(workflow, ti, **arguments)
    return operator.execute(context(ti, operator))


def another_version(project: Project, workflow: str) -> None:
    definition = {"tasks": [function_task("approve", waits=True)]}
    item = {"workflowExternalId": workflow, "version": "2", "workflowDefinition": definition}
    project.post("/workflows/versions", {"items": [item]})


def retry(project: Project, execution_id: str) -> None:
    """Retry an execution as a person does in Fusion."""
    nonce = project.nonce()
    project.post(f"/workflows/executions/{execution_id}/retry", {"authentication": {"nonce": nonce}})


class Store(dict[str, Any]):
    """Airflow's store of task states, as far as it is used; it refuses to keep anything for an orphan."""

    is_of_an_orphan = False

    def set(self, key: str, value: Any) -> None:
        if self.is_of_an_orphan:
            raise RuntimeError("There is no such task instance.")
        self[key] = value


def context(ti: FakeTaskInstance, operator: Any = None, **more: Any) -> dict[str, Any]:
    dag_run = SimpleNamespace(run_after=datetime.now(UTC), conf={}, clear_number=0)
    dag = operator.get_dag() if operator is not None else None
    return {"ti": ti, "task": operator, "dag": dag, "dag_run": dag_run, **more}


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


def test_an_edit_of_the_version_between_two_tries_makes_no_second_run(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    first = run(workflow, ti)
    another_version(project, workflow)
    ti.try_number = 2
    assert run(workflow, ti, version="2") == first


def test_an_edit_of_the_version_before_a_clear_leaves_no_old_execution_running(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    first = run(workflow, ti)
    another_version(project, workflow)
    ti.try_number, ti.max_tries = 2, 1
    second = run(workflow, ti, version="2")
    assert project.execution(first)["status"] == "TERMINATED"
    assert project.execution(second)["version"] == "2"


def test_a_clear_after_retries_were_lowered_cancels_the_old_execution(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    ti.max_tries = 3
    first = run(workflow, ti, retries=3)
    ti.try_number, ti.max_tries = 2, 1  # Airflow adds `retries`, which is 0 now, to the tries so far
    assert run(workflow, ti, retries=0) != first
    assert project.execution(first)["status"] == "TERMINATED"


def test_a_clear_after_retries_were_lowered_starts_anew_though_the_key_is_the_old_one(
    project: Project, ti: FakeTaskInstance
) -> None:
    workflow = project.define(function_task("quick"))
    ti.max_tries = 1
    first = run(workflow, ti, wait_for_completion=True, retries=1)
    ti.try_number = 2  # and max_tries becomes 1 + 0
    operator = make(workflow, ti, wait_for_completion=True, retries=0)
    cleared = context(ti, operator)
    cleared["dag_run"].clear_number = 1
    assert operator.execute(cleared) != first


def test_cancel_on_kill_is_for_a_clear_too(project: Project, workflow: str, ti: FakeTaskInstance) -> None:
    first = run(workflow, ti, cancel_on_kill=False)
    ti.try_number, ti.max_tries = 2, 1
    run(workflow, ti, cancel_on_kill=False)
    assert project.execution(first)["status"] == "RUNNING"


def test_of_several_executions_the_one_that_runs_counts(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    first = run(workflow, ti)
    end_badly(project, first)
    ti.try_number = 2
    second = run(workflow, ti)
    end_badly(project, second)
    retry(project, first)  # by a person, in Fusion
    ti.try_number = 3
    assert run(workflow, ti) == first


def test_retry_from_failure_goes_on_with_what_somebody_else_has_just_retried(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    first = run(workflow, ti)
    end_badly(project, first)
    ti.try_number = 2
    operator = make(workflow, ti, retry_from_failure=True)
    ask = operator.hook.retry_execution

    def too_late(execution_id: str) -> Any:
        retry(project, execution_id)
        return ask(execution_id)

    operator.hook.retry_execution = too_late  # type: ignore[method-assign]
    assert operator.execute(context(ti, operator)) == first


def test_a_request_that_the_try_before_left_under_way_is_waited_for(
    project: Project, workflow: str, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its process was killed while CDF was slow; Airflow starts the retry at once.
    monkeypatch.setattr(conversations, "NONCE_DEAD_AFTER", 2.0)
    metadata = {"airflow_run_key": run_key(ti), "airflow_try_number": "1"}
    late = threading.Timer(0.5, lambda: project.run(workflow, metadata=metadata))
    late.start()
    ti.try_number = 2
    started = time.monotonic()
    execution_id = run(workflow, ti)
    late.join()
    (only,) = project.executions(workflow)
    assert only["id"] == execution_id
    assert time.monotonic() - started > 0.5  # not by chance


def test_nothing_is_waited_for_where_the_try_before_is_accounted_for(
    cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "NONCE_DEAD_AFTER", 3600.0)
    end_badly(project, run(workflow, ti))
    ti.try_number = 2
    assert run(workflow, ti)


@pytest.mark.parametrize("delay", [timedelta(hours=1), 7200.0])
def test_nothing_is_waited_for_where_the_retry_came_late(
    workflow: str, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch, delay: Any
) -> None:
    monkeypatch.setattr(conversations, "NONCE_DEAD_AFTER", 3600.0)
    ti.try_number = 2
    assert run(workflow, ti, retry_delay=delay)


class TestWhatAirflowHasNoted:
    """Airflow 3.3 keeps which try has begun to start an execution."""

    @pytest.fixture(autouse=True)
    def endless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever is waited for would take an hour."""
        monkeypatch.setattr(conversations, "NONCE_DEAD_AFTER", 3600.0)

    def run(self, workflow: str, ti: FakeTaskInstance, store: Store, **arguments: Any) -> Any:
        operator = make(workflow, ti, **arguments)
        return operator.execute(context(ti, operator, task_state_store=store))

    def test_is_noted_before_anything_is_sent(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        store = Store()
        store.is_of_an_orphan = True
        with pytest.raises(RuntimeError):
            self.run(workflow, ti, store)
        assert project.executions(workflow) == []

    def test_a_retry_of_a_try_that_has_sent_nothing_waits_for_nothing(
        self, workflow: str, ti: FakeTaskInstance
    ) -> None:
        ti.try_number = 2
        assert self.run(workflow, ti, Store())

    def test_a_retry_of_a_try_that_only_went_on_waits_for_nothing(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        store = Store()
        first = self.run(workflow, ti, store)
        ti.try_number = 2
        assert self.run(workflow, ti, store) == first
        end_badly(project, first)
        ti.try_number = 3
        assert self.run(workflow, ti, store) != first

    def test_a_request_that_an_earlier_try_may_have_under_way_is_waited_for(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        metadata = {"airflow_run_key": run_key(ti), "airflow_try_number": "1"}
        late = threading.Timer(0.3, lambda: project.run(workflow, metadata=metadata))
        late.start()
        ti.try_number = 3  # try 2 died while it waited, too
        execution_id = self.run(workflow, ti, Store(cdf_last_start=1))
        (only,) = project.executions(workflow)
        assert only["id"] == execution_id

    @pytest.mark.parametrize("has_completed", [True, False])
    def test_what_a_deleted_dag_run_of_the_same_name_has_left_is_not_taken_for_ones_own(
        self, project: Project, workflow: str, ti: FakeTaskInstance, has_completed: bool
    ) -> None:
        old = run(workflow, ti)
        if has_completed:
            project.update(project.task(old, "approve")["id"], "COMPLETED")
        ti.try_number = 2
        assert self.run(workflow, ti, Store()) != old
        assert statuses(project, workflow).count("RUNNING") == 1

    @pytest.mark.parametrize("reason", [TASK_HAS_DIED, TASK_WAS_KILLED])
    def test_an_orphan_does_not_start_again_what_was_cancelled_as_its_task_died(
        self, project: Project, workflow: str, ti: FakeTaskInstance, reason: str
    ) -> None:
        store = Store()
        operator = make(workflow, ti, wait_for_completion=True)
        store_id = operator._store

        def dies(*arguments: Any) -> None:
            store_id(*arguments)
            project.cancel(str(operator.execution_id), reason)
            store.is_of_an_orphan = True

        operator._store = dies  # type: ignore[method-assign]
        with pytest.raises(RuntimeError):
            operator.execute(context(ti, operator, task_state_store=store))
        assert statuses(project, workflow) == ["TERMINATED"]


def test_the_latest_of_the_executions_that_have_ended_counts(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    """An older result is of a DAG run of the same name that has been deleted: it would have been the end."""
    old = run(workflow, ti)
    project.update(project.task(old, "approve")["id"], "COMPLETED")
    end_badly(project, run(workflow, ti))
    ti.try_number = 2
    assert run(workflow, ti) != old


def test_what_has_ended_is_not_cancelled(
    cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    end_badly(project, run(workflow, ti))
    before = cdf.journal.count("POST", "*/cancel")
    ti.try_number, ti.max_tries = 2, 1
    run(workflow, ti)
    assert cdf.journal.count("POST", "*/cancel") == before


@pytest.mark.parametrize(
    ("arguments", "clear_number", "seconds"),
    [
        ({"retry_delay": 60}, 0, 60),
        ({"retry_delay": timedelta(minutes=1)}, 0, 60),
        ({"retry_delay": 60, "retry_exponential_backoff": True}, 0, 30),
        ({"retry_delay": 60, "retry_exponential_backoff": True, "max_retry_delay": 5}, 0, 5),
        ({"retry_delay": 60}, 1, 0),
    ],
)
def test_what_must_have_passed_since_the_last_try(
    ti: FakeTaskInstance, arguments: dict[str, Any], clear_number: int, seconds: float
) -> None:
    about = context(ti, make("w", ti, **arguments))
    about["dag_run"].clear_number = clear_number
    assert recovery._since_the_last_try(about) == seconds


def test_each_try_that_runs_from_a_failure_has_a_budget_of_its_own(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    first = run(workflow, ti)
    end_badly(project, first)
    for ti.try_number in (2, 3):
        operator = make(
            workflow, ti, wait_for_completion=True, deferrable=True, timeout=1000, retry_from_failure=True
        )
        begun = time.time()
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context(ti, operator))
        assert operator.execution_id == first
        assert deferred.value.trigger.end_time >= begun + 1000


def test_what_an_orphan_has_started_beside_its_retry_is_cancelled(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    ti.try_number = 2
    operator = make(workflow, ti)
    start = operator._start
    orphans: list[str] = []

    def late(context: Any) -> Any:
        orphans.append(project.run(workflow, metadata={"airflow_run_key": run_key(ti)}))
        return start(context)

    operator._start = late  # type: ignore[method-assign]
    execution_id = operator.execute(context(ti, operator))
    assert project.execution(orphans[0])["status"] == "TERMINATED"
    assert project.execution(execution_id)["status"] == "RUNNING"


@pytest.mark.parametrize("cancel_on_timeout", [True, False])
def test_a_budget_that_is_used_up_is_not_begun_again_unless_the_execution_was_left_to_go_on(
    project: Project, workflow: str, ti: FakeTaskInstance, cancel_on_timeout: bool
) -> None:
    first = run(workflow, ti)
    time.sleep(0.3)
    ti.try_number = 2
    operator = make(
        workflow,
        ti,
        wait_for_completion=True,
        deferrable=True,
        timeout=0.2,
        cancel_on_timeout=cancel_on_timeout,
    )
    if cancel_on_timeout:
        with pytest.raises(CdfTimeoutError, match=f"Execution {first} was cancelled"):
            operator.execute(context(ti, operator))
    else:
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context(ti, operator))
        assert deferred.value.trigger.end_time > time.time() - 1


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

    def fail_for_good(self, operator: Any, ti: FakeTaskInstance, error: type[BaseException]) -> None:
        """Let an operator fail, and run its failure callbacks as Airflow does, in the same process."""
        with pytest.raises(error) as caught:
            operator.execute(context(ti, operator))
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
        monkeypatch.setattr(conversations, "SUBMIT_WITHIN", 0.0)
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

    def test_airflows_execution_timeout_during_the_start_leaves_nothing_running(
        self,
        cdf: CdfEmulator,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        operator = make(workflow, ti)

        def interrupted(*_: Any, **__: Any) -> Any:
            project.run(workflow, metadata={"airflow_run_key": run_key(ti)})
            raise AirflowTaskTimeout

        monkeypatch.setattr(operator.hook, "run_workflow", interrupted)
        self.fail_for_good(operator, ti, AirflowTaskTimeout)
        assert statuses(project, workflow) == ["TERMINATED"]

    def test_a_last_try_that_could_start_nothing_leaves_nothing_of_the_try_before(
        self, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        execution_id = run(workflow, ti)
        ti.try_number = 2
        cdf.faults.add("POST", "*/executions/list", status=403)
        self.fail_for_good(make(workflow, ti), ti, CdfRefusedError)
        assert project.execution(execution_id)["status"] == "TERMINATED"

    def test_of_several_only_the_own_one_where_it_is_known(
        self, project: Project, workflow: str, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # That of another process of the task, which may be in the middle of going on with it.
        another = project.run(workflow, metadata={"airflow_run_key": run_key(ti)})
        monkeypatch.setattr(ti, "xcom_push", _raise_runtime_error, raising=False)
        operator = make(workflow, ti)
        self.fail_for_good(operator, ti, RuntimeError)
        assert project.execution(str(operator.execution_id))["status"] == "TERMINATED"
        assert project.execution(another)["status"] == "RUNNING"

    def test_what_could_not_be_cancelled_when_its_time_was_over_is_tried_again(
        self, cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        cdf.faults.add("POST", "*/cancel", status=403)
        operator = make(workflow, ti, wait_for_completion=True, timeout=0.001)
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
        metadata = {"airflow_run_key": run_key(ti)}
        for _ in range(2):
            project.run(workflow, metadata=metadata)
        _, fresh = self.orphan(workflow, ti)
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

    def test_of_a_mapped_task_too_only_what_is_needed_must_be_renderable(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        unrenderable = {"a": "{{ nothing.of_that_kind }}"}
        first = replace(ti, map_index=0)
        to_cancel, to_report = run(workflow, first), run(workflow, replace(first, run_id="another"))
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
        report_failure(context(FakeTaskInstance(task_id="report"), fresh))
        task = project.task(execution_id, "approve", "FAILED_WITH_TERMINAL_ERROR")
        assert [one["task_id"] for one in task["output"]["airflow"]["failed_tasks"]] == ["report"]

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
