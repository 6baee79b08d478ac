"""What an observation means for somebody who waits."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdf.cdf.attempts import current_attempt
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfConnectionError,
    CdfConnectionUnreadError,
    CdfError,
    CdfInputError,
    CdfLoginError,
    CdfRefusedError,
    CdfSilenceError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.models import TaskStatus, WorkflowExecution, WorkflowExecutionDetails
from airflow_provider_cdf.waiting import (
    GoOn,
    Impossible,
    Patience,
    Reached,
    describe_bad_end,
    failed_tasks,
    may_not_be_listed_yet,
    outlives,
    wait_for_end,
    wait_for_task,
)

ID = "059edaa4-a17a-4102-910e-2c3591500cce"
GOING_ON = ["SCHEDULED", "IN_PROGRESS"]
#: A task's ends that are not final while the execution is RUNNING.
NOT_FINAL = ["FAILED", "TIMED_OUT"]
FINAL = ["COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED_WITH_TERMINAL_ERROR", "CANCELED", "SKIPPED"]
ENDED_EXECUTION = ["COMPLETED", "FAILED", "TIMED_OUT", "TERMINATED"]


def attempt(status: str, external_id: str = "score", **more: Any) -> dict[str, Any]:
    return {
        "id": f"{external_id}-{status}",
        "externalId": external_id,
        "status": status,
        "taskType": "function",
    } | more


def defined(*names: str, **types: str) -> dict[str, Any]:
    tasks = {**dict.fromkeys(names, "function"), **types}
    return {"hash": "8AE1", "tasks": [{"externalId": name, "type": type_} for name, type_ in tasks.items()]}


def execution(status: str, *attempts: dict[str, Any], **more: Any) -> WorkflowExecutionDetails:
    return WorkflowExecutionDetails.model_validate(
        {
            "id": ID,
            "workflowExternalId": "pump",
            "version": "1",
            "status": status,
            "executedTasks": list(attempts),
            "workflowDefinition": defined("score", "report"),
            **more,
        }
    )


def reason(verdict: object) -> str:
    assert isinstance(verdict, Impossible), verdict
    assert verdict.reason.endswith(f"execution {ID}]")
    # What is wrong, in fewer characters than a log view shows of a line; CDF's reason comes after a colon.
    assert len(verdict.reason.split(". ")[0].split(": ")[0]) < 80
    assert ".." not in verdict.reason
    assert ". :" not in verdict.reason
    return verdict.reason


# -- waiting for a task: one attempt ------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", ["RUNNING", "PAUSED", *ENDED_EXECUTION])
@pytest.mark.parametrize("status", [*NOT_FINAL, *FINAL])
def test_a_task_that_ended_in_a_wanted_status_is_reached_however_the_workflow_goes_on(
    workflow: str, status: str
) -> None:
    verdict = wait_for_task(execution(workflow, attempt(status)), "score", [status])
    assert isinstance(verdict, Reached)
    assert verdict.task is not None
    assert verdict.task.id == f"score-{status}".lower()


@pytest.mark.parametrize("workflow", ["RUNNING", "PAUSED"])
@pytest.mark.parametrize("status", [*GOING_ON, "UNKNOWN"])
def test_a_task_that_goes_on_in_a_wanted_status_is_reached(workflow: str, status: str) -> None:
    verdict = wait_for_task(execution(workflow, attempt(status)), "score", ["SKIPPED", status])
    assert isinstance(verdict, Reached)


@pytest.mark.parametrize("workflow", ENDED_EXECUTION)
@pytest.mark.parametrize("status", GOING_ON)
def test_a_task_that_was_left_behind_by_an_ended_execution_is_never_reached(
    workflow: str, status: str
) -> None:
    """Nobody can report to it any more, whatever it is waited for."""
    for target in ([status], ["COMPLETED"]):
        verdict = wait_for_task(execution(workflow, attempt(status)), "score", target)
        assert f"Task 'score' was still {status} when the workflow ended." in reason(verdict)
        assert f"The workflow is {workflow}." in reason(verdict)


@pytest.mark.parametrize("workflow", ["RUNNING", "PAUSED"])
@pytest.mark.parametrize("status", [*GOING_ON, "UNKNOWN", *NOT_FINAL])
def test_an_attempt_that_is_not_final_lets_the_wait_go_on(workflow: str, status: str) -> None:
    target = ["COMPLETED"] if status == "IN_PROGRESS" else ["IN_PROGRESS"]
    assert wait_for_task(execution(workflow, attempt(status)), "score", target) == GoOn(status)


@pytest.mark.parametrize("workflow", ["RUNNING", "PAUSED", *ENDED_EXECUTION])
@pytest.mark.parametrize("status", FINAL)
def test_a_final_status_that_is_not_wanted_ends_the_wait_at_once(workflow: str, status: str) -> None:
    verdict = wait_for_task(execution(workflow, attempt(status)), "score", ["IN_PROGRESS"])
    end = f"ended {status} before it was IN_PROGRESS. The workflow is {workflow}."
    assert reason(verdict) == f"Task 'score' {end} [execution {ID}]"


@pytest.mark.parametrize("workflow", ENDED_EXECUTION)
@pytest.mark.parametrize("status", NOT_FINAL)
def test_an_ended_execution_makes_every_end_of_a_task_final(workflow: str, status: str) -> None:
    verdict = wait_for_task(execution(workflow, attempt(status)), "score", ["IN_PROGRESS", "COMPLETED"])
    assert f"ended {status} before it was IN_PROGRESS or COMPLETED." in reason(verdict)


def test_every_known_status_is_in_one_of_these_tables() -> None:
    assert {*GOING_ON, *NOT_FINAL, *FINAL} == {str(status) for status in TaskStatus}


# -- messages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task_reason", "workflow_reason", "end"),
    [
        ("out of memory", None, "IN_PROGRESS: out of memory. The workflow is FAILED."),
        ("out of memory.", None, "IN_PROGRESS: out of memory. The workflow is FAILED."),
        ("out of memory", "task failed", "IN_PROGRESS: out of memory. The workflow is FAILED."),
        (None, "task failed", "IN_PROGRESS. The workflow is FAILED: task failed."),
        (None, None, "IN_PROGRESS. The workflow is FAILED."),
        ("", "", "IN_PROGRESS. The workflow is FAILED."),
        (" ", " ", "IN_PROGRESS. The workflow is FAILED."),
    ],
)
def test_a_message_gives_the_reason_that_cdf_gives(
    task_reason: str | None, workflow_reason: str | None, end: str
) -> None:
    seen = execution(
        "FAILED", attempt("FAILED", reasonForIncompletion=task_reason), reasonForIncompletion=workflow_reason
    )
    verdict = wait_for_task(seen, "score", ["IN_PROGRESS"])
    assert reason(verdict) == f"Task 'score' ended FAILED before it was {end} [execution {ID}]"


def test_a_task_left_behind_gives_the_reason_of_the_execution() -> None:
    seen = execution("TERMINATED", attempt("IN_PROGRESS"), reasonForIncompletion="cancelled by Kari")
    assert "The workflow is TERMINATED: cancelled by Kari." in reason(
        wait_for_task(seen, "score", ["COMPLETED"])
    )


def test_what_has_been_reached_counts_while_it_goes_on_and_is_not_denied_when_it_is_over() -> None:
    now = attempt("IN_PROGRESS", id="seen")
    assert isinstance(wait_for_task(execution("RUNNING", now), "score", ["SCHEDULED"], seen="seen"), Reached)
    assert isinstance(wait_for_task(execution("RUNNING", now), "score", ["SCHEDULED"], seen="other"), GoOn)
    over = execution("RUNNING", attempt("COMPLETED", id="seen"))
    assert reason(wait_for_task(over, "score", ["IN_PROGRESS"], seen="seen")).startswith(
        "Task 'score' was IN_PROGRESS, and then ended COMPLETED. The workflow is RUNNING. "
    )


def test_of_a_cancelled_task_the_reason_of_the_cancellation_is_told_too() -> None:
    by_whom = {"reasonForIncompletion": "Cancelled by Kari."}
    cancelled = attempt("CANCELED", reasonForIncompletion="The workflow was cancelled.")
    told = "IN_PROGRESS: The workflow was cancelled. The workflow is TERMINATED: Cancelled by Kari. "
    assert told in reason(
        wait_for_task(execution("TERMINATED", cancelled, **by_whom), "score", ["IN_PROGRESS"])
    )
    once = wait_for_task(
        execution("TERMINATED", attempt("CANCELED", **by_whom), **by_whom), "score", ["IN_PROGRESS"]
    )
    assert "IN_PROGRESS: Cancelled by Kari. The workflow is TERMINATED. " in reason(once)


# -- a task that has not started --------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", ["RUNNING", "PAUSED"])
@pytest.mark.parametrize("attempts", [[], [attempt("COMPLETED", "report")]])
def test_a_task_that_is_not_listed_yet_has_not_started(workflow: str, attempts: list[dict[str, Any]]) -> None:
    assert wait_for_task(execution(workflow, *attempts), "score", ["IN_PROGRESS"]) == GoOn("not started")


@pytest.mark.parametrize("definition", [None, {"hash": "8AE1", "tasks": []}])
def test_without_a_definition_any_task_may_still_start(definition: Any) -> None:
    seen = execution("RUNNING", workflowDefinition=definition)
    assert isinstance(wait_for_task(seen, "anything", ["IN_PROGRESS"]), GoOn)


@pytest.mark.parametrize("workflow", ENDED_EXECUTION)
def test_a_task_that_never_started_will_not_start_after_the_end(workflow: str) -> None:
    seen = execution(workflow, reasonForIncompletion="why")
    message = reason(wait_for_task(seen, "score", ["IN_PROGRESS"]))
    assert message.startswith("Task 'score' never started. It was to be IN_PROGRESS. ")
    assert f"The workflow is {workflow}: why." in message


def test_a_task_that_the_definition_does_not_have_is_named_with_those_it_has() -> None:
    message = reason(wait_for_task(execution("RUNNING"), "scorre", ["IN_PROGRESS"]))
    assert message.startswith("Task 'scorre' will never start: the workflow has no such task. ")
    assert "'score', 'report'" in message


@pytest.mark.parametrize("kind", ["function", "transformation", "cdf", "simulation"])
def test_tasks_without_children_bring_no_other_tasks(kind: str) -> None:
    seen = execution("RUNNING", workflowDefinition=defined(parent=kind))
    assert isinstance(wait_for_task(seen, "child", ["IN_PROGRESS"]), Impossible)


@pytest.mark.parametrize("kind", ["dynamic", "subworkflow", "functionApp"])
def test_dynamic_tasks_subworkflows_and_unknown_types_may_bring_any_task(kind: str) -> None:
    seen = execution("RUNNING", workflowDefinition=defined("score", parent=kind))
    assert isinstance(wait_for_task(seen, "child", ["IN_PROGRESS"]), GoOn)
    ended = execution("COMPLETED", workflowDefinition=defined("score", parent=kind))
    assert "never started" in reason(wait_for_task(ended, "child", ["IN_PROGRESS"]))


def test_the_child_of_a_dynamic_task_is_found() -> None:
    child = attempt("IN_PROGRESS", "child", parentTaskExternalId="parent")
    seen = execution(
        "RUNNING",
        attempt("COMPLETED", "parent", taskType="dynamic"),
        child,
        workflowDefinition=defined(parent="dynamic"),
    )
    verdict = wait_for_task(seen, "child", ["IN_PROGRESS"])
    assert isinstance(verdict, Reached)
    assert verdict.task is not None
    assert verdict.task.parent_task_external_id == "parent"


def test_a_parent_is_named_in_messages_and_must_be_one_that_has_children() -> None:
    seen = execution("FAILED", attempt("IN_PROGRESS", parentTaskExternalId="north"))
    never = wait_for_task(seen, "score", ["COMPLETED"], parent_task_external_id="south")
    assert reason(never).startswith("Task 'score' of 'south' never started. It was to be COMPLETED. ")
    running = execution("RUNNING", workflowDefinition=defined("score", north="subworkflow"))
    for parent in ("south", "score"):
        verdict = wait_for_task(running, "child", ["COMPLETED"], parent_task_external_id=parent)
        assert f"will never start: the workflow has no task '{parent}' with children." in reason(verdict)
    waits = wait_for_task(running, "child", ["COMPLETED"], parent_task_external_id="north")
    assert waits == GoOn("not started")


# -- several attempts -------------------------------------------------------------------------------------

FIRST, SECOND, THIRD = (
    attempt("FAILED", id="first", startTime=100, endTime=200),
    attempt("FAILED", id="second", startTime=300, endTime=400, reasonForIncompletion="again"),
    attempt("TIMED_OUT", id="third", startTime=500, endTime=600),
)


@pytest.mark.parametrize(
    ("attempts", "counts"),
    [
        ([FIRST], "first"),
        ([FIRST, SECOND], "second"),
        ([SECOND, FIRST], "second"),
        ([THIRD, FIRST, SECOND], "third"),
        ([FIRST, attempt("SCHEDULED", id="new")], "new"),
        ([attempt("SCHEDULED", id="new"), FIRST], "new"),
        ([attempt("IN_PROGRESS", id="old but going on", startTime=1), THIRD], "old but going on"),
        ([FIRST, attempt("PAUSED", id="unknown")], "unknown"),
        ([attempt("FAILED", id="a"), attempt("FAILED", id="b")], "b"),
    ],
)
def test_the_attempt_that_counts_is_the_one_that_goes_on_else_the_latest(
    attempts: list[dict[str, Any]], counts: str
) -> None:
    other = attempt("IN_PROGRESS", "report", id="other", startTime=999)
    task = current_attempt(execution("RUNNING", *attempts, other), "score")
    assert task is not None
    assert task.id == counts


def test_a_task_without_attempts_has_none_that_counts() -> None:
    assert current_attempt(execution("RUNNING", FIRST), "report") is None


def test_a_new_attempt_that_is_listed_late_is_waited_for() -> None:
    seen = [
        execution("RUNNING"),
        execution("RUNNING", attempt("IN_PROGRESS", id="first", startTime=100)),
        execution("RUNNING", FIRST),
        execution("RUNNING", FIRST, attempt("SCHEDULED", id="second")),
        execution("RUNNING", FIRST, attempt("IN_PROGRESS", id="second", startTime=300)),
        execution("RUNNING", FIRST, attempt("COMPLETED", id="second", startTime=300)),
    ]
    verdicts = [wait_for_task(one, "score", ["COMPLETED"]) for one in seen]
    assert [type(verdict) for verdict in verdicts] == [GoOn] * 5 + [Reached]
    assert isinstance(verdicts[-1], Reached)
    assert verdicts[-1].task is not None
    assert verdicts[-1].task.id == "second"


def test_an_earlier_attempt_in_a_wanted_status_does_not_count() -> None:
    seen = execution("RUNNING", FIRST, attempt("IN_PROGRESS", id="second", startTime=300))
    assert wait_for_task(seen, "score", ["FAILED"]) == GoOn("IN_PROGRESS")


def test_the_last_attempt_gives_the_reason() -> None:
    message = reason(wait_for_task(execution("FAILED", FIRST, SECOND), "score", ["IN_PROGRESS"]))
    assert "IN_PROGRESS: again. The workflow is FAILED." in message


# -- waiting for the end of an execution ------------------------------------------------------------------


@pytest.mark.parametrize("status", ["RUNNING", "PAUSED"])
def test_an_execution_that_goes_on_lets_the_wait_go_on(status: str) -> None:
    assert wait_for_end(execution(status, attempt("FAILED_WITH_TERMINAL_ERROR"))) == GoOn(status)


def test_only_completed_is_a_good_end() -> None:
    assert wait_for_end(execution("COMPLETED", attempt("FAILED"))) == Reached()
    for status in ("FAILED", "TIMED_OUT", "TERMINATED"):
        assert reason(wait_for_end(execution(status))) == (
            f"The workflow ended {status}. [workflow 'pump' version '1', execution {ID}]"
        )


def test_a_bad_end_names_each_failed_task_with_status_and_reason() -> None:
    seen = execution(
        "FAILED",
        attempt("COMPLETED", "fine"),
        attempt("FAILED", "a", reasonForIncompletion="first try", startTime=1),
        attempt("FAILED", "a", reasonForIncompletion="no memory.", startTime=2),
        attempt("FAILED", "healed", startTime=1),
        attempt("COMPLETED", "healed", startTime=2),
        attempt("TIMED_OUT", "b"),
        attempt("FAILED_WITH_TERMINAL_ERROR", "c", reasonForIncompletion="said so"),
        attempt("CANCELED", "innocent"),
        attempt("SKIPPED", "left out"),
        reasonForIncompletion="task a failed",
    )
    assert [task.external_id for task in failed_tasks(seen)] == ["a", "b", "c"]
    message = describe_bad_end(seen)
    assert message == reason(wait_for_end(seen))
    assert "ended FAILED: task a failed." in message
    assert "'a' FAILED: no memory. 'b' TIMED_OUT. 'c' FAILED_WITH_TERMINAL_ERROR: said so. " in message
    for name in ("fine", "healed", "innocent", "left out", "first try"):
        assert name not in message


def test_a_bad_end_is_described_without_tasks_too() -> None:
    listed = WorkflowExecution.model_validate({"id": ID, "workflowExternalId": "pump", "status": "TIMED_OUT"})
    message = describe_bad_end(listed)
    assert message == f"The workflow ended TIMED_OUT. [workflow 'pump', execution {ID}]"


# -- patience ---------------------------------------------------------------------------------------------

PASSING: list[CdfError] = [
    CdfUnreachableError("No answer.", sent=False),
    CdfUnreachableError("No answer.", sent=True),
    CdfLoginError("The identity provider is down."),
    CdfAnswerError("Not JSON."),
    CdfConnectionUnreadError("Airflow's api-server is down."),
    # A proxy on the way says such things for a moment; they are no verdict on what is waited for.
    *(CdfApiError(f"HTTP {code}", code=code) for code in (302, 401, 405, 409, 429, 500, 502, 503, 504)),
]
LASTING: list[CdfError] = [CdfInputError("Wrong."), CdfConnectionError("Incomplete.")]
REFUSALS = [CdfRefusedError(f"HTTP {code}", code=code) for code in (400, 403, 404)]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_a_wait_outlives_what_may_pass(error: CdfError) -> None:
    assert outlives(error)
    patience = Patience(interval=10, max_silence=60, now=0)
    log = patience.failed(error, now=10)
    assert log is not None
    assert str(error) in log


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_a_wait_does_not_outlive_what_lasts(error: CdfError) -> None:
    assert not outlives(error)
    with pytest.raises(type(error)) as caught:
        Patience(interval=10, max_silence=60, now=0).failed(error, now=0)
    assert caught.value is error


@pytest.mark.parametrize("error", REFUSALS, ids=repr)
def test_a_refusal_is_an_answer_when_it_comes_three_times_in_a_row_over_a_minute(error: CdfError) -> None:
    assert not outlives(error)
    patience = Patience(interval=10, max_silence=6000, now=0)
    for _ in range(2):
        patience.failed(error, now=0)
        patience.failed(error, now=300)
        patience.answered(now=300)
    patience.failed(error, now=300)
    patience.failed(PASSING[0], now=600)
    patience.failed(error, now=1000)
    patience.failed(error, now=1060)
    with pytest.raises(CdfRefusedError) as caught:
        patience.failed(error, now=1060)
    assert caught.value is error


def test_refusals_are_counted_by_time_and_not_by_polls() -> None:
    """CDF's lag: with polls each second, a run that was started 50 s ago was taken for unknown."""
    patience = Patience(interval=1, max_silence=900, now=0)
    for now in range(60):
        patience.failed(REFUSALS[2], now=now)
    with pytest.raises(CdfRefusedError):
        patience.failed(REFUSALS[2], now=60)


