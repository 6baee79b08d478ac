"""
TCP and TLS that keep to the deadline of a request.

httpx and httpcore limit each wait on a socket, not their sum: a server that sends one byte now and then, or
one header line, or ``103 Early Hints`` without end, holds a request for as long as it likes. Headers are read
before they hand anything over, so the limit has to lie below them: here, under httpcore, each wait is
shortened to what is left. Only the resolution of a name by the operating system is outside of it, in threads.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import anyio.abc
import httpcore

from airflow_provider_cdf.cdf import clock

#: When the request that this thread or coroutine has under way ends, on :func:`clock.now`.
request_ends: ContextVar[float | None] = ContextVar("airflow_provider_cdf_request_ends", default=None)

#: The most that is written to a socket at once, bytes: a write is limited as a whole by its pieces. Also the
#: most that a coroutine reads: what one read brings is parsed in one go, while its event loop waits.
PIECE = 16 * 1024


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
        return self.leftovers.came(self._stream.read(max_bytes, time_left(httpcore.ReadTimeout)))

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


def cancellations() -> int:
    """Return how often this coroutine's task was asked to end."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


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
        # Once, because anyio asks the operating system for all that is known of a socket.
        self._tls = stream.get_extra_info("ssl_object")
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
        if not isinstance(self._tls, ssl.SSLObject):
            return False
        try:
            self._tls.read(1)  # it is lost; the connection is closed because of it
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
        left, before = time_left(httpcore.ConnectTimeout), cancellations()
        stream: Any = await super().connect_tcp(host, port, left, local_address, socket_options)
        if cancellations() > before:
            # anyio forgets one that comes in the moment in which it has connected (seen on Python 3.12).
            await stream.aclose()
            raise asyncio.CancelledError
        # Below TLS, too, where httpcore has no public place for it. A later httpcore without this one still
        # works: what is held back is not seen then.
        below: Any = getattr(stream, "_stream", None)
        received = Received(below)
        if below is not None:
            stream._stream = received
        return AsyncStream(stream, received)
