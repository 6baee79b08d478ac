"""
What takes CDF more than one call, written once for both clients.

A conversation is a generator: it yields calls, is sent their answers, or has their errors thrown into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from airflow_provider_cdf.cdf import calls
from airflow_provider_cdf.cdf.client import Conversation, Settings
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfError,
    CdfNothingToReportToError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.models import (
    TaskExecution,
    TaskStatus,
    WorkflowExecution,
    WorkflowExecutionDetails,
)


def run_workflow(
    settings: Settings,
    workflow_external_id: str,
    version: str,
    *,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's own name
    metadata: Mapping[str, str] | None = None,
) -> Conversation[WorkflowExecution]:
    """Start an execution under a session of its own."""
    request = partial(
        calls.run, settings.project, workflow_external_id, version, input=input, metadata=metadata
    )
    purpose = request(nonce="").purpose  # refuses bad input before a session is made for it
    nonce = yield from _new_nonce(settings, purpose)
    execution: WorkflowExecution = yield request(nonce=nonce)
    return execution


def retry_execution(settings: Settings, execution_id: str) -> Conversation[WorkflowExecution]:
    """Run an execution's failed tasks once more, under a session of its own."""
    request = partial(calls.retry, settings.project, execution_id)
    nonce = yield from _new_nonce(settings, request(nonce="").purpose)
    execution: WorkflowExecution = yield request(nonce=nonce)
    return execution


def _new_nonce(settings: Settings, what_for: str) -> Conversation[str]:
    sessions = yield calls.create_session(
        settings.project,
        client_id=settings.credentials.client_id,
        client_secret=settings.credentials.client_secret,
        what_for=what_for,
    )
    nonce: str = sessions.items[0].nonce
    return nonce


def update_task(
    settings: Settings,
    cdf_task_id: str,
    status: str,
    output: Mapping[str, Any] | None = None,
    *,
    execution_id: str | None = None,
) -> Conversation[TaskExecution]:
    """
    Report the end of a task, and read back what became of it where the answer leaves that open.

    CDF refuses a second update of a task. Which HTTP status it does that with is not documented, so the task
    itself is asked, not the error.
    """
    call = calls.update_task(settings.project, cdf_task_id, status, output)
    wanted = calls.check_reportable(status)
    if execution_id is not None:
        calls.check_uuid(execution_id, "execution_id")
    try:
        updated: TaskExecution = yield call
    except (CdfApiError, CdfAnswerError, CdfUnreachableError) as error:
        surely_not_done = isinstance(error, CdfUnreachableError) and not error.sent
        if execution_id is None or surely_not_done:
            raise
        try:
            execution: WorkflowExecutionDetails = yield calls.get_execution(settings.project, execution_id)
        except CdfError:
            raise error from None  # what is unclear is the update, not the look at it
        task = next((task for task in execution.executed_tasks if task.id == cdf_task_id.lower()), None)
        if task is None or not task.status.has_ended:
            raise
        # What a reported failure becomes where the task's onFailure is skipTask.
        skipped = wanted != TaskStatus.COMPLETED and task.status == TaskStatus.COMPLETED_WITH_ERRORS
        if task.status != wanted and not skipped:
            raise CdfNothingToReportToError(
                f"Task {task.external_id!r} ({task.id}) of execution {execution.id} could not be set to "
                f"{wanted}: it has already ended {task.status}. The workflow is {execution.status}."
            ) from None
        return task
    return updated
