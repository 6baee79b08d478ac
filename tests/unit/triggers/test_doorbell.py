"""The doorbell: it rings while CDF tasks wait for Airflow, and asks CDF no more than it has to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from support import Project, function_task

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks.shared import SharedClient, shared_client
from airflow_provider_cdf.triggers import doorbell
from airflow_provider_cdf.triggers.doorbell import LOOK_AGAIN, RING_AGAIN, CdfTaskEventTrigger
from airflow_provider_cdf.triggers.streams import Snapshot, Stream
from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger

pytestmark = pytest.mark.usefixtures("cdf_default")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only a test moves."""
    now = [1000.0]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    return now


@pytest.fixture
def workflow(project: Project) -> str:
    return project.define(function_task("score", waits=True))


def start(project: Project, workflow: str) -> str:
    """Start an execution whose task ``score`` waits."""
    execution_id = project.run(workflow)
    project.task(execution_id, "score")
    return execution_id


def bell(workflow: str, **more: Any) -> CdfTaskEventTrigger:
    return CdfTaskEventTrigger(workflow_external_id=workflow, task_external_id="score", **more)


def rings(trigger: CdfTaskEventTrigger, *before_each_poll: Callable[[], Any]) -> list[int]:
    """Let a trigger see as many polls as there are things that happen before; return what it rings with."""
    rung: list[list[int]] = []

    async def polls() -> AsyncIterator[Snapshot]:
        async with shared_client("cdf_default") as client:
            stream = Stream(client)
            for happens in before_each_poll:
                await asyncio.to_thread(happens)
                rung.append([])
                yield Snapshot(stream, await client.running())

    async def main() -> None:
        async for event in trigger.filter_shared_stream(polls()):
            rung[-1].append(event.payload["waiting"])

    asyncio.run(main())
    return [sum(one) for one in rung]


def nothing() -> None: ...


def looks(cdf: CdfEmulator) -> int:
    return cdf.journal.count("GET", "*/executions/*")


class TestRings:
    def test_at_once_for_what_waits_already_and_for_what_begins_to(
        self, project: Project, workflow: str
    ) -> None:
        start(project, workflow)
        another = lambda: start(project, workflow)  # noqa: E731
        assert rings(bell(workflow), nothing, nothing, another, nothing) == [1, 0, 2, 0]

    def test_again_while_a_task_waits(self, project: Project, workflow: str, now: list[float]) -> None:
        start(project, workflow)

        def pass_by(seconds: float) -> Callable[[], None]:
            return lambda: now.__setitem__(0, now[0] + seconds)

        a_little_less, a_little = pass_by(RING_AGAIN - 1), pass_by(2)
        assert rings(bell(workflow), nothing, a_little_less, a_little, nothing) == [1, 0, 1, 0]

    def test_no_more_once_it_has_been_done(self, project: Project, workflow: str, now: list[float]) -> None:
        execution_id = start(project, workflow)

        def done() -> None:
            project.update(project.task(execution_id, "score")["id"], "COMPLETED")
            now[0] += RING_AGAIN + 1

        assert rings(bell(workflow), nothing, done, nothing) == [1, 0, 0]

    def test_for_the_next_attempt_of_cdf(self, project: Project, now: list[float]) -> None:
        workflow = project.define(function_task("score", waits=True, retries=1))
        execution_id = start(project, workflow)

        def fail() -> None:
            project.update(project.task(execution_id, "score")["id"], "FAILED")
            for _ in range(2):
                project.task(execution_id, "score")
            now[0] += LOOK_AGAIN + 1

        assert rings(bell(workflow), nothing, fail) == [1, 1]

    def test_not_for_other_workflows_versions_and_tasks(self, project: Project, workflow: str) -> None:
        start(project, workflow)
        other = project.define(function_task("score", waits=True))
        assert rings(bell(other), nothing) == [0]
        assert rings(bell(workflow, version="2"), nothing) == [0]
        assert rings(bell(workflow, version="1"), nothing) == [1]
        assert rings(bell(workflow, parent_task_external_id="each"), nothing) == [0]

    def test_with_all_that_wait(self, project: Project, workflow: str) -> None:
        for _ in range(5):
            start(project, workflow)
        assert rings(bell(workflow), nothing) == [5]


class TestCost:
    def test_of_what_waits_is_no_request_at_every_poll(
        self, cdf: CdfEmulator, project: Project, workflow: str, now: list[float]
    ) -> None:
        start(project, workflow)
        before = looks(cdf)
        rings(bell(workflow), nothing, nothing, nothing)
        assert looks(cdf) - before == 1

    def test_of_many_that_wait_is_one_request_each_second(
        self, cdf: CdfEmulator, project: Project, workflow: str, now: list[float]
    ) -> None:
        crowd = int(LOOK_AGAIN) + 10
        for _ in range(crowd):
            start(project, workflow)

        def later(seconds: float) -> Callable[[], Any]:
            return lambda: now.__setitem__(0, now[0] + seconds)

        before = looks(cdf)
        trigger = bell(workflow)
        rings(trigger, nothing, later(crowd - 1))
        assert looks(cdf) - before == crowd
        rings(trigger, later(1))
        assert looks(cdf) - before == 2 * crowd

    def test_of_what_will_not_wait_any_more_is_none_either(
        self, cdf: CdfEmulator, project: Project, now: list[float]
    ) -> None:
        tasks = [function_task("score", waits=True), function_task("rest", waits=True)]
        execution_id = start(project, workflow := project.define(*tasks))
        project.update(project.task(execution_id, "score")["id"], "COMPLETED")
        before = looks(cdf)
        assert rings(bell(workflow), nothing, nothing, nothing) == [0, 0, 0]
        assert looks(cdf) - before == 1

    def test_of_what_has_not_begun_is_one_for_each_poll(
        self, cdf: CdfEmulator, project: Project, now: list[float]
    ) -> None:
        first, score = function_task("first", waits=True), function_task("score", waits=True)
        workflow = project.define(first, {**score, "dependsOn": [{"externalId": "first"}]})
        project.task(project.run(workflow), "first")
        before = looks(cdf)
        rings(bell(workflow), nothing, nothing, nothing)
        assert looks(cdf) - before == 3

    def test_is_shared_with_triggers_that_wait_for_executions(self) -> None:
        key = bell("pumps", poll_interval=7).shared_stream_key()
        assert key == CdfWorkflowTrigger(execution_id="x", poll_interval=7).shared_stream_key()
        assert key != bell("pumps", poll_interval=8).shared_stream_key()
        assert key == bell("tanks", poll_interval=7).shared_stream_key()


