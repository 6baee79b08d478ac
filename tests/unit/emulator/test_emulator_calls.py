"""Calls of handlers, and the time that they take: by a stopped clock, none."""

from __future__ import annotations

import sys
import threading
from typing import Any

import httpx
import pytest
from emulator_helpers import World, attempts, function, only, task
from emulator_http import Api

from airflow_provider_cdf.emulator import CdfEmulator, ManualClock, Reply
from airflow_provider_cdf.emulator.__main__ import main
from airflow_provider_cdf.emulator.functions import from_text
from airflow_provider_cdf.emulator.rules.definitions import WorkflowDefinition
from airflow_provider_cdf.emulator.rules.store import Execution

DAY = 24 * 3600


def run(cdf: CdfEmulator, *tasks: dict[str, Any]) -> Execution:
    with cdf.turn() as engine:
        definition = WorkflowDefinition.model_validate({"tasks": list(tasks)})
        engine.catalog.upsert_version("wf", "1", definition)
        return engine.run("wf", "1")


def seconds(execution: Execution) -> list[tuple[str, float]]:
    """How many seconds after the execution's creation each task ended."""
    return [
        (attempt.external_id, ((attempt.end_time or 0) - execution.created_time) / 1000)
        for attempt in execution.tasks()
    ]


def test_handler_that_answers_at_once_takes_no_time_of_a_stopped_clock() -> None:
    with CdfEmulator(clock=ManualClock(), functions={"a": lambda: 1, "b": lambda: 2}) as cdf:
        execution = run(cdf, function("a"), function("b", "a", timeout=100), function("c", "b"))
        cdf.advance(12 * 3600)
        assert execution.status == "COMPLETED"
        assert seconds(execution) == [("a", 0.05), ("b", 0.1), ("c", 0.35)]


def test_handler_that_fails_is_called_again_at_the_time_of_the_retry() -> None:
    called: list[int] = []

    def fail_twice() -> str:
        called.append(len(called))
        if len(called) < 3:
            raise ValueError("not yet")
        return "at last"

    with CdfEmulator(clock=ManualClock(), functions={"a": fail_twice}) as cdf:
        execution = run(cdf, function("a"))
        cdf.advance(60)
        assert [attempt.status for attempt in attempts(execution, "a")] == ["FAILED", "FAILED", "COMPLETED"]
        assert [end for _, end in seconds(execution)] == [0.05, 1.1, 3.15]


def test_handler_may_use_the_api_while_the_clock_waits_for_it() -> None:
    """Moved over HTTP: the server answers the handler's request while it waits for the handler."""

    def report(client: Any, data: dict[str, Any]) -> None:
        client.workflows.tasks.update(data["cogniteOrchestrationTaskId"], "completed", {"by": "handler"})

    with (
        CdfEmulator(clock=ManualClock(), functions={"a": report}) as cdf,
        httpx.Client(base_url=cdf.url) as client,
    ):
        started = Api(cdf, client).run(function("a", is_async=True, timeout=100))
        answer = client.post("/emulator/advance", json={"seconds": DAY}, timeout=60)
        assert answer.status_code == 200
        with cdf.turn() as engine:
            execution = engine.execution(started["id"])
            assert only(execution, "a").output["by"] == "handler"
            assert execution.status == "COMPLETED"


def test_handler_that_never_answers_does_not_stop_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_cdf.emulator.api.driver._PATIENCE", 0.2)
    with CdfEmulator(clock=ManualClock(), functions={"a": lambda: threading.Event().wait()}) as cdf:
        execution = run(cdf, function("a", timeout=100, retries=0))
        cdf.advance(99)
        assert execution.status == "RUNNING"
        cdf.advance(2)
        assert only(execution, "a").status == "TIMED_OUT"


def test_clock_waits_for_others_after_one_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_cdf.emulator.api.driver._PATIENCE", 2)
    never, soon = threading.Event(), threading.Event()
    functions = {"stuck": lambda: never.wait(), "soon": lambda: soon.wait(0.02)}
    with CdfEmulator(clock=ManualClock(), functions=functions) as cdf:
        names = [f"t{number}" for number in range(10)]
        chain = [
            function(name, *before, calls="soon", timeout=100)
            for name, before in zip(names, [[], *([name] for name in names)], strict=False)
        ]
        execution = run(cdf, function("stuck", timeout=43_200, retries=0), *chain)
        cdf.advance(12 * 3600)
        assert {only(execution, name).status for name in names} == {"COMPLETED"}
        assert only(execution, "stuck").status == "IN_PROGRESS"
        never.set()


def test_handler_that_exits_fails_its_call() -> None:
    with CdfEmulator(clock=ManualClock(), functions={"a": lambda: sys.exit(3)}) as cdf:
        execution = run(cdf, function("a", retries=0))
        cdf.advance(1)
        assert only(execution, "a").reason == "The function call failed: SystemExit: 3"


def test_time_cannot_go_back_and_only_a_stopped_clock_can_be_moved() -> None:
    with CdfEmulator(clock=ManualClock()) as cdf, pytest.raises(ValueError, match="cannot go back by 5"):
        cdf.advance(-5)
    with CdfEmulator() as cdf, pytest.raises(TypeError, match="Only a stopped clock"):
        cdf.advance(5)
    with pytest.raises(RuntimeError, match="is not running"):
        CdfEmulator(clock=ManualClock()).advance(1)


def test_response_is_a_copy_of_what_was_configured_or_returned() -> None:
    fixed, answers = {"values": [1]}, {"values": [1]}
    listing = {"items": [1]}
    world = World(functions={"a": fixed}, cdf_requests={"GET /x": listing})
    fixed["values"].append(2)
    listing["items"].append(2)
    request = {"cdfRequest": {"resourcePath": "/x", "method": "GET"}}
    execution = world.run(function("a"), task("b", "cdf", request))
    world.advance(10)
    assert only(execution, "a").output["response"] == {"values": [1]}
    assert only(execution, "b").output["response"] == {"items": [1]}
    only(execution, "a").output["response"]["values"].append("changed")
    again = world.run()
    world.advance(10)
    assert only(again, "a").output["response"] == {"values": [1]}
    with CdfEmulator(clock=ManualClock(), functions={"a": lambda: answers}) as cdf:
        called = run(cdf, function("a"))
        cdf.advance(1)
        answers["values"].append(2)
        assert only(called, "a").output["response"] == {"values": [1]}


@pytest.mark.parametrize("response", [float("nan"), [float("inf")], {1, 2}, "\ud800"])
def test_fixed_response_that_is_no_json_is_refused_at_start(response: Any) -> None:
    for behaviour in (response, Reply(response)):
        with pytest.raises(ValueError, match="The response of 'score' is not JSON: "):
            CdfEmulator(functions={"score": behaviour})


def test_fixed_response_that_is_no_json_is_refused_by_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "0", "--function", "score=NaN"]) == 1
    assert "The response of 'score' is not JSON: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reason"),
    [("!no wind", "no wind"), ("! no wind ", "no wind"), ("!", "The function failed, as it was told to")],
)
def test_function_that_fails_from_the_command_line(text: str, reason: str) -> None:
    world = World(functions={"score": from_text(text)})
    execution = world.run(function("score", retries=0))
    world.advance(10)
    assert execution.status == "FAILED"
    assert only(execution, "score").reason == f"The function call failed: {reason}"
