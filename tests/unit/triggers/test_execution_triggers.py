"""CdfTaskTrigger and CdfWorkflowTrigger: storage, waiting, and their manners on the event loop."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models.trigger import Trigger
from airflow.providers.common.compat.module_loading import import_string
from airflow.serialization.serialized_objects import BaseSerialization
from airflow.triggers.base import BaseTrigger, TriggerEvent
from moved import serde
from support import Project, first_event, function_task
from triggers.scripted_cdf import (
    HANG_UP,
    NOT_JSON,
    SECRET,
    TOKEN,
    ScriptedCdf,
    execution,
    scripted_cdf,
    task,
)

from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.triggers import streams
from airflow_provider_cdf.triggers.task import CdfTaskTrigger
from airflow_provider_cdf.triggers.workflow import CdfWorkflowEventTrigger, CdfWorkflowTrigger
from airflow_provider_cdf.waiting import Pace, Patience

EXECUTION = "11111111-2222-4333-8444-555555555555"
TASK_KWARGS = {
    "cdf_conn_id": "cdf_plant",
    "execution_id": EXECUTION,
    "poll_interval": 5.0,
    "end_time": 1_800_000_000.5,
    "max_poll_silence": 60.0,
    "task_external_id": "approve",
    "parent_task_external_id": "north",
    "target_statuses": ["COMPLETED", "FAILED"],
}
WORKFLOW_KWARGS = {
    "cdf_conn_id": "cdf_plant",
    "execution_id": EXECUTION,
    "poll_interval": 5.0,
    "end_time": 1_800_000_000.5,
    "max_poll_silence": 60.0,
    "cancel_on_kill": True,
    "warn_of_standstill": True,
}
BOTH = pytest.mark.parametrize(
    ("kind", "kwargs"),
    [(CdfTaskTrigger, TASK_KWARGS), (CdfWorkflowTrigger, WORKFLOW_KWARGS)],
    ids=["task", "workflow"],
)
KINDS = pytest.mark.parametrize("kind", [CdfTaskTrigger, CdfWorkflowTrigger], ids=["task", "workflow"])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls after a failure come as soon as others here; how long they really wait is tested elsewhere."""
    monkeypatch.setattr(Pace, "SHORTEST_AFTER_FAILURE", 0.01)
    monkeypatch.setattr(Patience, "REFUSED_FOR", 0.0)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedCdf]:
    """A CDF that does what the test says, as ``cdf_default``."""
    with scripted_cdf() as cdf:
        monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection())
        yield cdf


def task_trigger(execution_id: str = EXECUTION, **arguments: Any) -> CdfTaskTrigger:
    defaults: dict[str, Any] = {
        "task_external_id": "approve",
        "target_statuses": ["COMPLETED"],
        "poll_interval": 0.02,
    }
    return CdfTaskTrigger(execution_id=execution_id, **{**defaults, **arguments})


def workflow_trigger(execution_id: str = EXECUTION, **arguments: Any) -> CdfWorkflowTrigger:
    return CdfWorkflowTrigger(execution_id=execution_id, **{"poll_interval": 0.02, **arguments})


def trigger_for(kind: type, **arguments: Any) -> BaseTrigger:
    return task_trigger(**arguments) if kind is CdfTaskTrigger else workflow_trigger(**arguments)


def fire(trigger: BaseTrigger) -> dict[str, Any]:
    event = asyncio.run(asyncio.wait_for(first_event(trigger), timeout=20))
    assert isinstance(event, dict)
    return event


