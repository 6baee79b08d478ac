"""The rules of Data workflows, each in a test named after it, on a clock that is moved by hand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from emulator_helpers import World, attempts, function, only, statuses, task

from airflow_provider_cdf.emulator import Reply
from airflow_provider_cdf.emulator.rules.errors import InvalidRequestError, NotFoundError

FAIL = Reply(error="boom")


def test_first_task_is_listed_as_scheduled_right_after_run() -> None:
    execution = World().run(function("a"))
    assert statuses(execution) == {"a": "SCHEDULED"}
    assert only(execution, "a").start_time is None


def test_task_is_in_progress_after_pickup_and_completes_after_the_functions_time() -> None:
    world = World()
    execution = world.run(function("a"))
    world.advance(0.05)
    assert statuses(execution) == {"a": "IN_PROGRESS"}
    world.advance(0.19)
    assert statuses(execution) == {"a": "IN_PROGRESS"}
    world.advance(0.01)
    assert (execution.status, statuses(execution)) == ("COMPLETED", {"a": "COMPLETED"})


def test_events_happen_at_their_own_time_however_far_the_clock_jumps() -> None:
    world = World()
    execution = world.run(function("a"), function("b", "a"))
    world.advance(3600)
    first, second = only(execution, "a"), only(execution, "b")
    assert (first.start_time, first.end_time) == (execution.created_time + 50, execution.created_time + 250)
    assert (second.start_time, second.end_time) == (
        execution.created_time + 300,
        execution.created_time + 500,
    )
    assert execution.end_time == execution.created_time + 500


def test_task_starts_only_when_all_that_it_depends_on_have_ended() -> None:
    world = World({"slow": Reply(seconds=5)})
    execution = world.run(function("fast"), function("slow"), function("last", "fast", "slow"))
    world.advance(1)
    assert statuses(execution) == {"fast": "COMPLETED", "slow": "IN_PROGRESS"}
    world.advance(5)
    assert statuses(execution)["last"] == "COMPLETED"


def test_workflow_without_tasks_completes_at_once() -> None:
    world = World()
    world.define()
    assert world.run().status == "COMPLETED"


def test_unknown_version_cannot_be_run() -> None:
    with pytest.raises(NotFoundError, match="Version '1' of workflow 'wf' was not found"):
        World().run()


def test_input_gains_the_key_version() -> None:
    world = World()
    assert world.run(function("a"), input={"x": 1}).input == {"x": 1, "version": "1"}


def test_references_are_resolved_into_inputs() -> None:
    world = World({"a": {"values": [1, {"deep": True}]}})
    data = {
        "whole": "${a.output.response.values}",
        "item": "${a.output.response.values[1].deep}",
        "text": "v${workflow.input.version}: ${a.output.response.values}",
        "input": "${a.input.function.externalId}",
        "unknown": "${a.output.nothing.there}",
        "blank": "<${nobody.output.x}>",
    }
    execution = world.run(function("a"), function("b", "a", data=data))
    world.advance(1)
    assert only(execution, "b").input["function"]["data"] == {
        "whole": [1, {"deep": True}],
        "item": True,
        "text": 'v1: [1, {"deep": true}]',
        "input": "a",
        "unknown": None,
        "blank": "<>",
    }


def test_external_id_of_a_function_may_be_a_reference() -> None:
    world = World({"chosen": {"it": "ran"}})
    execution = world.run(function("a", calls="${workflow.input.name}"), input={"name": "chosen"})
    world.advance(1)
    assert only(execution, "a").output["response"] == {"it": "ran"}


def test_function_whose_external_id_resolves_to_nothing_fails() -> None:
    world = World()
    execution = world.run(function("a", calls="${workflow.input.name}", retries=0))
    world.advance(1)
    assert execution.status == "FAILED"
    assert "externalId is not a string" in str(only(execution, "a").reason)


def test_failed_task_is_retried_with_a_new_task_id_and_the_old_attempt_stays_listed() -> None:
    world = World({"a": FAIL})
    execution = world.run(function("a", retries=1))
    world.advance(0.25)
    first, second = attempts(execution, "a")
    assert (first.status, second.status) == ("FAILED", "SCHEDULED")
    assert first.id != second.id
    assert first.reason == "The function call failed: boom"


def test_retries_wait_longer_each_time() -> None:
    world = World({"a": Reply(error="boom", seconds=0)})
    execution = world.run(function("a", retries=3))
    world.advance(60)
    started = [attempt.start_time for attempt in attempts(execution, "a")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(started)]
    assert gaps == [1050, 2050, 3050]


def test_workflow_fails_when_the_attempts_are_used_up() -> None:
    world = World({"a": FAIL})
    execution = world.run(function("a", retries=2), function("b", "a"))
    world.advance(60)
    assert [attempt.status for attempt in attempts(execution, "a")] == ["FAILED"] * 3
    assert execution.status == "FAILED"
    assert "failed with status: FAILED and reason: 'The function call failed: boom'" in str(execution.reason)
    assert "b" not in statuses(execution)


def test_failing_workflow_cancels_its_other_tasks() -> None:
    world = World({"a": FAIL, "slow": Reply(seconds=9)})
    execution = world.run(function("a", retries=0), function("slow"), function("waiting", is_async=True))
    world.advance(10)
    assert statuses(execution) == {"a": "FAILED", "slow": "CANCELED", "waiting": "CANCELED"}
    assert only(execution, "slow").end_time == execution.end_time


def test_skip_task_goes_on_after_the_attempts_are_used_up() -> None:
    world = World({"a": FAIL})
    execution = world.run(function("a", retries=1, onFailure="skipTask"), function("b", "a"))
    world.advance(60)
    assert [attempt.status for attempt in attempts(execution, "a")] == ["FAILED", "COMPLETED_WITH_ERRORS"]
    assert (execution.status, statuses(execution)["b"]) == ("COMPLETED", "COMPLETED")


def test_timeout_with_abort_workflow_is_not_retried() -> None:
    world = World({"a": Reply(seconds=1000)})
    execution = world.run(function("a", timeout=100, retries=3))
    world.advance(101)
    assert statuses(execution) == {"a": "TIMED_OUT"}
    assert execution.status == "FAILED"


def test_timeout_with_skip_task_is_retried_until_the_attempts_are_used_up() -> None:
    world = World({"a": Reply(seconds=1000)})
    execution = world.run(function("a", timeout=100, retries=1, onFailure="skipTask"))
    world.advance(101)
    assert [attempt.status for attempt in attempts(execution, "a")] == ["TIMED_OUT", "SCHEDULED"]
    world.advance(110)
    assert [attempt.status for attempt in attempts(execution, "a")] == ["TIMED_OUT", "COMPLETED_WITH_ERRORS"]
    assert execution.status == "COMPLETED"


def test_timeout_of_an_async_task_runs_over_the_whole_wait() -> None:
    world = World()
    execution = world.run(function("a", is_async=True, timeout=43200))
    world.advance(43200)
    assert statuses(execution) == {"a": "IN_PROGRESS"}
    world.advance(0.05)
    assert statuses(execution) == {"a": "TIMED_OUT"}


def test_execution_times_out_after_24_hours() -> None:
    world = World()
    tasks = [function("a", is_async=True, timeout=43200, onFailure="skipTask", retries=10)]
    execution = world.run(*tasks)
    world.advance(24 * 3600)
    assert execution.status == "TIMED_OUT"
    assert "SCHEDULED" not in statuses(execution).values()
    assert "IN_PROGRESS" not in statuses(execution).values()


def test_async_task_stays_in_progress_until_it_is_updated() -> None:
    world = World({"a": {"sent": True}})
    execution = world.run(function("a", is_async=True), function("b", "a", data={"k": "${a.output.k}"}))
    world.advance(3000)
    waiting = only(execution, "a")
    assert waiting.status == "IN_PROGRESS"
    assert waiting.output["response"] == {"sent": True}
    world.engine.update_task(waiting.id, "COMPLETED", {"k": 7, "response": "mine"})
    assert waiting.output["response"] == "mine", "output is merged key by key at the top level"
    assert set(waiting.output) == {"callId", "functionId", "response", "k"}
    world.advance(1)
    assert execution.status == "COMPLETED"
    assert only(execution, "b").input["function"]["data"] == {"k": 7}


@pytest.mark.parametrize("seconds", [0, 0.1], ids=["SCHEDULED", "IN_PROGRESS"])
def test_update_may_come_before_the_function_has_returned(seconds: float) -> None:
    world = World({"a": {"late": True}})
    execution = world.run(function("a", is_async=True))
    world.advance(seconds)
    world.engine.update_task(only(execution, "a").id, "COMPLETED", {"k": 1})
    assert execution.status == "COMPLETED"
    world.advance(10)
    assert only(execution, "a").output == {"k": 1}, "what the function returns afterwards is dropped"


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED_WITH_TERMINAL_ERROR"])
def test_late_update_is_refused(status: str) -> None:
    world = World()
    execution = world.run(function("a", is_async=True, retries=0))
    task_id = only(execution, "a").id
    world.engine.update_task(task_id, status)
    with pytest.raises(InvalidRequestError, match=f"Task with id {task_id} is already in a terminal state"):
        world.engine.update_task(task_id, "COMPLETED")


def test_update_to_failed_is_retried_and_calls_the_function_again() -> None:
    world = World()
    execution = world.run(function("a", is_async=True, retries=1))
    world.advance(1)
    first = only(execution, "a")
    world.engine.update_task(first.id, "FAILED", {"why": "no wind"})
    assert execution.status == "RUNNING"
    world.advance(5)
    _, second = attempts(execution, "a")
    assert (first.status, first.output["why"]) == ("FAILED", "no wind")
    assert (second.status, second.output["callId"] == first.output["callId"]) == ("IN_PROGRESS", False)


def test_terminal_error_is_not_retried() -> None:
    world = World()
    execution = world.run(function("a", is_async=True, retries=3))
    world.engine.update_task(only(execution, "a").id, "FAILED_WITH_TERMINAL_ERROR")
    assert (execution.status, statuses(execution)) == ("FAILED", {"a": "FAILED_WITH_TERMINAL_ERROR"})


def test_terminal_error_with_skip_task_goes_on() -> None:
    world = World()
    execution = world.run(function("a", is_async=True, onFailure="skipTask"), function("b", "a"))
    world.engine.update_task(only(execution, "a").id, "FAILED_WITH_TERMINAL_ERROR")
    world.advance(1)
    assert statuses(execution) == {"a": "COMPLETED_WITH_ERRORS", "b": "COMPLETED"}


def test_async_task_fails_if_its_function_fails() -> None:
    world = World({"a": FAIL})
    execution = world.run(function("a", is_async=True, retries=0))
    world.advance(1)
    assert statuses(execution) == {"a": "FAILED"}


def test_task_that_is_not_async_cannot_be_updated() -> None:
    world = World()
    execution = world.run(function("a"), task("t", "transformation", {"transformation": {"externalId": "t"}}))
    for attempt in execution.tasks():
        with pytest.raises(InvalidRequestError, match="not a function task with isAsyncComplete"):
            world.engine.update_task(attempt.id, "COMPLETED")


def test_unknown_ids_are_told_from_ids_that_are_no_uuids() -> None:
    world = World()
    unknown = "059edaa4-a17a-4102-910e-2c3591500cce"
    for ask in (world.engine.execution, world.engine.task):
        with pytest.raises(InvalidRequestError, match="not a valid UUID"):
            ask("not-a-uuid")
        with pytest.raises(NotFoundError, match=unknown):
            ask(unknown)


def test_cancel_terminates_the_execution_and_cancels_its_tasks() -> None:
    world = World()
    execution = world.run(function("a", is_async=True), function("b", "a"))
    world.advance(1)
    world.engine.cancel(execution.id, "enough")
    assert (execution.status, execution.reason) == ("TERMINATED", "enough")
    assert statuses(execution) == {"a": "CANCELED"}
    with pytest.raises(InvalidRequestError, match="already in a terminal state"):
        world.engine.update_task(only(execution, "a").id, "COMPLETED")


def test_cancel_of_an_ended_execution_is_refused_unless_it_is_terminated() -> None:
    world = World()
    completed = world.run(function("a"))
    world.advance(1)
    with pytest.raises(InvalidRequestError, match="it is COMPLETED"):
        world.engine.cancel(completed.id)
    terminated = world.run()
    world.engine.cancel(terminated.id, "first")
    assert world.engine.cancel(terminated.id, "second").reason == "first"


def test_retry_reruns_only_what_failed() -> None:
    world = World({"bad": FAIL, "slow": Reply(seconds=9)})
    execution = world.run(
        function("good"),
        function("optional", calls="bad", onFailure="skipTask", retries=0),
        function("bad", "good", retries=0),
        function("slow", "good"),
        function("last", "bad"),
    )
    world.advance(5)
    assert execution.status == "FAILED"
    world.engine.functions.set("bad", {})
    world.engine.retry(execution.id)
    assert (execution.status, execution.end_time, execution.reason) == ("RUNNING", None, None)
    world.advance(20)
    assert execution.status == "COMPLETED"
    listed = {name: [a.status for a in attempts(execution, name)] for name in statuses(execution)}
    assert listed == {
        "good": ["COMPLETED"],
        "optional": ["COMPLETED_WITH_ERRORS"],
        "bad": ["FAILED", "COMPLETED"],
        "slow": ["CANCELED", "COMPLETED"],
        "last": ["COMPLETED"],
    }


def test_retry_gives_a_task_that_used_up_its_attempts_exactly_one_more() -> None:
    world = World({"bad": FAIL})
    execution = world.run(function("bad", retries=1))
    world.advance(30)
    world.engine.retry(execution.id)
    world.advance(30)
    assert [attempt.status for attempt in attempts(execution, "bad")] == ["FAILED"] * 3
    assert execution.status == "FAILED"


@pytest.mark.parametrize("ended", [False, True], ids=["RUNNING", "COMPLETED"])
def test_retry_of_an_execution_that_did_not_end_badly_is_refused(ended: bool) -> None:
    world = World()
    execution = world.run(function("a"))
    world.advance(60 * ended)
    with pytest.raises(InvalidRequestError, match="cannot be retried"):
        world.engine.retry(execution.id)


def test_definition_is_snapshotted_at_the_start() -> None:
    world = World()
    execution = world.run(function("a", is_async=True), function("old", "a"))
    world.define(function("a"), function("new", "a"))
    world.engine.update_task(only(execution, "a").id, "COMPLETED")
    world.advance(1)
    assert statuses(execution) == {"a": "COMPLETED", "old": "COMPLETED"}
    assert [shown["externalId"] for shown in execution.version.shown["tasks"]] == ["a", "old"]


def test_subworkflow_that_is_referred_to_is_snapshotted_too() -> None:
    world = World()
    world.define(function("old"), version="inner")
    reference = {"subworkflow": {"workflowExternalId": "wf", "version": "inner"}}
    execution = world.run(function("a", is_async=True), task("sub", "subworkflow", reference, "a"))
    world.define(function("new"), version="inner")
    world.engine.update_task(only(execution, "a").id, "COMPLETED")
    world.advance(1)
    assert statuses(execution) == {"a": "COMPLETED", "sub": "COMPLETED", "old": "COMPLETED"}


def test_subworkflow_that_was_deleted_before_the_start_fails() -> None:
    world = World()
    world.define(function("x"), version="inner")
    reference = {"subworkflow": {"workflowExternalId": "wf", "version": "inner"}}
    world.define(task("sub", "subworkflow", reference, retries=0))
    world.engine.catalog.delete_versions([("wf", "inner")], ignore_unknown=False)
    execution = world.run()
    world.advance(1)
    assert execution.status == "FAILED"
    assert "did not exist when the execution started" in str(execution.reason)


def test_executions_beyond_the_workflows_limit_queue() -> None:
    world = World()
    world.define(function("a"))
    world.engine.catalog.upsert_workflow("wf", max_concurrent_executions=1)
    first, second, third = world.run(), world.run(), world.run()
    assert [(e.status, e.start_time is None) for e in (first, second)] == [
        ("RUNNING", False),
        ("RUNNING", True),
    ]
    assert list(second.tasks()) == []
    world.engine.cancel(second.id)
    world.advance(0.25)
    assert first.status == "COMPLETED"
    assert third.start_time == first.end_time


def test_executions_beyond_the_projects_limit_queue() -> None:
    world = World(max_concurrent_executions=2)
    world.define(function("a"))
    executions = [world.run() for _ in range(3)]
    assert [e.start_time is None for e in executions] == [False, False, True]
    world.advance(1)
    assert executions[2].status == "COMPLETED"


def test_raised_limit_lets_queued_executions_start() -> None:
    world = World()
    world.define(function("a", is_async=True))
    world.engine.catalog.upsert_workflow("wf", max_concurrent_executions=1)
    _first, second = world.run(), world.run()
    world.engine.catalog.upsert_workflow("wf", max_concurrent_executions=2)
    assert second.start_time is None
    world.advance(1)
    assert second.start_time is not None


def test_skipped_task_counts_as_ended_well() -> None:
    world = World()
    execution = world.run(function("a", is_async=True), function("b", "a"), function("c", "b"))
    world.engine.skip_task(execution.id, "b")
    assert statuses(execution) == {"a": "SCHEDULED", "b": "SKIPPED", "c": "SCHEDULED"}
    with pytest.raises(InvalidRequestError, match="cannot be skipped"):
        world.engine.skip_task(execution.id, "a")


def test_dynamic_task_runs_the_tasks_that_its_reference_gives() -> None:
    children = [function("x"), function("y", "x", is_async=True)]
    world = World({"plan": {"tasks": children}, "x": {"n": 1}})
    execution = world.run(
        function("plan"),
        task("many", "dynamic", {"dynamic": {"tasks": "${plan.output.response.tasks}"}}, "plan"),
        function("after", "many", data={"n": "${x.output.response.n}"}),
    )
    world.advance(3)
    assert statuses(execution) == {
        "plan": "COMPLETED",
        "many": "COMPLETED",
        "x": "COMPLETED",
        "y": "IN_PROGRESS",
    }
    child = only(execution, "y")
    assert child.planned.parent == "many"
    generated = only(execution, "many").output["dynamicTasks"]
    assert [(one["externalId"], one["timeout"]) for one in generated] == [("x", 3600), ("y", 3600)]
    world.engine.update_task(child.id, "COMPLETED")
    world.advance(1)
    assert execution.status == "COMPLETED"
    assert only(execution, "after").input["function"]["data"] == {"n": 1}
    assert [a.external_id for a in execution.tasks()] == ["plan", "many", "after", "x", "y"]


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        (None, "Input should be a valid list"),
        ([function("x"), function("x")], "two tasks with the externalId 'x'"),
        ([function("plan")], "already has a task 'plan'"),
        ([function("x", "y"), function("y", "x")], "cycle"),
        ([task("d", "dynamic", {"dynamic": {"tasks": "${a.output}"}})], "cannot be nested"),
        ([function(f"x{n}") for n in range(101)], "the limit is 100"),
        ([function("x", timeout=5)], "[0].timeout"),
    ],
)
def test_dynamic_task_fails_if_it_cannot_run_its_tasks(tasks: Any, reason: str) -> None:
    world = World({"plan": {"tasks": tasks}})
    dynamic = task(
        "many", "dynamic", {"dynamic": {"tasks": "${plan.output.response.tasks}"}}, "plan", retries=0
    )
    execution = world.run(function("plan"), dynamic)
    world.advance(3)
    assert execution.status == "FAILED"
    assert reason in str(only(execution, "many").reason)


@pytest.mark.parametrize(("second", "status"), [(97, "COMPLETED"), (98, "FAILED")])
def test_execution_has_at_most_200_tasks(second: int, status: str) -> None:
    one = [function(f"x{n}") for n in range(100)]
    two = [function(f"y{n}") for n in range(second)]
    world = World({"plan": {"one": one, "two": two}})
    execution = world.run(
        function("plan"),
        task("d1", "dynamic", {"dynamic": {"tasks": "${plan.output.response.one}"}}, "plan", retries=0),
        task("d2", "dynamic", {"dynamic": {"tasks": "${plan.output.response.two}"}}, "d1", retries=0),
    )
    world.advance(9)
    assert execution.status == status
    if status == "FAILED":
        assert "would have 201 tasks; the limit is 200" in str(execution.reason)


def test_subworkflow_runs_its_own_tasks_in_their_order() -> None:
    world = World()
    inner = [function("x"), function("y", "x")]
    execution = world.run(
        task("sub", "subworkflow", {"subworkflow": {"tasks": inner}}), function("after", "sub")
    )
    world.advance(0.2)
    assert statuses(execution) == {"sub": "COMPLETED", "x": "IN_PROGRESS"}
    world.advance(5)
    assert execution.status == "COMPLETED"
    assert only(execution, "after").start_time > only(execution, "y").end_time


def test_subworkflow_by_reference_runs_the_tasks_of_that_version() -> None:
    world = World()
    world.define(function("x", data={"v": "${workflow.input.v}"}), version="inner")
    reference = {"subworkflow": {"workflowExternalId": "wf", "version": "inner"}}
    execution = world.run(task("sub", "subworkflow", reference), input={"v": 3})
    world.advance(5)
    assert (execution.status, only(execution, "x").planned.parent) == ("COMPLETED", "sub")
    assert only(execution, "x").input["function"]["data"] == {"v": 3}


def test_retry_of_a_subworkflow_reruns_its_failed_tasks_and_not_the_container() -> None:
    world = World({"bad": FAIL})
    inner = [function("good"), function("bad", "good", retries=0)]
    execution = world.run(task("sub", "subworkflow", {"subworkflow": {"tasks": inner}}))
    world.advance(5)
    assert execution.status == "FAILED"
    world.engine.functions.set("bad", {})
    world.engine.retry(execution.id)
    world.advance(5)
    assert execution.status == "COMPLETED"
    assert [len(attempts(execution, name)) for name in ("sub", "good", "bad")] == [1, 1, 2]


def test_cdf_task_takes_half_a_second_and_shows_the_answer() -> None:
    world = World()
    request = {"cdfRequest": {"resourcePath": "/timeseries", "method": "GET"}}
    execution = world.run(task("list", "cdf", request))
    world.advance(0.5)
    assert execution.status == "RUNNING"
    world.advance(0.05)
    assert only(execution, "list").output == {"response": {"items": []}, "statusCode": 200}


def test_cdf_task_without_an_answer_in_time_is_timed_out() -> None:
    world = World(cdf_requests={"GET /timeseries": Reply(seconds=11)})
    execution = world.run(
        task("list", "cdf", {"cdfRequest": {"resourcePath": "/timeseries", "method": "GET"}})
    )
    world.advance(10.1)
    assert (execution.status, statuses(execution)) == ("FAILED", {"list": "TIMED_OUT"})


def test_cdf_task_with_an_error_as_answer_fails() -> None:
    world = World(cdf_requests={"GET /timeseries": Reply(error="no")})
    request = {"cdfRequest": {"resourcePath": "/timeseries", "method": "GET"}}
    execution = world.run(task("list", "cdf", request, retries=0))
    world.advance(1)
    assert statuses(execution) == {"list": "FAILED"}
    assert only(execution, "list").output["statusCode"] == 500


@pytest.mark.parametrize(
    ("policy", "ended", "same_job"),
    [
        ("fail", "FAILED", None),
        ("waitForCurrent", "COMPLETED", True),
        ("restartAfterCurrent", "COMPLETED", False),
    ],
)
def test_transformation_that_runs_already(policy: str, ended: str, same_job: bool | None) -> None:
    world = World()
    first = {"transformation": {"externalId": "t"}}
    second = {"transformation": {"externalId": "t", "concurrencyPolicy": policy}}
    execution = world.run(
        task("one", "transformation", first, onFailure="skipTask", retries=0),
        task("two", "transformation", second, onFailure="skipTask", retries=0),
    )
    world.advance(5)
    one, two = only(execution, "one"), only(execution, "two")
    assert two.status == (ended if ended == "COMPLETED" else "COMPLETED_WITH_ERRORS")
    if same_job is not None:
        assert (two.output["jobId"] == one.output["jobId"]) is same_job


def test_simulation_says_that_it_simulated_nothing() -> None:
    world = World()
    execution = world.run(task("s", "simulation", {"simulation": {"routineExternalId": "r"}}))
    world.advance(5)
    assert "no simulator was run" in only(execution, "s").output["statusMessage"]


def test_handler_gets_the_task_id_and_nothing_of_it_shows_in_the_input() -> None:
    world = World({"a": lambda data: data})
    execution = world.run(function("a", is_async=True, data={"x": 1}))
    world.advance(1)
    (call,) = world.engine.calls
    assert call.data == {"x": 1, "cogniteOrchestrationTaskId": only(execution, "a").id}
    assert only(execution, "a").input["function"]["data"] == {"x": 1}
    world.engine.function_returned(call.task_id, {"ok": True})
    assert only(execution, "a").output["response"] == {"ok": True}


def test_response_of_a_handler_that_is_no_json_fails_the_task() -> None:
    world = World({"a": lambda data: data})
    execution = world.run(function("a", retries=0))
    world.advance(1)
    world.engine.function_returned(world.engine.calls[0].task_id, object())
    assert "its response is not JSON" in str(only(execution, "a").reason)


def test_ended_executions_are_forgotten_beyond_retain() -> None:
    world = World(retain=1)
    world.define(function("a"))
    first, second = world.run(), world.run()
    world.engine.cancel(second.id)
    world.advance(1)
    with pytest.raises(NotFoundError):
        world.engine.execution(second.id)
    assert world.engine.execution(first.id) is first
    assert list(world.engine.store.tasks) == [only(first, "a").id]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([function("a", "b"), function("b", "a")], "cycle: a -> b -> a|cycle: b -> a -> b"),
        ([function("a", "a")], "cycle"),
        ([function("a", "nobody")], "task 'a' dependsOn 'nobody', which does not exist"),
        ([function("a"), function("a")], "two tasks with the externalId 'a'"),
        (
            [
                task(
                    "s",
                    "subworkflow",
                    {"subworkflow": {"tasks": [task("d", "dynamic", {"dynamic": {"tasks": "${a.output}"}})]}},
                )
            ],
            "subworkflow task 's' contains the dynamic task 'd'",
        ),
        (
            [task("s", "subworkflow", {"subworkflow": {"workflowExternalId": "x", "version": "9"}})],
            "version '9' of workflow 'x', which does not exist",
        ),
        (
            [task("s", "subworkflow", {"subworkflow": {"workflowExternalId": "wf", "version": "1"}})],
            "is the version itself",
        ),
    ],
)
def test_definition_that_no_engine_could_run_is_refused(tasks: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        World().define(*tasks)


def test_task_of_an_unknown_type_completes_at_a_pace_of_its_own() -> None:
    world = World()
    execution = world.run(task("x", "jsonMapping", {"any": 1}), function("after", "x"))
    world.advance(world.pace.pickup)
    assert statuses(execution) == {"x": "IN_PROGRESS"}
    assert only(execution, "x").input == {"any": 1}
    world.advance(world.pace.unknown - 0.01)
    assert statuses(execution) == {"x": "IN_PROGRESS"}
    world.advance(0.01)
    assert statuses(execution) == {"x": "COMPLETED", "after": "SCHEDULED"}
