"""The requests that the emulator got, for tests to look at: how often was what called, with what."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_cdf.emulator.api.http import read_json
from airflow_provider_cdf.emulator.control import is_control
from airflow_provider_cdf.emulator.rules.errors import CdfError

#: Keys of requests whose values are secrets, without regard to case and underscores.
_SECRET_KEYS = frozenset({"nonce", "clientsecret", "secrets", "accesstoken", "refreshtoken", "password"})
_MAX_BODY_BYTES = 20_000
_MAX_REQUESTS = 10_000


@dataclass(slots=True)
class Request:
    """One request. Neither its headers nor its secrets are kept."""

    #: Milliseconds since 1970, by the clients' clock.
    time: int
    method: str
    path: str
    query: str
    #: The JSON of its body; None if it had none, or one that is no JSON or too large to keep.
    body: Any
    request_id: str
    #: Of the answer; None if the connection was dropped without one.
    status: int | None = None


class Journal:
    """
    The newest requests, the oldest first.

    :param now: the time of clients, in milliseconds since 1970
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._requests: deque[Request] = deque(maxlen=_MAX_REQUESTS)

    def requests(self, method: str = "*", path: str = "*") -> list[Request]:
        """
        The requests that match.

        :param method: such as ``"POST"``, or ``"*"`` for any
        :param path: a pattern for the whole path, such as ``"*/run"`` or ``"*/executions/list"``
        """
        return [
            request
            for request in list(self._requests)
            if method in ("*", request.method) and fnmatchcase(request.path, path)
        ]

    def count(self, method: str = "*", path: str = "*") -> int:
        """How many requests match, as in :meth:`requests`."""
        return len(self.requests(method, path))

    def clear(self) -> None:
        self._requests.clear()

    def record(self, scope: Scope) -> Request:
        """
        Note a request whose answer is still to come.

        :param scope: of the request
        """
        request = Request(
            time=self._now(),
            method=scope["method"],
            path=scope["raw_path"].decode("ascii", "replace"),
            query=scope["query_string"].decode("ascii", "replace"),
            body=_without_secrets(_json(scope["cdf.body"])),
            request_id=scope["cdf.request_id"],
        )
        self._requests.append(request)
        return request


class JournalMiddleware:
    """
    ASGI middleware that keeps a journal.

    :param app: what answers
    :param journal: where requests are noted
    """

    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self._app = app
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_control(scope["path"]):
            await self._app(scope, receive, send)
            return
        request = self._journal.record(scope)

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
            await send(message)

        await self._app(scope, receive, note_status)


def _json(body: bytes) -> Any:
    if not body or len(body) > _MAX_BODY_BYTES:
        return None
    try:
        return read_json(body)
    except CdfError:
        return None  # also the form with the client secret


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "***" if key.lower().replace("_", "") in _SECRET_KEYS else _without_secrets(item)
            for key, item in value.items()
        }
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value