@pytest.mark.parametrize("code", [400, 404])
def test_what_was_started_a_short_while_ago_may_not_be_listed_yet(code: int) -> None:
    error = CdfRefusedError("No such execution.", code=code)
    assert may_not_be_listed_yet(error, started_at=1000, now=1000)
    assert may_not_be_listed_yet(error, started_at=1000, now=1059)
    assert not may_not_be_listed_yet(error, started_at=1000, now=1060)


@pytest.mark.parametrize("error", [*PASSING, *LASTING, REFUSALS[1]], ids=repr)
def test_only_an_unknown_execution_may_be_a_young_one(error: CdfError) -> None:
    assert not may_not_be_listed_yet(error, started_at=1000, now=1000)


def test_failing_polls_come_at_growing_intervals_up_to_a_minute_and_good_ones_at_their_own() -> None:
    patience = Patience(interval=10, max_silence=1e9, now=0)
    intervals = [patience.next_interval]
    for now in range(6):
        patience.failed(PASSING[0], now=now)
        intervals.append(patience.next_interval)
    assert intervals == [10, 20, 40, 60, 60, 60, 60]
    patience.answered(now=7)
    assert patience.next_interval == 10


def test_good_polls_come_at_their_own_interval_however_short() -> None:
    assert Patience(interval=0.05, max_silence=60, now=0).next_interval == 0.05


