"""
Two thin senders of the same calls, one for threads and one for event loops.

Redirects are never followed: they would carry credentials elsewhere. Connections belong to a process and to
an event loop: what a fork copies, or an ended loop leaves behind, is never used again, so one client may be
used from anywhere.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import wait
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import httpx
from pydantic import ValidationError
from tenacity import AsyncRetrying, Retrying

from airflow_provider_cdf import __version__
from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.auth import ClientCredentials, Steps, shared_login
from airflow_provider_cdf.cdf.calls import AnswerT, Call, Repeat, next_cursor
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfConnectionError,
    CdfError,
    CdfInputError,
    CdfLoginError,
    CdfRefusedError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.foreign import without_secrets
from airflow_provider_cdf.cdf.models import ExecutionPage, WorkflowExecution
from airflow_provider_cdf.cdf.network import AsyncNetwork, Network
from airflow_provider_cdf.cdf.retry import RETRY_FOR, is_ambiguous_status, read_retry_after, retrying
from airflow_provider_cdf.cdf.transport import (
    MOST_OF_AN_ANSWER,
    MOST_OF_AN_ERROR,
    Answer,
    NoAnswer,
    aexchange,
    exchange,
    tls,
)

#: Seconds for one request as a whole. CDF's own SDK waits for 60 s at most.
REQUEST_TIMEOUT = 30.0

ResultT = TypeVar("ResultT")
NetworkT = TypeVar("NetworkT", Network, AsyncNetwork)


@dataclass(frozen=True)
class Pause:
    """A step of a conversation: nothing is sent for some seconds."""

    seconds: float


#: A conversation with CDF: yields calls and pauses, is sent the answers, returns its result. Written once,
#: and performed by either client.
Conversation: TypeAlias = Generator[Call[Any] | Pause, Any, ResultT]

PageAt: TypeAlias = Callable[[str | None], Call[ExecutionPage]]


@dataclass(frozen=True)
class Settings:
    """
    Where CDF is, and who asks.

    :param base_url: such as ``https://westeurope-1.cognitedata.com``, without a trailing slash.
    :param label: what error messages call these settings, such as "Airflow connection 'cdf_default'".
    :param on_token: told each new access token, so that it can be kept out of logs.
    :param retry_for: seconds within which a failed request is repeated, where that does no harm; 0 for never.
    :param airflow_name: tells this Airflow from others that share the project.
    :param request_timeout: seconds for one request as a whole, with the login that it may need. Only the
        operating system's resolution of a host name is not counted, in :class:`CdfClient`.
    :param ca_bundle: file or directory of the certificates that are trusted instead of the usual ones.
    :raises CdfInputError: if one of these times is no finite number of seconds.
    """

    base_url: str
    project: str
    credentials: ClientCredentials
    label: str = "these settings"
    on_token: Callable[[str], None] | None = None
    retry_for: float = RETRY_FOR
    request_timeout: float = REQUEST_TIMEOUT
    airflow_name: str | None = None
    ca_bundle: str | None = None

    def __post_init__(self) -> None:
        # NaN and infinity compare in ways that would repeat a request for ever.
        if not (math.isfinite(self.request_timeout) and self.request_timeout > 0):
            raise CdfInputError(f"request_timeout must be seconds above 0, not {self.request_timeout!r}.")
        if not (math.isfinite(self.retry_for) and self.retry_for >= 0):
            raise CdfInputError(f"retry_for must be seconds, 0 for never, not {self.retry_for!r}.")


class _Sender:
    """What both clients know about requests and answers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

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

    def _steps(self, request: httpx.Request) -> Steps:
        login = shared_login(self.settings.credentials, self.settings.on_token)
        return login.authenticated(request)

    def _ends(self, give_up_at: float | None) -> float:
        ends = clock.now() + self.settings.request_timeout
        return ends if give_up_at is None else min(ends, give_up_at)

    def _network(self, kind: type[NetworkT]) -> NetworkT:
        try:
            return kind(tls(self.settings.ca_bundle))
        except OSError:
            raise CdfConnectionError(
                f"{self.settings.label} cannot be used: its CA bundle "
                f"{Path(self.settings.ca_bundle or '').name!r} cannot be read. Nothing was sent to CDF."
            ) from None

    def _read(self, call: Call[AnswerT], answer: Answer) -> AnswerT:
        if not answer.is_success:
            raise self._refusal(call, answer)
        if answer.unread:
            raise self._unreadable(call, answer, answer.unread)
        try:
            read: AnswerT = call.answer.model_validate_json(answer.content)
            other = call.is_about(read)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the answer"
            problem = f"{where}: {first['msg']}"
        except Exception as error:  # such as one that is nested too deep
            problem = f"the answer: {type(error).__name__}"
        else:
            if not other:
                return read
            del read
            raise CdfAnswerError(
                f"CDF's answer is about something else: {self._clean(call, other)}. The request was to "
                f"{call.purpose}.{self._request_id_note(call, answer)}{_fate(call, may_be_done=True)}"
            )
        raise self._unreadable(call, answer, problem)

    def _unreadable(self, call: Call[Any], answer: Answer, problem: str) -> CdfAnswerError:
        return CdfAnswerError(
            f"CDF answered HTTP {answer.status} to the request to {call.purpose}, "
            f"but not what its API promises: {self._clean(call, problem)}."
            f"{self._request_id_note(call, answer)}{_fate(call, may_be_done=True)}"
        )

    def _refusal(self, call: Call[Any], answer: Answer) -> CdfApiError:
        code = answer.status
        words = self._clean(call, _server_words(answer))
        is_auto_retryable = answer.headers.get("cdf-is-auto-retryable", "").strip().lower() == "true"
        client = f"client {self.settings.credentials.client_id!r}"
        message = (
            f"CDF refused to {call.purpose} in project {self.settings.project!r} (HTTP {code}): "
            f"{words.rstrip('.')}."
        )
        if code == 401:
            message += (
                f" A new access token was refused too: has {client} access to this project? Look at project, "
                f"host, scopes and audience of {self.settings.label}."
            )
        elif code == 403 and call.capability:
            message += (
                f" There, {client} needs the capability {call.capability}; or "
                f"{self.settings.label} names the wrong project or client."
            )
        elif 300 <= code < 400:
            message += f" Is {self.settings.base_url} the right host? Redirects are not followed."
        kind = CdfRefusedError if code in (400, 403, 404) and not is_auto_retryable else CdfApiError
        return kind(
            message
            + self._request_id_note(call, answer)
            + _fate(call, may_be_done=is_ambiguous_status(code) or is_auto_retryable),
            code=code,
            cdf_message=words,
            request_id=self._request_id(call, answer),
            retry_after=read_retry_after(answer.headers),
            is_auto_retryable=is_auto_retryable,
        )

    def _no_answer(self, call: Call[Any], error: NoAnswer) -> CdfUnreachableError:
        if error.at_login:
            where = f"the token endpoint at {self.settings.credentials.login_host}"
        else:
            where = self.settings.base_url
        # Only where no connection was made is it certain that CDF never saw the request.
        fate = _fate(call, may_be_done=True) if error.sent else _nothing_sent(call)
        reason = self._clean(call, error.reason)
        failed = CdfUnreachableError(
            f"Could not {call.purpose}: no answer from {where} ({reason}).{fate}", sent=error.sent
        )
        failed.retry_after = error.retry_after
        return failed

    def _failed(self, call: Call[Any], error: Exception) -> CdfError:
        """Return what is told to the caller, whatever has happened."""
        if isinstance(error, NoAnswer):
            return self._no_answer(call, error)
        if isinstance(error, CdfLoginError):
            return error.adding(f"Look at {self.settings.label}.{_nothing_sent(call)}")
        if isinstance(error, CdfError):
            return error
        # An error in this package, or below it. Its text may hold anything.
        return self._no_answer(call, NoAnswer(f"unexpected {type(error).__name__}", sent=True))

    def _clean(self, call: Call[Any], words: str) -> str:
        """Return what a server said without secrets: it, or a proxy, may repeat what it was sent."""
        credentials = self.settings.credentials
        login = shared_login(credentials, self.settings.on_token)
        return without_secrets(words, [credentials.client_secret, *login.known_tokens, *call.secrets])

    def _request_id(self, call: Call[Any], answer: Answer) -> str | None:
        return self._clean(call, answer.headers.get("x-request-id", "")) or None

    def _request_id_note(self, call: Call[Any], answer: Answer) -> str:
        request_id = self._request_id(call, answer)
        return f" [request id {request_id}]" if request_id else ""


