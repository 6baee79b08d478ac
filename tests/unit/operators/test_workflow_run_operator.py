"""CdfWorkflowRunOperator against the emulator."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import os
import pickle
import signal
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from operator_support import Store, context, end_badly, wait_until, when_sending
from operator_support import key as key_of
from support import FakeTaskInstance, Project, broken, first_event, function_task, run_to_end

from airflow_provider_cdf import task_state, waiting
from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.errors import (
    CdfError,
    CdfExecutionFailedError,
    CdfInputError,
    CdfOutputMissingError,
    CdfTimeoutError,
)
from airflow_provider_cdf.emulator import CdfEmulator, Reply
from airflow_provider_cdf.operators import cancelling
from airflow_provider_cdf.operators.cancelling import TASK_WAS_KILLED
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor

pytestmark = pytest.mark.usefixtures("cdf_default")


def make(workflow: str, **arguments: Any) -> CdfWorkflowRunOperator:
    defaults: dict[str, Any] = {
        "task_id": "run",
        "workflow_external_id": workflow,
        "version": "1",
        "input": {"pump": "P-101"},
        "poll_interval": 0.05,
    }
    return CdfWorkflowRunOperator(**{**defaults, **arguments})


def rendered(workflow: str, **values: Any) -> CdfWorkflowRunOperator:
    """Make an operator whose fields have come from templates, where a DAG file shows nothing of them."""
    operator = make(workflow)
    for name, value in values.items():
        setattr(operator, name, value)
    return operator


def test_waits_until_the_execution_is_completed_and_returns_its_id(
    project: Project, ti: FakeTaskInstance, deferrable: bool
) -> None:
    workflow = project.define(function_task("score"))

    execution_id = run_to_end(make(workflow, deferrable=deferrable), context(ti))

    (execution,) = project.executions(workflow)
    assert execution["id"] == execution_id
    assert execution["status"] == "COMPLETED"


def test_without_waiting_returns_the_id_of_a_running_execution(
    project: Project, ti: FakeTaskInstance, deferrable: bool
) -> None:
    workflow = project.define(function_task("approve", waits=True))

    execution_id = make(workflow, wait_for_completion=False, deferrable=deferrable).execute(context(ti))

    assert project.execution(execution_id)["status"] == "RUNNING"


def test_deferrable_defers_after_the_start_and_not_on_the_worker(
    project: Project, ti: FakeTaskInstance
) -> None:
    workflow = project.define(function_task("approve", waits=True))

    with pytest.raises(TaskDeferred):
        make(workflow, deferrable=True).execute(context(ti))

    (execution,) = project.executions(workflow)
    assert execution["status"] == "RUNNING"


def test_an_execution_that_is_over_at_the_first_look_does_not_defer(
    cdf: CdfEmulator, project: Project, ti: FakeTaskInstance
) -> None:
    # An execution without tasks has ended by the time its run is answered.
    workflow = project.define()

    execution_id = make(workflow, deferrable=True).execute(context(ti))

    assert project.execution(execution_id)["status"] == "COMPLETED"


def test_defers_with_a_timeout_of_airflow_as_backstop_where_there_is_a_timeout(
    project: Project, ti: FakeTaskInstance
) -> None:
    workflow = project.define(function_task("approve", waits=True))

    with pytest.raises(TaskDeferred) as deferred:
        make(workflow, deferrable=True, timeout=60).execute(context(ti))

    assert deferred.value.timeout is not None
    assert deferred.value.timeout.total_seconds() > 60


def test_the_input_arrives_at_the_tasks(project: Project, ti: FakeTaskInstance, deferrable: bool) -> None:
    workflow = project.define(function_task("score"))

    execution_id = run_to_end(make(workflow, input={"pump": "P-77"}, deferrable=deferrable), context(ti))

    task = project.task(execution_id, "score", "COMPLETED")
    assert task["input"]["function"]["data"] == {"pump": "P-77"}


def test_runs_without_input(project: Project, ti: FakeTaskInstance) -> None:
    workflow = project.define(function_task("score"))

    execution_id = make(workflow, input=None).execute(context(ti))

    assert project.execution(execution_id)["status"] == "COMPLETED"


def test_runs_the_version_that_was_asked_for(project: Project, ti: FakeTaskInstance) -> None:
    workflow = project.define(function_task("score"), version="v2/beta")

    execution_id = make(workflow, version="v2/beta").execute(context(ti))

    assert project.execution(execution_id)["version"] == "v2/beta"


def test_the_id_is_an_xcom_as_soon_as_the_run_is_accepted(project: Project, ti: FakeTaskInstance) -> None:
    workflow = project.define(function_task("approve", waits=True))

    with pytest.raises(TaskDeferred):
        make(workflow, deferrable=True).execute(context(ti))

    (execution,) = project.executions(workflow)
    assert ti.xcoms["execution_id"] == execution["id"]


def test_polls_every_10_seconds_and_forever_unless_told_otherwise(project: Project) -> None:
    operator = CdfWorkflowRunOperator(task_id="run", workflow_external_id="pumps", version="1")

    assert operator.poll_interval == 10
    assert operator.timeout is None
    assert operator.wait_for_completion
    assert operator.cancel_on_kill
    assert operator.cancel_on_timeout
    assert not operator.deferrable


@pytest.mark.parametrize(
    "name", ["workflow_external_id", "version", "input", "metadata", "task_outputs", "cdf_conn_id"]
)
def test_is_templated(name: str) -> None:
    assert name in CdfWorkflowRunOperator.template_fields


def fire(trigger: Any) -> Any:
    return asyncio.run(first_event(trigger))


def run_into_an_error(operator: CdfWorkflowRunOperator, ti: FakeTaskInstance, store: Any = None) -> None:
    with pytest.raises(AirflowException):
        operator.execute(context(ti, store=store))


class TestMetadata:
    def submit(self, project: Project, ti: FakeTaskInstance, metadata: Any = None) -> dict[str, str]:
        """Start a workflow of its own and return the metadata that CDF has got."""
        workflow = project.define(function_task("approve", waits=True))
        make(workflow, metadata=metadata, wait_for_completion=False).execute(context(ti))
        (execution,) = project.executions(workflow)
        metadata = execution["metadata"]
        assert isinstance(metadata, dict)
        return metadata

    def test_says_who_started_the_run(self, project: Project) -> None:
        ti = FakeTaskInstance(dag_id="plant", run_id="scheduled__1", task_id="start")

        metadata = self.submit(project, ti)

        assert metadata.keys() == {
            "airflow_run_key",
            "airflow_submit_id",
            "airflow_try_number",
            "airflow_dag_id",
            "airflow_run_id",
            "airflow_task_id",
        }
        assert metadata["airflow_dag_id"] == "plant"
        assert metadata["airflow_run_id"] == "scheduled__1"
        assert metadata["airflow_task_id"] == "start"

    def test_the_run_key_is_the_same_whatever_the_try(self, project: Project) -> None:
        ti = FakeTaskInstance(max_tries=3, try_number=1)

        key = self.submit(project, ti)["airflow_run_key"]

        assert key_of(dataclasses.replace(ti, try_number=3)) == key

    @pytest.mark.parametrize(
        "change",
        [
            {"dag_id": "other"},
            {"run_id": "manual__2"},
            {"task_id": "other"},
            {"map_index": 0},
            {"max_tries": 4},
            {"run_began": datetime.now(UTC) + timedelta(microseconds=1)},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_the_run_key_is_another_one_for_another(self, change: dict[str, Any], project: Project) -> None:
        ti = FakeTaskInstance(max_tries=3)

        key = self.submit(project, ti)["airflow_run_key"]

        other = dataclasses.replace(ti, uuid=str(uuid.uuid4()), **change)
        assert self.submit(project, other)["airflow_run_key"] != key

    def test_the_parts_of_the_run_key_do_not_run_into_each_other(self, project: Project) -> None:
        one = self.submit(project, FakeTaskInstance(dag_id="a", run_id="bc", task_id="d"))
        other = self.submit(project, FakeTaskInstance(dag_id="ab", run_id="c", task_id="d"))

        assert one["airflow_run_key"] != other["airflow_run_key"]

    def test_the_run_key_is_another_one_for_another_airflow_that_has_a_name(
        self, project: Project, ti: FakeTaskInstance, connect: Callable[..., None]
    ) -> None:
        connect({"airflow_name": "staging"})

        key = self.submit(project, ti)["airflow_run_key"]

        assert key == key_of(ti, "staging")
        assert key not in (key_of(ti), key_of(ti, "production"))

    def test_every_submission_has_an_id_of_its_own(self, project: Project, ti: FakeTaskInstance) -> None:
        workflow = project.define(function_task("approve", waits=True))
        store = Store()
        for ti.try_number in (1, 2, 3):
            operator = make(workflow, wait_for_completion=False)
            end_badly(project, operator.execute(context(ti, store=store)))

        submit_ids = {one["metadata"]["airflow_submit_id"] for one in project.executions(workflow)}
        assert len(submit_ids) == 3
        # By these it is found which try, of which Airflow, has started an execution.
        beginnings = {submit_id.rsplit(".", 1)[0] for submit_id in submit_ids}
        assert beginnings == {f"{ti.uuid}-{number}.{number}" for number in (1, 2, 3)}

    def test_the_users_pairs_are_there_too(self, project: Project, ti: FakeTaskInstance) -> None:
        assert self.submit(project, ti, {"site": "Aukra"})["site"] == "Aukra"

    def test_the_users_metadata_wins_over_the_readable_keys(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        metadata = self.submit(project, ti, {"airflow_dag_id": "mine", "airflow_task_id": "mine too"})

        assert metadata["airflow_dag_id"] == "mine"
        assert metadata["airflow_task_id"] == "mine too"
        assert metadata["airflow_run_id"] == ti.run_id

    @pytest.mark.parametrize("key", ["airflow_run_key", "airflow_submit_id"])
    def test_the_users_metadata_cannot_replace_the_keys_that_runs_are_found_by(
        self, key: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        with pytest.raises(AirflowFailException, match=key):
            self.submit(project, ti, {key: "mine"})

    @pytest.mark.parametrize(
        ("pairs", "readable"),
        [
            (4, ["airflow_try_number", "airflow_dag_id", "airflow_run_id", "airflow_task_id"]),
            (6, ["airflow_try_number", "airflow_dag_id"]),
            (7, ["airflow_try_number"]),
            (8, []),
        ],
    )
    def test_readable_keys_take_the_room_that_is_left(
        self, pairs: int, readable: list[str], project: Project, ti: FakeTaskInstance
    ) -> None:
        mine = {f"key{number}": "value" for number in range(pairs)}

        metadata = self.submit(project, ti, mine)

        assert metadata.keys() == {*mine, "airflow_run_key", "airflow_submit_id", *readable}

    def test_the_longest_ids_that_airflow_allows_fit(self, project: Project) -> None:
        ti = FakeTaskInstance(dag_id="d" * 250, run_id="r" * 250, task_id="t" * 250)

        assert self.submit(project, ti)["airflow_dag_id"] == "d" * 250

    @pytest.mark.parametrize(
        ("metadata", "named"),
        [
            ({f"key{number}": "value" for number in range(9)}, "8"),
            ({"k" * 33: "value"}, "32"),
            ({"key": "v" * 256}, "255"),
        ],
        ids=["9 pairs", "long key", "long value"],
    )
    def test_what_cdf_would_not_take_is_refused_before_anything_is_sent(
        self, metadata: Any, named: str, project: Project, ti: FakeTaskInstance, clear: Any
    ) -> None:
        workflow = project.define(function_task("score"))

        with pytest.raises(AirflowFailException) as error:
            rendered(workflow, metadata=metadata).execute(context(ti))

        clear(error.value, named)
        assert project.executions(workflow) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"metadata": {str(number): "x" for number in range(9)}}, "metadata has 9 pairs; 8 is the most"),
        ({"input": ["a", "list"]}, r"input must be a JSON object \(a dict\), not list"),
        ({"input": '{"a": 1}'}, "input must be a JSON object"),
        ({"task_outputs": "score"}, "task_outputs must be a list"),
        ({"version": 1.1}, r"version must be a non-empty string, not 1\.1\. As a number, 1\.10 and 1\.1"),
        ({"version": " "}, "version must be a non-empty string"),
        ({"metadata": {"key": "v" * 256}}, "metadata is too long: the value of key 'key' has 256 characters"),
        ({"metadata": {"key": None}}, "metadata must be strings"),
        ({"poll_interval": 0}, "poll_interval must be a positive number"),
        ({"poll_interval": float("nan")}, "poll_interval must be a positive number"),
        ({"timeout": -1}, "timeout must be a positive number"),
        ({"max_poll_silence": float("inf")}, "max_poll_silence must be a positive number"),
    ],
)
def test_a_mistake_in_a_literal_is_seen_while_the_dag_file_is_read(
    arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        make("w", **arguments)
    if arguments.keys() <= {"metadata", "input", "task_outputs", "version"}:
        with DAG("plant"):
            partial = CdfWorkflowRunOperator.partial(
                task_id="run",
                workflow_external_id="w",
                **({} if "version" in arguments else {"version": "1"}),
            )
            with pytest.raises(ValueError, match=named):
                partial.expand(**{name: [value] for name, value in arguments.items()})


def test_what_a_template_or_another_task_will_give_is_not_judged() -> None:
    with DAG("plant"):
        other = make("other")
        make("w", task_id="a", input="{{ params.input }}", task_outputs="{{ params.names }}")
        make("w", task_id="b", input=other.output, metadata=other.output)


class TestInput:
    def test_of_exactly_100_000_bytes_is_sent(self, project: Project, ti: FakeTaskInstance) -> None:
        workflow = project.define(function_task("approve", waits=True))
        padding = "x" * (100_000 - len('{"a":""}'))

        make(workflow, input={"a": padding}, wait_for_completion=False).execute(context(ti))

        assert len(project.executions(workflow)) == 1

    @pytest.mark.parametrize(
        ("value", "named"),
        [
            ({"a": "x" * 100_000}, ["100008", "100000"]),
            ({"a": "å" * 50_000}, ["100008", "100000"]),
        ],
        ids=["ascii", "other letters"],
    )
    def test_over_100_000_bytes_is_refused_before_anything_is_sent(
        self, value: Any, named: list[str], project: Project, ti: FakeTaskInstance, clear: Any
    ) -> None:
        workflow = project.define(function_task("score"))

        with pytest.raises(AirflowFailException) as error:
            make(workflow, input=value).execute(context(ti))

        digits = clear(error.value).replace(" ", "").replace(",", "").replace("_", "")
        for number in named:
            assert number in digits
        assert project.executions(workflow) == []

    @pytest.mark.parametrize(
        "value",
        [{"a": float("nan")}, {"a": {1, 2}}, {"a": object()}, ["a", "list"]],
        ids=["NaN", "set", "object", "list"],
    )
    def test_that_is_no_json_object_is_refused_before_anything_is_sent(
        self, value: Any, project: Project, ti: FakeTaskInstance, clear: Any
    ) -> None:
        workflow = project.define(function_task("score"))

        with pytest.raises(AirflowFailException) as error:
            rendered(workflow, input=value).execute(context(ti))

        clear(error.value, "input")
        assert project.executions(workflow) == []


class TestTaskOutputs:
    def test_are_pushed_by_external_id(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        cdf.set_function("outputs-score", Reply({"risk": 0.72}))
        workflow = project.define(
            function_task("outputs-score"), function_task("b"), function_task("not asked for")
        )

        run_to_end(make(workflow, task_outputs=["outputs-score", "b"], deferrable=deferrable), context(ti))

        outputs = ti.xcoms["task_outputs"]
        assert outputs.keys() == {"outputs-score", "b"}
        assert outputs["outputs-score"]["response"] == {"risk": 0.72}

    def test_that_are_no_list_are_refused_before_anything_is_sent(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow = project.define(function_task("score"))
        with pytest.raises(CdfInputError, match="task_outputs must be a list"):
            rendered(workflow, task_outputs="score").execute(context(ti))
        assert project.executions(workflow) == []

    def test_of_a_child_that_several_tasks_have_are_refused_with_another_way(
        self, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        child = {"tasks": [function_task("child")]}
        workflow = project.define(
            *(
                {"externalId": name, "type": "subworkflow", "parameters": {"subworkflow": child}}
                for name in ("north", "south")
            )
        )
        operator = make(workflow, task_outputs=["child"], wait_for_completion=True, deferrable=deferrable)
        with pytest.raises(CdfOutputMissingError, match=r"'child'.* is COMPLETED\..*CdfTaskSensor") as caught:
            run_to_end(operator, context(ti))
        assert "Set parent_task_external_id" not in str(caught.value)
        assert "'north', 'south'" in str(caught.value)

        sensor = CdfTaskSensor(
            task_id="outputs",
            execution_id=str(operator.execution_id),
            task_external_id="child",
            parent_task_external_id="south",
            target_status="COMPLETED",
        )
        sensor.execute(context(ti, sensor))
        assert "output" in ti.xcoms

    def test_are_not_pushed_where_nobody_asked(self, project: Project, ti: FakeTaskInstance) -> None:
        make(project.define(function_task("score"))).execute(context(ti))

        assert "task_outputs" not in ti.xcoms

    @pytest.mark.parametrize("reported_while", ["IN_PROGRESS", "SCHEDULED"])
    def test_of_a_retried_task_are_those_of_its_last_attempt(
        self, reported_while: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow = project.define(function_task("approve", waits=True, retries=1))
        operator = make(workflow, task_outputs=["approve"])
        with pytest.raises(TaskDeferred) as deferred:
            make(workflow, task_outputs=["approve"], deferrable=True).execute(context(ti))
        (execution,) = project.executions(workflow)
        first = project.task(execution["id"], "approve")
        project.update(first["id"], "FAILED", {"attempt": 1})
        second = project.task(execution["id"], "approve", reported_while)
        project.update(second["id"], "COMPLETED", {"attempt": 2})

        operator.resume_execution(
            deferred.value.method_name, {"event": fire(deferred.value.trigger)}, context(ti)
        )

        assert ti.xcoms["task_outputs"]["approve"]["attempt"] == 2


class TestBadEnd:
    def test_names_the_failed_task_its_status_and_its_reason(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance, deferrable: bool, clear: Any
    ) -> None:
        cdf.set_function("explodes", Reply(error="the pump curve is missing"))
        workflow = project.define(function_task("explodes"), function_task("approve", waits=True))

        with pytest.raises(CdfError) as error:
            run_to_end(make(workflow, deferrable=deferrable), context(ti))

        (execution,) = project.executions(workflow)
        clear(error.value, execution["id"], workflow, "explodes", "FAILED", "the pump curve is missing")

    def test_names_every_failed_task(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance, deferrable: bool, clear: Any
    ) -> None:
        workflow = project.define(
            function_task("a", waits=True), function_task("b", waits=True), function_task("c", waits=True)
        )
        operator = make(workflow, deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context(ti))
        (execution,) = project.executions(workflow)
        task = project.task(execution["id"], "a")
        project.update(task["id"], "FAILED_WITH_TERMINAL_ERROR")
        with cdf.turn() as engine:
            for other in engine.execution(execution["id"]).tasks():
                if other.external_id == "b":
                    other.status, other.reason = "TIMED_OUT", "The task took longer than 100 s"

        with pytest.raises(CdfError) as error:
            operator.resume_execution(
                deferred.value.method_name, {"event": fire(deferred.value.trigger)}, context(ti)
            )

        message = clear(error.value, "a", "FAILED_WITH_TERMINAL_ERROR", "b", "TIMED_OUT", "longer than 100 s")
        assert "c" not in [word.strip("'\"`") for word in message.split()]

    def test_says_that_somebody_cancelled_it_and_why(
        self, project: Project, ti: FakeTaskInstance, deferrable: bool, clear: Any
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))

        def cancel() -> None:
            (execution,) = wait_until(lambda: project.executions(workflow))
            project.cancel(execution["id"], "Anna stopped it in Fusion")

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(CdfError) as error:
            run_to_end(make(workflow, deferrable=deferrable), context(ti))
        thread.join()

        clear(error.value, "TERMINATED", "Anna stopped it in Fusion")

    def test_may_be_retried_by_airflow(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance
    ) -> None:
        cdf.set_function("explodes", Reply(error="no"))

        with pytest.raises(CdfError) as error:
            make(project.define(function_task("explodes"))).execute(context(ti))

        assert not isinstance(error.value, AirflowFailException)

    def test_a_task_that_may_fail_does_not_fail_the_run(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance, deferrable: bool
    ) -> None:
        cdf.set_function("explodes", Reply(error="no"))
        workflow = project.define(function_task("explodes", onFailure="skipTask"))

        assert run_to_end(make(workflow, deferrable=deferrable), context(ti))


def test_defers_only_when_cdf_knows_the_execution_where_it_is_read(
    cdf: CdfEmulator, project: Project, ti: FakeTaskInstance
) -> None:
    """A trigger would take the third 404 for an answer."""
    operator = make(project.define(function_task("approve", waits=True)), deferrable=True)
    cdf.faults.add("GET", "*/executions/*", status=404, times=4)

    with pytest.raises(TaskDeferred):
        operator.execute(context(ti))

    assert cdf.journal.count("GET", f"*/executions/{operator.execution_id}") == 5


def test_waits_as_long_as_others_until_cdf_knows_the_execution_where_it_is_read(
    cdf: CdfEmulator, project: Project, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    monkeypatch.setattr(clock, "sleep", lambda seconds: now.append(now.pop() + seconds))
    workflow = project.define(function_task("approve", waits=True))
    operator = make(workflow, deferrable=True, poll_interval=10)
    cdf.faults.add("GET", "*/executions/*", status=404, times=6)

    with pytest.raises(TaskDeferred):
        operator.execute(context(ti))

    assert now[0] - 1000 == pytest.approx(waiting.LAG)
    assert cdf.journal.count("GET", f"*/executions/{operator.execution_id}") == 7


class TestTimeout:
    def test_cancels_the_execution(
        self, project: Project, ti: FakeTaskInstance, deferrable: bool, clear: Any
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))

        with pytest.raises(AirflowException) as error:
            run_to_end(make(workflow, deferrable=deferrable, timeout=0.1), context(ti))

        (execution,) = project.executions(workflow)
        assert execution["status"] == "TERMINATED"
        clear(error.value, execution["id"])

    def test_leaves_the_execution_alone_where_told_to(
        self, project: Project, ti: FakeTaskInstance, deferrable: bool, clear: Any
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))

        with pytest.raises(AirflowException) as error:
            run_to_end(
                make(workflow, deferrable=deferrable, timeout=0.1, cancel_on_timeout=False), context(ti)
            )

        (execution,) = project.executions(workflow)
        assert execution["status"] == "RUNNING"
        clear(error.value, execution["id"])

    def test_an_execution_that_completed_while_the_task_waited_to_be_resumed_is_a_success(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))
        operator = make(workflow, deferrable=True, timeout=2)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context(ti))
        event = fire(deferred.value.trigger)
        (execution,) = project.executions(workflow)
        project.update(project.task(execution["id"], "approve")["id"], "COMPLETED")

        resumed = operator.resume_execution(deferred.value.method_name, {"event": event}, context(ti))

        assert resumed == execution["id"]

    @pytest.mark.parametrize("end", ["TERMINATED", "FAILED"])
    def test_an_execution_that_ended_badly_while_the_task_waited_to_be_resumed_is_not_said_to_go_on(
        self, end: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))
        operator = make(workflow, deferrable=True, timeout=2)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context(ti))
        event = fire(deferred.value.trigger)
        (execution,) = project.executions(workflow)
        if end == "TERMINATED":
            project.cancel(execution["id"], "Anna stopped it")
        else:
            project.update(project.task(execution["id"], "approve")["id"], "FAILED")

        with pytest.raises(AirflowException) as error:
            operator.resume_execution(deferred.value.method_name, {"event": event}, context(ti))

        assert "may still run" not in str(error.value)

    def test_an_execution_that_completes_in_the_last_moment_is_a_success(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))
        operator = make(workflow, timeout=0.1)
        cancel = operator._time_is_over

        def in_the_last_moment(*arguments: Any) -> str:
            project.update(project.task(str(operator.execution_id), "approve")["id"], "COMPLETED")
            wait_until(lambda: project.execution(str(operator.execution_id))["status"] == "COMPLETED")
            return cancel(*arguments)

        operator._time_is_over = in_the_last_moment  # type: ignore[method-assign]

        assert operator.execute(context(ti)) == operator.execution_id

    def resume_too_late(
        self, operator: CdfWorkflowRunOperator, ti: FakeTaskInstance, execution_id: str
    ) -> str:
        """Resume a task that waited for a slot until after its time, and whose look CDF stumbles over."""
        event = {"outcome": "reached", "execution_id": execution_id}
        return operator.execute_complete(context(ti), event, end_time=time.time() - 1)

    def test_one_failing_look_does_not_make_a_timeout_of_a_success(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        execution_id = project.run(project.define(function_task("score")))
        wait_until(lambda: project.execution(execution_id)["status"] == "COMPLETED")
        operator = make("w", timeout=1, cancel_on_timeout=False)
        operator.hook.retry_for = 10
        monkeypatch.setattr(clock, "sleep", lambda seconds: None)
        cdf.faults.add("GET", f"*/executions/{execution_id}", status=503)

        assert self.resume_too_late(operator, ti, execution_id) == execution_id

    def test_where_cdf_does_not_answer_nothing_is_said_to_go_on(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance
    ) -> None:
        execution_id = project.run(project.define(function_task("approve", waits=True)))
        operator = make("w", timeout=1, cancel_on_timeout=False)
        cdf.faults.add("GET", f"*/executions/{execution_id}", status=503)

        with pytest.raises(CdfError, match=f"is over, and CDF does not say what has become .*{execution_id}"):
            self.resume_too_late(operator, ti, execution_id)

    def test_a_bad_end_is_told_as_such_although_the_last_look_failed(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance
    ) -> None:
        execution_id = project.run(project.define(function_task("approve", waits=True)))
        project.update(project.task(execution_id, "approve")["id"], "FAILED")
        wait_until(lambda: project.execution(execution_id)["status"] == "FAILED")
        cdf.faults.add("GET", f"*/executions/{execution_id}", status=503)

        with pytest.raises(CdfExecutionFailedError, match="Failed tasks: 'approve' FAILED"):
            self.resume_too_late(make("w", timeout=1), ti, execution_id)

    def test_without_waiting_it_is_ignored(self) -> None:
        """It is meant for the sensors, where it stands in default_args."""
        with DAG("plant", default_args={"timeout": 600, "task_outputs": ["score"]}):
            CdfWorkflowRunOperator(
                task_id="run", workflow_external_id="w", version="1", wait_for_completion=False
            )

    def test_an_outage_does_not_prolong_it(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance
    ) -> None:
        # Polls are not repeated by the client: that would take a minute for each.
        workflow = project.define(function_task("approve", waits=True))
        operator = make(workflow, timeout=0.5, max_poll_silence=2)
        operator.hook.retry_for = 60
        cdf.faults.add("GET", "*/executions/*", status=503, times=50)
        try:
            with pytest.raises(CdfError, match=r"ot ended within timeout=0\.5 s\. .*was cancelled"):
                operator.execute(context(ti))
        finally:
            cdf.faults.clear()
        assert len(cdf.journal.requests("GET", f"*/executions/{operator.execution_id}")) < 5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_an_operator_that_has_asked_cdf_can_be_copied(
    copied: Any, project: Project, ti: FakeTaskInstance
) -> None:
    operator = make(project.define(function_task("score")))
    execution_id = operator.execute(context(ti))
    other = copied(operator)
    assert other.hook.get_execution(execution_id).status == "COMPLETED"


class TestExecutionTimeout:
    """Airflow's own: it counts from the start of the try, also while the task is deferred."""

    def deferred(self, project: Project, ti: FakeTaskInstance, **arguments: Any) -> tuple[str, TaskDeferred]:
        workflow = project.define(function_task("approve", waits=True))
        operator = make(workflow, deferrable=True, execution_timeout=timedelta(seconds=60), **arguments)
        with pytest.raises(TaskDeferred) as caught:
            operator.execute(context(ti, operator))
        return workflow, caught.value

    def resume(self, workflow: str, ti: FakeTaskInstance, start_date: datetime) -> Any:
        operator = make(workflow, deferrable=True, execution_timeout=timedelta(seconds=60))
        with pytest.raises(
            AirflowTaskTimeout, match=r"^Not ended within execution_timeout=0:01:00"
        ) as caught:
            # dag.test() counts each resumption as the start of the try.
            operator.execute_complete(
                context(dataclasses.replace(ti, start_date=start_date), operator), {"outcome": "timeout"}
            )
        for callback in operator.on_failure_callback:
            callback({**context(ti, operator), "exception": caught.value})
        return operator

    def test_bounds_the_trigger(self, project: Project, ti: FakeTaskInstance) -> None:
        _, deferred = self.deferred(project, ti)
        assert deferred.trigger.end_time == pytest.approx(ti.start_date.timestamp() + 60)
        assert deferred.timeout is not None

    def test_the_earlier_of_the_two_bounds_it(self, project: Project, ti: FakeTaskInstance) -> None:
        _, deferred = self.deferred(project, ti, timeout=5)
        assert deferred.trigger.end_time < ti.start_date.timestamp() + 30

    def test_goes_on_over_a_resumption_and_cancels_on_the_last_try(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        ti.start_date = datetime.now(UTC) - timedelta(seconds=61)
        workflow = project.define(function_task("approve", waits=True))
        ti.xcoms |= {
            "execution_id": project.run(workflow),
            "execution_end": ti.start_date.timestamp() + 60,
        }
        self.resume(workflow, ti, start_date=datetime.now(UTC))
        assert [one["status"] for one in project.executions(workflow)] == ["TERMINATED"]


class TestBrokenTrigger:
    """What was known of the run is gone with the process, but for what its XComs hold."""

    def deferred(self, project: Project, ti: FakeTaskInstance, **arguments: Any) -> tuple[str, str]:
        workflow = project.define(function_task("approve", waits=True))
        with pytest.raises(TaskDeferred):
            make(workflow, deferrable=True, **arguments).execute(context(ti))
        (execution,) = project.executions(workflow)
        return workflow, execution["id"]

    def test_one_that_was_given_up_is_a_timeout(self, project: Project, ti: FakeTaskInstance) -> None:
        workflow, execution_id = self.deferred(project, ti, timeout=600)
        operator = make(workflow, deferrable=True, timeout=600)
        operator._pause = lambda _: pytest.fail("its time is over")  # type: ignore[method-assign]

        with pytest.raises(
            CdfTimeoutError, match=rf"The execution was cancelled\. \[execution {execution_id}"
        ):
            operator.resume_execution("__fail__", {"error": "Trigger timeout"}, context(ti))

        assert project.execution(execution_id)["status"] == "TERMINATED"

    @pytest.mark.parametrize("timeout", [600, None])
    @pytest.mark.parametrize("is_done", [True, False], ids=["already ended", "still running"])
    def test_one_that_crashed_is_waited_on_for_on_the_worker(
        self, is_done: bool, timeout: float | None, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow, execution_id = self.deferred(project, ti, timeout=timeout)
        task_id = project.task(execution_id, "approve")["id"]
        end = threading.Timer(0 if is_done else 0.3, project.update, [task_id, "COMPLETED"])
        end.start()
        if is_done:
            end.join()

        resumed = make(workflow, deferrable=True, timeout=timeout).resume_execution(
            "__fail__", {"error": "Trigger failure"}, context(ti)
        )

        assert resumed == execution_id

    @pytest.mark.parametrize("timeout", [60, None])
    def test_its_time_is_left_in_an_xcom(
        self, project: Project, ti: FakeTaskInstance, timeout: float | None
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))
        with pytest.raises(TaskDeferred) as deferred:
            make(workflow, deferrable=True, timeout=timeout).execute(context(ti))
        assert ti.xcoms.get("end_time") == deferred.value.trigger.end_time
        assert ("end_time" in ti.xcoms) is (timeout is not None)

    def test_the_log_says_why_one_has_crashed(
        self, project: Project, ti: FakeTaskInstance, capsys: pytest.CaptureFixture[str]
    ) -> None:
        workflow, execution_id = self.deferred(project, ti)
        project.update(project.task(execution_id, "approve")["id"], "COMPLETED")
        capsys.readouterr()

        make(workflow).resume_execution(*broken(KeyError("pump")), context(ti))

        said = capsys.readouterr().out
        assert "The trigger has broken. Waiting goes on here" in said
        assert "The reason: KeyError: 'pump'" in said

    def test_one_that_crashed_without_a_word_is_waited_on_for_on_the_worker(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow, execution_id = self.deferred(project, ti)
        project.update(project.task(execution_id, "approve")["id"], "COMPLETED")
        assert make(workflow).resume_execution("__fail__", None, context(ti)) == execution_id

    def test_a_kill_after_one_that_crashed_cancels_the_execution(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow, execution_id = self.deferred(project, ti)
        operator = make(workflow)
        assert operator.hook.is_connected is False
        pause = operator._pause

        def killed(seconds: float) -> None:
            operator.on_kill()
            pause(seconds)

        operator._pause = killed  # type: ignore[method-assign]
        with pytest.raises(
            CdfError, match=rf"The task was killed. The execution was cancelled\. \[execution {execution_id}"
        ):
            operator.resume_execution("__fail__", {"error": "Trigger failure"}, context(ti))
        assert project.execution(execution_id)["status"] == "TERMINATED"

    def test_one_that_crashed_leaves_the_time_that_is_left(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow, execution_id = self.deferred(project, ti, timeout=60)
        ti.xcoms["end_time"] = time.time() + 0.2

        with pytest.raises(
            CdfTimeoutError, match=rf"The execution was cancelled\. \[execution {execution_id}"
        ):
            make(workflow, timeout=60).resume_execution("__fail__", {"error": "Trigger failure"}, context(ti))

    def test_where_the_id_is_lost_too_the_execution_is_found_again(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow, execution_id = self.deferred(project, ti)
        project.update(project.task(execution_id, "approve")["id"], "COMPLETED")
        ti.xcoms.clear()

        assert make(workflow).resume_execution("__fail__", {"error": "x"}, context(ti)) == execution_id

    @pytest.mark.parametrize("event", [None, {}, {"outcome": "new"}], ids=str)
    def test_without_word_from_the_trigger_the_wait_goes_on(
        self, event: Any, project: Project, ti: FakeTaskInstance
    ) -> None:
        # Airflow's scheduler may resume a deferred task without an event (apache/airflow#65248).
        workflow, execution_id = self.deferred(project, ti, timeout=60)
        operator = make(workflow, deferrable=True, timeout=60)

        with pytest.raises(TaskDeferred) as again:
            operator.resume_execution("execute_complete", {"event": event}, context(ti))

        assert again.value.trigger.execution_id == execution_id
        assert again.value.trigger.end_time == ti.xcoms["end_time"]
        assert project.execution(execution_id)["status"] == "RUNNING"

    def test_without_word_from_the_trigger_a_bad_end_is_no_success(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow, execution_id = self.deferred(project, ti)
        project.cancel(execution_id, "Anna stopped it")

        with pytest.raises(CdfExecutionFailedError, match="Anna stopped it"):
            make(workflow).resume_execution("execute_complete", {"event": {}}, context(ti))

    @pytest.mark.parametrize("is_permanent", [True, False])
    def test_what_cdf_refuses_for_good_is_not_retried(
        self, is_permanent: bool, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow, _ = self.deferred(project, ti)
        event = {"outcome": "error", "message": "No.", "is_permanent": is_permanent}

        with pytest.raises(CdfError, match=r"^No\. The execution was left as it is\. \[execution ") as error:
            make(workflow).execute_complete(context(ti), event)

        assert isinstance(error.value, AirflowFailException) is is_permanent


class TestOnKill:
    def kill_while_waiting(self, operator: CdfWorkflowRunOperator, project: Project, ti: Any) -> str:
        """
        Kill a task as Airflow does: ``on_kill`` runs inside the interrupted ``execute`` and returns into it.
        """
        before = signal.signal(signal.SIGALRM, lambda *_: operator.on_kill())

        def interrupt() -> None:
            wait_until(lambda: project.executions(operator.workflow_external_id))
            time.sleep(0.25)
            os.kill(os.getpid(), signal.SIGALRM)

        killing = threading.Thread(target=interrupt, daemon=True)
        killing.start()
        try:
            with pytest.raises(AirflowException) as error:
                operator.execute(context(ti))
        finally:
            killing.join()
            signal.signal(signal.SIGALRM, before)
        return str(error.value)

    def test_cancels_the_execution_and_ends_the_wait(self, project: Project, ti: FakeTaskInstance) -> None:
        workflow = project.define(function_task("approve", waits=True))

        self.kill_while_waiting(make(workflow), project, ti)

        (execution,) = project.executions(workflow)
        assert execution["status"] == "TERMINATED"

    def test_ends_a_wait_between_two_polls_that_lie_far_apart(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))

        # SIGKILL follows after 5 seconds, so nothing may wait for the next poll.
        self.kill_while_waiting(make(workflow, poll_interval=600), project, ti)

        (execution,) = project.executions(workflow)
        assert execution["status"] == "TERMINATED"

    def test_leaves_the_execution_alone_where_told_to(self, project: Project, ti: FakeTaskInstance) -> None:
        workflow = project.define(function_task("approve", waits=True))
        operator = make(workflow, cancel_on_kill=False)
        thread = threading.Thread(target=run_into_an_error, args=[operator, ti], daemon=True)
        thread.start()
        (execution,) = wait_until(lambda: project.executions(workflow))
        project.task(execution["id"], "approve")

        operator.on_kill()

        assert project.execution(execution["id"])["status"] == "RUNNING"
        project.cancel(execution["id"])
        thread.join()

    @pytest.mark.parametrize("state", ["running", "up_for_retry", "queued"])
    def test_that_stops_only_this_process_leaves_the_execution_to_the_retry(
        self, state: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        # A deploy, or a lost heartbeat: nobody has ended the task.
        workflow = project.define(function_task("approve", waits=True))
        ti = dataclasses.replace(ti, max_tries=1, states={ti.task_id: {ti.task_id: state}})

        told = self.kill_while_waiting(make(workflow), project, ti)

        (execution,) = project.executions(workflow)
        assert execution["status"] == "RUNNING"
        assert "goes on, for the next try" in told
        retry = make(workflow, deferrable=True)
        with pytest.raises(TaskDeferred):
            retry.execute(context(dataclasses.replace(ti, try_number=2)))
        assert retry.execution_id == execution["id"]

    @pytest.mark.parametrize(("state", "status"), [("running", "RUNNING"), ("failed", "TERMINATED")])
    @pytest.mark.usefixtures("airflow_2")
    def test_reads_the_database_of_airflow_2(
        self, state: str, status: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))
        ti = dataclasses.replace(ti, max_tries=1, states={ti.task_id: {ti.task_id: state}})

        self.kill_while_waiting(make(workflow), project, ti)

        (execution,) = project.executions(workflow)
        assert execution["status"] == status

    @pytest.mark.parametrize("state", ["failed", "success", "restarting", "removed", None])
    def test_by_a_person_cancels_the_execution_though_a_retry_is_left(
        self, state: str | None, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))
        ti = dataclasses.replace(ti, max_tries=1, states={ti.task_id: {ti.task_id: state}})  # type: ignore[dict-item]

        self.kill_while_waiting(make(workflow), project, ti)

        (execution,) = project.executions(workflow)
        assert execution["status"] == "TERMINATED"

    def test_of_the_last_try_cancels_the_execution_whatever_the_state(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))
        ti.states = {ti.task_id: {ti.task_id: "running"}}

        self.kill_while_waiting(make(workflow), project, ti)

        (execution,) = project.executions(workflow)
        assert execution["status"] == "TERMINATED"

    @pytest.mark.parametrize("answer", ["late", "an error"])
    def test_leaves_the_execution_to_the_retry_where_airflow_does_not_tell_the_state(
        self, answer: str, project: Project, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Its API is away, as in a deploy, and the worker has given up on its heartbeats.
        workflow = project.define(function_task("approve", waits=True))
        answered = threading.Event()

        def state_of(ti: FakeTaskInstance) -> None:
            if answer == "late":
                answered.wait(20)
            raise RuntimeError("API_SERVER_ERROR")

        monkeypatch.setattr(cancelling, "STATE_PATIENCE", 0.05 if answer == "late" else 20)
        monkeypatch.setattr(task_state, "state_of", state_of)

        told = self.kill_while_waiting(make(workflow), project, dataclasses.replace(ti, max_tries=1))

        answered.set()
        (execution,) = project.executions(workflow)
        assert execution["status"] == "RUNNING"
        assert "goes on, for the next try" in told
        assert "it is to be cancelled in Fusion" in told

    def test_of_a_task_that_airflow_does_not_know_any_more_cancels_the_execution(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))
        ti = dataclasses.replace(ti, max_tries=1, states={})  # its DAG run was deleted

        self.kill_while_waiting(make(workflow), project, ti)

        (execution,) = project.executions(workflow)
        assert execution["status"] == "TERMINATED"

    def test_before_anything_was_started_nothing_is_started(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))
        operator = make(workflow)
        ti = dataclasses.replace(ti, try_number=2)

        before = signal.signal(signal.SIGALRM, lambda *_: operator.on_kill())
        signal.setitimer(signal.ITIMER_REAL, 0.05)  # while it looks for an earlier try's execution
        try:
            with pytest.raises(CdfError, match=r"The task was killed\."):
                operator.execute(context(ti))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

        assert project.executions(workflow) == []

    def test_while_cdf_starts_it_names_the_submission_that_is_left_to_the_retry(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance, caplog: pytest.LogCaptureFixture
    ) -> None:
        workflow = project.define(function_task("approve", waits=True))
        operator = make(workflow)
        ti = dataclasses.replace(ti, max_tries=1, states={ti.task_id: {ti.task_id: "running"}})
        cdf.faults.add("POST", f"*/{workflow}/*/run", drop="after")
        cdf.faults.add("POST", "*/executions/list", status=503, retry_after=2)
        thread = threading.Thread(target=run_into_an_error, args=[operator, ti, Store()], daemon=True)
        thread.start()
        wait_until(lambda: not cdf.faults.waiting())

        operator.on_kill()

        thread.join(timeout=60)
        (execution,) = project.executions(workflow)
        assert execution["status"] == "RUNNING"
        submit_id = execution["metadata"]["airflow_submit_id"]
        assert "What CDF may be starting for it goes on, for the next try." in caplog.text
        assert f"airflow_submit_id = {submit_id}" in caplog.text

    def test_while_cdf_starts_it_finds_what_was_started_without_waiting_for_the_answer(
        self, cdf: CdfEmulator, project: Project, ti: FakeTaskInstance
    ) -> None:
        # SIGKILL would come before the answer does, and nobody else would ever look.
        workflow = project.define(function_task("approve", waits=True))
        operator = make(workflow)
        cdf.faults.add("POST", f"*/{workflow}/*/run", drop="after")
        cdf.faults.add("POST", "*/executions/list", status=503, retry_after=2)
        thread = threading.Thread(target=run_into_an_error, args=[operator, ti, Store()], daemon=True)
        thread.start()
        # The look-up of the lost answer has been told to come back later.
        wait_until(lambda: not cdf.faults.waiting())

        operator.on_kill()

        wait_until(lambda: project.executions(workflow)[0]["status"] == "TERMINATED")
        thread.join(timeout=10)

    @pytest.mark.parametrize("hands_over", ["deferred", "nobody waits"])
    def test_what_has_been_handed_over_goes_on(
        self, hands_over: str, project: Project, ti: FakeTaskInstance
    ) -> None:
        # A SIGTERM may come at the very end of a process, or from a worker that is stopped just then.
        workflow = project.define(function_task("approve", waits=True))
        if hands_over == "deferred":
            operator = make(workflow, deferrable=True)
            with pytest.raises(TaskDeferred):
                operator.execute(context(ti))
        else:
            operator = make(workflow, wait_for_completion=False)
            operator.execute(context(ti))

        operator.on_kill()

        (execution,) = project.executions(workflow)
        assert execution["status"] == "RUNNING"

    @pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
    def test_during_a_look_starts_nothing_more_and_does_not_defer(
        self, project: Project, ti: FakeTaskInstance, after: bool, deferrable: bool
    ) -> None:
        # What it sees next has been cancelled by a process of its task: by this one.
        workflow = project.define(function_task("approve", waits=True))
        ti.states = {ti.task_id: {ti.task_id: "running"}}
        operator = make(workflow, deferrable=deferrable)
        when_sending(operator, "", operator.on_kill, after=after, polling=True)
        with pytest.raises(
            CdfError, match=r"The task was killed\. The execution was cancelled\. \[execution "
        ):
            operator.execute(context(ti))
        assert [one["status"] for one in project.executions(workflow)] == ["TERMINATED"]

    def test_is_not_undone_by_an_xcom_that_cannot_be_pushed(
        self, project: Project, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Airflow kills a task whose heartbeats fail: just when its API is down.
        workflow = project.define(function_task("approve", waits=True))
        operator = make(workflow)
        find_or_start = operator._find_or_start

        def killed(*arguments: Any) -> Any:
            end_time = find_or_start(*arguments)
            operator._killed = True
            return end_time

        monkeypatch.setattr(operator, "_find_or_start", killed)
        monkeypatch.setattr(ti, "xcom_push", lambda **_: pytest.fail("too late"), raising=False)
        with pytest.raises(CdfError, match="was cancelled"):
            operator.execute(context(ti))

    def test_of_another_process_of_the_task_does_not_end_this_one(
        self, project: Project, ti: FakeTaskInstance
    ) -> None:
        # A worker that was frozen wakes up and is told to stop; its execution is that of the retry by now.
        workflow = project.define(function_task("approve", waits=True))
        operator = make(workflow)
        results: list[str] = []
        thread = threading.Thread(target=lambda: results.append(operator.execute(context(ti))), daemon=True)
        thread.start()
        (first,) = wait_until(lambda: project.executions(workflow))
        project.task(first["id"], "approve")
        project.cancel(first["id"], TASK_WAS_KILLED)

        wait_until(lambda: len(project.executions(workflow)) == 2)
        second = wait_until(lambda: operator.execution_id)
        project.update(project.task(second, "approve")["id"], "COMPLETED")

        thread.join(timeout=10)
        assert results == [second]
        assert second != first["id"]
        assert ti.xcoms["execution_id"] == second

    def test_after_the_execution_has_ended_does_nothing(self, project: Project, ti: FakeTaskInstance) -> None:
        operator = make(project.define(function_task("score")))
        execution_id = operator.execute(context(ti))

        operator.on_kill()

        assert project.execution(execution_id)["status"] == "COMPLETED"

    def test_does_not_raise_where_cdf_cannot_be_reached(
        self, ti: FakeTaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cancelling, "KILL_PATIENCE", 0.5)
        with CdfEmulator() as lonely:
            monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", lonely.airflow_connection_uri())
            project = Project(lonely)
            workflow = project.define(function_task("approve", waits=True))
            operator = make(workflow)
            thread = threading.Thread(target=run_into_an_error, args=[operator, ti], daemon=True)
            thread.start()
            wait_until(lambda: operator.execution_id)

        operator.on_kill()

        thread.join(timeout=10)
        assert not thread.is_alive()


class TestWhatIsWrongIsSaidInOneSentence:
    def test_unknown_workflow(self, ti: FakeTaskInstance, clear: Any, deferrable: bool) -> None:
        with pytest.raises(AirflowException) as error:
            make("no-such-workflow", deferrable=deferrable).execute(context(ti))

        clear(error.value, "no-such-workflow")

    def test_unknown_version(self, project: Project, ti: FakeTaskInstance, clear: Any) -> None:
        workflow = project.define(function_task("score"))

        with pytest.raises(AirflowException) as error:
            make(workflow, version="no-such-version").execute(context(ti))

        clear(error.value, workflow, "no-such-version")

    def test_wrong_secret(
        self, project: Project, ti: FakeTaskInstance, connect: Any, clear: Any, cdf: CdfEmulator
    ) -> None:
        connect(password="wr0ng-secret")

        with pytest.raises(AirflowException) as error:
            make(project.define(function_task("score"))).execute(context(ti))

        message = clear(error.value, cdf.client_id)
        assert "wr0ng-secret" not in message

    def test_unknown_project(self, project: Project, ti: FakeTaskInstance, connect: Any, clear: Any) -> None:
        connect({"project": "no-such-project"})

        with pytest.raises(AirflowException) as error:
            make(project.define(function_task("score"))).execute(context(ti))

        clear(error.value, "no-such-project")

    def test_unreachable_host(self, ti: FakeTaskInstance, connect: Any, clear: Any) -> None:
        connect(host="http://127.0.0.1:9")

        with pytest.raises(AirflowException) as error:
            make("pumps").execute(context(ti))

        clear(error.value, "127.0.0.1:9")

    def test_unknown_connection(self, ti: FakeTaskInstance) -> None:
        with pytest.raises(AirflowException, match="no_such_connection"):
            make("pumps", cdf_conn_id="no_such_connection").execute(context(ti))
