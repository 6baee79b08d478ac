"""
What takes CDF more than one call, written once for both clients.

A conversation is a generator: it yields calls and pauses, is sent the answers, or has errors thrown into it.

The API has no idempotency key. A write whose answer was lost may have been carried out, or may still be on
its way, so it is never simply repeated: first it is looked up what became of it.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

from airflow_provider_cdf.cdf import calls
from airflow_provider_cdf.cdf.client import Conversation, Pause, ResultT, Settings
from airflow_provider_cdf.cdf.errors import (
    CdfApiError,
    CdfError,
    CdfLoginError,
    CdfNothingToReportToError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.models import (
    ExecutionPage,
    TaskExecution,
    TaskStatus,
    WorkflowExecution,
    WorkflowExecutionDetails,
)
from airflow_provider_cdf.cdf.retry import is_ambiguous, was_not_executed

#: Metadata key by which the execution of one submission is found when its answer was lost.
SUBMIT_ID = "airflow_submit_id"
#: CDF's nonces live "about a minute"; seconds after which one is no longer sent.
NONCE_SENT_UNTIL = 50.0
#: Seconds after which a lost request can no longer start anything, however late it arrives: the nonce's
#: minute, and a margin for lists that lag behind.
NONCE_DEAD_AFTER = 75.0
#: Seconds after which an unclear submission is given up.
SUBMIT_WITHIN = 300.0
#: Two machines' clocks: how much earlier than ours CDF's may date an execution.
CLOCK_MARGIN = timedelta(minutes=15)

LookUp: TypeAlias = Callable[[], Conversation[ResultT | None]]


def run_workflow(
    settings: Settings,
    workflow_external_id: str,
    version: str,
    *,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's own name
    metadata: Mapping[str, str] | None = None,
) -> Conversation[WorkflowExecution]:
    """
    Start an execution exactly once, under a session of its own.

    The session's nonce works once, which makes it the idempotency key that the API does not name: while it
    lives, a lost request is sent again with it; only when it is dead does a new submission begin. Metadata
    that leaves no room for a key of our own leaves a lost answer unclear.
    """
    what = f"workflow {workflow_external_id!r} version {version!r}"
    own = calls.check_metadata(metadata or {}, what)
    since = datetime.now(UTC) - CLOCK_MARGIN

    def submission() -> tuple[Callable[..., calls.Call[WorkflowExecution]], LookUp[WorkflowExecution] | None]:
        run = partial(calls.run, settings.project, workflow_external_id, version, input=input)
        if len(own) == calls.MAX_METADATA_PAIRS:
            return partial(run, metadata=own), None
        submit_id = str(uuid.uuid4())

        def look_up() -> Conversation[WorkflowExecution | None]:
            candidates = yield from list_executions(
                settings, workflow_external_id=workflow_external_id, version=version, created_after=since
            )
            return next((one for one in candidates if one.metadata.get(SUBMIT_ID) == submit_id), None)

        return partial(run, metadata={**own, SUBMIT_ID: submit_id}), look_up

    return (yield from _submit(settings, submission))


def retry_execution(settings: Settings, execution_id: str) -> Conversation[WorkflowExecution]:
    """Run an execution's failed tasks once more, exactly once, under a session of its own."""
    request = partial(calls.retry, settings.project, execution_id)
    request(nonce="")  # refuses an id that is none before anything is sent
    before: WorkflowExecutionDetails = yield calls.get_execution(settings.project, execution_id)

    def look_up() -> Conversation[WorkflowExecution | None]:
        now: WorkflowExecutionDetails = yield calls.get_execution(settings.project, execution_id)
        # It runs again, or has ended again already.
        return now if not now.status.has_ended or now.end_time != before.end_time else None

    return (yield from _submit(settings, lambda: (request, look_up)))


def cancel_execution(
    settings: Settings, execution_id: str, reason: str | None = None
) -> Conversation[WorkflowExecution]:
    """End an execution; where the answer was lost, it is read whether the execution has ended."""

    def look_up() -> Conversation[WorkflowExecution | None]:
        execution: WorkflowExecutionDetails = yield calls.get_execution(settings.project, execution_id)
        return execution if execution.status.has_ended else None

    return (yield from _insist(settings, calls.cancel(settings.project, execution_id, reason), look_up))


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
    if execution_id is None:
        updated: TaskExecution = yield call
        return updated
    wanted = calls.check_reportable(status)
    read = calls.get_execution(settings.project, execution_id)

    def look_up() -> Conversation[TaskExecution | None]:
        execution: WorkflowExecutionDetails = yield read
        task = next((task for task in execution.executed_tasks if task.id == cdf_task_id.lower()), None)
        if task is None or not task.status.has_ended:
            return None
        # What a reported failure becomes where the task's onFailure is skipTask.
        skipped = wanted != TaskStatus.COMPLETED and task.status == TaskStatus.COMPLETED_WITH_ERRORS
        if task.status != wanted and not skipped:
            raise CdfNothingToReportToError(
                f"Task {task.external_id!r} ({task.id}) of execution {execution.id} could not be set to "
                f"{wanted}: it has already ended {task.status}. The workflow is {execution.status}."
            ) from None
        return task

    return (yield from _insist(settings, call, look_up, ask_after_refusal=True))


