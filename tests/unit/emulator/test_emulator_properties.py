"""What must hold for any workflow, whatever fails and whoever reports what: random graphs, random events."""

from __future__ import annotations

from typing import Any

import hypothesis
from emulator_helpers import World, function, task
from hypothesis import strategies as st

from airflow_provider_cdf.emulator import Reply
from airflow_provider_cdf.emulator.rules.errors import CdfError
from airflow_provider_cdf.emulator.rules.store import SATISFIED, WAITING, Execution

BEHAVIOURS = {
    "good": Reply(seconds=1),
    "slow": Reply(seconds=90),
    "hangs": Reply(seconds=100_000),
    "bad": Reply(error="boom", seconds=1),
}
DAY = 24 * 3600


@st.composite
def graphs(draw: Any, prefix: str = "t", nested: bool = False) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 4 if nested else 6))):
        name = f"{prefix}{index}"
        after = [other["externalId"] for other in tasks if draw(st.booleans())]
        options = {
            "retries": draw(st.integers(0, 2)),
            "timeout": draw(st.sampled_from([100, 5000, 43200])),
            "onFailure": draw(st.sampled_from(["abortWorkflow", "skipTask"])),
        }
        if not nested and draw(st.integers(0, 4)) == 0:
            inner = draw(graphs(prefix=f"{name}-", nested=True))
            tasks.append(task(name, "subworkflow", {"subworkflow": {"tasks": inner}}, *after, **options))
        else:
            calls = draw(st.sampled_from(sorted(BEHAVIOURS)))
            is_async = draw(st.booleans())
            tasks.append(function(name, *after, calls=calls, is_async=is_async, **options))
    return tasks


EVENTS = st.one_of(
    st.tuples(st.just("advance"), st.sampled_from([0, 0.05, 0.5, 2, 60, 150, 10_000])),
    st.tuples(
        st.just("update"),
        st.integers(0, 30),
        st.sampled_from(["COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR"]),
    ),
    st.tuples(st.just("skip"), st.integers(0, 30)),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("retry")),
)


def happen(world: World, execution: Execution, event: tuple[Any, ...]) -> None:
    attempts, planned = list(execution.tasks()), list(execution.plan.values())
    try:
        match event:
            case ("advance", seconds):
                world.advance(seconds)
            case ("update", index, status) if attempts:
                world.engine.update_task(attempts[index % len(attempts)].id, status, {"k": 1})
            case ("skip", index):
                external_id = planned[index % len(planned)].definition.external_id
                world.engine.skip_task(execution.id, external_id)
            case ("cancel",):
                world.engine.cancel(execution.id)
            case ("retry",):
                world.engine.retry(execution.id)
    except CdfError:
        pass  # refused, as an update of a task that is not async is


def check(execution: Execution) -> None:
    ended = execution.status != "RUNNING"
    assert ended == (execution.end_time is not None)
    for planned in execution.plan.values():
        statuses = [attempt.status for attempt in planned.attempts]
        assert not WAITING & set(statuses[:-1]), "only the latest attempt may wait"
        assert not SATISFIED & set(statuses[:-1]), "what has ended well is not run again"
        assert len(statuses) <= planned.max_attempts
        for attempt in planned.attempts:
            assert (attempt.status in WAITING) == (attempt.end_time is None)
            assert not (ended and attempt.status in WAITING), "a task waits, but its execution has ended"
            if attempt.status != "SCHEDULED" and attempt.start_time is not None:
                check_order(execution, planned, attempt.start_time)
        if execution.status == "COMPLETED":
            assert planned.satisfied


def check_order(execution: Execution, planned: Any, started: int) -> None:
    needed = [execution.plan[(planned.parent, name)] for name in planned.definition.dependencies]
    if planned.parent is not None:
        parent = execution.plan[(None, planned.parent)]
        assert parent.current is not None
        assert parent.current.status in SATISFIED
    for dependency in needed:
        for end in [dependency, *dependency.children]:
            assert end.current is not None
            assert end.current.status in SATISFIED, "started before what it depends on had ended well"
            assert end.current.end_time is not None
            assert end.current.end_time <= started


@hypothesis.given(tasks=graphs(), events=st.lists(EVENTS, max_size=12))
@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
def test_any_workflow_keeps_its_order_and_ends(tasks: list[dict[str, Any]], events: list[Any]) -> None:
    world = World(dict(BEHAVIOURS))
    execution = world.run(*tasks)
    check(execution)
    for event in events:
        happen(world, execution, event)
        check(execution)
    world.advance(DAY)
    check(execution)
    assert execution.status != "RUNNING"
    assert world.engine.timeline.next_due() is None, "nothing of an ended execution is left to happen"
    assert not world.engine.store.running
    assert world.engine.store.started.total() == 0


@hypothesis.given(limit=st.integers(1, 3), ends=st.lists(st.integers(0, 20), max_size=25))
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
def test_never_more_executions_than_allowed_and_none_is_forgotten(limit: int, ends: list[int]) -> None:
    world = World()
    world.define(function("a", is_async=True))
    world.engine.catalog.upsert_workflow("wf", max_concurrent_executions=limit)
    executions = [world.run() for _ in range(8)]
    for index in ends:
        execution = executions[index % len(executions)]
        if execution.status == "RUNNING":
            world.engine.cancel(execution.id)
        else:
            world.engine.retry(execution.id)
        started = [e for e in executions if e.status == "RUNNING" and not e.queued]
        running = [e for e in executions if e.status == "RUNNING"]
        assert len(started) == min(limit, len(running))
    world.advance(DAY * 10)
    assert all(execution.status != "RUNNING" for execution in executions)
