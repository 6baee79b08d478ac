"""
What an observation means for somebody who waits: go on, done, or no longer possible.

Pure functions without clock or network. The poking sensors, the operators and the triggers all decide with
them, so that waiting on a worker and waiting deferred cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_cdf.cdf.errors import CdfError, CdfRefusedError, CdfSilenceError
from airflow_provider_cdf.cdf.models import (
    TaskExecution,
    TaskStatus,
    TaskType,
    WorkflowExecution,
    WorkflowExecutionDetails,
    WorkflowStatus,
)


@dataclass(frozen=True)
class GoOn:
    """
    It has not happened yet.

    :param observed: the state in a few words; a waiter logs it when it changes.
    """

    observed: str


@dataclass(frozen=True)
class Reached:
    """
    It has happened.

    :param task: the attempt that is in a wanted status, where a task was waited for.
    """

    task: TaskExecution | None = None


@dataclass(frozen=True)
class Impossible:
    """
    It can no longer happen.

    :param reason: one sentence or two, with the reason that CDF gives.
    """

    reason: str


#: CANCELED and SKIPPED tasks are consequences of another task's end, or of a cancellation.
_TO_BLAME = frozenset({TaskStatus.FAILED, TaskStatus.FAILED_WITH_TERMINAL_ERROR, TaskStatus.TIMED_OUT})
_TASKS_WITHOUT_CHILDREN = frozenset(
    {TaskType.FUNCTION, TaskType.TRANSFORMATION, TaskType.CDF, TaskType.SIMULATION}
)

Verdict: TypeAlias = GoOn | Reached | Impossible


def current_attempt(execution: WorkflowExecutionDetails, task_external_id: str) -> TaskExecution | None:
    """
    Return the attempt at a task that counts: the one that goes on, else the latest.

    CDF keeps ended attempts in the list, each with an id of its own. ``None`` if the task has not started.
    """
    attempts = [task for task in execution.executed_tasks if task.external_id == task_external_id]
    if not attempts:
        return None
    # An attempt that was ended before it started has an end time only. Of equals, max() returns the first,
    # and CDF lists attempts oldest first as far as is known.
    return max(
        reversed(attempts),
        key=lambda task: (not task.status.has_ended, task.start_time or task.end_time or 0),
    )


def wait_for_task(
    execution: WorkflowExecutionDetails,
    task_external_id: str,
    targets: Collection[str],
    *,
    seen: str | None = None,
) -> Verdict:
    """
    Decide for somebody who waits until a task is in one of some statuses.

    While the execution is RUNNING, CDF may follow a FAILED or TIMED_OUT attempt with another one that is not
    listed yet, so those two are not final. Every other status in which a task ends is.

    :param seen: id of an attempt that has been in a wanted status. It counts as long as it goes on.
    """
    wanted = " or ".join(targets)
    task = current_attempt(execution, task_external_id)
    left_behind = task is not None and execution.status.has_ended and not task.status.has_ended
    was_reached = task is not None and task.id == seen
    counts = task is not None and (task.status in targets or (was_reached and not task.status.has_ended))
    if counts and not left_behind:
        return Reached(task)

    subject = f"Task {task_external_id!r} of execution {execution.id}"
    workflow = f"The workflow is {execution.status}"
    if task is None:
        if execution.status.has_ended:
            return Impossible(
                f"{subject} never started, so it was never {wanted}. {workflow}{_because(execution)}"
                f"{_defined_tasks(execution)}"
            )
        if _can_never_start(execution, task_external_id):
            return Impossible(
                f"{subject} will never start: the workflow has no such task. {workflow}."
                f"{_defined_tasks(execution)}"
            )
        return GoOn("not started")
    if left_behind:
        return Impossible(
            f"{subject} was still {task.status} when the execution ended. {workflow}{_because(execution)}"
        )
    if execution.status.has_ended or (task.status.has_ended and not task.status.may_be_retried):
        ended = f"ended {task.status}"
        ended = f"was {wanted}, and then {ended}" if was_reached else f"{ended} before it was {wanted}"
        # A task is CANCELED because of something else; what that was, the execution may know better.
        is_to_blame = _because(task) != "." and task.status != TaskStatus.CANCELED
        is_said = is_to_blame or _because(task) == _because(execution)
        return Impossible(
            f"{subject} {ended}{_because(task)} {workflow}{'.' if is_said else _because(execution)}"
        )
    return GoOn(str(task.status))


def wait_for_end(execution: WorkflowExecution) -> Verdict:
    """Decide for somebody who waits until an execution has ended well."""
    if execution.status == WorkflowStatus.COMPLETED:
        return Reached()
    if execution.status.has_ended:
        return Impossible(describe_bad_end(execution))
    return GoOn(str(execution.status))


def describe_bad_end(execution: WorkflowExecution) -> str:
    """Say how an execution ended and, where its tasks are known, which of them failed and why."""
    version = "" if execution.version is None else f" version {execution.version!r}"
    text = (
        f"Execution {execution.id} of workflow {execution.workflow_external_id!r}{version} "
        f"ended {execution.status}{_because(execution)}"
    )
    failed = failed_tasks(execution) if isinstance(execution, WorkflowExecutionDetails) else []
    if failed:
        text += " Failed tasks: " + " ".join(
            f"{task.external_id!r} {task.status}{_because(task)}" for task in failed
        )
    return text


def failed_tasks(execution: WorkflowExecutionDetails) -> list[TaskExecution]:
    """Return the tasks whose last attempt failed, in the order of the execution."""
    names = dict.fromkeys(task.external_id for task in execution.executed_tasks)
    attempts = (current_attempt(execution, name) for name in names)
    return [task for task in attempts if task is not None and task.status in _TO_BLAME]


def outlives(error: CdfError) -> bool:
    """
    Whether a wait goes on after a poll that failed like this.

    Only what a retry of the Airflow task would not heal either ends it (400, 403, 404, a wrong connection). A
    refused login does not: the secret may be renewed, and a trigger reads the connection again.
    """
    return not isinstance(error, AirflowFailException)


def _because(what: TaskExecution | WorkflowExecution | None) -> str:
    reason = (what.reason_for_incompletion or "").strip() if what is not None else ""
    return f": {reason.rstrip('.')}." if reason else "."


def _can_never_start(execution: WorkflowExecutionDetails, task_external_id: str) -> bool:
    defined = execution.workflow_definition.tasks if execution.workflow_definition else []
    # Dynamic tasks and subworkflows bring tasks that the definition does not list.
    return (
        bool(defined)
        and all(task.type in _TASKS_WITHOUT_CHILDREN for task in defined)
        and all(task.external_id != task_external_id for task in defined)
    )


def _defined_tasks(execution: WorkflowExecutionDetails) -> str:
    defined = execution.workflow_definition.tasks if execution.workflow_definition else []
    return f" Its tasks: {', '.join(repr(task.external_id) for task in defined)}." if defined else ""


class Patience:
    """
    How long a wait outlives failing polls.

    :param interval: seconds between polls while they succeed.
    :param max_silence: seconds without one good answer after which the wait gives up.
    :param now: the clock when the wait begins, like every ``now`` here in seconds.
    """

    #: Failing polls come at growing intervals between these, seconds.
    SHORTEST_AFTER_FAILURE, LONGEST_AFTER_FAILURE = 1.0, 60.0
    #: Refusals (400, 403, 404) in a row that are taken for an answer: one may be a gateway's bad moment.
    REFUSALS = 3

    def __init__(self, *, interval: float, max_silence: float, now: float) -> None:
        self._interval = interval
        self._max_silence = max_silence
        self._last_answer = now
        self._failures = 0
        self._refusals = 0
        self._asked_for = 0.0

    @property
    def next_interval(self) -> float:
        """Seconds until the next poll."""
        if not self._failures:
            return self._interval
        # At most 2 ** 10: the exponent of a long outage would overflow.
        grown = max(self._interval, self.SHORTEST_AFTER_FAILURE) * 2.0 ** min(self._failures, 10)
        return max(self._interval, min(grown, self.LONGEST_AFTER_FAILURE), self._asked_for)

    def answered(self, *, now: float) -> str | None:
        """Note a good answer; return what to log if it ends an outage."""
        failures, silence = self._failures, now - self._last_answer
        self._failures = self._refusals = 0
        self._last_answer = now
        return f"CDF answers again, after {failures} failed polls in {silence:.0f} s." if failures else None

    def failed(self, error: CdfError, *, now: float) -> str | None:
        """
        Note a failed poll; return what to log if it begins an outage.

        :raises CdfError: the error itself where time will not heal it, or the silence has lasted too long.
        """
        if not outlives(error):
            self._refusals += 1
            if not isinstance(error, CdfRefusedError) or self._refusals >= self.REFUSALS:
                raise error
        else:
            self._refusals = 0
        self._failures += 1
        self._asked_for = min(error.retry_after or 0.0, self._max_silence)
        silence = now - self._last_answer
        if silence > self._max_silence:
            raise CdfSilenceError(
                f"No poll has succeeded for {silence:.0f} s; the last one failed with: {error}"
            )
        return f"{error} Polling goes on, at growing intervals." if self._failures == 1 else None