def list_executions(settings: Settings, **narrowed_down: Any) -> Conversation[list[WorkflowExecution]]:
    """Read all pages of a list."""
    executions: list[WorkflowExecution] = []
    cursor: str | None = None
    while True:
        page: ExecutionPage = yield calls.list_executions(settings.project, cursor=cursor, **narrowed_down)
        executions += page.items
        cursor = page.next_cursor
        if not cursor:
            return executions


def _submit(
    settings: Settings,
    submission: Callable[[], tuple[Callable[..., calls.Call[ResultT]], LookUp[ResultT] | None]],  # type: ignore[type-var]
) -> Conversation[ResultT]:
    """
    Carry out a write that a nonce authorizes, exactly once.

    :param submission: makes the call for a nonce, and the look-up that tells whether it was carried out; each
        submission is a new one.
    """
    give_up_at = time.monotonic() + SUBMIT_WITHIN
    while True:
        request, look_up = submission()
        purpose = request(nonce="").purpose  # refuses bad input before a session is made for it
        sessions = yield calls.create_session(
            settings.project,
            client_id=settings.credentials.client_id,
            client_secret=settings.credentials.client_secret,
            what_for=purpose,
        )
        outcome = yield from _one_nonce(request(nonce=sessions.items[0].nonce), look_up, give_up_at)
        if outcome is not None:
            return outcome


def _one_nonce(
    call: calls.Call[Any], look_up: LookUp[ResultT] | None, give_up_at: float
) -> Conversation[ResultT | None]:
    """
    Send a call as often as its nonce allows, until it is known what became of it.

    :return: ``None`` when it is certain that nothing was done with this nonce, and nothing ever will be.
    """
    begun = time.monotonic()
    backoff = _Backoff()
    lost: CdfError | None = None
    refused = False
    while True:
        failed: CdfError | None = None
        if not refused and time.monotonic() - begun < NONCE_SENT_UNTIL:
            try:
                outcome: ResultT = yield call
                return outcome
            except CdfError as error:
                failed = error
        if failed is not None and is_ambiguous(failed):
            if look_up is None:
                raise failed
            lost = failed
        elif failed is not None and was_not_executed(failed):
            hopeless = isinstance(failed, CdfLoginError) and not failed.is_transient
            if lost is None and (hopeless or time.monotonic() > give_up_at):
                raise failed
        elif failed is not None:
            if lost is None:
                raise failed
            refused = True  # most likely the nonce: the lost request has used it
        if lost is None:
            if time.monotonic() - begun >= NONCE_SENT_UNTIL:
                return None
        else:
            age = time.monotonic() - begun
            try:
                found = yield from look_up()  # type: ignore[misc]
            except CdfError as error:
                found, looked = None, error
            else:
                looked = None
            if found is not None:
                return found
            if looked is None and age >= NONCE_DEAD_AFTER:
                return None
            if time.monotonic() > give_up_at:
                raise CdfUnreachableError(
                    f"It is not known whether CDF did {call.purpose}: {lost} "
                    + (
                        f"It could not be looked up either: {looked}"
                        if looked
                        else "It has not appeared since."
                    ),
                    sent=True,
                )
        yield Pause(backoff.after(failed))


def _insist(
    settings: Settings,
    call: calls.Call[Any],
    look_up: LookUp[ResultT],
    *,
    ask_after_refusal: bool = False,
) -> Conversation[ResultT]:
    """
    Send a call that CDF carries out once at most, until it is known what became of it.

    :param look_up: returns the outcome if there is one already.
    :param ask_after_refusal: whether a refusal may mean that it has been done before.
    """
    give_up_at = time.monotonic() + settings.retry_for
    backoff = _Backoff()
    lost = False
    while True:
        try:
            outcome: ResultT = yield call
            return outcome
        except CdfError as error:
            failed = error
        lost = lost or is_ambiguous(failed)
        if was_not_executed(failed) and not lost:
            raise failed  # the sender has repeated it for as long as it may
        if lost or ask_after_refusal:
            try:
                found = yield from look_up()
            except CdfNothingToReportToError:
                raise
            except CdfError:
                found = None  # what is unclear is the call, not the look at what became of it
            if found is not None:
                return found
        if not (is_ambiguous(failed) or was_not_executed(failed)) or time.monotonic() >= give_up_at:
            raise failed
        yield Pause(backoff.after(failed))


class _Backoff:
    """Pauses between tries: a random part of 1, 2, 4, ... seconds, at least what CDF asks for."""

    LONGEST = 15.0

    def __init__(self) -> None:
        self._longest = 1.0

    def after(self, error: CdfError | None) -> float:
        asked_for = error.retry_after if isinstance(error, CdfApiError) else None
        pause = random.uniform(0, self._longest)  # noqa: S311 - no secret depends on it
        self._longest = min(2 * self._longest, self.LONGEST)
        return max(pause, asked_for or 0.0)
