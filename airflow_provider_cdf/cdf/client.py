"""
Two thin senders of the same calls, one for threads and one for event loops.

Each holds one connection pool. Redirects are never followed: they would carry credentials elsewhere.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import httpx
from pydantic import ValidationError
from tenacity import AsyncRetrying, Retrying

from airflow_provider_cdf import __version__
from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.auth import LOGIN_EXTENSION, ClientCredentials, shared_auth
from airflow_provider_cdf.cdf.calls import AnswerT, Call, Repeat, next_cursor
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfError,
    CdfLoginError,
    CdfRefusedError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.models import ExecutionPage, WorkflowExecution
from airflow_provider_cdf.cdf.retry import RETRY_FOR, is_ambiguous_status, read_retry_after, retrying

#: Seconds for connecting, and for each wait on an answer. CDF's own SDK waits for 60 s at most.
REQUEST_TIMEOUT = 30.0

ResultT = TypeVar("ResultT")


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
    :param request_timeout: seconds for connecting, and for each wait on an answer.
    :param airflow_name: tells this Airflow from others that share the project.
    """

    base_url: str
    project: str
    credentials: ClientCredentials
    label: str = "these settings"
    on_token: Callable[[str], None] | None = None
    retry_for: float = RETRY_FOR
    request_timeout: float = REQUEST_TIMEOUT
    airflow_name: str | None = None


