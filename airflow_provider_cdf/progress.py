"""What a long wait tells meanwhile, on a worker and in the triggerer: pure, like the decisions."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_provider_cdf.cdf.attempts import current_attempts, is_async_complete
from airflow_provider_cdf.cdf.foreign import name_of, one_line
from airflow_provider_cdf.cdf.models import (
    TaskExecution,
    TaskStatus,
    WorkflowExecution,
    WorkflowExecutionDetails,
)

#: Seconds after which a wait says that it goes on, if there is nothing else to tell.
SILENCE = 600.0
#: How many tasks one look tells of; an execution may have 200.
MAX_NAMED = 20


class Progress:
    """Where an execution is: each change of a task's status, and a summary every ten minutes at least."""

    def __init__(self) -> None:
        self._statuses: dict[str, TaskStatus] | None = None
        self._observed: str | None = None
        self._told_at = 0.0

    def is_due(self, *, now: float) -> bool:
        """Whether there is something to tell even if nothing has changed. ``now`` as for :meth:`lines`."""
        return now - self._told_at >= SILENCE

    def lines(self, execution: WorkflowExecution, observed: str, *, now: float) -> list[str]:
        """
        Return what to log after a look.

        :param execution: with its tasks, or without them, as lists have it.
        :param observed: the state of what is waited for, in a few words.
        :param now: seconds since the epoch.
        """
        attempts: list[TaskExecution] | None = None
        before = None
        if isinstance(execution, WorkflowExecutionDetails):
            attempts = current_attempts(execution)
            before, self._statuses = self._statuses, {task.id: task.status for task in attempts}
        lines = []
        if attempts is not None and before is not None:
            changed = [task for task in attempts if before.get(task.id) != task.status]
            lines = [_change(task) for task in changed[:MAX_NAMED]]
            if len(changed) > MAX_NAMED:
                lines.append(f"{len(changed) - MAX_NAMED} more tasks have changed.")
        if observed != self._observed or (not lines and self.is_due(now=now)):
            lines.append(_summary(execution, attempts, observed, now))
        if lines:
            self._observed, self._told_at = observed, now
        return lines


def waiting_for_a_report(execution: WorkflowExecutionDetails) -> list[TaskExecution]:
    """Return the tasks that stay IN_PROGRESS until their end is reported from outside CDF."""
    return [
        task
        for task in current_attempts(execution)
        if task.status == TaskStatus.IN_PROGRESS and is_async_complete(execution, task)
    ]


def standstill(execution: WorkflowExecutionDetails) -> str | None:
    """Return what to warn of, once, where a task waits for a workflow that waits for a report."""
    if not (tasks := waiting_for_a_report(execution)):
        return None
    return (
        f"CDF waits for a report on {_named(tasks)}. This Airflow task waits for the end of the workflow: if "
        "a task behind it is to make the report, neither ends. Then set wait_for_completion=False here. "
        f"[execution {execution.id}]"
    )


def table(execution: WorkflowExecutionDetails) -> str:
    """Return the tasks of an execution as a table for the log: name, status, time taken, reason."""
    rows = [("task", "status", "took", "reason")]
    for task in current_attempts(execution):
        took = _took(task)
        rows.append(
            (
                one_line(_name(task), 60),
                one_line(task.status, 40),
                "" if took is None else span(took),
                one_line(task.reason_for_incompletion or "", 200),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])).rstrip()
        for row in rows
    )


def span(seconds: float) -> str:
    """Return a duration in its two largest units."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _change(task: TaskExecution) -> str:
    took = _took(task)
    after = "" if took is None else f" after {span(took)}"
    reason = one_line(task.reason_for_incompletion or "").rstrip(".")
    return f"Task {_name(task)} is {one_line(task.status, 40)}{after}{f': {reason}' if reason else ''}."


def _summary(
    execution: WorkflowExecution, attempts: list[TaskExecution] | None, observed: str, now: float
) -> str:
    if attempts is None:
        return f"Waiting: {observed}. [execution {execution.id}]"
    going_on = [task for task in attempts if not task.has_ended]
    named = []
    for task in going_on[:MAX_NAMED]:
        since = f" for {span(now - task.start_time / 1000)}" if task.start_time else ""
        named.append(f"{_name(task)} ({one_line(task.status, 40)}{since})")
    if len(going_on) > MAX_NAMED:
        named.append(f"{len(going_on) - MAX_NAMED} more")
    runs = f"CDF is at {', '.join(named)}" if named else "CDF is at no task"
    ended = len(attempts) - len(going_on)
    return f"Waiting: {observed}. {runs}; {ended} ended. [execution {execution.id}]"


def _took(task: TaskExecution) -> float | None:
    if not (task.has_ended and task.start_time and task.end_time):
        return None
    return (task.end_time - task.start_time) / 1000


def _name(task: TaskExecution) -> str:
    parent = task.parent_task_external_id
    name = name_of(task.external_id)
    return name if parent is None else f"{name} of {name_of(parent)}"


def _named(tasks: Iterable[TaskExecution]) -> str:
    names = [_name(task) for task in tasks]
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
