"""
TCP and TLS that keep to the deadline of a request, directly or through a proxy.

httpx and httpcore limit each wait on a socket, not their sum: a server that sends one byte now and then, or
one header line, or ``103 Early Hints`` without end, holds a request for as long as it likes. Headers are read
before they hand anything over, so the limit has to lie below them: under httpcore is a network backend that
shortens each wait to what is left. Only the resolution of a name by the operating system is outside of it, in
threads.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, Generic, TypeVar
from urllib.request import getproxies, proxy_bypass

import anyio.abc
import httpcore
import httpx

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.hosts import is_loopback

#: When the request that this thread or coroutine has under way ends, on :func:`clock.now`.
request_ends: ContextVar[float | None] = ContextVar("airflow_provider_cdf_request_ends", default=None)

#: The most that is read from or written to a socket at once, bytes. A write is limited as a whole by its
#: pieces; what one read brings is parsed in one go, which an event loop has to wait for.
PIECE = 16 * 1024
PoolT = TypeVar("PoolT", httpcore.ConnectionPool, httpcore.AsyncConnectionPool)


def can_be_asked(hostname: str) -> bool:
    """Whether the HTTP library takes a host name, which it may stumble over as late as at a request."""
    try:
        return bool(httpx.URL(scheme="https", host=hostname).host)
    except (ValueError, httpx.InvalidURL):
        return False


def time_left(too_late: type[httpcore.TimeoutException]) -> float | None:
    """
    Return the seconds that the request under way may still take; ``None`` outside of one.

    :raises httpcore.TimeoutException: of this class, if there are none.
    """
    ends = request_ends.get()
    if ends is None:
        return None
    left = ends - clock.now()
    if left <= 0:
        raise too_late("the time for the request is over")
    return left


def pieces(buffer: bytes) -> Iterator[bytes]:
    for begin in range(0, len(buffer), PIECE):
        yield buffer[begin : begin + PIECE]


class Leftovers:
    """
    What tells whether a connection may be used again: nothing came behind its last answer.

    httpcore would hand out what came behind it as the answer to the next request: RFC 9112, section 9.2. It
    stops to read when an answer is complete, so what was read last has to end as the answer does.
    """

    #: The last bytes of a body that are compared with those that were read last.
    ENOUGH = 64

    def __init__(self) -> None:
        self._came_last = b""
        #: Of the answer's body.
        self._end = b""
        self._length = 0
        #: Whether the connection must not be used again.
        self.distrusted = False

    def came(self, piece: bytes) -> bytes:
        """Take what was read from the network."""
        self._came_last = self._came_last[-2 * self.ENOUGH :] + piece
        return piece

    def body(self, piece: bytes) -> bytes:
        """Take what was found in it as a part of the body."""
        self._end = (self._end + piece[-self.ENOUGH :])[-self.ENOUGH :]
        self._length += len(piece)
        return piece

    def ended(self, *, is_chunked: bool) -> None:
        """Judge whether the whole answer, and nothing else, has come. In doubt, it has not."""
        if is_chunked:
            end = b"\r\n0\r\n\r\n"
        else:
            end = self._end if self._length > self.ENOUGH else b"\r\n\r\n" + self._end
        if self._came_last.find(end) != len(self._came_last) - len(end):
            self.distrusted = True
        self._came_last, self._end, self._length = b"", b"", 0

    def distrust(self) -> None:
        """Have the connection closed before anything else is sent on it."""
        self.distrusted = True


class Stream(httpcore.NetworkStream):
    """A connection, for threads."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self.leftovers = Leftovers()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.leftovers.came(self._stream.read(min(max_bytes, PIECE), time_left(httpcore.ReadTimeout)))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for piece in pieces(buffer):
            self._stream.write(piece, time_left(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        left = time_left(httpcore.ConnectTimeout)
        return Stream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and (self.leftovers.distrusted or self._has_decrypted()):
            return True
        return self._stream.get_extra_info(info)

    def _has_decrypted(self) -> bool:
        tls = self._stream.get_extra_info("ssl_object")
        return isinstance(tls, ssl.SSLSocket) and tls.pending() > 0


class Backend(httpcore.SyncBackend):
    """Connections, for threads."""

    def __init__(self) -> None:
        #: By host, the address that was reached last.
        self._reached: dict[str, str] = {}

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Stream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from None
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        addresses.sort(key=lambda address: address != self._reached.get(host))
        failed: Exception = httpcore.ConnectError("the name has no address")
        for tried, address in enumerate(addresses):
            left = time_left(httpcore.ConnectTimeout)
            # Each gets its share: one that leads nowhere (IPv6 behind a firewall) must not take it all.
            share = None if left is None else left / (len(addresses) - tried)
            try:
                stream = super().connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                self._reached[host] = address
                return Stream(stream)
        raise failed


class Received(anyio.abc.ByteStream):
    """
    What has come from a socket. It shows what was not read yet.

    anyio takes as much from a socket as has come, and keeps what it is not asked for where nothing shows it.
    """

    #: More bytes than any event loop takes from a socket at once.
    ALL = 1024 * 1024

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self.rest = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if self.rest:
            await asyncio.sleep(0)  # others have their turn, as they have while one waits for a socket
        else:
            self.rest = await self._stream.receive(self.ALL)
        piece, self.rest = self.rest[:max_bytes], self.rest[max_bytes:]
        return piece

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._stream.extra_attributes


class AsyncStream(httpcore.AsyncNetworkStream):
    """
    A connection, for coroutines.

    :param received: what lies between the socket and the stream.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream, received: Received) -> None:
        self._stream, self._received = stream, received
        self.leftovers = Leftovers()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        return self.leftovers.came(
            await self._stream.read(min(max_bytes, PIECE), time_left(httpcore.ReadTimeout))
        )

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's
        for piece in pieces(buffer):
            await self._stream.write(piece, time_left(httpcore.WriteTimeout))

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
    ) -> AsyncStream:
        left = time_left(httpcore.ConnectTimeout)
        encrypted = await self._stream.start_tls(ssl_context, server_hostname, left)
        return AsyncStream(encrypted, self._received)

    def get_extra_info(self, info: str) -> Any:
        is_asked = info == "is_readable"
        if is_asked and (self.leftovers.distrusted or self._received.rest or self._has_decrypted()):
            return True
        return self._stream.get_extra_info(info)

    def _has_decrypted(self) -> bool:
        """Whether more came than was read: the socket does not show what lies in the memory of its TLS."""
        tls = self._stream.get_extra_info("ssl_object")
        if not isinstance(tls, ssl.SSLObject):
            return False
        try:
            tls.read(1)  # it is lost; the connection is closed because of it
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            pass
        return True


class AsyncBackend(httpcore.AnyIOBackend):
    """Connections, for coroutines."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncStream:
        left = time_left(httpcore.ConnectTimeout)
        stream: Any = await super().connect_tcp(host, port, left, local_address, socket_options)
        # Below TLS, too, where httpcore has no public place for it. A later httpcore without this one still
        # works: what is held back is not seen then.
        below: Any = getattr(stream, "_stream", None)
        received = Received(below)
        if below is not None:
            stream._stream = received
        return AsyncStream(stream, received)


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
                proxy=_proxy_for(url),
                network_backend=self._backend,
                max_connections=100,  # these three as in httpx
                max_keepalive_connections=20,
                keepalive_expiry=5.0,
            )
            self._by_origin.setdefault(origin, pool)
        return self._by_origin[origin]

    def all(self) -> list[PoolT]:
        return list(self._by_origin.values())


def _proxy_for(url: httpx.URL) -> httpcore.Proxy | None:
    """Return the proxy that ``HTTPS_PROXY``, ``ALL_PROXY`` and so on name for a URL, but for ``NO_PROXY``."""
    port = url.port or (443 if url.scheme == "https" else 80)
    host = f"[{url.host}]" if ":" in url.host else url.host
    if is_loopback(url.host) or proxy_bypass(url.host) or proxy_bypass(f"{host}:{port}"):
        return None
    proxies = getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named:
        return None
    try:
        proxy = httpx.Proxy(named if "://" in named else f"http://{named}")  # takes the password out of it
        # httpcore would raise an ImportError, which does not say that nothing was sent.
        if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
            raise httpcore.ProxyError(f"the proxy {proxy.url} takes the package socksio: httpx[socks]")
        return httpcore.Proxy(_core_url(proxy.url), auth=proxy.raw_auth, headers=proxy.headers.raw)
    except (ValueError, httpx.InvalidURL):
        raise httpcore.ProxyError("the proxy that the environment names has no usable URL") from None


def _core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _core_request(request: httpx.Request) -> httpcore.Request:
    return httpcore.Request(
        method=request.method,
        url=_core_url(request.url),
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
