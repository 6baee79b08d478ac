"""
The one login of a process: its token, its failure, and who waits for it. The same for all kinds of login.

The kinds themselves are in :mod:`airflow_provider_cdf.cdf.logins`.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.errors import CdfLoginError
from airflow_provider_cdf.cdf.logins.base import (
    SENDABLE,
    Credentials,
    GivenToken,
    HttpSteps,
    LoginTools,
)
from airflow_provider_cdf.cdf.transport import Answer, NoAnswer

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.settings import Settings

#: A token is renewed this many seconds before its end, so that it does not expire on its way to CDF.
RENEW_BEFORE_END = 30.0
#: A login that failed is not tried again for 2, 4, 8, ... seconds, whatever in this process needs it, so that
#: an expired secret with 500 triggers does not lock the client out. These are the most.
LONGEST_SHARED_FAILURE = 60.0
#: The longest ``Retry-After`` of a token endpoint that is obeyed, seconds.
LONGEST_RETRY_AFTER = 300.0
#: How many logins a process keeps: those that it has used last.
MOST_LOGINS = 32
#: A token that was fetched because of a 401 is not replaced because of another 401 for so many seconds: the
#: client has no access, and a new token would not give it any.
TRUST_A_REPLACEMENT = 30.0


@dataclass(frozen=True)
class _Token:
    value: str = field(repr=False)
    #: On :func:`clock.now`, as are all moments here.
    renew_at: float
    #: Until when a 401 does not cast doubt on it.
    trusted_until: float

    @property
    def is_fresh(self) -> bool:
        return clock.now() < self.renew_at


@dataclass(frozen=True)
class _Failure:
    """Why there is no token, for all who need one until it is tried again."""

    error: CdfLoginError | NoAnswer
    until: float
    #: When that was, and when it is tried again, by a reader's clock.
    times: str

    def told(self, *, is_news: bool) -> CdfLoginError | NoAnswer:
        """
        Return the error for one more of them; each goes its own way, and is added to.

        :param is_news: whether it has just happened, to this one or to the one that this one has waited for.
        """
        left = max(self.until - clock.now(), 0.0)
        if isinstance(self.error, NoAnswer):
            reason = self.error.reason if is_news else f"{self.error.reason}; that {self.times}"
            return NoAnswer(reason, sent=False, at_login=True, retry_after=left)
        words = str(self.error) if is_news else f"{self.error} That {self.times}."
        return CdfLoginError(words, is_transient=self.error.is_transient, retry_after=left)


class TokenRefusedError(Exception):
    """
    CDF has refused a token (401), and the request could not be sent with another one.

    :param answer: what CDF said.
    :param why: why there is no other token, or no answer to it.
    """

    def __init__(self, answer: Answer, why: CdfLoginError | NoAnswer) -> None:
        super().__init__(str(why))
        self.answer, self.why = answer, why


class Login:
    """
    The one login of a process for some credentials.

    However many threads and event loops need a token, one of them fetches it and the others wait for its
    future. One that is cancelled, or has less time than the identity provider takes, passes it on to another.

    :param on_token: told each token that is fetched, and each secret on the way, before it is used.
    """

    def __init__(self, credentials: Credentials, on_token: Callable[[str], None] | None = None) -> None:
        self.credentials = credentials
        #: By it, a process forgets those that it has not used for longest.
        self.used_at = clock.now()
        self._tools = LoginTools(on_token)
        #: Held for moments only, never while something is sent.
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self._fetching: Future[None] | None = None
        self._failure: _Failure | None = None
        self._failures_in_a_row = 0
        #: The last tokens, as what a server says may repeat one, also one that a 401 has just replaced.
        self._recent: deque[str] = deque(maxlen=3)

    @property
    def known_tokens(self) -> list[str]:
        """The tokens that a server may have been sent just now, and may repeat."""
        return list(self._recent)

    def authenticated(self, request: httpx.Request) -> HttpSteps[Answer]:
        """
        Put a bearer token on a request, and once more another one after a 401.

        :raises CdfLoginError: if the identity provider does not give a usable token.
        :raises NoAnswer: of the identity provider (``at_login``), or of CDF.
        :raises TokenRefusedError: if that comes after a 401, so that CDF has got the request once.
        """
        token = yield from self._fresh_token()
        answer: Answer = yield _with(token, request)
        if answer.status != 401 or clock.now() < token.trusted_until:
            return answer
        # The token may have been revoked, or this machine's clock runs slow: a new one settles it.
        with self._lock:
            if self._token is token:
                self._token = None
        try:
            replacement = yield from self._fresh_token(is_replacement=True)
            if replacement.value != token.value:  # one from a connection or a file may be all there is
                answer = yield _with(replacement, request)
            return answer
        except (CdfLoginError, NoAnswer) as error:
            if isinstance(error, NoAnswer) and error.sent:
                raise
            refused = TokenRefusedError(answer, error)
        raise refused

    def _fresh_token(self, *, is_replacement: bool = False) -> HttpSteps[_Token]:
        has_waited = False
        while True:
            with self._lock:
                if self._token is not None and self._token.is_fresh:
                    return self._token
                if self._failure is not None and clock.now() < self._failure.until:
                    raise self._failure.told(is_news=has_waited)
                others = self._fetching
                if others is None:
                    mine: Future[None] = Future()
                    self._fetching = mine
            if others is None:
                return (yield from self._fetch(mine, is_replacement))
            yield others
            has_waited = True
            if not others.done():
                raise NoAnswer(
                    "another request of this process still waits for the token",
                    sent=False,
                    is_timeout=True,
                    at_login=True,
                )

    def _fetch(self, mine: Future[None], is_replacement: bool) -> HttpSteps[_Token]:
        outcome: _Token | _Failure | None = None  # a cancellation is neither
        try:
            read = self._read((yield from self.credentials.obtain(self._tools)), is_replacement)
            if isinstance(read, _Token) and read.value not in self._recent:
                self._tools.mask_token(read.value)
            outcome = read if isinstance(read, _Token) else self._failed(read)
        except NoAnswer as error:
            if error.is_timeout:  # the time of this request is over; another one may have more
                raise NoAnswer(error.reason, sent=False, is_timeout=True, at_login=True) from None
            outcome = self._failed(error)
        finally:
            with self._lock:
                self._fetching = None
                if isinstance(outcome, _Token):
                    if outcome.value not in self._recent:
                        self._recent.append(outcome.value)
                    self._token, self._failure, self._failures_in_a_row = outcome, None, 0
                elif outcome is not None:
                    self._failure = outcome
            mine.set_result(None)
        if isinstance(outcome, _Failure):
            raise outcome.told(is_news=True)
        return outcome

    def _failed(self, error: CdfLoginError | NoAnswer) -> _Failure:
        self._failures_in_a_row += 1
        pause = min(2.0 ** min(self._failures_in_a_row, 10), LONGEST_SHARED_FAILURE)
        pause = max(pause, min(error.retry_after or 0.0, LONGEST_RETRY_AFTER))
        now = datetime.now(UTC)
        again = now + timedelta(seconds=pause)
        times = f"was at {now:%H:%M:%S} UTC, and no login is tried before {again:%H:%M:%S} UTC"
        return _Failure(error, clock.now() + pause, times)

    def _read(self, given: GivenToken | CdfLoginError, is_replacement: bool) -> _Token | CdfLoginError:
        # Errors are returned: in the frame of a raise they would lie beside the token.
        if isinstance(given, CdfLoginError):
            return given
        # What is no header value would come back in the HTTP library's message.
        if not re.fullmatch(SENDABLE, given.value):
            what = "has blanks or signs in it that none has" if given.value else "is empty"
            return CdfLoginError(
                f"The login got an access_token that cannot be sent. It {what}, and came from "
                f"{self.credentials.where}."
            )
        now = clock.now()
        return _Token(
            given.value,
            # A token that lives for less than a minute is renewed at half its life, not at once.
            renew_at=now + max(given.lifetime - RENEW_BEFORE_END, given.lifetime / 2),
            trusted_until=now + TRUST_A_REPLACEMENT if is_replacement else now,
        )


def _with(token: _Token, request: httpx.Request) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token.value}"
    return request


#: By process: a forked child has logins of its own, whatever its parent had under way. By credentials, and by
#: the CA bundle: a connection with a wrong one must not end the login of another connection.
_shared: dict[tuple[int, Credentials, str | None], Login] = {}


def shared_login(settings: Settings) -> Login:
    """
    Return this process's login for these settings, so that all hooks and triggers use one token.

    Of settings that differ in ``on_token`` only, the first one's counts.
    """
    mine = (os.getpid(), settings.credentials, settings.ca_bundle)
    login = _shared.get(mine)
    if login is None:
        # Without a lock, which a forked child might find held for ever.
        by_use = sorted(_shared.items(), key=lambda item: item[1].used_at)
        kept = [key for key, _ in by_use if key[0] == mine[0]][1 - MOST_LOGINS :]
        for key, _ in by_use:
            if key not in kept:
                _shared.pop(key, None)
        login = _shared.setdefault(mine, Login(settings.credentials, settings.on_token))
    login.used_at = clock.now()
    return login


def separate_login(settings: Settings) -> Login:
    """
    Return a login that waits for no other one, and begins with the token that the shared one has.

    For signal handlers: what they interrupt may be fetching that token, or hold the shared login's lock.
    """
    login = Login(settings.credentials, settings.on_token)
    shared = _shared.get((os.getpid(), settings.credentials, settings.ca_bundle))
    if shared is not None:
        login._token = shared._token
        login._recent.extend(shared.known_tokens)
    return login