class _Sender:
    """What both clients know about requests and answers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def _client_options(self) -> dict[str, Any]:
        return {
            "base_url": self.settings.base_url,
            "auth": shared_auth(self.settings.credentials, self.settings.on_token),
            "headers": {
                "Accept": "application/json",
                "User-Agent": f"airflow-provider-cdf/{__version__}",
                "x-cdp-app": "airflow-provider-cdf",
            },
            "timeout": self.settings.request_timeout,
            "verify": _tls(),
            # Where plain http is permitted, nothing may pass a proxy that the environment names.
            "mounts": dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]")),
        }

    @staticmethod
    def _request(call: Call[AnswerT], build_request: Callable[..., httpx.Request]) -> httpx.Request:
        headers = {"Content-Type": "application/json"} if call.content is not None else None
        return build_request(call.method, call.path, content=call.content, headers=headers)

    def _read(self, call: Call[AnswerT], response: httpx.Response) -> AnswerT:
        if not response.is_success:
            raise self._refusal(call, response)
        try:
            answer = call.answer.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the answer"
            raise CdfAnswerError(
                f"CDF answered HTTP {response.status_code} to the request to {call.purpose}, "
                f"but not what its API promises: {where}: {first['msg']}."
                f"{_request_id_note(response)}{_fate(call, may_be_done=True)}"
            ) from None
        if other := call.is_about(answer):
            raise CdfAnswerError(
                f"CDF's answer is about something else: {other}. The request was to {call.purpose}."
                f"{_request_id_note(response)}{_fate(call, may_be_done=True)}"
            )
        return answer

    def _refusal(self, call: Call[AnswerT], response: httpx.Response) -> CdfApiError:
        code = response.status_code
        # A proxy may repeat the request, and a session request holds the secret.
        words = self.settings.credentials.without_secret(_server_words(response)) or "no reason given"
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
            message += f" There, {client} needs the capability {call.capability}."
        elif response.is_redirect:
            message += f" Is {self.settings.base_url} the right host? Redirects are not followed."
        kind = CdfRefusedError if code in (400, 403, 404) else CdfApiError
        return kind(
            message + _request_id_note(response) + _fate(call, may_be_done=is_ambiguous_status(code)),
            code=code,
            cdf_message=words,
            request_id=response.headers.get("x-request-id"),
            retry_after=read_retry_after(response.headers),
        )

    def _no_answer(self, call: Call[AnswerT], error: httpx.HTTPError) -> CdfError:
        what = f"{type(error).__name__}: {error}".rstrip(": ").rstrip(".")
        if LOGIN_EXTENSION in error.request.extensions:
            return CdfUnreachableError(
                f"Could not {call.purpose}: no answer from the token endpoint at "
                f"{self.settings.credentials.login_host} ({what}).{_nothing_sent(call)}",
                sent=False,
            )
        # Only where no connection was made is it certain that CDF never saw the request.
        sent = not isinstance(
            error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError
        )
        fate = _fate(call, may_be_done=True) if sent else _nothing_sent(call)
        return CdfUnreachableError(
            f"Could not {call.purpose}: no answer from {self.settings.base_url} ({what}).{fate}", sent=sent
        )


class CdfClient(_Sender):
    """
    CDF over one pool of connections, for threads.

    :param settings: where CDF is, and who asks.
    :param transport: replaces the network, for tests.
    """

    def __init__(self, settings: Settings, *, transport: httpx.BaseTransport | None = None) -> None:
        super().__init__(settings)
        self._http = httpx.Client(transport=transport, **self._client_options())

    def send(self, call: Call[AnswerT], *, within: float | None = None) -> AnswerT:
        """
        Send one call and read its answer; repeat it as long as that does no harm and may help.

        :param within: seconds for all of it, where somebody has less time than the settings say.
        :raises CdfError: of the class that says what happened; its message names the call.
        """
        again = Retrying(sleep=clock.sleep, **retrying(call, self.settings.retry_for, within))
        answer: AnswerT = again(self._send_once, call)
        return answer

    def _send_once(self, call: Call[AnswerT]) -> AnswerT:
        try:
            response = self._http.send(self._request(call, self._http.build_request))
        except CdfLoginError as error:
            # Raised inside httpx, whose frames would hide the message among them.
            raise error.adding(_nothing_sent(call).strip()).with_traceback(None) from None
        except httpx.HTTPError as error:
            raise self._no_answer(call, error) from None
        return self._read(call, response)

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
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncCdfClient(_Sender):
    """
    CDF over one pool of connections, for coroutines of one event loop.

    :param settings: where CDF is, and who asks.
    :param transport: replaces the network, for tests.
    """

    def __init__(self, settings: Settings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        super().__init__(settings)
        self._http = httpx.AsyncClient(transport=transport, **self._client_options())

    async def send(self, call: Call[AnswerT], *, within: float | None = None) -> AnswerT:
        """
        Send one call and read its answer; repeat it as long as that does no harm and may help.

        :param within: seconds for all of it, where somebody has less time than the settings say.
        :raises CdfError: of the class that says what happened; its message names the call.
        """
        again = AsyncRetrying(sleep=clock.asleep, **retrying(call, self.settings.retry_for, within))
        return await again(self._send_once, call)

    async def _send_once(self, call: Call[AnswerT]) -> AnswerT:
        try:
            response = await self._http.send(self._request(call, self._http.build_request))
        except CdfLoginError as error:
            # Raised inside httpx, whose frames would hide the message among them.
            raise error.adding(_nothing_sent(call).strip()).with_traceback(None) from None
        except httpx.HTTPError as error:
            raise self._no_answer(call, error) from None
        return self._read(call, response)

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
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


@cache
def _tls() -> ssl.SSLContext:
    # Loading the CA certificates takes 30 ms of the event loop, so once a process instead of once a client.
    return httpx.create_ssl_context()


def _server_words(response: httpx.Response) -> str:
    """Return CDF's own words, or whatever a proxy in between said."""
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        answer = response.text
    if isinstance(answer, dict):
        answer = answer.get("error") or answer.get("message")
    if isinstance(answer, dict):
        answer = answer.get("message")
    return answer if isinstance(answer, str) and answer else response.reason_phrase


def _fate(call: Call[Any], *, may_be_done: bool) -> str:
    """Say what a call that has failed leaves behind, if it is one that changes something."""
    if call.is_read:
        return ""
    if may_be_done and call.repeat is not Repeat.ALWAYS:
        return " It is not known whether CDF did it all the same."
    return " The request changed nothing in CDF."


def _nothing_sent(call: Call[Any]) -> str:
    return "" if call.is_read else " Nothing was sent to CDF."


def _request_id_note(response: httpx.Response) -> str:
    request_id = response.headers.get("x-request-id")
    return f" [request id {request_id}]" if request_id else ""