def test_outlives_an_outage_and_says_so_once(
    cdf: CdfEmulator, project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    trigger = bell(workflow)
    monkeypatch.setattr(trigger.log, "warning", lambda text, *arguments: said.append(text % arguments))
    start(project, workflow)
    broken = lambda: cdf.faults.add("POST", "*/executions/list", status=503)  # noqa: E731
    try:
        assert rings(trigger, broken, broken, nothing) == [0, 0, 1]
    finally:
        cdf.faults.clear()
    assert len(said) == 1
    assert "503" in said[0]


def test_says_once_that_an_execution_cannot_be_read_and_looks_again_later(
    cdf: CdfEmulator, project: Project, workflow: str, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    trigger = bell(workflow)
    monkeypatch.setattr(trigger.log, "warning", lambda text, *arguments: said.append(text % arguments))
    execution_id = start(project, workflow)

    def later() -> None:
        now[0] += LOOK_AGAIN + 1

    cdf.faults.add("GET", "*/executions/*", status=403, times=2)
    before = looks(cdf)
    try:
        assert rings(trigger, nothing, nothing, nothing, later, nothing, later) == [0, 0, 0, 0, 0, 1]
        assert looks(cdf) - before == 3
        assert len(said) == 1
        cdf.faults.add("GET", "*/executions/*", status=500)
        rings(trigger, later)
    finally:
        cdf.faults.clear()
    assert [text.endswith("Polling goes on.") for text in said] == [True, True]
    assert "403" in said[0]
    assert execution_id in said[0]
    assert "500" in said[1]


def test_one_read_that_hangs_holds_up_no_other(
    project: Project, workflow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = start(project, workflow)
    start(project, workflow)
    begun: list[str] = []
    let_go, is_read = threading.Event(), threading.Event()
    turn = SharedClient._turn

    async def slow(self: SharedClient, execution_id: str, *more: Any, **named: Any) -> Any:
        begun.append(execution_id)
        if execution_id == hangs:
            await asyncio.to_thread(let_go.wait, 30)
        look = await turn(self, execution_id, *more, **named)
        if execution_id == hangs:
            is_read.set()
        return look

    def over() -> None:
        let_go.set()
        assert is_read.wait(30)

    monkeypatch.setattr(SharedClient, "_turn", slow)
    assert rings(bell(workflow, poll_interval=0.5), nothing, nothing, over) == [1, 0, 2]
    assert begun.count(hangs) == 1


def test_rings_by_itself_where_airflow_shares_nothing(project: Project, workflow: str) -> None:
    start(project, workflow)

    async def main() -> Any:
        async for event in bell(workflow).run():
            return event.payload

    assert asyncio.run(asyncio.wait_for(main(), 60)) == {"waiting": 1, "task_external_id": "score"}


@pytest.mark.parametrize("interval", ["soon", -1, None, float("inf")])
def test_never_refuses_what_was_stored(interval: Any) -> None:
    trigger = CdfTaskEventTrigger(poll_interval=interval, from_a_newer_release=True)
    assert trigger.interval == 10.0


@pytest.mark.parametrize("interval", [timedelta(seconds=3), "3", "3.0"])
def test_takes_an_interval_as_timedelta_or_text_and_a_version_as_number(interval: Any) -> None:
    trigger = CdfTaskEventTrigger(version=1, poll_interval=interval)  # type: ignore[arg-type]  # on purpose
    assert trigger.interval == 3.0
    assert trigger.version == "1"
    assert json.loads(json.dumps(trigger.serialize()[1]))["poll_interval"] == 3.0


@pytest.mark.parametrize(("missing", "named"), [("workflow_external_id", True), ("cdf_conn_id", False)])
def test_says_that_it_will_never_ring(missing: str, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    ids = {"workflow_external_id": "pumps", "task_external_id": "score", missing: ""}
    trigger = CdfTaskEventTrigger(**ids)  # type: ignore[arg-type]
    monkeypatch.setattr(trigger.log, "warning", lambda text, *arguments: said.append(text % arguments))
    rings(trigger)
    assert said == ([f"{missing} is empty: this watcher will never ring."] if named else [])


def test_is_stored_and_made_again(workflow: str) -> None:
    path, kwargs = bell(workflow, version="1", parent_task_external_id="each", poll_interval=3).serialize()
    assert path == f"{doorbell.__name__}.CdfTaskEventTrigger"
    again = CdfTaskEventTrigger(**json.loads(json.dumps(kwargs)))
    assert again.serialize() == (path, kwargs)
