"""Reporting the end of a task, until it is known what became of the report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow_provider_cdf.cdf import calls, checks, clock
from airflow_provider_cdf.cdf.attempts import is_async_complete
from airflow_provider_cdf.cdf.errors import (
    CdfApiError,
    CdfError,
    CdfNothingToReportToError,
    CdfReportRefusedError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.messages import ids, told
from airflow_provider_cdf.cdf.models import TaskExecution, TaskStatus, WorkflowExecutionDetails
from airflow_provider_cdf.cdf.retry import is_ambiguous, is_transient, pause_after
from airflow_provider_cdf.cdf.settings import Settings
from airflow_provider_cdf.cdf.steps import Conversation, Pause

log = logging.getLogger(__name__)

#: Refusals in a row that are taken for CDF's answer to a report: one may be a gateway's bad moment.
REFUSALS = 3


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

    CDF refuses a second report. Which HTTP status it does that with is not documented, so the task itself is
    asked, not the error. One that still waits was refused for another reason, such as a gateway's bad moment:
    the report is repeated.

    :raises CdfNothingToReportToError: if the task has ended in another status, or never waits for a report.
    :raises CdfReportRefusedError: if CDF goes on refusing while the task still waits.
    """
    call = calls.update_task(settings.project, cdf_task_id, status, output)
    wanted = checks.check_reportable(status)
    read = None if execution_id is None else calls.get_execution(settings.project, execution_id)
    give_up_at = clock.now() + settings.retry_for
    lost: CdfError | None = None
    tries = refusals = 0
    while True:
        try:
            updated: TaskExecution = yield call
            return updated
        except CdfError as error:
            failed = error
        was_refused = isinstance(failed, CdfApiError) and not is_ambiguous(failed) and failed.code != 429
        if is_ambiguous(failed):
            lost = failed
            if read is None:
                raise failed  # a second request would be refused if the first was carried out
        elif lost is None and not was_refused:
            raise failed  # the sender has repeated it for as long as it may
        task: TaskExecution | None = None
        unread: CdfError | None = None
        if read is not None:
            try:
                task = yield from _reported_task(read, cdf_task_id, wanted)
            except CdfNothingToReportToError:
                raise
            except CdfError as error:
                unread = error
        if task is not None and task.has_ended:
            return task
        tries += 1
        if was_refused and not is_transient(failed):
            refusals += 1
        pause = pause_after(failed, tries)
        if refusals < REFUSALS and clock.now() + pause < give_up_at:
            log.warning("%s", told(failed, f"Trying again in {pause:.1f} s."))
            yield Pause(pause)
        elif unread is not None and (lost is not None or is_transient(unread)):
            raise _unclear_report(
                lost or failed, f"Whether it is done could not be read. {unread}", cdf_task_id, execution_id
            ) from None
        elif task is not None and isinstance(failed, CdfApiError) and was_refused:
            raise CdfReportRefusedError(
                told(
                    f"CDF refuses the report, though its task still waits for one. {failed}",
                    f"Task {task.external_id!r} is {task.status}. [execution {execution_id}]",
                ),
                code=failed.code,
                cdf_message=failed.cdf_message,
                request_id=failed.request_id,
                retry_after=failed.retry_after,
            ) from None
        elif lost is not None and not was_refused:
            raise _unclear_report(
                lost, "It was not done when last looked at.", cdf_task_id, execution_id
            ) from None
        else:
            raise failed from None


def _reported_task(
    read: calls.Call[WorkflowExecutionDetails], cdf_task_id: str, wanted: TaskStatus
) -> Conversation[TaskExecution | None]:
    """
    Read what has become of a task that was to be set to a status; ``None`` if CDF does not list it.

    :raises CdfNothingToReportToError: if it has ended otherwise, or is not asynchronous.
    """
    execution: WorkflowExecutionDetails = yield read
    task = next((task for task in execution.executed_tasks if task.id == cdf_task_id.lower()), None)
    if task is None:
        return None
    which = f"[task {task.id}, execution {execution.id}]"
    if task.has_ended and not task.has_become(wanted):
        raise CdfNothingToReportToError(
            f"Task {task.external_id!r} was not set to {wanted}: it has already ended {task.status}. "
            f"The workflow is {execution.status}. {which}"
        ) from None
    if not task.has_ended and execution.has_ended:
        raise CdfNothingToReportToError(
            f"Task {task.external_id!r} was not set to {wanted}: it was left {task.status} when the workflow "
            f"ended {execution.status}. {which}"
        ) from None
    if is_async_complete(execution, task) is False:
        raise CdfNothingToReportToError(
            f"Task {task.external_id!r} waits for no report: it is not asynchronous (isAsyncComplete); CDF "
            f"ends it itself. It is {task.status}. {which}"
        ) from None
    return task


def _unclear_report(
    lost: CdfError, since: str, cdf_task_id: str, execution_id: str | None
) -> CdfUnreachableError:
    which = ids(task=cdf_task_id, execution=execution_id)
    return CdfUnreachableError(told(lost, since, f"To find out, look at the task in CDF. {which}"), sent=True)
