"""
Pools of connections, one for each server, directly or through the proxy that the environment names.

They are the transports of httpx that keep to deadlines: see :mod:`.connections`.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Generic, TypeVar

import httpcore
import httpx

from airflow_provider_cdf.cdf.connections import (
    AsyncBackend,
    AsyncStream,
    Backend,
    Leftovers,
    Stream,
    request_ends,
)
from airflow_provider_cdf.cdf.proxies import core_url, proxy_for

PoolT = TypeVar("PoolT", httpcore.ConnectionPool, httpcore.AsyncConnectionPool)


def can_be_asked(url: str) -> bool:
    """Whether the HTTP library takes a URL, which it may stumble over as late as at a request."""
    try:
        # urlsplit takes line breaks out, and the rest of the line becomes a part of the path.
        return bool(httpx.URL(url).host) and url.isprintable() and " " not in url
    except (ValueError, httpx.InvalidURL):
        return False


class _Pools(Generic[PoolT]):
    """
    One pool of connections for each server, directly or through the proxy that the environment names.

    :param tls: what connections are checked with, by now: a CA bundle may be renewed on disk.
    """

    def __init__(self, kind: type[PoolT], backend: Any, tls: Callable[[], ssl.SSLContext]) -> None:
        self._kind: type[PoolT] = kind
        tls()  # now, because what is wrong with it is no failure of a request
        self._backend, self._tls = backend, tls
        self._by_origin: dict[tuple[str, str, ssl.SSLContext], PoolT] = {}

    def pool_for(self, url: httpx.URL) -> PoolT:
        tls = self._tls()
        origin = (url.scheme, url.netloc.decode(), tls)
        if origin not in self._by_origin:
            pool = self._kind(
                ssl_context=tls,
                proxy=proxy_for(url),
                network_backend=self._backend,
                max_connections=100,  # these three as in httpx
                max_keepalive_connections=20,
                keepalive_expiry=5.0,
            )
            self._by_origin.setdefault(origin, pool)
        return self._by_origin[origin]

    def all(self) -> list[PoolT]:
        return list(self._by_origin.values())


def _core_request(request: httpx.Request) -> httpcore.Request:
    return httpcore.Request(
        method=request.method,
        url=core_url(request.url),
        headers=request.headers.raw,
        content=request.content,
        extensions=request.extensions,
    )


def _leftovers(response: httpcore.Response) -> Leftovers:
    """Return what the connection of an answer knows; httpcore asks it before it uses a connection again."""
    stream = response.extensions.get("network_stream")
    return stream.leftovers if isinstance(stream, Stream | AsyncStream) else Leftovers()


def _is_chunked(response: httpcore.Response) -> bool:
    return any(name.lower() == b"transfer-encoding" for name, _ in response.headers)


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response
        self.leftovers = _leftovers(response)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._response.iter_stream():
            yield self.leftovers.body(piece)
        self.leftovers.ended(is_chunked=_is_chunked(self._response))

    def close(self) -> None:
        self._response.close()


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response
        self.leftovers = _leftovers(response)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._response.aiter_stream():
            yield self.leftovers.body(piece)
        self.leftovers.ended(is_chunked=_is_chunked(self._response))

    async def aclose(self) -> None:
        await self._response.aclose()


class Network(httpx.BaseTransport):
    """The network, for threads."""

    def __init__(self, tls: Callable[[], ssl.SSLContext]) -> None:
        self._pools = _Pools(httpcore.ConnectionPool, Backend(), tls)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._pools.pool_for(request.url).handle_request(_core_request(request))
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))

    def close(self) -> None:
        for pool in self._pools.all():
            pool.close()


class AsyncNetwork(httpx.AsyncBaseTransport):
    """The network, for the coroutines of one event loop."""

    def __init__(self, tls: Callable[[], ssl.SSLContext]) -> None:
        self._pools = _Pools(httpcore.AsyncConnectionPool, AsyncBackend(), tls)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._pools.pool_for(request.url).handle_async_request(_core_request(request))
        return httpx.Response(response.status, headers=response.headers, stream=_AsyncBody(response))

    async def aclose(self) -> None:
        for pool in self._pools.all():
            await pool.aclose()


class _WithoutWhatServersSay(logging.Filter):
    """Cuts the headers and errors of answers out of httpcore's lines: a server may echo a token there."""

    def filter(self, record: logging.LogRecord) -> bool:
        if request_ends.get() is not None:  # others use httpcore, too, and their log is their own
            event, _, rest = record.getMessage().partition(" ")
            if rest and not event.endswith(".started"):
                record.msg, record.args = event, ()
        return True


for _name in ("http11", "http2", "connection", "proxy", "socks"):
    logging.getLogger(f"httpcore.{_name}").addFilter(_WithoutWhatServersSay())
