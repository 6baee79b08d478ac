"""The event trigger that tells which executions have ended: each at least once, whatever is restarted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from support import Project, function_task

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.triggers import endings
from airflow_provider_cdf.triggers.endings import CURSOR, OVERLAP, CdfWorkflowEventTrigger, Cursor

pytestmark = pytest.mark.usefixtures("cdf_default")


class Store:
    """Airflow's store of an asset's states; it outlives the triggerer."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.errors: list[Exception] = []

    async def aget(self, key: str, default: Any = None) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return json.loads(self.values[key]) if key in self.values else default

    async def aset(self, key: str, value: Any) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.values[key] = json.dumps(value)


class Stop(BaseException):
    """The triggerer is killed."""


@pytest.fixture
def workflow(project: Project) -> str:
    return project.define(function_task("score", waits=True, retries=0))


def end(project: Project, workflow: str, status: str = "COMPLETED") -> str:
    """Run an execution to its end; return its id."""
    execution_id = project.run(workflow)
    project.update(project.task(execution_id, "score")["id"], status)
    for _ in range(500):
        if project.execution(execution_id)["status"] != "RUNNING":
            return execution_id
    raise AssertionError("not ended")


def watch(
    workflow: str, store: Store | None, monkeypatch: pytest.MonkeyPatch, *in_the_pauses: Any, **more: Any
) -> list[dict[str, Any]]:
    """
    Let a trigger poll, and something happen in each pause after a poll; then the triggerer is killed.

    :return: what it tells.
    """
    trigger = CdfWorkflowEventTrigger(workflow_external_id=workflow, **more)
    trigger.asset_state_store = store  # type: ignore[assignment]
    pauses = iter(in_the_pauses)

    async def pause(seconds: float) -> None:
        happens = next(pauses, None)
        if happens is None:
            raise Stop
        await asyncio.to_thread(happens)

    monkeypatch.setattr(clock, "asleep", pause)
    told: list[dict[str, Any]] = []

    async def main() -> None:
        async with aclosing(trigger.run()) as events:  # type: ignore[type-var]
            async for event in events:
                told.append(event.payload)

    with pytest.raises(Stop):
        asyncio.run(main())
    return told


def nothing() -> None: ...


def ids(told: list[dict[str, Any]]) -> list[list[str]]:
    return [[one["id"] for one in event["executions"]] for event in told]


