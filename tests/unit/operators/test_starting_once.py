"""One logical run of the Airflow task is one execution: retries, clears, and other Airflows."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from operator_support import (
    Store,
    context,
    end,
    end_badly,
    key,
    make,
    run,
    statuses,
    when_sending,
)
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.cdf import clock, submitting
from airflow_provider_cdf.cdf.errors import CdfAnswerError, CdfError, CdfSessionError, CdfTimeoutError
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.operators import notes, starts
from airflow_provider_cdf.operators.cancelling import TASK_HAS_DIED, TASK_WAS_KILLED
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator, cancel_orphan

pytestmark = pytest.mark.usefixtures("cdf_default")


@pytest.fixture
def workflow(project: Project) -> str:
    """A workflow whose only task waits for a report."""
    return project.define(function_task("approve", waits=True))


def another_version(project: Project, workflow: str) -> None:
    definition = {"tasks": [function_task("approve", waits=True)]}
    item = {"workflowExternalId": workflow, "version": "2", "workflowDefinition": definition}
    project.post("/workflows/versions", {"items": [item]})


def retry(project: Project, execution_id: str) -> None:
    """Retry an execution as a person does in Fusion."""
    nonce = project.nonce()
    project.post(f"/workflows/executions/{execution_id}/retry", {"authentication": {"nonce": nonce}})


def sent(cdf: CdfEmulator, work: Callable[[], Any]) -> list[str]:
    """Return what some work has sent to CDF, by the ends of the paths."""
    before = len(cdf.journal.requests("*", "*/projects/*"))
    work()
    return [request.path.rsplit("/", 1)[-1] for request in cdf.journal.requests("*", "*/projects/*")][before:]


def test_a_first_try_costs_no_extra_call(cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance) -> None:
    assert sent(cdf, lambda: run(workflow, ti, store=Store())) == ["sessions", "run"]


@pytest.mark.parametrize("fault", [{"status": 503}, {"spoil": "not-json"}], ids=str)
def test_a_session_that_could_not_be_made_is_no_start_that_a_retry_waits_for(
    cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance, fault: dict[str, Any]
) -> None:
    store = Store()
    cdf.faults.add("POST", "*/sessions", **fault)
    with pytest.raises(CdfSessionError):
        run(workflow, ti, store=store)
    assert sent(cdf, lambda: run(workflow, ti, store=store)) == ["sessions", "run"]


def test_without_a_store_every_start_is_looked_up(
    cdf: CdfEmulator, workflow: str, ti: FakeTaskInstance
) -> None:
    # Airflow below 3.3 tells a first try from one that it starts twice as little as a newer one.
    paths = sent(cdf, lambda: run(workflow, ti))
    assert [path for path in paths if path != "list"] == ["sessions", "run"]
    assert paths[0] == paths[-1] == "list"


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


def test_what_was_started_before_an_upgrade_to_an_airflow_with_a_store_is_found(
    cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "NONCE_DEAD_AFTER", 3600.0)
    first = run(workflow, ti)
    ti.try_number = 2
    assert run(workflow, ti, store=Store()) == first
    # And cancelled where the task is cleared after the upgrade.
    ti.try_number, ti.max_tries = 3, 2
    assert run(workflow, ti, store=Store(), clears=1) != first
    assert project.execution(first)["status"] == "TERMINATED"


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_an_edit_of_retries_between_two_tries_makes_no_second_run(
    workflow: str, ti: FakeTaskInstance, retries: int
) -> None:
    store, ti.max_tries = Store(), 3
    first = run(workflow, ti, store=store, retries=3)
    for ti.try_number in (2, 3, 4):
        assert run(workflow, ti, store=store, retries=retries) == first


@pytest.mark.parametrize("has_store", [True, False], ids=["with a store", "without"])
def test_a_cleared_task_starts_a_new_execution_and_cancels_the_old_one(
    project: Project, workflow: str, ti: FakeTaskInstance, has_store: bool
) -> None:
    store = Store() if has_store else None
    first = run(workflow, ti, store=store)
    ti.try_number, ti.max_tries = 2, 1  # what Airflow makes of a clear
    second = run(workflow, ti, store=store, clears=1)
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
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    store, ti.max_tries = Store(), 3
    end(project, first := run(workflow, ti, store=store, retries=3))
    ti.try_number = 2  # and max_tries becomes 1 + 2
    second = run(workflow, ti, store=store, clears=1, retries=2)
    assert second != first
    # Its process dies, and Airflow makes another try.
    ti.try_number = 3
    assert run(workflow, ti, store=store, clears=1, retries=2) == second
    assert statuses(project, workflow) == ["COMPLETED", "RUNNING"]


def test_a_clear_of_another_task_of_the_dag_run_is_none_of_this_one(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    store, ti.max_tries = Store(), 2
    first = run(workflow, ti, store=store, retries=2)
    for ti.try_number in (2, 3):
        assert run(workflow, ti, store=store, clears=1, retries=2) == first


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
    monkeypatch.setattr(submitting, "NONCE_DEAD_AFTER", 2.0)
    metadata = {"airflow_run_key": key(ti), "airflow_submit_id": f"{ti.id}.1.late"}
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
    monkeypatch.setattr(submitting, "NONCE_DEAD_AFTER", 3600.0)
    end_badly(project, run(workflow, ti))
    ti.try_number = 2
    assert run(workflow, ti)


class TestWhatAirflowHasNoted:
    """Airflow 3.3 keeps which try has begun to start an execution."""

    @pytest.fixture(autouse=True)
    def endless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever is waited for would take an hour."""
        monkeypatch.setattr(submitting, "NONCE_DEAD_AFTER", 3600.0)

    def test_is_noted_before_anything_is_sent(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        store = Store()
        store.is_of_an_orphan = True
        with pytest.raises(CdfError, match="takes no note from this process"):
            run(workflow, ti, store=store)
        assert project.executions(workflow) == []

    def test_a_retry_of_a_try_that_has_sent_nothing_waits_for_nothing(
        self, workflow: str, ti: FakeTaskInstance
    ) -> None:
        ti.try_number = 2
        assert run(workflow, ti, store=Store())

    def test_a_retry_of_a_try_that_only_went_on_waits_for_nothing(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        store = Store()
        first = run(workflow, ti, store=store)
        ti.try_number = 2
        assert run(workflow, ti, store=store) == first
        end_badly(project, first)
        ti.try_number = 3
        assert run(workflow, ti, store=store) != first

    def test_a_request_that_an_earlier_try_may_have_under_way_is_waited_for(
        self, project: Project, workflow: str, ti: FakeTaskInstance
    ) -> None:
        store, submit_id = Store(), f"{ti.id}.1.late"
        store["cdf_submissions"] = [
            {"submit_id": submit_id, "try_number": 1, "max_tries": ti.max_tries, "clears": 0}
        ]
        metadata = {"airflow_run_key": key(ti), "airflow_submit_id": submit_id}
        ti.try_number = 3  # try 2 died while it waited, too
        operator = make(workflow, ti)
        when_sending(operator, "list", lambda: project.run(workflow, metadata=metadata), after=True)
        execution_id = operator.execute(context(ti, operator, store=store))
        (only,) = project.executions(workflow)
        assert only["id"] == execution_id

    @pytest.mark.parametrize("what_ends_it", ["success", "a clear"])
    def test_what_airflow_has_forgotten_is_found_by_its_key(
        self,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        monkeypatch: pytest.MonkeyPatch,
        what_ends_it: str,
    ) -> None:
        # [state_store] clear_on_success, and Airflow 3.4, which empties the store at a clear.
        first = run(workflow, ti, store=Store())
        if what_ends_it == "success":
            monkeypatch.setenv("AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS", "True")
        else:
            monkeypatch.setattr(notes, "CLEAR_EMPTIES_STORE", True)
        ti.try_number, ti.max_tries = 2, 1
        assert run(workflow, ti, store=Store(), clears=1) != first
        assert project.execution(first)["status"] == "TERMINATED"

    @pytest.mark.parametrize(
        ("reason", "error"),
        [
            (TASK_WAS_KILLED, "takes no note from this process"),
            (TASK_HAS_DIED, "The Airflow task that waited for it has died"),
        ],
    )
    def test_an_orphan_does_not_start_again_what_was_cancelled_as_its_task_died(
        self, project: Project, workflow: str, ti: FakeTaskInstance, reason: str, error: str
    ) -> None:
        store = Store()
        operator = make(workflow, ti, wait_for_completion=True)
        store_id = operator._store

        def dies(*arguments: Any) -> None:
            store_id(*arguments)
            project.cancel(str(operator.execution_id), reason)
            store.is_of_an_orphan = True

        operator._store = dies  # type: ignore[method-assign]
        with pytest.raises(CdfError, match=error):
            operator.execute(context(ti, operator, store=store))
        assert statuses(project, workflow) == ["TERMINATED"]


def test_what_has_ended_is_not_cancelled(
    cdf: CdfEmulator, project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    end_badly(project, run(workflow, ti))
    before = cdf.journal.count("POST", "*/cancel")
    ti.try_number, ti.max_tries = 2, 1
    run(workflow, ti)
    assert cdf.journal.count("POST", "*/cancel") == before


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


def test_of_two_that_were_started_in_the_same_moment_the_older_one_stays(
    project: Project, workflow: str, ti: FakeTaskInstance
) -> None:
    """The process of an earlier try has gone on as an orphan."""
    orphans: list[str] = []

    def starts_too() -> None:
        metadata = {"airflow_run_key": key(ti), "airflow_submit_id": f"{ti.uuid}-1.1.orphan"}
        orphans.append(project.run(workflow, metadata=metadata))
        time.sleep(0.01)  # the age is one of milliseconds

    ti.try_number = 2
    operator = make(workflow, ti)
    when_sending(operator, "run", starts_too)
    assert operator.execute(context(ti, operator)) == orphans[0]
    assert statuses(project, workflow) == ["RUNNING", "TERMINATED"]
    assert project.execution(orphans[0])["status"] == "RUNNING"


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
        with pytest.raises(CdfTimeoutError, match=rf"The execution was cancelled\. \[execution {first}"):
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
    monkeypatch.setattr(starts, "LOOK_AGAIN_AFTER", 0.6)
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


@pytest.mark.parametrize(
    "created", [0, round(time.time()), 10**14, -(10**14)], ids=["0", "seconds", "far", "long ago"]
)
def test_a_date_that_cannot_be_true_ends_no_healthy_execution(
    project: Project,
    workflow: str,
    ti: FakeTaskInstance,
    created: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("operator under test")
    monkeypatch.setattr(CdfWorkflowRunOperator, "log", logger)
    run(workflow, ti)
    ti.try_number = 2
    operator = make(workflow, ti, wait_for_completion=True, deferrable=True, timeout=3600)
    listing_as(operator, {"createdTime": created})
    began = time.time()
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context(ti, operator))
    assert began + 3600 <= deferred.value.trigger.end_time <= time.time() + 3600
    assert caplog.text.count("CDF dates the execution as no execution of this task can be") == 1
    assert statuses(project, workflow) == ["RUNNING"]


def listing_as(operator: CdfWorkflowRunOperator, change: dict[str, Any]) -> None:
    """Let CDF list executions to an operator with some fields changed."""
    client = operator.hook.client
    send = client.send

    def sending(call: Any, **options: Any) -> Any:
        answer = send(call, **options)
        if not call.path.endswith("/list"):
            return answer
        items = [{**one.model_dump(by_alias=True), **change} for one in answer.items]
        return call.answer.model_validate({"items": items})

    client.send = sending  # type: ignore[method-assign]


@pytest.mark.parametrize("has_store", [True, False], ids=["with a store", "without"])
@pytest.mark.parametrize("change", [{"status": None}, {"id": "no-uuid"}], ids=["status", "id"])
def test_a_retry_starts_nothing_where_a_list_cannot_be_read_as_a_whole(
    project: Project, workflow: str, ti: FakeTaskInstance, has_store: bool, change: dict[str, Any]
) -> None:
    store, ti.max_tries = Store() if has_store else None, 2
    first = run(workflow, ti, store=store)
    ti.try_number = 2
    operator = make(workflow, ti)
    listing_as(operator, change)
    with pytest.raises(CdfAnswerError, match="An execution of an earlier try may still run in CDF"):
        operator.execute(context(ti, operator, store=store))
    assert statuses(project, workflow) == ["RUNNING"]
    ti.try_number = 3
    if has_store:
        assert run(workflow, ti, store=store) == first


class TestOtherAirflows:
    """Staging and production, or blue and green: the same DAGs on one CDF project, with the same ids."""

    @pytest.fixture(params=[True, False], ids=["with a store", "without"])
    def has_store(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param)

    @pytest.fixture(params=[True, False], ids=["with names", "without"])
    def names(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param)

    @pytest.fixture
    def of(self, names: bool, has_store: bool, connect: Callable[..., None]) -> Callable[..., Any]:
        stores: dict[str, Store] = {}

        def start(airflow: str, workflow: str, ti: FakeTaskInstance, **arguments: Any) -> Any:
            connect({"airflow_name": airflow} if names else {})
            store = stores.setdefault(airflow, Store()) if has_store else None
            return run(workflow, ti, store=store, **arguments)

        return start

    @pytest.fixture
    def others(self, ti: FakeTaskInstance) -> FakeTaskInstance:
        """The same task of the same DAG run, in another Airflow."""
        return replace(ti, uuid=str(uuid.uuid4()), run_began=datetime.now(UTC), xcoms={})

    @pytest.mark.parametrize("has_ended", [True, False], ids=["completed", "running"])
    def test_a_first_try_leaves_it_alone(
        self,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        others: FakeTaskInstance,
        of: Any,
        has_ended: bool,
    ) -> None:
        staging = of("staging", workflow, ti)
        if has_ended:
            end(project, staging)
        assert of("production", workflow, others) != staging
        assert project.execution(staging)["status"] == ("COMPLETED" if has_ended else "RUNNING")

    @pytest.mark.parametrize("has_ended", [True, False], ids=["completed", "running"])
    def test_a_retry_leaves_it_alone(
        self,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        others: FakeTaskInstance,
        of: Any,
        has_ended: bool,
    ) -> None:
        production = of("production", workflow, others)
        end_badly(project, production)
        staging = of("staging", workflow, ti)
        if has_ended:
            end(project, staging)
        others.try_number = 2
        assert of("production", workflow, others) not in (staging, production)
        assert project.execution(staging)["status"] == ("COMPLETED" if has_ended else "RUNNING")

    def test_a_retry_takes_its_own(
        self, workflow: str, ti: FakeTaskInstance, others: FakeTaskInstance, of: Any
    ) -> None:
        production, _ = of("production", workflow, others), of("staging", workflow, ti)
        others.try_number = 2
        assert of("production", workflow, others) == production

    def test_a_clear_cancels_its_own_only(
        self, project: Project, workflow: str, ti: FakeTaskInstance, others: FakeTaskInstance, of: Any
    ) -> None:
        production, staging = of("production", workflow, others), of("staging", workflow, ti)
        others.try_number, others.max_tries = 2, 1
        of("production", workflow, others, clears=1)
        assert project.execution(production)["status"] == "TERMINATED"
        assert project.execution(staging)["status"] == "RUNNING"

    def test_a_last_try_that_died_leaves_it_alone(
        self,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        others: FakeTaskInstance,
        of: Any,
        names: bool,
        connect: Callable[..., None],
    ) -> None:
        production, staging = of("production", workflow, others), of("staging", workflow, ti)
        connect({"airflow_name": "production"} if names else {})
        fresh = make(workflow, others)
        cancel_orphan(context(others, fresh))  # a callback has no store
        assert project.execution(production)["status"] == "TERMINATED"
        assert project.execution(staging)["status"] == "RUNNING"


class TestAClearOfADagRunThatHasEnded:
    """Airflow gives the DAG run another start, by which two Airflows are told apart that have no names."""

    @pytest.fixture(autouse=True)
    def endless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever is waited for would take an hour."""
        monkeypatch.setattr(submitting, "NONCE_DEAD_AFTER", 3600.0)

    @pytest.mark.parametrize("is_named", [True, False], ids=["with a name", "without"])
    @pytest.mark.parametrize("has_ended", [True, False], ids=["completed", "running"])
    def test_holds_up_nothing_and_names_what_goes_on(
        self,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        connect: Callable[..., None],
        caplog: pytest.LogCaptureFixture,
        is_named: bool,
        has_ended: bool,
    ) -> None:
        connect({"airflow_name": "production"} if is_named else {})
        first = run(workflow, ti)
        if has_ended:
            end(project, first)
        cleared = replace(ti, run_began=datetime.now(UTC), xcoms={}, try_number=2, max_tries=1)
        with caplog.at_level(logging.WARNING, "airflow_provider_cdf"):
            assert run(workflow, cleared) != first
        status = "COMPLETED" if has_ended else "TERMINATED" if is_named else "RUNNING"
        assert project.execution(first)["status"] == status
        assert (f"[execution {first}]" in caplog.text) == (status == "RUNNING")

    def test_is_waited_for_where_nothing_of_the_try_before_is_listed(
        self, workflow: str, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[float] = []
        monkeypatch.setattr(submitting, "NONCE_DEAD_AFTER", 0.2)
        monkeypatch.setattr("airflow_provider_cdf.cdf.clock.sleep", waits.append)
        monkeypatch.setattr(starts, "LOOK_AGAIN_AFTER", 0.3)
        ti.try_number, ti.max_tries = 2, 1
        run(workflow, ti)
        assert waits


class TestWithoutAStore:
    """A try that went on with an older execution has started nothing."""

    @pytest.fixture(autouse=True)
    def endless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever is waited for would take an hour."""
        monkeypatch.setattr(submitting, "NONCE_DEAD_AFTER", 3600.0)

    def test_a_retry_after_such_a_try_waits_for_nothing(self, workflow: str, ti: FakeTaskInstance) -> None:
        first = run(workflow, ti)
        for ti.try_number in (2, 3):
            assert run(workflow, ti) == first

    @pytest.mark.parametrize("has_ended", [True, False], ids=["completed", "running"])
    def test_what_was_started_before_a_clear_says_nothing_of_the_tries_after_it(
        self,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        monkeypatch: pytest.MonkeyPatch,
        has_ended: bool,
    ) -> None:
        ti.max_tries = 2
        first = run(workflow, ti, retries=2)
        if has_ended:
            end(project, first)
        # Cleared. The next try dies while CDF takes its request, and another one follows.
        ti.max_tries = 3
        late = {"airflow_run_key": key(ti), "airflow_submit_id": f"{ti.id}.2.late"}
        ti.try_number = 3
        monkeypatch.setattr(clock, "sleep", lambda seconds: project.run(workflow, metadata=late))
        found = run(workflow, ti, retries=2)
        assert project.execution(found)["metadata"] == late

    @pytest.mark.parametrize("has_ended", [True, False], ids=["completed", "running"])
    def test_nor_does_a_clear_after_it(
        self, project: Project, workflow: str, ti: FakeTaskInstance, has_ended: bool
    ) -> None:
        first = run(workflow, ti)
        ti.try_number = 2
        assert run(workflow, ti) == first
        if has_ended:
            end(project, first)
        ti.try_number, ti.max_tries = 3, 2
        assert run(workflow, ti) != first


class TestADagRunThatWasMadeAgain:
    """A DAG run that was deleted and made again has the ids of the old one."""

    @pytest.mark.parametrize("has_store", [True, False], ids=["with a store", "without"])
    @pytest.mark.parametrize("try_number", [1, 2])
    @pytest.mark.parametrize("has_completed", [True, False], ids=["completed", "running"])
    def test_does_not_take_what_the_old_one_has_left(
        self,
        project: Project,
        workflow: str,
        ti: FakeTaskInstance,
        has_completed: bool,
        try_number: int,
        has_store: bool,
    ) -> None:
        old = run(workflow, ti)
        if has_completed:
            end(project, old)
        again = replace(
            ti, uuid=str(uuid.uuid4()), run_began=datetime.now(UTC), xcoms={}, try_number=try_number
        )
        new = run(workflow, again, store=Store() if has_store else None)
        assert new != old
        # It might be another Airflow's.
        assert project.execution(old)["status"] == ("COMPLETED" if has_completed else "RUNNING")

    def test_cancels_what_still_runs_where_the_connection_names_this_airflow(
        self, project: Project, workflow: str, ti: FakeTaskInstance, connect: Callable[..., None]
    ) -> None:
        connect({"airflow_name": "production"})
        old = run(workflow, ti)
        again = replace(ti, uuid=str(uuid.uuid4()), run_began=datetime.now(UTC), xcoms={})
        run(workflow, again)
        assert project.execution(old)["status"] == "TERMINATED"
