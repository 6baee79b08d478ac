"""What all requests have in common, before the API itself: compression, JSON, paths, request ids."""

from __future__ import annotations

import json
import math
import secrets
import zlib
from typing import Any
from urllib.parse import unquote

from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_cdf.emulator.rules.errors import CdfError, InvalidRequestError

_MAX_BODY_BYTES = 20_000_000


class JsonAnswer(Response):
    """An answer in JSON, which is pure ASCII so that even a lone surrogate can be sent."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def error_answer(code: int, message: str, missing: list[dict[str, str]] | None = None) -> JsonAnswer:
    """
    An error in CDF's envelope.

    :param code: the HTTP status
    :param message: what is wrong
    :param missing: what does not exist
    """
    error: dict[str, Any] = {"code": code, "message": message}
    if missing:
        error["missing"] = missing
    return JsonAnswer({"error": error}, status_code=code)


class ConventionMiddleware:
    """
    ASGI middleware for the conventions of CDF's API.

    :param app: the API
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(16)
        refusal: CdfError | None = None

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            body = _plain_body(scope, await _read(receive))
        except ClientDisconnect:
            return  # half a request is none
        except CdfError as error:
            body, refusal = b"", error
        prepared = {
            **scope,
            "headers": [header for header in scope["headers"] if header[0] != b"content-encoding"],
            "path": _keep_slashes(scope),
            "cdf.request_id": request_id,
            "cdf.body": body,
            "cdf.refusal": refusal,
            # uvicorn's own `send` belongs to an object that knows the connection, which ASGI does not show.
            "cdf.transport": getattr(getattr(send, "__self__", None), "transport", None),
        }
        await self._app(prepared, replay(body, receive), send_with_id)


class RefusalMiddleware:
    """
    ASGI middleware that answers requests whose body could not be read, once the journal has noted them.

    :param app: what answers the others
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: CdfError | None = scope.get("cdf.refusal")
        app = self._app if refusal is None else error_answer(400, refusal.message)
        await app(scope, receive, send)


def _keep_slashes(scope: Scope) -> str:
    """
    The path for the router, in which a ``%2F`` within an external id does not become a ``/``.

    Segments keep their ``%`` and ``/`` encoded; a path parameter is decoded once more.
    """
    segments = scope["raw_path"].decode("ascii", "replace").split("/")
    return "/".join(unquote(segment).replace("%", "%25").replace("/", "%2F") for segment in segments)


async def _read(receive: Receive) -> bytes:
    chunks = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > _MAX_BODY_BYTES:
            raise InvalidRequestError(f"The request body is larger than {_MAX_BODY_BYTES} bytes.")
        if not message.get("more_body", False):
            return b"".join(chunks)


def _plain_body(scope: Scope, body: bytes) -> bytes:
    headers = dict(scope["headers"])
    encoding = headers.get(b"content-encoding", b"").decode("latin-1").lower()
    if not body:
        return body  # the Toolkit says gzip on every request, also on one without a body
    if encoding == "gzip":
        try:
            unpacker = zlib.decompressobj(wbits=31)
            body = unpacker.decompress(body, _MAX_BODY_BYTES)
        except zlib.error:
            raise InvalidRequestError("The request body is not valid gzip.") from None
        if unpacker.unconsumed_tail:
            raise InvalidRequestError(f"The request body is larger than {_MAX_BODY_BYTES} bytes.")
        if not unpacker.eof:
            raise InvalidRequestError("The request body is not valid gzip: its end is missing.")
    elif encoding not in ("", "identity"):
        raise InvalidRequestError(f"Content-Encoding '{encoding}' is not supported; use gzip.")
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media_type.startswith(b"application/") and media_type.endswith(b"json"):
        read_json(body)
    return body


def read_json(body: bytes) -> Any:
    """
    Read JSON, but not what Python reads as JSON although it is none, or cannot write back: NaN, 1e999, depth.

    :param body: of a request
    :raises InvalidRequestError: saying what is wrong with it
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise InvalidRequestError("The request body is nested too deeply.") from None
    except ValueError as error:
        raise InvalidRequestError(f"The request body is not valid JSON: {error}") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is too large")
    return value


def replay(body: bytes, receive: Receive) -> Receive:
    """
    A body that has been read already, to be read again.

    :param body: of the request
    :param receive: what comes after it
    """
    sent = False

    async def receive_again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