class TestStorage:
    def test_the_task_trigger_serializes_to_exactly_its_arguments(self) -> None:
        assert CdfTaskTrigger(**TASK_KWARGS).serialize() == (
            "airflow_provider_cdf.triggers.task.CdfTaskTrigger",
            TASK_KWARGS,
        )

    def test_the_workflow_trigger_serializes_to_exactly_its_arguments(self) -> None:
        assert CdfWorkflowTrigger(**WORKFLOW_KWARGS).serialize() == (
            "airflow_provider_cdf.triggers.workflow.CdfWorkflowTrigger",
            WORKFLOW_KWARGS,
        )

    def test_the_defaults_are_serialized_too(self) -> None:
        assert CdfTaskTrigger().serialize()[1] == {
            "cdf_conn_id": "cdf_default",
            "execution_id": "",
            "poll_interval": 10.0,
            "end_time": None,
            "max_poll_silence": 900.0,
            "task_external_id": "",
            "parent_task_external_id": None,
            "target_statuses": ["IN_PROGRESS"],
        }

    @BOTH
    def test_what_is_serialized_is_plain_json(self, kind: type, kwargs: dict[str, Any]) -> None:
        _, serialized = kind(**kwargs).serialize()

        assert json.loads(json.dumps(serialized)) == serialized

    @BOTH
    def test_survives_serde(self, kind: type, kwargs: dict[str, Any]) -> None:
        path, serialized = kind(**kwargs).serialize()

        stored = json.loads(json.dumps(serde.serialize(serialized)))
        restored = import_string(path)(**serde.deserialize(stored))

        assert type(restored) is kind
        assert restored.serialize() == (path, kwargs)

    @BOTH
    def test_survives_the_database(self, kind: type, kwargs: dict[str, Any]) -> None:
        row = Trigger.from_object(kind(**kwargs))

        restored = import_string(row.classpath)(**row.kwargs)

        assert restored.serialize() == (row.classpath, kwargs)

    @BOTH
    def test_survives_the_encoder_of_serialized_dags(self, kind: type, kwargs: dict[str, Any]) -> None:
        encoders = pytest.importorskip("airflow.serialization.encoders", reason="Airflow below 3.2 has none")
        encoded = json.loads(json.dumps(encoders.encode_trigger(kind(**kwargs))))

        decoded = {key: BaseSerialization.deserialize(value) for key, value in encoded["kwargs"].items()}
        restored = import_string(encoded["classpath"])(**decoded)

        assert restored.serialize() == (encoded["classpath"], kwargs)

    @BOTH
    def test_two_with_the_same_arguments_serialize_alike(self, kind: type, kwargs: dict[str, Any]) -> None:
        assert kind(**kwargs).serialize() == kind(**kwargs).serialize()

    @pytest.mark.parametrize("statuses", [("COMPLETED",), ["COMPLETED"], "COMPLETED", "completed"], ids=repr)
    @pytest.mark.parametrize(
        ("kind", "name"), [(CdfTaskTrigger, "target_statuses"), (CdfWorkflowEventTrigger, "statuses")]
    )
    def test_statuses_are_stored_as_a_list(self, kind: type, name: str, statuses: Any) -> None:
        stored = kind(**{name: statuses}).serialize()[1][name]

        assert stored == ["COMPLETED"]
        assert type(stored) is list


class TestNeverRaises:
    """A trigger that raises in ``__init__`` stops the triggerer, and stored triggers outlive upgrades."""

    WRONG = (None, "", "nonsense", -1, 0, 1.5, float("nan"), [], [None], {}, True, object(), b"bytes")

    @KINDS
    def test_without_arguments(self, kind: type) -> None:
        kind()

    @BOTH
    @pytest.mark.parametrize("value", WRONG, ids=lambda value: type(value).__name__)
    def test_with_arguments_of_any_type(self, kind: type, kwargs: dict[str, Any], value: Any) -> None:
        for name in kwargs:
            kind(**{name: value})
        kind(**dict.fromkeys(kwargs, value))

    @BOTH
    def test_with_arguments_of_a_later_version(self, kind: type, kwargs: dict[str, Any]) -> None:
        trigger = kind(**kwargs, an_argument_of_a_later_version=1)

        assert trigger.serialize()[1].items() >= kwargs.items()

    @KINDS
    @pytest.mark.parametrize(
        "arguments",
        [
            {"execution_id": None},
            {"execution_id": "../../sessions"},
            {"poll_interval": None},
            {"poll_interval": "often"},
            {"poll_interval": -1},
            {"end_time": "tomorrow"},
            {"max_poll_silence": None},
        ],
        ids=str,
    )
    def test_wrong_arguments_end_the_wait_with_an_event_and_not_with_an_exception(
        self, kind: type, arguments: dict[str, Any], scripted: ScriptedCdf
    ) -> None:
        scripted.looks = [execution("COMPLETED", task("approve", "COMPLETED"))]

        event = fire(trigger_for(kind, **arguments))

        assert event["outcome"] in {"error", "reached"}


