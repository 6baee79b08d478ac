"""
A write that a nonce authorizes (run, retry), carried out exactly once.

The API has no idempotency key, and a gateway may repeat a request. So an answer that was lost, and a refusal
that may be the answer to a second copy, are looked into before anything is sent again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from airflow_provider_cdf.cdf import calls, clock
from airflow_provider_cdf.cdf.errors import CdfAnswerError, CdfApiError, CdfError, CdfUnreachableError
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.cdf.models import Session, SessionStates
from airflow_provider_cdf.cdf.retry import is_ambiguous, is_transient, pause_after, was_not_executed
from airflow_provider_cdf.cdf.sessions import open_session, revoke
from airflow_provider_cdf.cdf.settings import Settings
from airflow_provider_cdf.cdf.steps import Conversation, Pause, ResultT

log = logging.getLogger(__name__)

#: CDF's nonces live "about a minute"; seconds after which one is no longer sent.
NONCE_SENT_UNTIL = 45.0
#: Seconds after which a lost request can no longer start anything, and what it has started is in the lists:
#: the nonce's minute, and another one for a slow request that is under way and for lists that lag behind.
NONCE_DEAD_AFTER = 120.0
#: Seconds that CDF's lists are given to show what a first copy has started, before a 429 ends the matter.
LISTED_WITHIN = 10.0
#: Seconds within which it has to become clear what a lost request has done.
SUBMIT_WITHIN = 300.0


@dataclass(frozen=True)
class Trace(Generic[ResultT]):
    """
    How it is found out whether a write was carried out.

    :param look_up: returns the outcome if there is one.
    :param hint: tells a person where to look.
    :param subject: reads what a submission is about; if that is not there either, a 404 is true.
    :param whole: reads what that is a part of, to tell what is missing.
    """

    look_up: Callable[[], Conversation[ResultT | None]]
    hint: str
    subject: calls.Call[Any] | None = None
    whole: calls.Call[Any] | None = None


def submit(
    settings: Settings,
    request: Callable[..., calls.Call[Any]],
    trace: Trace[ResultT],
) -> Conversation[ResultT]:
    """
    Carry out a write that a nonce authorizes, exactly once.

    :param request: makes the call for a nonce.
    """
    first = request(nonce="")  # refuses bad input before a session is made for it
    begun = clock.now()
    tries = 0
    has_doubted_the_nonce = False
    while True:
        try:
            session = yield from open_session(settings, first.purpose)
        except CdfError as error:
            raise error.adding(f"[{first.which}]") from None
        got = clock.now()
        call = request(nonce=session.nonce)
        #: A 429: the copy that it answers was not executed, but a gateway may have sent another one before.
        limited: CdfError | None = None
        #: What ends it, where it is certain that nothing was done.
        final: CdfError | None = None
        while clock.now() - got < NONCE_SENT_UNTIL:
            try:
                outcome: ResultT = yield call
                return outcome
            except CdfError as error:
                failed = error
            if was_not_executed(failed):
                tries += 1
                pause = pause_after(failed, tries)
                limited = failed if isinstance(failed, CdfApiError) else limited
                if is_transient(failed) and clock.now() + pause < begun + settings.retry_for:
                    log.warning("%s", told(failed, f"Trying again in {pause:.1f} s."))
                    yield Pause(pause)
                    continue
                if limited is not None:
                    yield Pause(LISTED_WITHIN)
                final = failed
                break
            limited = None  # here, it is looked up anyway
            is_refused = not is_ambiguous(failed)
            # A nonce that came too late is refused, too, and may leave its session READY.
            is_late = clock.now() - got >= NONCE_SENT_UNTIL and _may_be_due_to_the_nonce(failed)
            if is_refused and not is_late:
                if (yield from _is_true(settings, failed, call, trace)):
                    final = failed
                    break
                is_cdfs_own = isinstance(failed, CdfApiError) and failed.is_cdfs_own
                if is_cdfs_own and (yield from _is_unused(settings, session)):
                    # Most likely true, so it is not waited for; but a first copy may be on its way.
                    failed.may_be_under_way = True
                    raise failed from None
            found = yield from _find_out(
                call, failed, trace, got, begun + SUBMIT_WITHIN, was_refused=is_refused
            )
            if found is not None:
                return found
            # A new nonce settles whether it was that, once.
            if is_refused and (has_doubted_the_nonce or not _may_be_due_to_the_nonce(failed)):
                final = failed
            has_doubted_the_nonce = is_refused
            break
        if limited is not None:
            found = yield from _look_once(limited, trace)
            if found is not None:
                return found
        # Nothing was done with this nonce, and nothing will be.
        yield from revoke(settings, session)
        if final is not None:
            raise final from None


def _is_true(
    settings: Settings,
    refusal: CdfError,
    call: calls.Call[Any],
    trace: Trace[Any],
) -> Conversation[bool]:
    """
    Ask CDF a second question: does a refusal mean that nothing was done?

    A gateway may send a request twice. Then the first copy is executed, and the second one is refused, with
    any code and wording, because the nonce has been used.
    """
    code = refusal.code if isinstance(refusal, CdfApiError) else 0
    try:
        if code == 404 and trace.subject is not None:
            try:
                yield trace.subject
            except CdfApiError as error:
                if error.code == code and error.is_cdfs_own:
                    refusal.adding((yield from _what_is_missing(trace)))
                    return True
    except CdfError as error:
        log.info("It could not be confirmed that nothing was done: %s", error)
    return _lacks(refusal, call.capability, settings.project)


def _is_unused(settings: Settings, session: Session) -> Conversation[bool]:
    """
    Ask whether a session's nonce has not been used yet: that makes it ACTIVE. Not every client may list them.

    It does not tell that nothing will be done: until the nonce is dead, a copy of the request may arrive.
    """
    if session.id is None:
        return False
    try:
        sessions: SessionStates = yield calls.read_session(settings.project, session.id)
    except CdfError as error:
        log.info("It could not be confirmed that nothing was done: %s", error)
        return False
    return [one.status for one in sessions.items] == ["READY"]


def _lacks(refusal: CdfError, capability: str, project: str) -> bool:
    """Whether the token, which the sender has asked about, may not do what was refused."""
    inspection = refusal.inspection if isinstance(refusal, CdfApiError) else None
    return inspection is not None and bool(inspection.missing_in(project, capability))


def _what_is_missing(trace: Trace[Any]) -> Conversation[str]:
    """Say whether the workflow is missing, or only the version of it; nothing if that cannot be told."""
    if trace.whole is None:
        return ""
    try:
        yield trace.whole
    except CdfApiError as error:
        is_true = error.code == 404 and error.is_cdfs_own
        return "There is no such workflow in this project." if is_true else ""
    except CdfError:
        return ""
    return "The workflow exists, but it has no such version."


def _find_out(
    call: calls.Call[Any],
    lost: CdfError,
    trace: Trace[ResultT],
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
        twice = (
            "A first copy of the request may have been accepted all the same, if something on the way has "
            f"sent it twice. Looking for that for up to {NONCE_DEAD_AFTER:.0f} s."
        )
        log.warning("%s", told(lost, twice))
    else:
        log.warning("%s", told(lost, "Looking for it."))
    refused = was_refused
    # Its nonce is taken, so there must be no other one, however long nothing appears.
    carried_out = _carried_out(lost)
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
            if is_dead and carried_out is None:
                return None
        # Not as long as the lost answer asked for: to look does no harm.
        pause = pause_after(failed, tries + 1)
        # A look-up that is refused may be answered later, as by a gateway in its bad moment.
        is_hopeless = failed is not None and not (is_transient(failed) or isinstance(failed, CdfApiError))
        if is_hopeless or (is_dead and failed is None) or clock.now() + pause >= give_up_at:
            since = f"It could not be looked up. {failed}" if failed else "It has not appeared since."
            raise unknown(carried_out or lost, since, trace)
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
                carried_out = carried_out or _carried_out(error)


def _carried_out(error: CdfError) -> CdfError | None:
    return error if isinstance(error, CdfAnswerError) and error.is_carried_out else None


def _look_once(limited: CdfError, trace: Trace[ResultT]) -> Conversation[ResultT | None]:
    """
    Look whether a first copy of a call was carried out, before its nonce is given up after a 429.

    :raises CdfUnreachableError: if that cannot be told.
    """
    try:
        return (yield from trace.look_up())
    except CdfError as error:
        since = f"Whether a first copy of the request was accepted could not be looked up. {error}"
        raise unknown(limited, since, trace) from None


def _may_be_due_to_the_nonce(error: CdfError) -> bool:
    """Whether a call may have been refused because its nonce came too late. The wording is not documented."""
    return isinstance(error, CdfApiError) and bool(
        re.search("nonce|session", error.cdf_message, re.IGNORECASE)
    )


def unknown(lost: CdfError, since: str, trace: Trace[Any]) -> CdfUnreachableError:
    return CdfUnreachableError(told(lost, since, f"To find out, {trace.hint}."), sent=True)