@pytest.mark.parametrize("interval", [60, 90, 3600])
def test_a_long_interval_is_never_shortened(interval: float) -> None:
    patience = Patience(interval=interval, max_silence=1e9, now=0)
    patience.failed(PASSING[0], now=1)
    assert patience.next_interval == interval


@pytest.mark.parametrize("interval", [0.01, 0.001])
def test_a_long_outage_overflows_nothing(interval: float) -> None:
    patience = Patience(interval=interval, max_silence=1e9, now=0)
    for now in range(5000):
        patience.failed(PASSING[0], now=now)
    assert interval < patience.next_interval <= 60


def test_an_outage_is_logged_when_it_begins_and_when_it_ends() -> None:
    patience = Patience(interval=10, max_silence=600, now=0)
    assert patience.answered(now=10) is None
    logs = [patience.failed(PASSING[0], now=now) for now in (20, 40, 80)]
    assert [log is not None for log in logs] == [True, False, False]
    end = patience.answered(now=130)
    assert end is not None
    assert "3 failed polls" in end
    assert "120 s" in end
    assert patience.answered(now=140) is None
    assert patience.failed(PASSING[0], now=150) is not None


def test_a_silence_that_lasts_too_long_gives_up() -> None:
    patience = Patience(interval=10, max_silence=60, now=100)
    patience.failed(PASSING[0], now=110)
    patience.failed(PASSING[0], now=160)
    with pytest.raises(CdfSilenceError, match=r"61 s.*No answer") as caught:
        patience.failed(PASSING[0], now=161)
    assert ".." not in str(caught.value)