class TestTaskSequences:
    @pytest.mark.parametrize(
        "before",
        [
            [],
            [execution("RUNNING")],
            [
                execution("RUNNING", task("approve", "SCHEDULED")),
                execution("RUNNING", task("approve", "IN_PROGRESS")),
            ],
            [execution("RUNNING", task("approve", "FAILED"))],
            [execution("RUNNING", task("approve", "TIMED_OUT"))],
            [execution("RUNNING", task("approve", "ASLEEP"))],
            [execution("PAUSED")],
            [execution("RUNNING", task("other", "FAILED_WITH_TERMINAL_ERROR"))],
        ],
        ids=[
            "at once",
            "not listed",
            "as usual",
            "failed, not retried yet",
            "timed out, not retried yet",
            "unknown task status",
            "unknown workflow status",
            "another task",
        ],
    )
    def test_fires_once_when_the_task_arrives(self, before: list[Any], scripted: ScriptedCdf) -> None:
        arrived = execution("RUNNING", task("approve", "COMPLETED", startTime=2))
        scripted.looks = [*before, arrived]

        event = fire(task_trigger())

        assert event["outcome"] == "reached"
        assert event["cdf_task_id"] == arrived["executedTasks"][0]["id"]
        assert scripted.looked == len(before) + 1

    def test_of_several_attempts_the_one_that_goes_on_counts(self, scripted: ScriptedCdf) -> None:
        first = task("approve", "FAILED", startTime=1)
        second = task("approve", "IN_PROGRESS", startTime=2)
        for order in ([first, second], [second, first]):
            scripted.looks = [execution("RUNNING", *order)]
            scripted.looked = 0

            event = fire(task_trigger(target_statuses=["IN_PROGRESS", "FAILED"]))

            assert event["cdf_task_id"] == second["id"]

    def test_of_several_ended_attempts_the_latest_counts_whatever_the_order(
        self, scripted: ScriptedCdf
    ) -> None:
        first = task("approve", "FAILED", startTime=1, endTime=2)
        second = task("approve", "COMPLETED", startTime=3, endTime=4)
        for order in ([first, second], [second, first]):
            scripted.looks = [execution("COMPLETED", *order)]
            scripted.looked = 0

            assert fire(task_trigger())["cdf_task_id"] == second["id"]

    @pytest.mark.parametrize(
        "status", ["COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED_WITH_TERMINAL_ERROR", "CANCELED", "SKIPPED"]
    )
    def test_a_final_status_that_is_not_wanted_ends_the_wait(
        self, status: str, scripted: ScriptedCdf
    ) -> None:
        ended = task("approve", status, reasonForIncompletion="the pump curve is missing")
        scripted.looks = [execution("RUNNING", task("approve", "SCHEDULED")), execution("RUNNING", ended)]

        event = fire(task_trigger(target_statuses=["TIMED_OUT"]))

        assert event["outcome"] == "impossible"
        text = json.dumps(event)
        assert status in text
        assert "the pump curve is missing" in text

    @pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "TIMED_OUT", "TERMINATED"])
    @pytest.mark.parametrize("tasks", [[], [task("approve", "FAILED")]], ids=["not listed", "failed"])
    def test_the_end_of_the_execution_ends_the_wait(
        self, status: str, tasks: list[Any], scripted: ScriptedCdf
    ) -> None:
        scripted.looks = [execution("RUNNING", *tasks), execution(status, *tasks)]

        event = fire(task_trigger())

        assert event["outcome"] == "impossible"
        assert status in json.dumps(event)

    def test_a_task_update_in_the_emulator_is_noticed(self, project: Project, cdf_default: Any) -> None:
        execution_id = project.run(project.define(function_task("approve", waits=True)))

        event = fire(task_trigger(execution_id, target_statuses=["IN_PROGRESS"]))

        assert event["cdf_task_id"] == project.task(execution_id, "approve")["id"]


