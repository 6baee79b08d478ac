"""Which failed requests are sent again, and when."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from tenacity import RetryCallState, retry_if_exception, stop_before_delay, wait_random_exponential

from airflow_provider_cdf.cdf.calls import Call, Repeat
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfLoginError,
    CdfUnreachableError,
)

log = logging.getLogger(__name__)

#: Seconds within which a request is repeated, counted from its first try.
RETRY_FOR = 60.0
#: Full jitter: each pause is a random part of 1, 2, 4, ... seconds, at most this many.
_backoff = wait_random_exponential(multiplier=1, max=20)


def was_not_executed(error: BaseException) -> bool:
    """Whether CDF certainly did nothing: it was not reached, or it says that it did not even begin."""
    if isinstance(error, CdfUnreachableError):
        return not error.sent
    if isinstance(error, CdfLoginError):
        return True
    return isinstance(error, CdfApiError) and error.code == 429


def is_ambiguous(error: BaseException) -> bool:
    """Whether CDF may have carried out a request that failed like this, or may still do so."""
    if isinstance(error, CdfUnreachableError):
        return error.sent
    return isinstance(error, CdfAnswerError) or (isinstance(error, CdfApiError) and error.code >= 500)


def may_repeat(call: Call[Any], error: BaseException) -> bool:
    """Whether the sender repeats a call that failed like this, without being told to."""
    if call.repeat is Repeat.NEVER:
        return False
    if isinstance(error, CdfLoginError):
        return error.is_transient
    return was_not_executed(error) or (call.repeat is Repeat.ALWAYS and is_ambiguous(error))


def retrying(call: Call[Any], seconds: float) -> Mapping[str, Any]:
    """Return the options of a tenacity controller for a call."""
    return {
        "retry": retry_if_exception(lambda error: may_repeat(call, error)),
        "wait": _pause,
        "stop": stop_before_delay(seconds),
        "before_sleep": _say,
        "reraise": True,
    }


def read_retry_after(value: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for; it is a number or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date - datetime.now(date.tzinfo or UTC)).total_seconds()) if date.tzinfo else None


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked_for = error.retry_after if isinstance(error, CdfApiError) else None
    return max(asked_for or 0.0, _backoff(state))


def _say(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("%s Trying again in %.1f s.", error, state.next_action.sleep if state.next_action else 0)