class TestTells:
    def test_what_ends_once_and_not_what_had_ended_before(
        self, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        end(project, workflow)
        ended: list[str] = []
        ending = lambda: ended.append(end(project, workflow))  # noqa: E731

        told = watch(workflow, Store(), monkeypatch, ending, nothing, ending, nothing, nothing)

        assert ids(told) == [[one] for one in ended]
        (one,) = told[0]["executions"]
        execution = project.execution(ended[0])
        assert one == {"id": ended[0], "status": "COMPLETED", "end_time": execution["endTime"]}
        assert told[0]["more"] == 0

    def test_nothing_from_before_that_the_first_list_has_left_out(
        self, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = CdfWorkflowEventTrigger._ended
        before = ended_at("before", time.time() * 1000 - OVERLAP - 60_000)
        before.status = "COMPLETED"
        lists: list[list[Any]] = [[]]

        async def ended(self: CdfWorkflowEventTrigger, hook: CdfHook) -> Any:
            return lists.pop() if lists else [before, *await asked(self, hook)]

        monkeypatch.setattr(CdfWorkflowEventTrigger, "_ended", ended)
        now: list[str] = []
        told = watch(workflow, Store(), monkeypatch, lambda: now.append(end(project, workflow)), nothing)
        assert ids(told) == [now]

    def test_only_the_statuses_and_versions_that_are_wanted(
        self, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ended: list[str] = []

        def both() -> None:
            ended.extend([end(project, workflow), end(project, workflow, "FAILED")])

        assert ids(watch(workflow, None, monkeypatch, both, nothing)) == [[ended[0]]]
        told = watch(workflow, None, monkeypatch, both, nothing, statuses=["FAILED", "COMPLETED"])
        assert ids(told) == [ended[2:]]
        assert watch(workflow, None, monkeypatch, both, nothing, version="2") == []
        assert ids(watch(workflow, None, monkeypatch, both, nothing, statuses="failed")) == [[ended[-1]]]

    def test_nothing_else_where_the_server_does_not_filter_and_nothing_twice(
        self, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = CdfHook.alist_executions

        async def all_of_them_twice(hook: CdfHook, **filters: Any) -> Any:
            for _ in range(2):
                async for one in asked(hook, created_after=filters["created_after"]):
                    yield one

        monkeypatch.setattr(CdfHook, "alist_executions", all_of_them_twice)
        other = project.define(function_task("score", waits=True, retries=0))
        ended: list[str] = []

        def several() -> None:
            end(project, other)
            end(project, workflow, "FAILED")
            ended.append(end(project, workflow))

        assert ids(watch(workflow, None, monkeypatch, several, nothing, nothing)) == [ended]
        assert watch(workflow, None, monkeypatch, several, nothing, version="2") == []

    def test_an_execution_again_that_cdf_has_retried(
        self, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failed: list[str] = []

        def fail() -> None:
            failed.append(end(project, workflow, "FAILED"))

        def retry() -> None:
            nonce = {"authentication": {"nonce": project.nonce()}}
            project.post(f"/workflows/executions/{failed[0]}/retry", nonce)
            project.update(project.task(failed[0], "score")["id"], "FAILED")
            project.task(failed[0], "score", "FAILED")

        told = watch(workflow, None, monkeypatch, fail, nothing, retry, nothing, statuses=["FAILED"])
        assert ids(told) == [[failed[0]], [failed[0]]]
        first, second = (event["executions"][0]["end_time"] for event in told)
        assert second > first

    def test_fifty_at_most_and_how_many_more(
        self, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(endings, "MAX_NAMED", 2)
        ended: list[str] = []
        three = lambda: ended.extend(end(project, workflow) for _ in range(3))  # noqa: E731
        (event,) = watch(workflow, None, monkeypatch, three, nothing)
        assert ids([event]) == [ended[1:]]
        assert event["more"] == 1


class TestNeverTells:
    @pytest.mark.parametrize(
        ("given", "text"),
        [
            ({"workflow_external_id": ""}, "workflow_external_id is empty: nothing"),
            ({"statuses": "COMPLETE"}, "['COMPLETE']: nothing"),
            ({"statuses": ["running"]}, "['RUNNING']: nothing"),
            ({"statuses": ["failed", "COMPLETE"]}, "['COMPLETE']: of that, nothing"),
            ({}, ""),
        ],
        ids=str,
    )
    def test_what_never_comes_and_says_so_once(
        self, given: Any, text: str, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said: list[str] = []
        log = SimpleNamespace(warning=lambda text, *more: said.append(text % more), info=lambda *_: None)
        monkeypatch.setattr(CdfWorkflowEventTrigger, "log", log)
        ending: Callable[[], Any] = lambda: end(project, workflow, "FAILED")  # noqa: E731
        more = dict(given)
        watched = more.pop("workflow_external_id", workflow)
        told = watch(watched, Store(), monkeypatch, ending, nothing, **more)
        assert bool(told) == ("failed" in given.get("statuses", ()))
        assert len(said) == bool(text)
        assert text in "".join(said)


class TestRestart:
    def test_tells_what_has_ended_meanwhile_and_nothing_twice(
        self, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, ended = Store(), []
        ending = lambda: ended.append(end(project, workflow))  # noqa: E731
        before = watch(workflow, store, monkeypatch, ending, nothing, nothing)
        ending()
        after = watch(workflow, store, monkeypatch, nothing, nothing)
        assert ids(before + after) == [[one] for one in ended]

    def test_between_event_and_note_tells_it_again(
        self, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, ended = Store(), []
        ending = lambda: ended.append(end(project, workflow))  # noqa: E731
        before = watch(workflow, store, monkeypatch, ending)  # killed in the pause after the event
        after = watch(workflow, store, monkeypatch, nothing, nothing)
        assert before == after
        assert ids(after) == [ended]

    def test_without_a_store_begins_anew_and_says_so(
        self, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said: list[str] = []
        log = SimpleNamespace(warning=lambda text, *more: said.append(text % more), info=lambda *_: None)
        monkeypatch.setattr(CdfWorkflowEventTrigger, "log", log)
        end(project, workflow)
        assert watch(workflow, None, monkeypatch, nothing) == []
        assert "will not be told" in said[0]


class TestTrouble:
    def test_with_cdf_is_outlived(
        self, cdf: CdfEmulator, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken() -> None:
            end(project, workflow)
            cdf.faults.add("POST", "*/executions/list", status=503, times=2)

        try:
            assert len(watch(workflow, None, monkeypatch, broken, nothing, nothing, nothing)) == 1
        finally:
            cdf.faults.clear()

    def test_with_the_store_is_tried_again(
        self, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store()
        watch(workflow, store, monkeypatch, nothing)
        ended = end(project, workflow)
        store.errors = [ConnectionError("api-server"), ConnectionError("api-server")]
        assert ids(watch(workflow, store, monkeypatch, nothing, nothing, nothing, nothing)) == [[ended]]

    def test_of_several_assets_with_one_watcher_is_as_without_a_store(
        self, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store()
        store.errors = [ValueError("Task has 2 concrete inlets")] * 3
        ending: Callable[[], Any] = lambda: end(project, workflow)  # noqa: E731
        assert len(watch(workflow, store, monkeypatch, ending, nothing)) == 1

    @pytest.mark.parametrize("stored", [None, [], {}, {"told": 7}, "x"])
    def test_what_is_stored_may_be_no_cursor(self, stored: Any) -> None:
        assert Cursor.read(stored) is None


def ended_at(name: str, milliseconds: float) -> Any:
    return SimpleNamespace(id=name, end_time=int(milliseconds))


@pytest.mark.parametrize("ahead", [3_600_000, 365 * 86_400_000], ids=["hour", "year"])
class TestAnEndInTheFuture:
    def test_is_told_once_and_silences_nothing(self, ahead: int) -> None:
        cursor, now = Cursor(), time.time() * 1000
        late = ended_at("late", now + ahead)
        cursor.tell([late], [late])
        assert cursor.floor <= time.time() * 1000 - OVERLAP
        assert cursor.is_new(ended_at("next", now))
        for number in range(3):
            assert not cursor.is_new(late)
            cursor.tell([ended_at(str(number), now + number)], [late])
        cursor.tell([ended_at("x", now)], [])
        assert "late" not in cursor.told  # for ever, it would grow

    def test_that_was_stored_as_the_floor_is_corrected(self, ahead: int) -> None:
        now = time.time() * 1000
        cursor = Cursor.read({"floor": now + ahead, "told": {"late": now + ahead, "odd": "x"}})
        assert cursor is not None
        assert cursor.floor <= time.time() * 1000 - OVERLAP
        assert cursor.is_new(ended_at("next", now))
        cursor.tell([])
        assert list(cursor.told) in ([], ["late"])


def test_the_cursor_stays_small() -> None:
    cursor = Cursor()
    for number in range(1000):
        cursor.tell([SimpleNamespace(id=str(number), end_time=(number + 1) * 10_000)])  # type: ignore[list-item]
    assert len(cursor.told) == OVERLAP / 10_000
    again = Cursor.read(json.loads(json.dumps(cursor.stored())))
    assert again is not None
    assert (again.floor, again.told) == (cursor.floor, cursor.told)
    assert not again.is_new(SimpleNamespace(id="old", end_time=5))  # type: ignore[arg-type]
    assert not again.is_new(SimpleNamespace(id="none", end_time=None))  # type: ignore[arg-type]
    assert CURSOR == "cdf_endings"


@pytest.mark.parametrize("interval", [timedelta(seconds=3), "3"])
def test_takes_an_interval_as_timedelta_or_text_and_a_version_as_number(interval: Any) -> None:
    trigger = CdfWorkflowEventTrigger(version=1, poll_interval=interval)  # type: ignore[arg-type]  # on purpose
    stored = json.loads(json.dumps(trigger.serialize()[1]))
    assert (stored["version"], stored["poll_interval"]) == ("1", 3.0)


@pytest.mark.parametrize("value", ["soon", -1, None])
def test_never_refuses_what_was_stored(value: Any) -> None:
    trigger = CdfWorkflowEventTrigger(poll_interval=value, from_a_newer_release=True)
    path, kwargs = trigger.serialize()
    assert CdfWorkflowEventTrigger(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)