class TestParent:
    @pytest.mark.parametrize("parent", ["north", "south"])
    def test_only_its_children_count(self, parent: str, scripted: ScriptedCdf) -> None:
        children = [task("approve", "COMPLETED", parentTaskExternalId=name) for name in ("north", "south")]
        scripted.looks = [execution("RUNNING", *children)]

        event = fire(task_trigger(parent_task_external_id=parent))

        assert event["cdf_task_id"] == children[["north", "south"].index(parent)]["id"]

    def test_of_several_none_is_guessed(self, scripted: ScriptedCdf) -> None:
        children = [task("approve", "COMPLETED", parentTaskExternalId=name) for name in ("north", "south")]
        scripted.looks = [execution("RUNNING", *children)]

        event = fire(task_trigger())

        assert event["outcome"] == "impossible"
        assert event["message"].startswith(
            "2 tasks have a child 'approve'. Set parent_task_external_id to one of them: 'north', 'south'."
        )


class TestWorkflowSequences:
    @pytest.mark.parametrize("is_wanted", [True, False])
    def test_warns_once_of_what_waits_for_a_report(
        self, is_wanted: bool, scripted: ScriptedCdf, log: pytest.LogCaptureFixture
    ) -> None:
        waiting = task("approve", "IN_PROGRESS", input={"isAsyncComplete": True})
        scripted.looks = [
            execution("RUNNING", task("load", "IN_PROGRESS", input={"isAsyncComplete": False})),
            *[execution("RUNNING", waiting)] * 3,
            execution("COMPLETED"),
        ]

        fire(workflow_trigger(warn_of_standstill=is_wanted))

        warnings = [record.getMessage() for record in log.records if record.levelname == "WARNING"]
        assert len(warnings) == is_wanted
        assert all("'approve'" in text and "wait_for_completion=False" in text for text in warnings)

    @pytest.mark.parametrize("before", [[], [execution("RUNNING")] * 3, [execution("PAUSED")]])
    def test_fires_once_when_the_execution_is_completed(
        self, before: list[Any], scripted: ScriptedCdf
    ) -> None:
        scripted.looks = [*before, execution("COMPLETED")]

        assert fire(workflow_trigger())["outcome"] == "reached"
        assert scripted.looked == len(before) + 1

    @pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "TERMINATED"])
    def test_a_bad_end_ends_the_wait_with_the_reason(self, status: str, scripted: ScriptedCdf) -> None:
        scripted.looks = [
            execution("RUNNING"),
            execution(status, reasonForIncompletion="Anna stopped it"),
        ]

        event = fire(workflow_trigger())

        assert event["outcome"] == "impossible"
        assert status in json.dumps(event)
        assert "Anna stopped it" in json.dumps(event)

    def test_an_execution_in_the_emulator_is_waited_for(self, project: Project, cdf_default: Any) -> None:
        execution_id = project.run(project.define(function_task("score")))

        assert fire(workflow_trigger(execution_id))["outcome"] == "reached"


