"""Which CDF tasks wait for Airflow, however their workflow was started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_provider_cdf.cdf.attempts import current_attempt, is_async_complete
from airflow_provider_cdf.cdf.errors import CdfAmbiguousTaskError
from airflow_provider_cdf.cdf.models import TaskExecution, TaskStatus, WorkflowExecutionDetails
from airflow_provider_cdf.waiting import Impossible, wait_for_task

#: The year 9999, in milliseconds since the epoch: no date goes much beyond.
LATEST = 253_370_764_800_000


@dataclass(frozen=True)
class WaitingTask:
    """
    An attempt at a task that waits for a report.

    :param start_time: when it began to wait, in milliseconds since the epoch, if CDF says.
    :param deadline: when CDF gives it up, in milliseconds since the epoch; ``None`` where that is not known,
        as for children of dynamic tasks.
    """

    cdf_task_id: str
    execution_id: str
    task_external_id: str
    parent_task_external_id: str | None
    workflow_external_id: str
    version: str | None
    start_time: int | None
    deadline: int | None

    @property
    def run_id(self) -> str:
        """The id of the DAG run that does its work. Airflow has each id once, so there is one run."""
        return f"cdf__{self.cdf_task_id}"

    def conf(self) -> dict[str, Any]:
        """Return what that DAG run is told."""
        return {
            "cdf_task_id": self.cdf_task_id,
            "execution_id": self.execution_id,
            "task_external_id": self.task_external_id,
            "parent_task_external_id": self.parent_task_external_id,
            "workflow_external_id": self.workflow_external_id,
            "version": self.version,
            "start_time": _iso(self.start_time),
            "deadline": _iso(self.deadline),
        }

    def __str__(self) -> str:
        return (
            f"task {self.task_external_id!r} of workflow {self.workflow_external_id!r} [task "
            f"{self.cdf_task_id}, execution {self.execution_id}]"
        )


def waiting_in(
    execution: WorkflowExecutionDetails, task_external_id: str, parent_task_external_id: str | None = None
) -> list[WaitingTask]:
    """
    Return the attempts at a task that wait for a report in an execution, the oldest first.

    :param parent_task_external_id: the dynamic task or subworkflow whose children are meant; without it, any
        task with the external id is.
    """
    if execution.has_ended:
        return []
    found = [
        WaitingTask(
            cdf_task_id=task.id,
            execution_id=execution.id,
            task_external_id=task.external_id,
            parent_task_external_id=task.parent_task_external_id,
            workflow_external_id=execution.workflow_external_id,
            version=execution.version,
            start_time=_known(task.start_time),
            deadline=_deadline(execution, task),
        )
        for task in execution.executed_tasks
        if task.external_id == task_external_id
        and parent_task_external_id in (None, task.parent_task_external_id)
        and task.status == TaskStatus.IN_PROGRESS
        and is_async_complete(execution, task) is not False
    ]
    return sorted(found, key=lambda task: task.start_time or 0)


def is_over_in(
    execution: WorkflowExecutionDetails, task_external_id: str, parent_task_external_id: str | None = None
) -> bool:
    """Whether no attempt at a task will wait in an execution any more."""
    try:
        current_attempt(execution, task_external_id, parent_task_external_id)
    except CdfAmbiguousTaskError:
        return False
    verdict = wait_for_task(
        execution, task_external_id, ("IN_PROGRESS",), parent_task_external_id=parent_task_external_id
    )
    return isinstance(verdict, Impossible)


def those_counted(ids: Sequence[str], count: Callable[[Sequence[str]], int]) -> set[str]:
    """
    Return which ids are counted, by a count that does not say which: Airflow 3 tells a task no more.

    Where all or none are, as mostly, that is one question.
    """
    counted = count(ids) if ids else 0
    if counted in (0, len(ids)):
        return set(ids) if counted else set()
    half = len(ids) // 2
    return those_counted(ids[:half], count) | those_counted(ids[half:], count)


def _deadline(execution: WorkflowExecutionDetails, task: TaskExecution) -> int | None:
    defined = execution.workflow_definition.tasks if execution.workflow_definition else []
    began = _known(task.start_time)
    if began is None or task.parent_task_external_id is not None:
        return None
    timeouts = [one.timeout for one in defined if one.external_id == task.external_id]
    # Compared before it is calculated with: 1e308 seconds are no number of milliseconds.
    return _known(began + int(timeouts[0] * 1000)) if timeouts and 0 < timeouts[0] < LATEST else None


def _known(milliseconds: int | None) -> int | None:
    """Return a time, unless it is none that a date can have: one task's must not stop the whole inbox."""
    return milliseconds if milliseconds is not None and 0 < milliseconds < LATEST else None


def _iso(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()
