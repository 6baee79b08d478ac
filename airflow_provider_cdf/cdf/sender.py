"""What both clients know about requests and answers: how they are made, and how they are read."""

from __future__ import annotations

import logging
import ssl
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from airflow_provider_cdf import __version__
from airflow_provider_cdf.cdf import clock, reading
from airflow_provider_cdf.cdf.auth import Login, shared_login
from airflow_provider_cdf.cdf.calls import AnswerT, Call
from airflow_provider_cdf.cdf.cleaning import cleaned
from airflow_provider_cdf.cdf.errors import (
    CdfApiError,
    CdfConnectionError,
    CdfError,
    CdfLoginError,
)
from airflow_provider_cdf.cdf.failures import Failure
from airflow_provider_cdf.cdf.foreign import MOST, without_secrets
from airflow_provider_cdf.cdf.logins.base import HttpSteps
from airflow_provider_cdf.cdf.proxies import proxy_secrets
from airflow_provider_cdf.cdf.retry import is_transient
from airflow_provider_cdf.cdf.settings import Settings, Source
from airflow_provider_cdf.cdf.transport import Answer, tls

log = logging.getLogger(__name__)

#: Seconds within which it is asked what a token may do, once CDF has refused it something.
INSPECT_WITHIN = 5.0

#: How many of the texts that CDF has said are kept with what was made of them. An execution may have 200
#: tasks, each with 11 attempts.
MOST_CLEANED = 5_000


class Sender:
    """What both clients know about requests and answers."""

    def __init__(self, settings: Settings, login: Login | None = None) -> None:
        # A login is for the credentials that it was made for, so there no others are looked for.
        self.settings = settings if login is None else replace(settings, source=None)
        self._own_login = login
        self._of_proxies = proxy_secrets()
        # A wait reads the same words at each poll.
        self._cleaned = lru_cache(MOST_CLEANED)(lambda words: without_secrets(words, self._secrets))

    def renew(self, read: Settings) -> None:
        """Log in by settings that were read again from now on, if they are for the same CDF."""
        mine = self.settings
        # A new secret is for where it was made for: not for the host that the old one was for.
        is_there = (read.base_url, read.project) == (mine.base_url, mine.project)
        if is_there and read.credentials != mine.credentials:
            log.info("%s has other credentials by now. Logging in with them.", mine.label)
            self.settings = replace(mine, credentials=read.credentials, session_type=read.session_type)

    def _source_after(self, call: Call[Any], failed: CdfError) -> Source | None:
        """
        Return what may know a newer secret, after a call that failed like this.

        A wait may take days. A login that is refused for good, a token (401), or a session, for which CDF
        logs in by the secret in the call, may be due to a secret that was renewed meanwhile. Nothing was done
        in CDF, so the call may be sent once more.
        """
        is_refused = isinstance(failed, CdfLoginError) and not failed.is_transient
        is_refused |= isinstance(failed, CdfApiError) and (
            failed.code == 401 or (call.anew is not None and not is_transient(failed))
        )
        return self.settings.source if is_refused else None

    def _current(self, call: Call[AnswerT]) -> Call[AnswerT]:
        return call if call.anew is None else call.anew(self.settings)

    def _request(self, call: Call[Any]) -> httpx.Request:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": f"airflow-provider-cdf/{__version__}",
            "x-cdp-app": "airflow-provider-cdf",
        }
        if call.content is not None:
            headers["Content-Type"] = "application/json"
        url = self.settings.base_url + call.path
        return httpx.Request(call.method, url, content=call.content, headers=headers)

    def _steps(self, request: httpx.Request) -> HttpSteps[Answer]:
        return self._login.authenticated(request)

    def _ends(self, give_up_at: float | None) -> float:
        ends = clock.now() + self.settings.request_timeout
        return ends if give_up_at is None else min(ends, give_up_at)

    def _may_inspect(self, call: Call[Any], failed: CdfError) -> bool:
        """Whether CDF can say what the token lacks."""
        is_refused = isinstance(failed, CdfApiError) and failed.code in (401, 403) and not failed.lacks_token
        return is_refused and bool(call.capability)

    def _inspect_ends(self, give_up_at: float | None) -> float:
        return min(clock.now() + INSPECT_WITHIN, self._ends(give_up_at))

    def tls(self) -> ssl.SSLContext:
        """
        Return what connections are checked with. The first time in a process it takes 30 ms.

        :raises CdfConnectionError: if the CA bundle cannot be read.
        """
        try:
            return tls(self.settings.ca_bundle)
        except OSError:
            failed = CdfConnectionError(
                f"{self.settings.label} cannot be used: its CA bundle "
                f"{Path(self.settings.ca_bundle or '').name!r} cannot be read. Nothing was sent to CDF."
            )
        raise failed

    def _read(self, call: Call[AnswerT], answer: Answer) -> AnswerT:
        failure = self._failure(call)
        if not answer.is_success:
            raise failure.refusal(answer)
        problem, other = answer.why_unread, None
        try:
            if not problem:
                read: AnswerT = (
                    call.parse(answer.content) if call.parse else reading.whole(answer.content, call.answer)
                )
                other = call.other_subject(read)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the answer"
            problem = f"{where}: {first['msg']}"
        except reading.UnreadableError as error:
            problem = str(error)
        except Exception as error:
            problem = f"the answer: {type(error).__name__}"
        if not problem and not other:
            return cleaned(read, self.clean)
        answer.distrust()
        if problem:
            raise failure.unreadable(answer, problem)
        is_carried_out = call.is_carried_out(read)
        del read
        raise failure.other_subject(answer, str(other), is_carried_out=is_carried_out)

    def _failure(self, call: Call[Any]) -> Failure:
        def clean(words: str) -> str:
            return without_secrets(words, [*self._secrets, *call.secrets])

        return Failure(self.settings, call, clean)

    def clean(self, words: str) -> str:
        """Return what CDF says in one line of at most 500 characters, without secrets of this client."""
        return self._cleaned(words[:MOST])

    @property
    def _login(self) -> Login:
        return self._own_login or shared_login(self.settings)

    @property
    def _secrets(self) -> list[str]:
        return [*self.settings.credentials.secrets, *self._login.known_tokens, *self._of_proxies]
