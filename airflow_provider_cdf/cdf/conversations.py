"""
What takes CDF more than one call, written once for both clients.

A conversation is a generator: it yields calls and pauses, is sent the answers, or has errors thrown into it.

The API has no idempotency key. A write whose answer was lost may have been carried out, or may still be on
its way, so it is never simply repeated: first it is looked up what became of it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from airflow_provider_cdf.cdf import calls, checks, clock
from airflow_provider_cdf.cdf.calls import SUBMIT_ID
from airflow_provider_cdf.cdf.errors import CdfAnswerError, CdfError
from airflow_provider_cdf.cdf.foreign import one_line
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.cdf.models import (
    UnreadableExecution,
    WholePage,
    WorkflowExecution,
    WorkflowExecutionDetails,
)
from airflow_provider_cdf.cdf.pages import LIST_WITHIN, Pages
from airflow_provider_cdf.cdf.retry import is_ambiguous, is_transient, pause_after, was_not_executed
from airflow_provider_cdf.cdf.settings import Settings
from airflow_provider_cdf.cdf.steps import Conversation, Pause, ResultT
from airflow_provider_cdf.cdf.submitting import Trace, submit, unknown

log = logging.getLogger(__name__)

#: Metadata key that all executions of one logical run have in common, where an operator starts them.
RUN_KEY = "airflow_run_key"
#: Seconds within which an execution that CDF has agreed to cancel has to end.
CANCEL_WITHIN = 10.0
#: Seconds between looks at an execution that is about to end.
CANCEL_LOOK_INTERVAL = 0.5
#: Two machines' clocks: how much earlier than ours CDF's may date an execution. Ample, because an execution
#: that is not found is started a second time; a plant's server may be in a wrong time zone.
CLOCK_MARGIN = timedelta(days=1)


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
    own = checks.check_metadata(metadata or {}, what)
    if submit_id is None:
        own.pop(RUN_KEY, None)  # that of another execution, whose metadata is used again
    own.pop(SUBMIT_ID, None)
    since = datetime.now(UTC) - CLOCK_MARGIN
    submit_id = submit_id or str(uuid.uuid4())
    if len(own) < checks.MAX_METADATA_PAIRS:
        own[SUBMIT_ID] = submit_id

    def is_it(execution: WorkflowExecution) -> bool:
        return execution.metadata.get(SUBMIT_ID) == submit_id

    def look_up() -> Conversation[WorkflowExecution | None]:
        if SUBMIT_ID not in own:
            raise CdfError(f"Its {len(own)} pairs of metadata leave no room for {SUBMIT_ID!r}.")
        unreadable: list[str] = []
        found = yield from list_executions(
            settings,
            is_it,
            unreadable,
            workflow_external_id=workflow_external_id,
            version=version,
            created_after=since,
        )
        if found:
            return found[0]
        if unreadable:
            raise inconclusive(unreadable)
        return None

    mark = f"the metadata {SUBMIT_ID} = {submit_id}" if SUBMIT_ID in own else "your metadata"
    trace = Trace(
        look_up,
        hint=f"look for an execution with {mark}",
        subject=calls.get_version(settings.project, workflow_external_id, version),
        whole=calls.get_workflow(settings.project, workflow_external_id),
    )
    request = partial(calls.run, settings.project, workflow_external_id, version, input=input, metadata=own)
    started = yield from submit(settings, request, trace)
    if SUBMIT_ID in own and not is_it(started):
        log.warning(
            "CDF's answer lacks metadata that the run was sent with. If its lists lack it too, a later try "
            "does not find this execution. [execution %s]",
            started.id,
        )
    return started


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
    hint = "look whether the execution runs again"
    return (yield from submit(settings, request, Trace(look_up, hint, subject=read)))


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
    hint = "look whether the execution still runs"
    execution = yield from _send_until_known(settings, call, Trace(look_up, hint))
    until = clock.now() + min(CANCEL_WITHIN, settings.retry_for)
    while not execution.has_ended and clock.now() < until:
        yield Pause(CANCEL_LOOK_INTERVAL)
        try:
            execution = (yield from look_up()) or execution
        except CdfError as error:
            log.warning("%s", told("An execution that is being cancelled could not be read.", error))
    return execution


def list_executions(
    settings: Settings,
    keep: Callable[[WorkflowExecution], bool] = lambda _: True,
    unreadable: list[str] | None = None,
    **narrowed_down: Any,
) -> Conversation[list[WorkflowExecution]]:
    """
    Read all pages of a list.

    :param keep: says which executions are wanted; no others are held, because a list may be long.
    :param unreadable: gets the ids of items that may be wanted and cannot be read: then what is not in the
        result may be there all the same.
    :raises CdfAnswerError: if the list has no end within :data:`LIST_WITHIN`.
    """
    executions: list[WorkflowExecution] = []
    pages = Pages(LIST_WITHIN)
    while not pages.are_over:
        call = calls.list_executions(settings.project, cursor=pages.cursor, **narrowed_down)
        page: WholePage = yield replace(call, answer=WholePage)
        for one in pages.items_of(page):
            if isinstance(one, WorkflowExecution) and checks.is_uuid(one.id):
                if keep(one):
                    executions.append(one)
            elif unreadable is not None and _may_be_wanted(one, keep):
                unreadable.append(one_line(one.id, 60) or "without an id")
    return executions


def _may_be_wanted(
    item: WorkflowExecution | UnreadableExecution, keep: Callable[[WorkflowExecution], bool]
) -> bool:
    # What belongs to a task is told by its metadata alone. Another submission's is not what is looked for.
    known = WorkflowExecution.model_construct(id=item.id, metadata=item.metadata)
    return SUBMIT_ID not in item.metadata or keep(known)


def inconclusive(unreadable: list[str]) -> CdfAnswerError:
    """Return what is wrong with a look-up in a list that could not be read as a whole."""
    return CdfAnswerError(
        f"CDF's list holds an execution that cannot be read, which may be the wanted one: {unreadable[0]}."
    )


def _send_until_known(
    settings: Settings, call: calls.Call[Any], trace: Trace[ResultT]
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
            log.warning("%s", told(failed, f"Trying again in {pause:.1f} s."))
            yield Pause(pause)
        elif unread is not None and (lost is not None or is_transient(unread)):
            raise unknown(lost or failed, f"Whether it is done could not be read. {unread}", trace)
        elif lost is not None and is_transient(failed):
            raise unknown(lost, "It was not done when last looked at.", trace)
        else:
            raise failed from None