@KINDS
class TestEveryTrigger:
    def test_says_that_the_time_is_over(self, kind: type, scripted: ScriptedCdf) -> None:
        scripted.looks = [execution("RUNNING", task("approve", "IN_PROGRESS"))]

        assert fire(trigger_for(kind, end_time=time.time() + 0.1))["outcome"] == "timeout"

    def test_leaves_the_last_look_to_the_worker(self, kind: type, scripted: ScriptedCdf) -> None:
        # A triggerer that was down for an hour comes back after the end of the wait.
        scripted.looks = [execution("COMPLETED", task("approve", "COMPLETED"))]

        assert fire(trigger_for(kind, end_time=time.time() - 3600))["outcome"] == "timeout"
        assert scripted.looked == 0

    def test_a_poll_has_no_more_time_than_the_wait(self, kind: type, scripted: ScriptedCdf) -> None:
        over = threading.Event()
        scripted.before_answer = lambda: over.wait(60)
        scripted.looks = [execution("COMPLETED", task("approve", "COMPLETED"))]

        try:
            event = fire(trigger_for(kind, end_time=time.time() + 0.5))
        finally:
            over.set()

        assert event["outcome"] == "timeout"

    @pytest.mark.parametrize("odd", [0, -1, float("nan"), float("inf"), "often", None, True], ids=repr)
    def test_what_was_stored_as_an_interval_does_not_flood_cdf(
        self, kind: type, odd: Any, scripted: ScriptedCdf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pauses: list[float] = []

        async def note(seconds: float) -> None:
            pauses.append(seconds)

        monkeypatch.setattr(streams, "asyncio", SimpleNamespace(sleep=note))
        scripted.looks = [execution("RUNNING"), execution("COMPLETED", task("approve", "COMPLETED"))]

        trigger = trigger_for(kind, poll_interval=odd, max_poll_silence=odd, end_time=odd)
        assert asyncio.run(first_event(trigger))["outcome"] == "reached"

        assert len(pauses) == 1
        assert 9 <= pauses[0] <= 11

    def test_what_has_begun_after_a_retry_is_no_contradiction(
        self, kind: type, scripted: ScriptedCdf, log: pytest.LogCaptureFixture
    ) -> None:
        begun = task("approve", "SCHEDULED", startTime=1_700_000_000_001)
        again = execution("RUNNING", begun, endTime=1_700_000_000_000)
        scripted.looks = [again, again, execution("COMPLETED", task("approve", "COMPLETED"))]

        assert fire(trigger_for(kind))["outcome"] == "reached"

        assert not [record for record in log.records if record.levelname == "WARNING"]

    def test_an_unknown_status_with_an_end_time_is_a_bad_end(self, kind: type, scripted: ScriptedCdf) -> None:
        scripted.looks = [execution("ABORTED", endTime=1_700_000_000_000)]

        event = fire(trigger_for(kind))

        assert event["outcome"] == "impossible"
        assert "ABORTED" in event["message"]

    def test_the_end_of_another_execution_is_none(self, kind: type, scripted: ScriptedCdf) -> None:
        wrong = execution(
            "COMPLETED", task("approve", "COMPLETED"), id="aaaaaaaa-2222-4333-8444-555555555555"
        )
        scripted.looks = [wrong, wrong, execution("FAILED")]

        event = fire(trigger_for(kind))

        assert event["outcome"] == "impossible"
        assert scripted.looked == 3

    def test_each_change_of_a_task_is_told(
        self, kind: type, scripted: ScriptedCdf, log: pytest.LogCaptureFixture
    ) -> None:
        first, second = task("load", "IN_PROGRESS", startTime=1000), task("approve", "IN_PROGRESS")
        scripted.looks = [
            execution("RUNNING", first),
            execution("RUNNING", {**first, "status": "COMPLETED", "endTime": 13_000}, second),
            execution("COMPLETED", {**second, "status": "COMPLETED"}),
        ]

        assert fire(trigger_for(kind))["outcome"] == "reached"

        assert "CDF is at 'load' (IN_PROGRESS for " in log.messages[0]
        assert log.messages[1:3] == ["Task 'load' is COMPLETED after 12 s.", "Task 'approve' is IN_PROGRESS."]

    def test_does_not_sleep_past_its_end(self, kind: type, scripted: ScriptedCdf) -> None:
        scripted.looks = [execution("RUNNING")]

        assert fire(trigger_for(kind, end_time=time.time() + 0.1, poll_interval=600))["outcome"] == "timeout"

    @pytest.mark.parametrize("stumble", [500, 503, 429, HANG_UP, NOT_JSON])
    def test_goes_on_after_failing_polls(self, kind: type, stumble: Any, scripted: ScriptedCdf) -> None:
        running = execution("RUNNING", task("approve", "IN_PROGRESS"))
        scripted.looks = [
            stumble,
            running,
            stumble,
            stumble,
            execution("COMPLETED", task("approve", "COMPLETED")),
        ]

        assert fire(trigger_for(kind))["outcome"] == "reached"

    def test_goes_on_after_a_token_that_cdf_does_not_accept_any_more(
        self, kind: type, scripted: ScriptedCdf
    ) -> None:
        scripted.looks = [401, execution("COMPLETED", task("approve", "COMPLETED"))]

        assert fire(trigger_for(kind))["outcome"] == "reached"

    def test_goes_on_after_cdf_could_not_be_reached(
        self, kind: type, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with CdfEmulator() as cdf:
            monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection_uri())
            project = Project(cdf)
            execution_id = project.run(project.define(function_task("approve", waits=True)))
            task_id = project.task(execution_id, "approve")["id"]
        # The port is closed now, and what is in memory is still there.

        async def outage() -> Any:
            waiting = asyncio.create_task(first_event(trigger_for(kind, execution_id=execution_id)))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await asyncio.to_thread(cdf.start)
            with cdf.turn() as engine:
                engine.update_task(task_id, "COMPLETED")
            return await asyncio.wait_for(waiting, 20)

        try:
            assert asyncio.run(outage())["outcome"] == "reached"
        finally:
            cdf.stop()

    def test_gives_up_after_a_silence(self, kind: type, scripted: ScriptedCdf) -> None:
        scripted.looks = [500]

        event = fire(trigger_for(kind, max_poll_silence=0.2))

        assert event["outcome"] == "error"
        assert EXECUTION in json.dumps(event)

    def test_the_silence_is_counted_from_the_last_good_answer(
        self, kind: type, scripted: ScriptedCdf
    ) -> None:
        running = execution("RUNNING", task("approve", "IN_PROGRESS"))
        scripted.looks = [*[running] * 15, execution("COMPLETED", task("approve", "COMPLETED"))]

        assert fire(trigger_for(kind, max_poll_silence=0.3))["outcome"] == "reached"

    def test_an_execution_that_does_not_exist_ends_the_wait_with_its_id(
        self, kind: type, cdf_default: Any
    ) -> None:
        event = fire(trigger_for(kind))

        assert event["outcome"] in {"error", "impossible"}
        assert EXECUTION in json.dumps(event)

    def test_a_connection_that_is_not_found_ends_the_wait_by_its_patience(self, kind: type) -> None:
        """Airflow finds none, too, while a secrets backend is down."""
        event = fire(trigger_for(kind, cdf_conn_id="no_such_connection", max_poll_silence=0.2))

        assert event["outcome"] == "error"
        assert "no_such_connection" in json.dumps(event)

    def test_a_wrong_secret_ends_the_wait_and_is_not_in_the_event(
        self, kind: type, cdf: CdfEmulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = cdf.airflow_connection_uri().replace(cdf.client_secret, "wr0ng-secret")
        monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", uri)

        event = fire(trigger_for(kind, max_poll_silence=0.2))

        assert event["outcome"] == "error"
        assert "wr0ng-secret" not in json.dumps(event)

    @pytest.mark.parametrize("ends", ["COMPLETED", "FAILED"])
    def test_the_event_is_plain_json_without_secrets_inputs_and_outputs(
        self, kind: type, ends: str, scripted: ScriptedCdf
    ) -> None:
        known = task(
            "approve",
            ends,
            input={"function": {"data": {"marker": "marker-of-the-input"}}},
            output={"marker": "marker-of-the-output"},
        )
        scripted.looks = [
            execution(ends, known, input={"marker": "marker-of-the-workflow-input"}, metadata={"a": "meta-m"})
        ]

        event = fire(trigger_for(kind))

        assert_plain(event)
        text = json.dumps(event)
        for unwanted in (SECRET, TOKEN, "marker-of", "meta-m"):
            assert unwanted not in text

    @pytest.mark.parametrize("status", ["IN_PROGRESS", "ASLEEP"])
    def test_the_event_of_a_timeout_is_plain_json(
        self, kind: type, status: str, scripted: ScriptedCdf
    ) -> None:
        scripted.looks = [execution("RUNNING", task("approve", status))]

        event = fire(trigger_for(kind, end_time=time.time() + 0.05))

        assert event["outcome"] == "timeout"
        assert_plain(event)

    @pytest.mark.parametrize("look", [500, 404], ids=["silence", "unknown execution"])
    def test_the_event_of_an_error_is_plain_json_without_secrets(
        self, kind: type, look: int, scripted: ScriptedCdf
    ) -> None:
        scripted.looks = [look]

        event = fire(trigger_for(kind, max_poll_silence=0.1))

        assert_plain(event)
        assert SECRET not in json.dumps(event)
        assert TOKEN not in json.dumps(event)

    def test_yields_trigger_events(self, kind: type, scripted: ScriptedCdf) -> None:
        scripted.looks = [execution("COMPLETED", task("approve", "COMPLETED"))]

        async def collect() -> list[Any]:
            return [event async for event in trigger_for(kind).run()]

        assert [type(event) for event in asyncio.run(collect())] == [TriggerEvent]

    def test_only_reads(self, kind: type, scripted: ScriptedCdf) -> None:
        scripted.looks = [execution("RUNNING"), execution("FAILED", task("approve", "FAILED"))]

        fire(trigger_for(kind))

        posts = {path for method, path in scripted.requests if method != "GET"}
        assert posts <= {"/oauth2/token"}

    def test_closes_its_connections_when_it_has_fired(self, kind: type, scripted: ScriptedCdf) -> None:
        scripted.looks = [execution("COMPLETED", task("approve", "COMPLETED"))]

        async def fire_and_look() -> None:
            await first_event(trigger_for(kind))
            await closed(scripted)

        asyncio.run(fire_and_look())

    def test_lets_a_cancellation_through_and_closes_its_connections(
        self, kind: type, scripted: ScriptedCdf
    ) -> None:
        scripted.looks = [execution("RUNNING")]

        async def cancel() -> None:
            waiting = asyncio.create_task(first_event(trigger_for(kind)))
            await until(lambda: scripted.looked >= 2)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await closed(scripted)

        asyncio.run(asyncio.wait_for(cancel(), 20))

    def test_lets_a_cancellation_through_in_the_middle_of_a_request(
        self, kind: type, scripted: ScriptedCdf
    ) -> None:
        scripted.looks = [execution("RUNNING")]
        scripted.before_answer = lambda: time.sleep(0.3)

        async def cancel() -> None:
            waiting = asyncio.create_task(first_event(trigger_for(kind)))
            await until(lambda: bool(scripted.requests))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await closed(scripted)

        asyncio.run(asyncio.wait_for(cancel(), 20))

    def test_does_not_block_the_loop(self, kind: type, scripted: ScriptedCdf) -> None:
        scripted.looks = [execution("RUNNING"), execution("COMPLETED", task("approve", "COMPLETED"))]
        beats = 0
        blocked: list[int] = []

        def while_the_loop_goes_on() -> None:
            until = beats + 3
            for _ in range(500):
                if beats >= until:
                    return
                time.sleep(0.01)
            blocked.append(beats)

        async def heartbeat() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.001)

        async def fire_beside_a_heartbeat() -> Any:
            beating = asyncio.create_task(heartbeat())
            event = await first_event(trigger_for(kind))
            beating.cancel()
            return event

        # The token endpoint and CDF answer only when something else has had its turn on the loop meanwhile.
        scripted.before_answer = while_the_loop_goes_on
        assert asyncio.run(fire_beside_a_heartbeat())["outcome"] == "reached"
        # The login may be an earlier test's, whose server had the same port.
        assert len(scripted.requests) >= 2
        assert blocked == []


def assert_plain(value: Any) -> None:
    """Airflow logs and stores events: no subclasses of str, no enums, nothing that only looks like JSON."""
    if type(value) is dict:
        for key, item in value.items():
            assert type(key) is str
            assert_plain(item)
    elif type(value) is list:
        for item in value:
            assert_plain(item)
    else:
        assert type(value) in {str, int, float, bool, type(None)}, repr(value)


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(300):
        if happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("It did not happen")


async def closed(cdf: ScriptedCdf) -> None:
    """Wait until no client keeps a connection open."""
    await until(lambda: cdf.open == 0)