def test_a_good_answer_starts_the_silence_anew() -> None:
    patience = Patience(interval=10, max_silence=60, now=0)
    patience.failed(PASSING[0], now=50)
    patience.answered(now=55)
    patience.failed(PASSING[0], now=115)
    with pytest.raises(CdfSilenceError):
        patience.failed(PASSING[0], now=116)


def test_a_bad_end_names_twenty_tasks_at_most() -> None:
    attempts = [attempt("FAILED", f"task {number}") for number in range(200)]
    message = describe_bad_end(execution("FAILED", *attempts, reasonForIncompletion=None))
    assert "'task 19' FAILED." in message
    assert "'task 20'" not in message
    assert " And 180 more. [workflow 'pump'" in message
    verdict = wait_for_task(
        execution("RUNNING", workflowDefinition=defined(*(f"task {number}" for number in range(200)))),
        "other",
        ["COMPLETED"],
    )
    assert "'task 19' and 180 more." in reason(verdict)


def test_an_external_id_that_cdf_would_not_take_is_cut() -> None:
    message = describe_bad_end(execution("FAILED", attempt("FAILED", "x\n" * 100_000)))
    assert len(message) < 1000


def test_one_answer_that_asks_for_a_day_does_not_end_a_wait() -> None:
    error = CdfApiError("Busy.", code=503, retry_after=86_400)
    patience = Patience(interval=10, max_silence=900, now=0)
    now = 0.0
    for _ in range(10):
        patience.failed(error, now=now)
        assert patience.next_interval == 90
        now += 1.05 * patience.next_interval
    with pytest.raises(CdfSilenceError):
        patience.failed(error, now=now)
