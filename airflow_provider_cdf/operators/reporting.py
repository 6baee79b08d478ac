"""Reporting the end of a CDF task, once, and what CDF is told about Airflow."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.errors import (
    CdfApiError,
    CdfError,
    CdfInputError,
    CdfNothingToReportToError,
    CdfRefusedError,
    CdfReportRefusedError,
)
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.operators.airflow_urls import run_url, task_url
from airflow_provider_cdf.operators.upstream import Upstream

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.models import TaskExecution, WorkflowExecutionDetails
    from airflow_provider_cdf.hooks.cdf import CdfHook

log = logging.getLogger(__name__)

#: The one key of an output under which stands what this package adds to it.
KEY = "airflow"
#: Key below it by which an Airflow task recognizes what it has reported itself.
REPORTED_BY = "reported_by"
#: How many failed tasks a report names: the instances of a mapped task may be thousands.
MAX_NAMED = 20
#: Seconds between looks for an execution whose read was refused, and within which they are made.
LOOK_AGAIN_AFTER, PATIENCE = 3.0, 70.0
#: What has become of a report where the execution could not be read.
NOT_REPORTED = "Nothing was reported, and the CDF task is as it was."


@dataclass(frozen=True)
class Target:
    """
    The CDF task that a report is for.

    :param execution_id: UUID of the execution.
    :param task_external_id: external id of the task; ``None`` if it is addressed by ``cdf_task_id``.
    :param parent_task_external_id: the dynamic task or subworkflow whose child is meant.
    :param cdf_task_id: UUID of an attempt.
    """

    execution_id: str | None
    task_external_id: str | None = None
    parent_task_external_id: str | None = None
    cdf_task_id: str | None = None


def report(
    hook: CdfHook,
    ti: Any,
    target: Target,
    status: str,
    output: Mapping[str, Any] | None = None,
    *,
    patience: float = PATIENCE,
    mark: bool = False,
) -> TaskExecution:
    """
    Set a CDF task to a status, unless that has been done already.

    :param ti: who reports. What an earlier try of it has reported is not reported again.
    :param output: a JSON object without the key ``airflow`` of a user's own.
    :param patience: seconds at most to look for an execution that CDF may not know yet.
    :param mark: note in the output who reports, by which :func:`reported_before` knows it again.
    :return: the attempt at the task that has the status now.
    :raises CdfNothingToReportToError: if no task waits for the report.
    :raises CdfAmbiguousTaskError: if several tasks have the external id.
    """
    from airflow_provider_cdf.cdf.checks import is_missing
    from airflow_provider_cdf.operators.identity import run_key

    reporter = run_key(ti)
    if target.task_external_id is None:
        if is_missing(target.cdf_task_id):
            raise CdfNothingToReportToError(
                f"There is no cdf_task_id to report {status} to: the task that should have provided it left "
                "no value. Nothing was changed in CDF."
            )
        task_id = str(target.cdf_task_id)
    else:
        execution = _execution(hook, ti, target, status, patience)
        task, is_done = _task_to_report_to(execution, target, status, output, reporter)
        if is_done:
            log.info("Task %r is already %s. [task %s]", task.external_id, task.status, task.id)
            if output and status == "COMPLETED" and not output.items() <= (task.output or {}).items():
                log.warning(
                    "CDF has another output of it, and keeps that. [task %s, execution %s]",
                    task.id,
                    execution.id,
                )
            return task
        task_id = task.id
    if mark or status == "FAILED":
        # CDF follows this attempt with another one, which a retry of this task must not mistake for it.
        output = _marked(output, reporter)
    try:
        updated = hook.update_task(
            task_id,
            status,
            output,
            execution_id=None if is_missing(target.execution_id) else target.execution_id,
        )
    except CdfApiError as error:
        # A 400 or 404 that is no CdfRefusedError is not in CDF's words.
        is_cdfs = isinstance(error, CdfRefusedError) or error.code not in (400, 404)
        if isinstance(error, CdfReportRefusedError) or not (error.is_about_the_id and is_cdfs):
            raise _final_if_confirmed(error, hook, "workflowOrchestrationAcl:WRITE") from None
        raise CdfNothingToReportToError(told(f"There is no task to report {status} to.", error)) from None
    log.info("Set task %r to %s. [task %s]", updated.external_id, updated.status, updated.id)
    return updated


def _task_to_report_to(
    execution: WorkflowExecutionDetails,
    target: Target,
    status: str,
    output: Mapping[str, Any] | None,
    reporter: str,
) -> tuple[TaskExecution, bool]:
    """
    Return the attempt that waits for this report, or has already had it, and whether it has.

    :raises CdfNothingToReportToError: if there is none.
    """
    from airflow_provider_cdf.cdf.attempts import current_attempt, is_async_complete

    name = f"Task {target.task_external_id!r}"
    for attempt in _ended_attempts(execution, target):
        if _is_reported_by(reporter, attempt, status, output):
            return attempt, True
    task = current_attempt(execution, str(target.task_external_id), target.parent_task_external_id)
    ends_by_itself = task is not None and is_async_complete(execution, task) is False
    if task is not None and task.has_become(status) and not ends_by_itself:
        return task, True
    where = f"{workflow_state(execution)} Nothing was changed in CDF. [execution {execution.id}]"
    if task is None:
        state = "has not started. Put a CdfTaskSensor before the report, which waits for that"
    elif task.status.may_be_retried and not execution.has_ended:
        # No failure for good: a retry of this Airflow task may find CDF's next attempt.
        raise CdfError(
            f"{name} waits for no report just now. Its last attempt has ended {task.status}, and CDF has not "
            f"started another one, so {status} was not reported. {where}"
        )
    elif task.has_ended and not task.has_become(status):
        state = f"has already ended {task.status}{_because(task)}"
    elif execution.has_ended and not task.has_ended:
        state = f"was left {task.status} when the workflow ended"
    elif ends_by_itself:
        state = "is not asynchronous (isAsyncComplete), so CDF ends it itself"
    else:
        return task, False
    raise CdfNothingToReportToError(f"{name} waits for no report of {status}: it {state}. {where}")


def workflow_state(execution: WorkflowExecutionDetails) -> str:
    """Say in a sentence what state a workflow is in, and why."""
    return f"The workflow is {execution.status}{_because(execution)}."


def _because(what: TaskExecution | WorkflowExecutionDetails) -> str:
    from airflow_provider_cdf.cdf.foreign import one_line

    reason = one_line(what.reason_for_incompletion or "").rstrip(".")
    return f": {reason}" if reason else ""


def reported_before(ti: Any, execution: WorkflowExecutionDetails, target: Target) -> TaskExecution | None:
    """Return the attempt whose end an earlier try of this very task has reported with its mark, if any."""
    from airflow_provider_cdf.operators.identity import run_key

    reporter = run_key(ti)
    marked = (
        one for one in _ended_attempts(execution, target) if _ours(one.output).get(REPORTED_BY) == reporter
    )
    return next(marked, None)


def _ended_attempts(execution: WorkflowExecutionDetails, target: Target) -> Iterator[TaskExecution]:
    for attempt in execution.executed_tasks:
        if target.task_external_id is None:
            is_it = attempt.id == str(target.cdf_task_id).lower()
        else:
            is_it = attempt.external_id == target.task_external_id and target.parent_task_external_id in (
                None,
                attempt.parent_task_external_id,
            )
        if is_it and attempt.has_ended:
            yield attempt


def _execution(
    hook: CdfHook, ti: Any, target: Target, status: str, patience: float
) -> WorkflowExecutionDetails:
    """
    Read the execution that a report is for.

    :raises CdfNothingToReportToError: if there is none.
    """
    from airflow_provider_cdf.cdf.checks import is_missing
    from airflow_provider_cdf.cdf.reports import REFUSALS
    from airflow_provider_cdf.waiting import may_not_be_listed_yet

    if is_missing(target.execution_id):
        raise CdfNothingToReportToError(
            f"There is no execution id to report {status} to: the task that should have provided it left no "
            f"value. Nothing was changed in CDF. [task {target.task_external_id!r}]"
        )
    # In a callback that the DAG processor runs, a task instance has none.
    start_date = getattr(ti, "start_date", None)
    began = 0.0 if start_date is None else start_date.timestamp()
    give_up_at = clock.now() + patience
    refusals = 0
    while True:
        try:
            return hook.get_execution(str(target.execution_id))
        except CdfInputError as error:
            raise _no_execution(status, error.problem) from None
        except CdfApiError as error:
            failed = _final_if_confirmed(error, hook, "workflowOrchestrationAcl:READ")
        except CdfError as error:
            raise error.adding(NOT_REPORTED) from None
        is_final = isinstance(failed, CdfRefusedError)
        is_unknown = is_final and failed.is_about_the_id
        is_refusal = failed.code in (400, 403, 404)
        refusals += is_refusal
        # What CDF says of the token is believed at once, what it says of the id if it says it again.
        is_to_believe = (is_final and not is_unknown) or (
            refusals >= REFUSALS and not may_not_be_listed_yet(failed, started_at=began, now=time.time())
        )
        if is_refusal and not is_to_believe and clock.now() + LOOK_AGAIN_AFTER < give_up_at:
            log.warning("%s", told(failed, f"Looking again in {LOOK_AGAIN_AFTER:g} s."))
            clock.sleep(LOOK_AGAIN_AFTER)
        elif is_unknown:
            raise _no_execution(status, failed)
        else:
            raise failed.adding(NOT_REPORTED)


def _no_execution(status: str, why: object) -> CdfNothingToReportToError:
    return CdfNothingToReportToError(
        told(f"There is no execution to report {status} to.", why, "Nothing was changed in CDF.")
    )


def _final_if_confirmed(error: CdfApiError, hook: CdfHook, capability: str) -> CdfApiError:
    """
    Return a refusal to be raised: a 403 is final only if CDF says of the token that it lacks the capability.

    A gateway forbids, too, and after a final error CDF would be told of a failure of work that is done.
    """
    if not isinstance(error, CdfRefusedError) or error.code != 403:
        return error
    may = error.inspection
    is_confirmed = may is not None and bool(may.missing_in(hook.client.settings.project, capability))
    return error if is_confirmed else error.doubted()


# -- what CDF is told ---------------------------------------------------------------------------------------


def refuse_own_key(output: object) -> None:
    """
    Refuse a user's key ``airflow`` in an output.

    :raises CdfInputError: if it is there.
    """
    if isinstance(output, Mapping) and KEY in output:
        raise CdfInputError(
            f"The output has the key {KEY!r}, under which this package reports. Give yours another name."
        )


def checked_output(output: object) -> dict[str, Any]:
    """
    Return an output of a user's own as CDF takes it.

    :raises CdfInputError: if it is no JSON object, more than 100 000 bytes, or has the key ``airflow``.
    """
    from airflow_provider_cdf.cdf.checks import check_output

    checked = check_output(output)
    refuse_own_key(checked)
    return checked


def about(ti: Any) -> dict[str, Any]:
    """Return which task of Airflow reports, if one does, and where to find its DAG run."""
    says = {"dag_id": ti.dag_id, "run_id": ti.run_id}
    if ti.task_id:
        says |= {"task_id": ti.task_id, "try_number": ti.try_number}
    if ti.map_index is not None and ti.map_index >= 0:
        says["map_index"] = ti.map_index
    if url := run_url(ti):
        says["url"] = url
    return says


def failure(
    ti: Any, failed: Sequence[Upstream], error: object = None, *, has_failed: bool = True
) -> dict[str, Any]:
    """
    Return the output of a task that is reported as failed.

    :param ti: who reports.
    :param failed: the tasks that failed; by default the one that reports, if a task does.
    :param error: why, where that is known in this process.
    :param has_failed: whether the task that reports has failed itself.
    """
    from airflow_provider_cdf.cdf.checks import MAX_JSON_BYTES, size_of

    said: dict[str, Any] = about(ti)
    if error is not None:
        said["error"] = _in_json(error)
    if not failed and not (ti.task_id and has_failed):
        return {KEY: said}
    failed = failed or [_itself(ti)]
    said["failed_task_count"] = len(failed)
    named = MAX_NAMED
    while True:
        said["failed_tasks"] = [_named(one) for one in failed[:named]]
        output = {KEY: said}
        # Names and links of the greatest length fit twenty times, but for those that are not ASCII.
        if named <= 1 or size_of(output) <= MAX_JSON_BYTES:
            return output
        named //= 2


def _itself(ti: Any) -> Upstream:
    """Return the task that reports, as one that failed."""
    index = -1 if ti.map_index is None else ti.map_index
    return Upstream(ti.task_id, index, "failed", ti.try_number, task_url(ti, ti.task_id, index))


def with_note(output: Mapping[str, Any] | None, ti: Any, **note: Any) -> Mapping[str, Any] | None:
    """Return an output with a note of who reports, if there is room for it."""
    return if_it_fits({**(output or {}), KEY: {**about(ti), **note}}, output)


def in_words(failed: Sequence[Upstream]) -> str:
    """Name failed tasks in a sentence."""
    named = [f"{one.name!r} ({one.state})" for one in failed[:MAX_NAMED]]
    return ", ".join(named) + (f" and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else "")


def _named(one: Upstream) -> dict[str, Any]:
    says: dict[str, Any] = {"task_id": one.task_id, "state": one.state}
    if one.map_index >= 0:
        says["map_index"] = one.map_index
    if one.try_number is not None:
        says["try_number"] = one.try_number
    if one.url is not None:
        says["url"] = one.url
    return says


def _in_json(error: object) -> dict[str, str]:
    from airflow.providers.common.compat.sdk import redact

    from airflow_provider_cdf.cdf.foreign import one_line

    kind = type(error).__name__ if isinstance(error, BaseException) else AirflowException.__name__
    text = error.problem if isinstance(error, CdfInputError) else str(error)
    # What Airflow masks in its logs must not leave by another door.
    return {"type": kind, "message": one_line(redact(text))}


# -- the mark of a report -----------------------------------------------------------------------------------


def _marked(output: Mapping[str, Any] | None, reporter: str) -> Mapping[str, Any] | None:
    return if_it_fits({**(output or {}), KEY: {**_ours(output), REPORTED_BY: reporter}}, output)


def if_it_fits(output: Mapping[str, Any], otherwise: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return an output if CDF takes it, and another one if it is too large."""
    from airflow_provider_cdf.cdf.checks import MAX_JSON_BYTES, size_of

    return output if size_of(output) <= MAX_JSON_BYTES else otherwise


def _is_reported_by(
    reporter: str, attempt: TaskExecution, status: str, output: Mapping[str, Any] | None
) -> bool:
    """Whether an attempt has ended by a report of this task."""
    if mark := _ours(attempt.output).get(REPORTED_BY):
        return bool(mark == reporter)
    # An output that leaves no room for a mark is a mark by itself.
    if output is None or status != "FAILED" or _marked(output, reporter) is not output:
        return False
    return attempt.status == status and output.items() <= attempt.output.items()


def _ours(output: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what this package has put into an output."""
    ours = (output or {}).get(KEY)
    return dict(ours) if isinstance(ours, Mapping) else {}
