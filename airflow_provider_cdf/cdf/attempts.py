"""
Finding a task in an execution.

An external id is unique in a workflow's definition only. Children of dynamic tasks and subworkflows are
listed beside the others, with ``parentTaskExternalId`` to tell them apart, and each retry is one more entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_cdf.cdf.errors import CdfAmbiguousTaskError
from airflow_provider_cdf.cdf.models import (
    TaskDefinition,
    TaskExecution,
    TaskType,
    WorkflowExecutionDetails,
)


def current_attempt(
    execution: WorkflowExecutionDetails, task_external_id: str, parent_task_external_id: str | None = None
) -> TaskExecution | None:
    """
    Return the attempt at a task that counts: the one that goes on, else the latest.

    CDF keeps ended attempts in the list, each with an id of its own. ``None`` if the task has not started.

    :param parent_task_external_id: the dynamic task or subworkflow whose child is meant. Without it, a task
        without a parent comes first, also one that is defined and has not started.
    :raises CdfAmbiguousTaskError: if no parent is given, and several have, or will have, such a child.
    """
    parent = parent_task_external_id
    if parent is None and not _is_outer(execution, task_external_id):
        parents = _parents_of(execution, task_external_id)
        if len(parents) > 1:
            names = ", ".join(map(repr, sorted(parents)))
            raise CdfAmbiguousTaskError(
                f"{len(parents)} tasks have a child {task_external_id!r}. "
                f"Set parent_task_external_id to one of them: {names}. [execution {execution.id}]",
                parents=sorted(parents),
            )
        parent = next(iter(parents), None)
    return latest(
        task
        for task in execution.executed_tasks
        if task.external_id == task_external_id and task.parent_task_external_id == parent
    )


def latest(attempts: Iterable[TaskExecution]) -> TaskExecution | None:
    """Return the one of a task's attempts that counts: the one that goes on, else the latest."""
    # An attempt that was ended before it started has an end time only. Of equals, max() returns the first,
    # and CDF lists attempts oldest first as far as is known.
    return max(
        reversed(list(attempts)),
        key=lambda task: (not task.has_ended, task.start_time or task.end_time or 0),
        default=None,
    )


def current_attempts(execution: WorkflowExecutionDetails) -> list[TaskExecution]:
    """Return the attempt that counts of each task that has started, in the order of the execution."""
    by_task: dict[tuple[str | None, str], list[TaskExecution]] = {}
    for task in execution.executed_tasks:
        by_task.setdefault((task.parent_task_external_id, task.external_id), []).append(task)
    return [one for attempts in by_task.values() if (one := latest(attempts)) is not None]


def is_async_complete(execution: WorkflowExecutionDetails, task: TaskExecution) -> bool | None:
    """
    Whether a task's end is reported from outside CDF.

    Only function tasks can be such. Where the task's own input does not say, its definition does.

    :return: ``None`` if neither says, as for a child of a subworkflow that is defined elsewhere.
    """
    if task.is_async_complete is not None:
        return task.is_async_complete
    parent = task.parent_task_external_id
    if parent is None:
        defined: Iterable[Any] = (
            one.model_dump(by_alias=True) for one in _outer_tasks(execution, task.external_id)
        )
    else:
        defined = (
            one for one in _children_of(execution, parent) if one.get("externalId") == task.external_id
        )
    for one in defined:
        parameters = one.get("parameters")
        # Left out of a definition, it is false.
        return isinstance(parameters, Mapping) and parameters.get("isAsyncComplete") is True
    return None


def _outer_tasks(execution: WorkflowExecutionDetails, external_id: str) -> list[TaskDefinition]:
    defined = execution.workflow_definition.tasks if execution.workflow_definition else []
    return [task for task in defined if task.external_id == external_id]


def _is_outer(execution: WorkflowExecutionDetails, external_id: str) -> bool:
    return bool(_outer_tasks(execution, external_id)) or any(
        task.external_id == external_id and task.parent_task_external_id is None
        for task in execution.executed_tasks
    )


def _parents_of(execution: WorkflowExecutionDetails, external_id: str) -> set[str]:
    """Return the tasks that have, or will have, a child with this external id."""
    parents = {
        task.parent_task_external_id
        for task in execution.executed_tasks
        if task.external_id == external_id and task.parent_task_external_id is not None
    }
    defined = execution.workflow_definition.tasks if execution.workflow_definition else []
    # What a reference stands for is not in the execution: as soon as one site shows that it has such a
    # child, each other site of the same subworkflow has, too, started or not.
    references = [_reference(task) for task in defined if task.external_id in parents]
    for task in defined:
        is_same = _reference(task) is not None and _reference(task) in references
        if is_same or any(
            child.get("externalId") == external_id for child in _children_of(execution, task.external_id)
        ):
            parents.add(task.external_id)
    return parents


def _children_of(execution: WorkflowExecutionDetails, parent: str) -> list[Mapping[str, Any]]:
    """Return the definitions of a task's children, where the execution holds them."""
    found: Any = None
    for definition in _outer_tasks(execution, parent):
        found = _subworkflow(definition).get("tasks")
    if found is None:
        for task in execution.executed_tasks:
            if task.external_id == parent and task.task_type == TaskType.DYNAMIC:
                found = task.output.get("dynamicTasks") or found
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _reference(task: TaskDefinition) -> tuple[str, str] | None:
    """Return which workflow version stands in for a subworkflow task, if one does."""
    what = _subworkflow(task)
    reference = (what.get("workflowExternalId"), what.get("version"))
    return (str(reference[0]), str(reference[1])) if all(reference) else None


def _subworkflow(task: TaskDefinition) -> Mapping[str, Any]:
    what = task.parameters.get("subworkflow")
    return what if isinstance(what, Mapping) else {}