class CdfClient(_Sender):
    """
    CDF, for threads.

    :param settings: where CDF is, and who asks.
    :param transport: replaces the network, for tests.
    """

    def __init__(self, settings: Settings, *, transport: httpx.BaseTransport | None = None) -> None:
        super().__init__(settings)
        self._given = transport
        #: By process.
        self._opened: dict[int, httpx.BaseTransport] = {}

    def send(self, call: Call[AnswerT], *, within: float | None = None) -> AnswerT:
        """
        Send one call and read its answer; repeat it as long as that does no harm and may help.

        :param within: seconds for all of it, where somebody has less time than the settings say.
        :raises CdfError: of the class that says what happened; its message names the call.
        """
        again = Retrying(sleep=clock.sleep, **retrying(call, self.settings.retry_for, within))
        give_up_at = None if within is None else clock.now() + within
        try:
            answer: AnswerT = again(self._send_once, call, give_up_at)
            return answer
        except CdfError as error:
            failed = error.bare()
        raise failed

    def _send_once(self, call: Call[AnswerT], give_up_at: float | None) -> AnswerT:
        try:
            return self._read(call, self._exchange(self._request(call), self._ends(give_up_at)))
        except Exception as error:
            failed = self._failed(call, error)
        raise failed

    def _exchange(self, request: httpx.Request, ends: float) -> Answer:
        with closing(self._steps(request)) as steps:
            try:
                step = next(steps)
                while True:
                    answer = None
                    try:
                        if isinstance(step, httpx.Request):
                            most = MOST_OF_AN_ANSWER if step is request else MOST_OF_AN_ERROR
                            answer = exchange(self._transport(), step, ends, most)
                        else:
                            wait([step], timeout=max(0.0, ends - clock.now()))
                    except NoAnswer as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(answer)
            except StopIteration as end:
                whole: Answer = end.value
                return whole

    def _transport(self) -> httpx.BaseTransport:
        here = os.getpid()
        opened = self._given or self._opened.get(here)
        if opened is None:
            opened = self._opened.setdefault(here, self._network(Network))
            for pid in [pid for pid in list(self._opened) if pid != here]:
                # The parent's: dropped, not closed, because the parent goes on with them.
                self._opened.pop(pid, None)
        return opened

    def perform(self, conversation: Conversation[ResultT]) -> ResultT:
        """Carry out a conversation of several calls."""
        try:
            step = next(conversation)
            while True:
                answer = None
                try:
                    if isinstance(step, Pause):
                        clock.sleep(step.seconds)
                    else:
                        answer = self.send(step)
                except CdfError as error:
                    step = conversation.throw(error)
                else:
                    step = conversation.send(answer)
        except StopIteration as end:
            result: ResultT = end.value
            return result
        except CdfError as error:
            failed = error.bare()  # the conversation's frame holds a nonce
        raise failed

    def executions(self, page_at: PageAt) -> Iterator[WorkflowExecution]:
        """Iterate over all pages of a list, given the call for the page at a cursor."""
        cursor: str | None = None
        seen: set[str] = set()
        while True:
            page = self.send(page_at(cursor))
            yield from page.items
            cursor = next_cursor(page, seen)
            if cursor is None:
                return

    def close(self) -> None:
        """Close the connections. The next call opens others."""
        opened = self._opened.pop(os.getpid(), None)
        if opened is not None:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncCdfClient(_Sender):
    """
    CDF, for coroutines.

    :param settings: where CDF is, and who asks.
    :param transport: replaces the network, for tests.
    """

    def __init__(self, settings: Settings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        super().__init__(settings)
        self._given = transport
        #: By process and event loop.
        self._opened: dict[tuple[int, asyncio.AbstractEventLoop], httpx.AsyncBaseTransport] = {}

    async def send(self, call: Call[AnswerT], *, within: float | None = None) -> AnswerT:
        """
        Send one call and read its answer; repeat it as long as that does no harm and may help.

        :param within: seconds for all of it, where somebody has less time than the settings say.
        :raises CdfError: of the class that says what happened; its message names the call.
        """
        again = AsyncRetrying(sleep=clock.asleep, **retrying(call, self.settings.retry_for, within))
        give_up_at = None if within is None else clock.now() + within
        try:
            return await again(self._send_once, call, give_up_at)
        except CdfError as error:
            failed = error.bare()
        raise failed

    async def _send_once(self, call: Call[AnswerT], give_up_at: float | None) -> AnswerT:
        try:
            return self._read(call, await self._exchange(self._request(call), self._ends(give_up_at)))
        except Exception as error:
            failed = self._failed(call, error)
        raise failed

    async def _exchange(self, request: httpx.Request, ends: float) -> Answer:
        with closing(self._steps(request)) as steps:
            try:
                step = next(steps)
                while True:
                    answer = None
                    try:
                        if isinstance(step, httpx.Request):
                            most = MOST_OF_AN_ANSWER if step is request else MOST_OF_AN_ERROR
                            answer = await aexchange(self._transport(), step, ends, most)
                        else:
                            fetching = [asyncio.wrap_future(step)]
                            await asyncio.wait(fetching, timeout=max(0.0, ends - clock.now()))
                    except NoAnswer as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(answer)
            except StopIteration as end:
                whole: Answer = end.value
                return whole

    def _transport(self) -> httpx.AsyncBaseTransport:
        if self._given is not None:
            return self._given
        here = (os.getpid(), asyncio.get_running_loop())
        opened = self._opened.get(here)
        if opened is None:
            opened = self._opened[here] = self._network(AsyncNetwork)
            for pid, loop in list(self._opened):
                # Dropped, not closed: the parent process goes on with its own, and an ended loop cannot.
                if pid != here[0] or loop.is_closed():
                    self._opened.pop((pid, loop), None)
        return opened

    async def perform(self, conversation: Conversation[ResultT]) -> ResultT:
        """Carry out a conversation of several calls."""
        try:
            step = next(conversation)
            while True:
                answer = None
                try:
                    if isinstance(step, Pause):
                        await clock.asleep(step.seconds)
                    else:
                        answer = await self.send(step)
                except CdfError as error:
                    step = conversation.throw(error)
                else:
                    step = conversation.send(answer)
        except StopIteration as end:
            result: ResultT = end.value
            return result
        except CdfError as error:
            failed = error.bare()  # the conversation's frame holds a nonce
        raise failed

    async def executions(self, page_at: PageAt) -> AsyncIterator[WorkflowExecution]:
        """Iterate over all pages of a list, given the call for the page at a cursor."""
        cursor: str | None = None
        seen: set[str] = set()
        while True:
            page = await self.send(page_at(cursor))
            for execution in page.items:
                yield execution
            cursor = next_cursor(page, seen)
            if cursor is None:
                return

    async def close(self) -> None:
        """Close the connections of this event loop. The next call opens others."""
        opened = self._opened.pop((os.getpid(), asyncio.get_running_loop()), None)
        if opened is not None:
            await opened.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _server_words(answer: Answer) -> str:
    """Return CDF's own words. What is not from CDF, such as a gateway's page, is named, not repeated."""
    try:
        status = HTTPStatus(answer.status).phrase
    except ValueError:
        status = "no reason given"
    said = answer.json_object()
    if said is None:
        return f"{status}, with {answer.kind}"
    error = said.get("error")
    words = error.get("message") if isinstance(error, dict) else None
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
