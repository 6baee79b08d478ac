"""Faults on demand: what goes wrong between a client and CDF, when a test wants it to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_cdf.emulator.api.http import error_answer, replay
from airflow_provider_cdf.emulator.control import is_control


class Fault(BaseModel):
    """
    What is to happen to the next requests that match. One of ``status``, ``drop`` and ``spoil`` at most, and
    ``twice`` beside it or alone.

    :param method: such as ``"POST"``, or ``"*"`` for any
    :param path: a pattern for the whole path, such as ``"*/run"`` or ``"/oauth2/token"``
    :param times: how many requests it happens to
    :param delay: real seconds to wait before anything else
    :param status: answer with this status instead of doing the work
    :param message: of that answer; CDF's clients read it
    :param headers: of that answer, such as ``{"cdf-is-auto-retryable": "true"}``
    :param retry_after: seconds to put into the header ``Retry-After`` of that answer
    :param drop: close the connection without an answer, ``"before"`` or ``"after"`` the work is done: the
        second is the lost 202
    :param spoil: do the work, but ``"truncate"`` the answer in the middle of its body, or send one that is
        ``"not-json"``
    :param twice: do the work twice, as a gateway that repeats requests, and answer as the ``"first"`` or the
        ``"second"`` went; with ``status`` the client gets that answer, though the work is done
    """

    model_config = ConfigDict(extra="forbid")

    method: str = "*"
    path: str = "*"
    times: int = Field(default=1, ge=1)
    delay: float = Field(default=0, ge=0, le=3600)
    status: int | None = Field(default=None, ge=400, le=599)
    message: str | None = None
    headers: dict[str, str] | None = None
    retry_after: float | None = Field(default=None, ge=0)
    drop: Literal["before", "after"] | None = None
    spoil: Literal["truncate", "not-json"] | None = None
    twice: Literal["first", "second"] | None = None

    @field_validator("method")
    @classmethod
    def _upper_case(cls, method: str) -> str:
        return method.upper()

    @model_validator(mode="after")
    def _one_thing(self) -> Fault:
        described = [self.message, self.headers, self.retry_after]
        if self.status is None and any(value is not None for value in described):
            raise ValueError("message, headers and retry_after go with a status")
        chosen = [name for name in ("status", "drop", "spoil") if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise ValueError(f"a fault does one thing, and not {' and '.join(chosen)}")
        if self.twice and self.drop == "before":
            raise ValueError("what is dropped before the work is not done twice")
        if not chosen and not self.delay and not self.twice:
            raise ValueError("a fault needs one of status, drop, spoil, twice and delay")
        return self


class Faults:
    """The faults that wait for a request, the oldest first."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, method: str = "*", path: str = "*", **what: Any) -> None:
        """
        Let something go wrong with the next requests that match: see :class:`Fault`.

        :param method: such as ``"POST"``
        :param path: a pattern for the whole path, such as ``"*/run"``
        :param what: the other fields of :class:`Fault`
        """
        self._waiting.append(Fault(method=method, path=path, **what))

    def waiting(self) -> list[Fault]:
        """The faults that have not happened yet, or not as often as they should."""
        return list(self._waiting)

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """
        The fault for a request, if there is one.

        :param method: of the request
        :param path: of the request
        """
        for fault in self._waiting:
            if fault.method in ("*", method) and fnmatchcase(path, fault.path):
                fault.times -= 1
                if fault.times == 0:
                    self._waiting.remove(fault)
                return fault
        return None


class FaultMiddleware:
    """
    ASGI middleware that makes faults happen.

    :param app: what does the work
    :param faults: the faults that are to happen
    """

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["raw_path"].decode("ascii", "replace")
        fault = None if is_control(path) else self._faults.take(scope["method"], path)
        if fault is None:
            await self._app(scope, receive, send)
            return
        await asyncio.sleep(fault.delay)
        app = self._app if fault.twice is None else _repeated(self._app, fault.twice)
        if fault.status is not None:
            if fault.twice:
                await app(scope, receive, _nowhere)
            await _status(fault)(scope, receive, send)
        elif fault.drop == "before":
            await _close(scope, receive, abort=True)
        elif fault.drop == "after":
            await app(scope, receive, _nowhere)
            await _close(scope, receive, abort=True)
        elif fault.spoil == "not-json":
            await app(scope, receive, _nowhere)
            page = "<html><body>This is not the API that you are looking for.</body></html>"
            await Response(page, media_type="text/html")(scope, receive, send)
        elif fault.spoil == "truncate":
            await app(scope, receive, _half_of(send))
            await _close(scope, receive, abort=False)
        else:
            await app(scope, receive, send)


def _status(fault: Fault) -> Response:
    assert fault.status is not None  # noqa: S101 - for the type checker
    message = fault.message or "A fault that was asked for: see the emulator's faults."
    answer = error_answer(fault.status, message)
    for name, value in (fault.headers or {}).items():
        answer.headers[name] = value
    if fault.retry_after is not None:
        answer.headers["retry-after"] = str(math.ceil(fault.retry_after))  # whole seconds, RFC 9110
    return answer


def _repeated(app: ASGIApp, answer: Literal["first", "second"]) -> ASGIApp:
    async def send_both(scope: Scope, receive: Receive, send: Send) -> None:
        for number in ("first", "second"):
            await app(scope, replay(scope["cdf.body"], receive), send if number == answer else _nowhere)

    return send_both


async def _nowhere(message: Message) -> None:
    """Where an answer goes that no client gets."""


def _half_of(send: Send) -> Callable[[Message], Any]:
    async def send_half(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": message["body"][: len(message["body"]) // 2], "more_body": True}
        await send(message)

    return send_half


async def _close(scope: Scope, receive: Receive, *, abort: bool) -> None:
    transport = scope["cdf.transport"]
    if abort:
        transport.abort()
    else:
        transport.close()
    # Only then does the server know that no answer is to come, and send none of its own.
    while (await receive())["type"] != "http.disconnect":
        pass
