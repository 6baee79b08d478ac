"""Which failed requests are sent again, and when."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any

from tenacity import RetryCallState

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.calls import Call, Repeat
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfConnectionUnreadError,
    CdfError,
    CdfLoginError,
    CdfSessionError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.cdf.statuses import is_ambiguous_status

log = logging.getLogger(__name__)

#: Seconds within which a request is repeated, counted from its first try.
RETRY_FOR = 60.0
#: The longest pause that is not asked for by a ``Retry-After``, seconds.
LONGEST_PAUSE = 20.0


def was_not_executed(error: BaseException) -> bool:
    """Whether CDF certainly did nothing: it was not reached, or it says that it did not even begin."""
    if isinstance(error, CdfUnreachableError):
        return not error.sent
    if isinstance(error, CdfLoginError | CdfConnectionUnreadError | CdfSessionError):
        return True
    return isinstance(error, CdfApiError) and error.code == 429


def is_ambiguous(error: BaseException) -> bool:
    """Whether CDF may have carried out a request that failed like this, or may still do so."""
    if isinstance(error, CdfUnreachableError):
        return error.sent
    if isinstance(error, CdfApiError):
        return is_ambiguous_status(error.code)
    return isinstance(error, CdfAnswerError)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, CdfLoginError):
        return error.is_transient
    return was_not_executed(error) or is_ambiguous(error) or _is_auto_retryable(error)


def may_repeat(call: Call[Any], error: BaseException) -> bool:
    """Whether the sender repeats a call that failed like this, without being told to."""
    if call.repeat is Repeat.NEVER or not is_transient(error):
        return False
    return call.repeat is Repeat.ALWAYS or was_not_executed(error) or _is_auto_retryable(error)


def _is_auto_retryable(error: BaseException) -> bool:
    return isinstance(error, CdfApiError) and error.is_auto_retryable


def pause_after(error: BaseException | None, tries: int) -> float:
    """
    Return how long to wait before the next try.

    Full jitter: a random part of 1, 2, 4, ... seconds, so that those who failed together do not come back
    together; but at least what CDF asks for.

    :param error: what the last try ended with.
    :param tries: how many tries have failed so far, from 1.
    """
    asked_for = (error.retry_after if isinstance(error, CdfError) else None) or 0.0
    # 2.0**tries would overflow at the thousandth.
    longest = min(2.0 ** min(tries - 1, 10), LONGEST_PAUSE)
    return max(asked_for, random.uniform(0, longest))  # noqa: S311 - no secret depends on it


def retrying(call: Call[Any], seconds: float, within: float | None = None) -> Mapping[str, Any]:
    """Return the options of a tenacity controller for a call: when, how long, and by which clock."""
    end = clock.now() + (seconds if within is None else min(seconds, within))

    def retry(state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        return error is not None and may_repeat(call, error)

    def wait(state: RetryCallState) -> float:
        return pause_after(state.outcome.exception() if state.outcome else None, state.attempt_number)

    def stop(state: RetryCallState) -> bool:
        # Before the pause, not after it: an hour's Retry-After ends in an error now.
        return clock.now() + state.upcoming_sleep >= end

    return {"retry": retry, "wait": wait, "stop": stop, "before_sleep": _say, "reraise": True}


def _say(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("%s", told(error, f"Trying again in {state.upcoming_sleep:.1f} s."))
