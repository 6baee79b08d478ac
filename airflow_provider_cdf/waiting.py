"""
What an observation means for a wait: go on, done, or no longer possible.

Pure functions without clock or network. The poking sensors, the operators and the triggers all decide with
them, so that waiting on a worker and waiting deferred cannot drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_cdf.cdf.attempts import current_attempt, current_attempts
from airflow_provider_cdf.cdf.errors import (
    CdfAmbiguousTaskError,
    CdfAnswerError,
    CdfApiError,
    CdfError,
    CdfRefusedError,
    CdfSilenceError,
)
from airflow_provider_cdf.cdf.foreign import name_of, one_line
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.cdf.models import (
    TaskExecution,
    TaskStatus,
    TaskType,
    WorkflowExecution,
    WorkflowExecutionDetails,
    WorkflowStatus,
)

#: Seconds for which CDF may answer 404 about an execution that it has started: what reads it lags behind.
LAG = 60.0
#: How many tasks a message names; an execution may have 200.
MAX_NAMED = 20


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


def wait_for_task(
    execution: WorkflowExecutionDetails,
    task_external_id: str,
    targets: Collection[str],
    *,
    parent_task_external_id: str | None = None,
    seen: str | None = None,
) -> Verdict:
    """
    Decide for a wait until a task is in one of some statuses.

    While the execution is RUNNING, CDF may follow a FAILED or TIMED_OUT attempt with another one that is not
    listed yet, so those two are not final. Every other status in which a task ends is.

    :param parent_task_external_id: the dynamic task or subworkflow whose child is meant.
    :param seen: id of an attempt that has been in a wanted status. It counts as long as it goes on.
    """
    wanted = " or ".join(targets)
    try:
        task = current_attempt(execution, task_external_id, parent_task_external_id)
    except CdfAmbiguousTaskError as error:
        return Impossible(str(error))
    left_behind = task is not None and execution.has_ended and not task.has_ended
    was_reached = task is not None and task.id == seen
    counts = task is not None and (task.status in targets or (was_reached and not task.has_ended))
    if counts and not left_behind:
        return Reached(task)

    subject = f"Task {task_external_id!r}"
    if parent_task_external_id is not None:
        subject += f" of {parent_task_external_id!r}"
    workflow = f"The workflow is {_status(execution)}"
    which = f" [execution {execution.id}]"
    if task is None:
        if execution.has_ended:
            return Impossible(
                f"{subject} never started. It was to be {wanted}. {workflow}{_because(execution)}"
                f"{_defined_tasks(execution)}{which}"
            )
        if lacking := _can_never_start(execution, task_external_id, parent_task_external_id):
            return Impossible(
                f"{subject} will never start: {lacking}. {workflow}.{_defined_tasks(execution)}{which}"
            )
        return GoOn("not started")
    if left_behind:
        return Impossible(
            f"{subject} was still {_status(task)} when the workflow ended. "
            f"{workflow}{_because(execution)}{which}"
        )
    if execution.has_ended or (task.has_ended and not task.status.may_be_retried):
        ended = f"ended {_status(task)}"
        ended = f"was {wanted}, and then {ended}" if was_reached else f"{ended} before it was {wanted}"
        # A task is CANCELED because of something else; what that was, the execution may know better.
        is_to_blame = _because(task) != "." and task.status != TaskStatus.CANCELED
        is_said = is_to_blame or _because(task) == _because(execution)
        return Impossible(
            f"{subject} {ended}{_because(task)} {workflow}{'.' if is_said else _because(execution)}{which}"
        )
    return GoOn(_status(task))


def wait_for_end(execution: WorkflowExecution) -> Verdict:
    """Decide for a wait until an execution has ended well."""
    if execution.status == WorkflowStatus.COMPLETED:
        return Reached()
    if execution.has_ended:
        return Impossible(describe_bad_end(execution))
    return GoOn(_status(execution))


def describe_bad_end(execution: WorkflowExecution) -> str:
    """Say how an execution ended and, where its tasks are known, which of them failed and why."""
    failed = failed_tasks(execution) if isinstance(execution, WorkflowExecutionDetails) else []
    # CDF's own reason of a failed execution is that of a task, with words around it.
    said = execution.reason_for_incompletion or ""
    is_said = any(task.reason_for_incompletion and task.reason_for_incompletion in said for task in failed)
    text = f"The workflow ended {_status(execution)}{'.' if is_said else _because(execution)}"
    if failed:
        text += " Failed tasks: " + " ".join(
            f"{name_of(task.external_id)} {_status(task)}{_because(task)}" for task in failed[:MAX_NAMED]
        )
        text += f" And {len(failed) - MAX_NAMED} more." if len(failed) > MAX_NAMED else ""
    version = "" if execution.version is None else f" version {execution.version!r}"
    return f"{text} [workflow {execution.workflow_external_id!r}{version}, execution {execution.id}]"


def failed_tasks(execution: WorkflowExecutionDetails) -> list[TaskExecution]:
    """Return the tasks whose last attempt failed, in the order of the execution."""
    return [task for task in current_attempts(execution) if task.status in _TO_BLAME]


def contradiction(execution: WorkflowExecutionDetails) -> CdfAnswerError | None:
    """
    Return what is wrong with an execution that has not ended, if it cannot be as CDF says.

    For a wait that goes on, such an answer is none: it counts as a failing poll, so that ``max_poll_silence``
    bounds it.
    """
    if not execution.says_it_ended:
        return None
    return CdfAnswerError(
        f"CDF says that the workflow is {_status(execution)}, and when it ended. [execution {execution.id}]"
    )


def is_surely_running(execution: WorkflowExecution) -> bool:
    """
    Whether a list's entry says all there is to know: that the execution is RUNNING.

    How it has ended the list does not say (it has no tasks), nor whether a RUNNING one with an end time has
    been retried.
    """
    return execution.status == WorkflowStatus.RUNNING and not execution.end_time


def may_not_be_listed_yet(error: CdfError, *, started_at: float, now: float) -> bool:
    """
    Whether CDF may not know an execution because it was started a short while ago.

    :param error: of a request that reads the execution.
    :param started_at: the latest moment at which it can have been started: for what has started it, that
        moment; for others the begin of their own try, before which they were told its id.
    :param now: seconds on the same clock.
    """
    # Which of the two it is, for an id that CDF does not know, is not documented.
    is_unknown = isinstance(error, CdfApiError) and error.code in (400, 404)
    return is_unknown and now < started_at + LAG


def outlives(error: CdfError) -> bool:
    """
    Whether a wait goes on after a poll that failed like this.

    Only what a retry of the Airflow task would not heal either ends it (400, 403, 404, a wrong connection). A
    refused login does not: the secret may be renewed, and a trigger reads the connection again.
    """
    return not isinstance(error, AirflowFailException)


def _status(what: TaskExecution | WorkflowExecution) -> str:
    return one_line(what.status, 40)


def _because(what: TaskExecution | WorkflowExecution) -> str:
    reason = one_line(what.reason_for_incompletion or "")
    return f": {reason.rstrip('.')}." if reason else "."


def _can_never_start(
    execution: WorkflowExecutionDetails, task_external_id: str, parent_task_external_id: str | None
) -> str:
    """Return what the workflow lacks for that, in words; nothing if it may start."""
    defined = execution.workflow_definition.tasks if execution.workflow_definition else []
    if not defined:
        return ""
    if parent_task_external_id is not None:
        parents = [task for task in defined if task.external_id == parent_task_external_id]
        if all(task.type in _TASKS_WITHOUT_CHILDREN for task in parents):
            return f"the workflow has no task {parent_task_external_id!r} with children"
        return ""
    # Dynamic tasks and subworkflows bring tasks that the definition does not list.
    has_children = any(task.type not in _TASKS_WITHOUT_CHILDREN for task in defined)
    is_defined = any(task.external_id == task_external_id for task in defined)
    return "" if has_children or is_defined else "the workflow has no such task"


def _defined_tasks(execution: WorkflowExecutionDetails) -> str:
    defined = execution.workflow_definition.tasks if execution.workflow_definition else []
    named = ", ".join(name_of(task.external_id) for task in defined[:MAX_NAMED])
    more = f" and {len(defined) - MAX_NAMED} more" if len(defined) > MAX_NAMED else ""
    return f" Its tasks: {named}{more}." if defined else ""


def longest_obeyed(max_silence: float) -> float:
    """
    Return the longest ``Retry-After`` that a wait obeys, seconds.

    Several polls have to fail before a wait gives up: one answer that asks for a day would end it otherwise.

    :param max_silence: seconds without one good answer after which the wait gives up.
    """
    return max_silence / 10


class Pace:
    """
    How far apart polls are: at growing intervals while they fail, and not before CDF wants to be asked again.

    :param interval: seconds between polls while they succeed.
    :param longest: the longest ``Retry-After`` that is obeyed, seconds.
    """

    #: Failing polls come at growing intervals between these, seconds.
    SHORTEST_AFTER_FAILURE, LONGEST_AFTER_FAILURE = 1.0, 60.0

    def __init__(self, *, interval: float, longest: float) -> None:
        self._interval = interval
        self.longest = longest
        self.failures = 0
        #: Seconds before which CDF does not want to be asked again.
        self.asked_for = 0.0

    @property
    def next_interval(self) -> float:
        """Seconds until the next poll."""
        if not self.failures:
            return self._interval
        # At most 2 ** 10: the exponent of a long outage would overflow.
        grown = max(self._interval, self.SHORTEST_AFTER_FAILURE) * 2.0 ** min(self.failures, 10)
        return max(self._interval, min(grown, self.LONGEST_AFTER_FAILURE), self.asked_for)

    def answered(self) -> None:
        """Note a good answer."""
        self.failures = 0
        self.asked_for = 0.0

    def failed(self, error: CdfError) -> None:
        """Note a failed poll."""
        self.failures += 1
        self.asked_for = min(error.retry_after or 0.0, self.longest)


class Patience:
    """
    How long a wait outlives failing polls.

    :param interval: seconds between polls while they succeed.
    :param max_silence: seconds without one good answer after which the wait gives up.
    :param now: the clock when the wait begins, like every ``now`` here in seconds.
    """

    #: Refusals (400, 403, 404) are taken for an answer only if so many in a row say so, over so many seconds:
    #: one may be a gateway's bad moment, and what was started a moment ago may not be known yet.
    REFUSALS, REFUSED_FOR = 3, LAG
    #: Seconds beyond the silence within which the last poll has its chance.
    LAST_CHANCE = Pace.LONGEST_AFTER_FAILURE + 30.0

    def __init__(self, *, interval: float, max_silence: float, now: float) -> None:
        self._pace = Pace(interval=interval, longest=longest_obeyed(max_silence))
        self._max_silence = max_silence
        self._last_answer = now
        self._last_error: CdfError | None = None
        self._refusals = 0
        self._refused_since = now

    @property
    def next_interval(self) -> float:
        """Seconds until the next poll."""
        return self._pace.next_interval

    @property
    def gives_up_at(self) -> float:
        """When the wait is over also if no other poll is heard of; never while polls succeed."""
        if self._last_error is None:
            return math.inf
        return self._last_answer + self._max_silence + self.LAST_CHANCE

    def given_up(self, *, now: float) -> CdfSilenceError:
        """Return why the wait is over after too long a silence."""
        silence = now - self._last_answer
        return CdfSilenceError(
            told(f"No poll has succeeded for {silence:.0f} s. The last one: {self._last_error}")
        )

    def answered(self, *, now: float) -> str | None:
        """Note a good answer; return what to log if it ends an outage."""
        failures, silence = self._pace.failures, now - self._last_answer
        self._pace.answered()
        self._refusals = 0
        self._last_answer, self._last_error = now, None
        return f"CDF answers again, after {failures} failed polls in {silence:.0f} s." if failures else None

    def failed(self, error: CdfError, *, now: float) -> str | None:
        """
        Note a failed poll; return what to log if it begins an outage.

        :raises CdfError: the error itself where time will not heal it, or the silence has lasted too long.
        """
        if not outlives(error):
            self._refused_since = self._refused_since if self._refusals else now
            self._refusals += 1
            is_certain = self._refusals >= self.REFUSALS and now - self._refused_since >= self.REFUSED_FOR
            if not isinstance(error, CdfRefusedError) or is_certain:
                raise error
        else:
            self._refusals = 0
        self._pace.failed(error)
        self._last_error = error
        if now - self._last_answer > self._max_silence:
            raise self.given_up(now=now)
        return told(error, "Polling goes on, at growing intervals.") if self._pace.failures == 1 else None
