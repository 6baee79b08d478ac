"""
What CDF says in words of its own about an execution, before anything of this package holds it.

It goes into logs, errors, XComs and the events of triggers, which Airflow keeps in its database. A function
that fails may have written down the headers of its request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel

from airflow_provider_cdf.cdf.models import (
    TaskExecution,
    TaskStatus,
    WorkflowExecution,
    WorkflowExecutionDetails,
)

AnswerT = TypeVar("AnswerT", bound=BaseModel)

#: The ids that tasks are told by.
_OF_TASK = ("external_id", "parent_task_external_id")


def cleaned(answer: AnswerT, clean: Callable[[str], str]) -> AnswerT:
    """
    Return an answer whose words are cleaned: reasons, unknown statuses, external ids.

    Not a list: it has thousands of entries, of which nothing but ids and known statuses is told.

    :param clean: returns a text in one line of at most 500 characters, without secrets.
    """
    changes = _changes(answer, clean)
    return answer.model_copy(update=changes) if changes else answer


def _changes(answer: BaseModel, clean: Callable[[str], str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if isinstance(answer, WorkflowExecution | TaskExecution):
        if (reason := answer.reason_for_incompletion) is not None and (said := clean(reason)) != reason:
            changes["reason_for_incompletion"] = said
        if answer.status not in type(answer.status).__members__:
            changes["status"] = type(answer.status)(clean(answer.status))
        of_workflow = ("workflow_external_id", "version")
        for name in of_workflow if isinstance(answer, WorkflowExecution) else _OF_TASK:
            text = getattr(answer, name)
            if not _is_clean(text, clean):
                changes[name] = clean(text)
    if isinstance(answer, WorkflowExecutionDetails):
        known = TaskStatus.__members__
        # Most of them say nothing, and an execution has up to thousands.
        says_nothing = [
            task.reason_for_incompletion is None
            and task.status in known
            and clean(task.external_id) == task.external_id
            and ((parent := task.parent_task_external_id) is None or clean(parent) == parent)
            for task in answer.executed_tasks
        ]
        if not all(says_nothing):
            changes["executed_tasks"] = [
                task if nothing else cleaned(task, clean)
                for task, nothing in zip(answer.executed_tasks, says_nothing, strict=True)
            ]
    return changes


def _is_clean(text: str | None, clean: Callable[[str], str]) -> bool:
    """Whether an id may stay. It is compared with what was asked for, so blanks alone make no difference."""
    if text is None:
        return True
    said = clean(text)
    return said == text or said.split() == text.split()
