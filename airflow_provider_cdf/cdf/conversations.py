"""
What takes CDF more than one call, written once for both clients.

A conversation is a generator: it yields calls and pauses, is sent the answers, or has errors thrown into it.

The API has no idempotency key. A write whose answer was lost may have been carried out, or may still be on
its way, so it is never simply repeated: first it is looked up what became of it.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Generic

from airflow_provider_cdf.cdf import calls, clock
from airflow_provider_cdf.cdf.attempts import is_async_complete
from airflow_provider_cdf.cdf.client import Conversation, Pause, ResultT, Settings
from airflow_provider_cdf.cdf.errors import (
    CdfApiError,
    CdfError,
    CdfNothingToReportToError,
    CdfReportRefusedError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.models import (
    ExecutionPage,
    Session,
    SessionList,
    SessionStates,
    TaskExecution,
    TaskStatus,
    TokenInspection,
    WorkflowExecution,
    WorkflowExecutionDetails,
)
from airflow_provider_cdf.cdf.retry import is_ambiguous, is_transient, pause_after, was_not_executed

log = logging.getLogger(__name__)

#: Metadata key by which the execution of one submission is found when its answer was lost.
SUBMIT_ID = calls.SUBMIT_ID
#: Metadata key that all executions of one logical run have in common, where an operator starts them.
RUN_KEY = "airflow_run_key"
#: CDF's nonces live "about a minute"; seconds after which one is no longer sent.
NONCE_SENT_UNTIL = 45.0
#: Seconds after which a lost request can no longer start anything, and what it has started is in the lists:
#: the nonce's minute, and another one for a slow request that is under way and for lists that lag behind.
NONCE_DEAD_AFTER = 120.0
#: Refusals in a row that are taken for CDF's answer to a report: one may be a gateway's bad moment.
REFUSALS = 3
#: Seconds within which it has to become clear what a lost request has done.
SUBMIT_WITHIN = 300.0
#: Seconds within which an execution that CDF has agreed to cancel has to end.
CANCEL_WITHIN = 10.0
#: Seconds between looks at an execution that is about to end.
CANCEL_LOOK_INTERVAL = 0.5
#: Two machines' clocks: how much earlier than ours CDF's may date an execution. Ample, because an execution
#: that is not found is started a second time; a plant's server may be in a wrong time zone.
CLOCK_MARGIN = timedelta(days=1)


@dataclass(frozen=True)
class _Trace(Generic[ResultT]):
    """
    How it is found out whether a write was carried out.

    :param look_up: returns the outcome if there is one.
    :param hint: tells a person where to look.
    :param of_what: reads what a submission is about; if that is not there either, a 404 is true.
    """

    look_up: Callable[[], Conversation[ResultT | None]]
    hint: str
    of_what: calls.Call[Any] | None = None


def run_workflow(
    settings: Settings,
    workflow_external_id: str,
    version: str,
    *,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's own name
    metadata: Mapping[str, str] | None = None,
    submit_id: str | None = None,
) -> Conversation[WorkflowExecution]:
    """
    Start an execution exactly once, under a session of its own.

    The session's nonce works once, which makes it the idempotency key that the API does not name: while it
    lives, a lost request is sent again with it; only when it is dead is there another one. Metadata that
    leaves no room for a key of our own leaves a lost answer unclear.

    :param submit_id: by which the execution is found again; a new one unless it is given.
    """
    what = f"workflow {workflow_external_id!r} version {version!r}"
    own = calls.check_metadata(metadata or {}, what)
    if submit_id is None:
        own.pop(RUN_KEY, None)  # that of another execution, whose metadata is used again
    own.pop(SUBMIT_ID, None)
    since = datetime.now(UTC) - CLOCK_MARGIN
    submit_id = submit_id or str(uuid.uuid4())
    if len(own) < calls.MAX_METADATA_PAIRS:
        own[SUBMIT_ID] = submit_id

    def is_it(execution: WorkflowExecution) -> bool:
        return execution.metadata.get(SUBMIT_ID) == submit_id

    def look_up() -> Conversation[WorkflowExecution | None]:
        if SUBMIT_ID not in own:
            raise CdfError(f"Its {len(own)} pairs of metadata leave no room for {SUBMIT_ID!r}.")
        found = yield from list_executions(
            settings,
            is_it,
            workflow_external_id=workflow_external_id,
            version=version,
            created_after=since,
        )
        return next(iter(found), None)

    mark = f"the metadata {SUBMIT_ID} = {submit_id}" if SUBMIT_ID in own else "your metadata"
    trace = _Trace(
        look_up,
        hint=f"look for an execution of {what} with {mark}",
        of_what=calls.get_version(settings.project, workflow_external_id, version),
    )
    request = partial(calls.run, settings.project, workflow_external_id, version, input=input, metadata=own)
    return (yield from _submit(settings, request, trace))


def retry_execution(settings: Settings, execution_id: str) -> Conversation[WorkflowExecution]:
    """Run an execution's failed tasks once more, exactly once, under a session of its own."""
    read = calls.get_execution(settings.project, execution_id)
    before: WorkflowExecutionDetails = yield read
    known = {task.id for task in before.executed_tasks}

    def look_up() -> Conversation[WorkflowExecution | None]:
        now: WorkflowExecutionDetails = yield read
        if not before.has_ended:
            return None  # it ran anyway: that it runs tells nothing
        # It runs again; or it has ended once more already, with attempts that it did not have.
        is_new = any(task.id not in known for task in now.executed_tasks)
        return now if is_new or not now.has_ended else None

    request = partial(calls.retry, settings.project, execution_id)
    hint = f"look whether execution {execution_id} runs again"
    return (yield from _submit(settings, request, _Trace(look_up, hint, of_what=read)))


