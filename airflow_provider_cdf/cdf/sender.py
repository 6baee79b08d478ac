"""What both clients know about requests and answers: how they are made, read, and told of in errors."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from airflow_provider_cdf import __version__
from airflow_provider_cdf.cdf import clock, reading
from airflow_provider_cdf.cdf.auth import Login, TokenRefusedError, shared_login
from airflow_provider_cdf.cdf.calls import AnswerT, Call, Repeat
from airflow_provider_cdf.cdf.cleaning import cleaned
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfConnectionError,
    CdfError,
    CdfLoginError,
    CdfRefusedError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.foreign import MOST, without_secrets
from airflow_provider_cdf.cdf.logins.base import HttpSteps
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.cdf.models import TokenProject
from airflow_provider_cdf.cdf.retry import is_transient
from airflow_provider_cdf.cdf.settings import Settings, Source
from airflow_provider_cdf.cdf.statuses import is_ambiguous_status
from airflow_provider_cdf.cdf.transport import Answer, NoAnswer, tls

log = logging.getLogger(__name__)

#: How many projects of a token a message names.
MAX_NAMED = 10
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
        if not answer.is_success:
            raise self._refusal(call, answer)
        if answer.unread:
            raise self._unreadable(call, answer, answer.unread)
        try:
            read: AnswerT = (
                call.read(answer.content) if call.read else reading.whole(answer.content, call.answer)
            )
            if other := call.is_about(read):
                answer.distrust()
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the answer"
            problem = f"{where}: {first['msg']}"
        except reading.UnreadableError as error:
            problem = str(error)
        except Exception as error:
            problem = f"the answer: {type(error).__name__}"
        else:
            if not other:
                return cleaned(read, self.clean)
            is_carried_out = call.is_carried_out(read)
            del read
            failed = CdfAnswerError(
                told(
                    f"CDF's answer is about something else: {self._clean(call, other)}. The request was to "
                    f"{call.purpose}.{_fate(call, may_be_done=True)}",
                    self._ids(call, answer),
                )
            )
            failed.is_carried_out = is_carried_out
            raise failed
        raise self._unreadable(call, answer, problem)

    def _unreadable(self, call: Call[Any], answer: Answer, problem: str) -> CdfAnswerError:
        answer.distrust()
        return CdfAnswerError(
            told(
                f"CDF's answer cannot be read: {self._clean(call, problem)}. The request was to "
                f"{call.purpose}, and was answered HTTP {answer.status}.{_fate(call, may_be_done=True)}",
                self._ids(call, answer),
            )
        )

    def _refusal(
        self, call: Call[Any], answer: Answer, why_alone: CdfLoginError | NoAnswer | None = None
    ) -> CdfApiError:
        """
        Return what is told about a request that CDF has refused.

        :param why_alone: of a 401, why the request was not sent once more with another token.
        """
        code = answer.status
        error = _error_object(answer)
        words = self._clean(call, _server_words(answer, error))
        is_auto_retryable = answer.headers.get("cdf-is-auto-retryable", "").strip().lower() == "true"
        credentials = self.settings.credentials
        message = f"CDF refused to {call.purpose} (HTTP {code}): {words.rstrip('.')}."
        if code == 401:
            reason = credentials.if_refused
            if why_alone is not None:
                reason = f"It was not sent with another access token. {self._why(call, why_alone)}"
            message += f" {reason} Look at {self.settings.label}."
        elif 300 <= code < 400:
            message += f" Is {self.settings.base_url} the right host? Redirects are not followed."
        elif error is None and code in (400, 403, 404):
            message += f" That is not how CDF answers. Is {self.settings.base_url} the right host?"
        # A login that fails for a moment ends no wait, and a call that may be repeated is repeated.
        may_log_in_later = isinstance(why_alone, NoAnswer) or bool(why_alone and why_alone.is_transient)
        is_final = code in (400, 403, 404) and error is not None and not is_auto_retryable
        kind = CdfRefusedError if is_final else CdfApiError
        return kind(
            told(
                message + _fate(call, may_be_done=is_ambiguous_status(code) or is_auto_retryable),
                self._ids(call, answer),
            ),
            code=code,
            cdf_message=words,
            request_id=self._request_id(call, answer),
            retry_after=answer.retry_after if why_alone is None else why_alone.retry_after,
            is_auto_retryable=is_auto_retryable or may_log_in_later,
            is_cdfs_own=error is not None,
        )

    def _on_access(self, call: Call[Any], refusal: CdfApiError) -> str:
        """Say what access a call lacks: CDF refuses a wrong project in the words of a missing capability."""
        who, project = self.settings.credentials.who, self.settings.project
        client = who[:1].upper() + who[1:]
        inspection = refusal.inspection
        if inspection is not None:
            if not inspection.reaches(project):
                return (
                    f"{client} has no access to project {project!r}; the projects of its token are: "
                    f"{self.named(inspection.projects)}. "
                    f"Look at the project of {self.settings.label}."
                )
            if missing := inspection.missing_in(project, call.capability, *call.also_needed):
                what = "capability" if len(missing) == 1 else "capabilities"
                return f"{client} lacks the {what} {', '.join(missing)} in project {project!r}."
        if refusal.code == 401:
            return ""  # which says enough by itself
        return (
            f"{client} needs the capability {call.capability} for what this is about; or "
            f"{self.settings.label} names the wrong project or client."
        )

    def _no_answer(self, call: Call[Any], error: NoAnswer) -> CdfUnreachableError:
        look = f" Look at {self.settings.label}." if error.at_login else ""
        # Only where no connection was made is it certain that CDF never saw the request.
        fate = _fate(call, may_be_done=True) if error.sent else _nothing_sent(call)
        failed = CdfUnreachableError(
            told(f"Could not {call.purpose}: {self._why(call, error)}{look}{fate}", self._ids(call)),
            sent=error.sent,
        )
        failed.retry_after = error.retry_after
        return failed

    def _why(self, call: Call[Any], error: CdfLoginError | NoAnswer) -> str:
        if isinstance(error, CdfLoginError):
            return str(error)
        where = self.settings.credentials.where if error.at_login else self.settings.base_url
        return f"no answer from {where} ({self._clean(call, error.reason)})."

    def _failed(self, call: Call[Any], error: Exception) -> CdfError:
        """Return what is told to the caller, whatever has happened."""
        if isinstance(error, TokenRefusedError):
            return self._refusal(call, error.answer, error.why)
        if isinstance(error, NoAnswer):
            return self._no_answer(call, error)
        if isinstance(error, CdfLoginError):
            ids = self.settings.credentials.ids
            return error.adding(f"Look at {self.settings.label}.{_nothing_sent(call)} {ids}")
        if isinstance(error, CdfError):
            return error
        # An error in this package, or below it. Its text may hold anything.
        return self._no_answer(call, NoAnswer(f"unexpected {type(error).__name__}", sent=True))

    def clean(self, words: str) -> str:
        """Return what CDF says in one line of at most 500 characters, without secrets of this client."""
        return self._cleaned(words[:MOST])

    def named(self, projects: Sequence[TokenProject]) -> str:
        """Return the first of a token's projects, in words."""
        more = f" and {len(projects) - MAX_NAMED} more" if len(projects) > MAX_NAMED else ""
        names = (repr(self.clean(one.project_url_name)) for one in projects[:MAX_NAMED])
        return (", ".join(names) or "none") + more

    @property
    def _login(self) -> Login:
        return self._own_login or shared_login(self.settings)

    @property
    def _secrets(self) -> list[str]:
        return [*self.settings.credentials.secrets, *self._login.known_tokens]

    def _clean(self, call: Call[Any], words: str) -> str:
        """Return what a server said without secrets: it, or a proxy, may repeat what it was sent."""
        return without_secrets(words, [*self._secrets, *call.secrets])

    def _request_id(self, call: Call[Any], answer: Answer) -> str | None:
        return self._clean(call, answer.headers.get("x-request-id", "")) or None

    def _ids(self, call: Call[Any], answer: Answer | None = None) -> str:
        """Return what a message is about, for its end."""
        named = [call.which] if call.which else []
        if call.capability:
            named.append(f"project {self.settings.project!r}")
        if answer is not None and (request_id := self._request_id(call, answer)):
            named.append(f"request id {request_id}")
        return f"[{', '.join(named)}]" if named else ""


def _error_object(answer: Answer) -> dict[str, Any] | None:
    """Return the ``error`` of an answer, which CDF's own refusals have, and a gateway's page has not."""
    error = (answer.json_object() or {}).get("error")
    return error if isinstance(error, dict) else None


def _server_words(answer: Answer, error: dict[str, Any] | None) -> str:
    """Return CDF's own words. What is not from CDF, such as a gateway's page, is named, not repeated."""
    try:
        status = HTTPStatus(answer.status).phrase
    except ValueError:
        status = "no reason given"
    if error is None:
        return status if answer.json_object() is not None else f"{status}, with {answer.kind}"
    words = error.get("message")
    return words if isinstance(words, str) and words.strip() else status


def _fate(call: Call[Any], *, may_be_done: bool) -> str:
    """Say what a call that has failed leaves behind, if it is one that changes something."""
    if call.is_read:
        return ""
    if may_be_done and call.repeat is not Repeat.ALWAYS:
        return " It is not known whether CDF did it all the same."
    return " The request changed nothing in CDF."


def _nothing_sent(call: Call[Any]) -> str:
    return "" if call.is_read else " Nothing was sent to CDF."