def cancel_execution(
    settings: Settings, execution_id: str, reason: str | None = None
) -> Conversation[WorkflowExecution]:
    """
    End an execution, and return it as it is then: TERMINATED, or as it had ended before.

    CDF refuses to cancel what has ended. Which HTTP status it does that with is not documented, so the
    execution itself is asked, not the error. CDF may also agree before it has ended the execution, which may
    complete in that very moment; so one that still runs is looked at for some seconds more.
    """
    read = calls.get_execution(settings.project, execution_id)

    def look_up() -> Conversation[WorkflowExecution | None]:
        execution: WorkflowExecutionDetails = yield read
        return execution if execution.has_ended else None

    call = calls.cancel(settings.project, execution_id, reason)
    hint = f"look whether execution {execution_id} still runs"
    execution = yield from _send_until_known(settings, call, _Trace(look_up, hint))
    until = clock.now() + min(CANCEL_WITHIN, settings.retry_for)
    while not execution.has_ended and clock.now() < until:
        yield Pause(CANCEL_LOOK_INTERVAL)
        try:
            execution = (yield from look_up()) or execution
        except CdfError as error:
            log.warning("Execution %s is being cancelled; it could not be read: %s", execution_id, error)
    return execution


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
    wanted = calls.check_reportable(status)
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
            log.warning("%s Trying again in %.1f s.", failed, pause)
            yield Pause(pause)
        elif unread is not None and (lost is not None or is_transient(unread)):
            raise _unclear_report(
                lost or failed, f"Whether it is done could not be read: {unread}", cdf_task_id, execution_id
            ) from None
        elif task is not None and isinstance(failed, CdfApiError) and was_refused:
            raise CdfReportRefusedError(
                f"CDF refuses the report, though its task still waits for one. {failed} Task "
                f"{task.external_id!r} of execution {execution_id} is {task.status}.",
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


def has_become(task: TaskExecution, wanted: str) -> bool:
    """Whether a task is as a report wants it to be."""
    # What a reported failure becomes where the task's onFailure is skipTask.
    is_skipped = wanted != TaskStatus.COMPLETED and task.status == TaskStatus.COMPLETED_WITH_ERRORS
    return task.status == wanted or is_skipped


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
    if task.has_ended and not has_become(task, wanted):
        raise CdfNothingToReportToError(
            f"Task {task.external_id!r} was not set to {wanted}: it has already ended {task.status}. "
            f"The workflow is {execution.status}. {which}"
        ) from None
    if not task.has_ended and execution.has_ended:
        raise CdfNothingToReportToError(
            f"Task {task.external_id!r} was not set to {wanted}: it was left {task.status} when the workflow "
            f"ended {execution.status}. {which}"
        ) from None
    if not task.has_ended and is_async_complete(execution, task) is False:
        raise CdfNothingToReportToError(
            f"Task {task.external_id!r} waits for no report: it is not asynchronous (isAsyncComplete); CDF "
            f"ends it itself. It is {task.status}. {which}"
        ) from None
    return task


def _unclear_report(
    lost: CdfError, since: str, cdf_task_id: str, execution_id: str | None
) -> CdfUnreachableError:
    hint = f"look at task {cdf_task_id} of execution {execution_id}"
    return CdfUnreachableError(f"{lost} {since} To find out, {hint}.", sent=True)


def list_executions(
    settings: Settings, keep: Callable[[WorkflowExecution], bool] = lambda _: True, **narrowed_down: Any
) -> Conversation[list[WorkflowExecution]]:
    """
    Read all pages of a list.

    :param keep: says which executions are wanted; no others are held, because a list may be long.
    """
    executions: list[WorkflowExecution] = []
    cursor: str | None = None
    seen: set[str] = set()
    while True:
        page: ExecutionPage = yield calls.list_executions(settings.project, cursor=cursor, **narrowed_down)
        executions += filter(keep, page.items)
        cursor = calls.next_cursor(page, seen)
        if cursor is None:
            return executions


def _submit(
    settings: Settings,
    request: Callable[..., calls.Call[Any]],
    trace: _Trace[ResultT],
) -> Conversation[ResultT]:
    """
    Carry out a write that a nonce authorizes, exactly once.

    :param request: makes the call for a nonce.
    """
    purpose = request(nonce="").purpose  # refuses bad input before a session is made for it
    begun = clock.now()
    tries = 0
    has_doubted_the_nonce = False
    while True:
        session = yield from _open_session(settings, purpose)
        got = clock.now()
        call = request(nonce=session.nonce)
        while clock.now() - got < NONCE_SENT_UNTIL:
            try:
                outcome: ResultT = yield call
                return outcome
            except CdfError as error:
                failed = error
            if was_not_executed(failed):
                tries += 1
                pause = pause_after(failed, tries)
                if not is_transient(failed) or clock.now() + pause >= begun + settings.retry_for:
                    raise failed from None
                log.warning("%s Trying again in %.1f s.", failed, pause)
                yield Pause(pause)
                continue
            is_refused = not is_ambiguous(failed)
            # A nonce that came too late is refused, too, and may leave its session READY.
            is_late = clock.now() - got >= NONCE_SENT_UNTIL and _may_be_due_to_the_nonce(failed)
            if is_refused and not is_late and (yield from _is_true(settings, failed, call, session, trace)):
                raise failed from None
            found = yield from _find_out(
                call, failed, trace, got, begun + SUBMIT_WITHIN, was_refused=is_refused
            )
            if found is not None:
                return found
            yield from _revoke(settings, session)
            # A new nonce settles whether it was that, once.
            if is_refused and (has_doubted_the_nonce or not _may_be_due_to_the_nonce(failed)):
                raise failed from None
            has_doubted_the_nonce = is_refused
            break


def _open_session(settings: Settings, purpose: str) -> Conversation[Session]:
    request = calls.create_session(
        settings.project,
        client_id=settings.credentials.client_id,
        client_secret=settings.credentials.client_secret,
        what_for=purpose,
    )
    try:
        sessions: SessionList = yield request
    except CdfUnreachableError as error:
        error.sent = False  # a session that nobody uses is nothing; the write itself was not sent
        raise
    except CdfApiError as error:
        if not re.search(r"\d+ sessions", error.cdf_message):
            raise
        # Not CdfRefusedError: sessions end, so a retry may find room.
        raise CdfApiError(
            f"{error} The project has no room for another session. Sessions end with their executions; an "
            "administrator can revoke those that are left over.",
            code=error.code,
            cdf_message=error.cdf_message,
            request_id=error.request_id,
        ) from None
    return sessions.items[0]


def _is_true(
    settings: Settings,
    refusal: CdfError,
    call: calls.Call[Any],
    session: Session,
    trace: _Trace[Any],
) -> Conversation[bool]:
    """
    Ask CDF a second question: does a refusal mean that nothing was done?

    A gateway may send a request twice. Then the first copy is executed, and the second one is refused, with
    any code and wording, because the nonce has been used.
    """
    code = refusal.code if isinstance(refusal, CdfApiError) else 0
    try:
        if code == 404 and trace.of_what is not None:
            try:
                yield trace.of_what
            except CdfApiError as error:
                if error.code == code:
                    return True
        elif code in (401, 403):
            inspection: TokenInspection = yield calls.inspect_token()
            if call.capability not in inspection.granted_in(settings.project):
                return True
        if session.id is not None:
            # A nonce that has been used makes its session ACTIVE. Not every client may list sessions.
            sessions: SessionStates = yield calls.read_session(settings.project, session.id)
            if [one.status for one in sessions.items] == ["READY"]:
                return True
    except CdfError as error:
        log.info("It could not be confirmed that nothing was done: %s", error)
    return False


def _revoke(settings: Settings, session: Session) -> Conversation[None]:
    """Give back a session whose nonce is dead and has started nothing: a project has room for 10 000."""
    if session.id is None:
        return
    try:
        yield calls.revoke_session(settings.project, session.id)
    except CdfError as error:
        log.info("An unused session could not be revoked: %s", error)


def _find_out(
    call: calls.Call[Any],
    lost: CdfError,
    trace: _Trace[ResultT],
    got: float,
    give_up_at: float,
    *,
    was_refused: bool,
) -> Conversation[ResultT | None]:
    """
    Find out what became of a call whose answer was lost, or carry it out after all with the same nonce.

    :param got: when its nonce came.
    :param was_refused: whether CDF has refused the call, so that it is no use to send it again.
    :return: ``None`` when it is certain that nothing was done with this nonce, and nothing ever will be.
    """
    if was_refused:
        log.warning(
            "%s A first copy of the request may have been accepted all the same, if something on the way has "
            "sent it twice. Looking for that for up to %.0f s.",
            lost,
            NONCE_DEAD_AFTER,
        )
    else:
        log.warning("%s Looking for it.", lost)
    refused = was_refused
    tries = 0
    while True:
        is_dead = clock.now() - got >= NONCE_DEAD_AFTER
        failed: CdfError | None = None
        try:
            found = yield from trace.look_up()
        except CdfError as error:
            failed = error
        else:
            if found is not None:
                return found
            if is_dead:
                return None
        # Not as long as the lost answer asked for: to look does no harm.
        pause = pause_after(failed, tries + 1)
        # A look-up that is refused may be answered later, as by a gateway in its bad moment.
        is_hopeless = failed is not None and not (is_transient(failed) or isinstance(failed, CdfApiError))
        if is_hopeless or clock.now() + pause >= give_up_at:
            since = f"It could not be looked up: {failed}" if failed else "It has not appeared since."
            raise _unknown(lost, since, trace)
        tries += 1
        yield Pause(pause)
        # The look-up comes first, should CDF ever take a nonce twice.
        if failed is None and not refused and clock.now() - got < NONCE_SENT_UNTIL:
            try:
                outcome: ResultT = yield call
                return outcome
            except CdfError as error:
                # A refusal is most likely about the nonce: the lost request has used it.
                refused = not is_transient(error)
                lost = error if is_ambiguous(error) else lost


def _may_be_due_to_the_nonce(error: CdfError) -> bool:
    """Whether a call may have been refused because its nonce came too late. The wording is not documented."""
    return isinstance(error, CdfApiError) and bool(
        re.search("nonce|session", error.cdf_message, re.IGNORECASE)
    )


def _send_until_known(
    settings: Settings, call: calls.Call[Any], trace: _Trace[ResultT]
) -> Conversation[ResultT]:
    """Send a call until it is known what became of it; a refusal may mean that it has been done before."""
    give_up_at = clock.now() + settings.retry_for
    lost: CdfError | None = None
    tries = 0
    while True:
        try:
            outcome: ResultT = yield call
            return outcome
        except CdfError as error:
            failed = error
        if is_ambiguous(failed):
            lost = failed
        elif lost is None and was_not_executed(failed):
            raise failed  # the sender has repeated it for as long as it may
        unread: CdfError | None = None
        try:
            found = yield from trace.look_up()
        except CdfError as error:
            unread = error
        else:
            if found is not None:
                return found
        tries += 1
        pause = pause_after(failed, tries)
        if is_transient(failed) and clock.now() + pause < give_up_at:
            log.warning("%s Trying again in %.1f s.", failed, pause)
            yield Pause(pause)
        elif unread is not None and (lost is not None or is_transient(unread)):
            raise _unknown(lost or failed, f"Whether it is done could not be read: {unread}", trace)
        elif lost is not None and is_transient(failed):
            raise _unknown(lost, "It was not done when last looked at.", trace)
        else:
            raise failed from None


def _unknown(lost: CdfError, since: str, trace: _Trace[Any]) -> CdfUnreachableError:
    return CdfUnreachableError(f"{lost} {since} To find out, {trace.hint}.", sent=True)
