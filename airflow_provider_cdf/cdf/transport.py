"""
One request and its answer, within its deadline and its size, whatever the server does.

What is above it sees an :class:`Answer` that lies in memory, or a :class:`NoAnswer`, and nothing else: no
error of an HTTP library, no header that is not used, and no cookie.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import zlib
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import httpcore
import httpx

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.connections import Leftovers, cancellations, request_ends
from airflow_provider_cdf.cdf.foreign import one_line
from airflow_provider_cdf.cdf.proxies import proxy_on_the_way

#: The most bytes of a successful answer, unpacked. An execution's outputs are at most some 20 MB.
MOST_OF_AN_ANSWER = 32 * 1024 * 1024
#: The most bytes of an error page, and of anything that a token endpoint says.
MOST_OF_AN_ERROR = 64 * 1024
#: Unpacked at once, bytes: one or two milliseconds.
STEP = 256 * 1024
#: The headers that are read. A cookie is not kept, so none is ever sent.
HEADERS = ("retry-after", "date", "x-request-id", "cdf-is-auto-retryable")
#: How OpenSSL begins what it says about a certificate.
UNTRUSTED = "certificate verify failed"
#: What is raised before anything of a request was sent.
_BEFORE_SENDING = (
    *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError),
    *(httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout, httpcore.ProxyError),
)
_TIMEOUTS = (httpx.TimeoutException, httpcore.TimeoutException)
#: Whose words are about the connection. Those of other errors may be about what was sent or received.
_FAILURES = (
    *(httpx.HTTPError, httpcore.TimeoutException, httpcore.NetworkError),
    *(httpcore.ProtocolError, httpcore.ProxyError),
)


def _nothing() -> None:
    """An answer that came by no connection, as in tests."""


@dataclass(frozen=True)
class Answer:
    """
    What a server said.

    :param headers: those of :data:`HEADERS` that it sent.
    :param content: the body, unpacked.
    :param why_unread: why there is no body, such as "it has more than 65536 bytes"; empty if there is one.
    :param distrust: closes the connection that it came by before anything else is sent there. For an answer
        that is about something else, or makes no sense: what comes next may be shifted, too.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes = field(default=b"", repr=False)
    why_unread: str = ""
    distrust: Callable[[], None] = field(default=_nothing, repr=False, compare=False)

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def kind(self) -> str:
        """What came instead of JSON, for messages; a page of a gateway says nothing worth repeating."""
        if self.why_unread:
            return f"an answer that cannot be read ({self.why_unread})"
        if not self.content.strip():
            return "an empty answer"
        return "an HTML page" if self.content.lstrip()[:1] == b"<" else "something that is no JSON object"

    @property
    def retry_after(self) -> float | None:
        """The seconds that ``Retry-After`` asks for; it is a number or a date."""
        value = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"\d{1,9}(\.\d*)?", value, re.ASCII):
            return float(value)
        until = _date(value)
        if until is None:
            return None
        # By the clock of the one who says it: ours may be minutes off.
        return max(0.0, (until - (_date(self.headers.get("Date", "")) or datetime.now(UTC))).total_seconds())

    def json_object(self) -> dict[str, Any] | None:
        """Return a small answer that is a JSON object; ``None`` if it is none. UTF-8, whatever it claims."""
        try:
            said = json.loads(self.content.decode("utf-8-sig", errors="replace"))
        except (ValueError, RecursionError):
            return None
        return said if isinstance(said, dict) else None


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


class NoAnswer(Exception):  # noqa: N818 - not all of them are errors of this side
    """
    A request got no answer, or not a whole one.

    :param reason: for messages; one line.
    :param sent: whether the server may have received the request.
    :param is_timeout: whether the time was over, which says nothing about the server.
    :param at_login: whether it was asked for a token.
    :param retry_after: seconds before which it is no use to try again.
    """

    def __init__(
        self,
        reason: str,
        *,
        sent: bool,
        is_timeout: bool = False,
        at_login: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        self.is_timeout = is_timeout
        self.at_login = at_login
        self.retry_after = retry_after


class _Reading:
    """Reads a body piece by piece and counts, because a packed one may be a thousand times as large."""

    def __init__(self, response: httpx.Response, most_of_an_answer: int) -> None:
        self._status = response.status_code
        leftovers = getattr(response.stream, "leftovers", None)
        self._distrust = leftovers.distrust if isinstance(leftovers, Leftovers) else _nothing
        sent = response.headers
        # As text of any kind: httpx itself makes headers of ASCII only.
        self._headers = httpx.Headers(
            {name: sent[name] for name in HEADERS if name in sent}, encoding="utf-8"
        )
        self._most = most_of_an_answer if response.is_success else MOST_OF_AN_ERROR
        self._packed = 0
        self._kept = bytearray()
        self._unread = ""
        self._gzip: zlib._Decompress | None = None
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding in ("gzip", "x-gzip"):
            self._gzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        elif encoding not in ("", "identity"):
            self._give_up("it is packed in a way that was not asked for")

    def take(self, piece: bytes) -> Iterator[None]:
        """Take what came, in steps between which an event loop may do other things."""
        self._packed += len(piece)
        if self._packed > self._most:
            self._give_up(f"it has more than {self._most} bytes")
        if self._gzip is None and not self._unread:
            self._kept += piece
        yield
        # What is behind the end is no part of the answer; zlib would collect it.
        while self._gzip is not None and not self._gzip.eof and piece and not self._unread:
            try:
                self._kept += self._gzip.decompress(piece, min(STEP, self._most + 1 - len(self._kept)))
            except zlib.error:
                self._give_up("it is not the gzip that it says it is")
            else:
                piece = self._gzip.unconsumed_tail
            if len(self._kept) > self._most:
                self._give_up(f"it has more than {self._most} bytes")
            yield

    @property
    def is_over(self) -> bool:
        return bool(self._unread)

    def answer(self) -> Answer:
        if self._gzip is not None and self._packed and not self._unread:
            self._kept += self._gzip.flush()
            if not self._gzip.eof:
                self._give_up("it ends too early")
        return Answer(self._status, self._headers, bytes(self._kept), self._unread, self._distrust)

    def _give_up(self, why: str) -> None:
        self._unread = why
        self._kept = bytearray()


def exchange(
    transport: httpx.BaseTransport, request: httpx.Request, ends: float, most: int = MOST_OF_AN_ANSWER
) -> Answer:
    """
    Send a request and read its answer.

    :param ends: on :func:`clock.now`, when it is to be over.
    :param most: the most bytes of a successful answer.
    :raises NoAnswer: if there is none, whatever the reason.
    """
    under_way = request_ends.set(ends)
    try:
        _limit(request, ends)
        response = transport.handle_request(request)
        try:
            reading = _Reading(response, most)
            for piece in cast(Iterable[bytes], response.stream):
                _check(ends)
                for _ in reading.take(piece):
                    pass
                if reading.is_over:
                    break
            return reading.answer()
        finally:
            response.close()
    except Exception as error:
        failed = _no_answer(error, request.url)
    finally:
        request_ends.reset(under_way)
    # Here, because of the frames that hang on the other error: they hold headers and bodies.
    raise failed


async def aexchange(
    transport: httpx.AsyncBaseTransport, request: httpx.Request, ends: float, most: int = MOST_OF_AN_ANSWER
) -> Answer:
    """Do what :func:`exchange` does, for coroutines."""
    under_way, before = request_ends.set(ends), cancellations()
    try:
        _limit(request, ends)
        response = await transport.handle_async_request(request)
        try:
            reading = _Reading(response, most)
            async for piece in cast(AsyncIterable[bytes], response.stream):
                _check(ends)
                for _ in reading.take(piece):
                    await asyncio.sleep(0)
                if reading.is_over:
                    break
        finally:
            await response.aclose()
        if cancellations() > before:
            raise asyncio.CancelledError  # which something below has forgotten
        return reading.answer()
    except Exception as error:
        failed = _no_answer(error, request.url)
    finally:
        request_ends.reset(under_way)
    raise failed


#: By path, when a CA bundle was changed, and what was made of it.
_made: dict[str | None, tuple[int, ssl.SSLContext]] = {}


def tls(ca_bundle: str | None = None) -> ssl.SSLContext:
    """
    Return what connections are checked with. It is made once a process, in 30 ms, and when it has changed.

    :param ca_bundle: a file or directory of certificates to trust instead of the usual ones, or of those that
        ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` name.
    :raises OSError: if there is none, or none that can be read (``ssl.SSLError`` is one, too).
    """
    path = ca_bundle or os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    made = _made.get(path)
    try:
        changed = os.stat(path).st_mtime_ns if path else 0
        if made is None or made[0] != changed:
            made = _made[path] = changed, _certificates(path)
    except OSError:
        if made is None:
            raise
        # A renewal is half done.
    return made[1]


def _certificates(path: str | None) -> ssl.SSLContext:
    if path is None:
        return httpx.create_ssl_context()
    if os.path.isdir(path):
        return ssl.create_default_context(capath=path)
    return ssl.create_default_context(cafile=path)


def _limit(request: httpx.Request, ends: float) -> None:
    left = ends - clock.now()
    if left <= 0:
        raise httpx.ConnectTimeout("no time is left for it")
    request.extensions = {
        **request.extensions,
        "timeout": dict.fromkeys(("connect", "read", "write", "pool"), left),
    }


def _check(ends: float) -> None:
    if clock.now() >= ends:
        raise httpx.ReadTimeout("the time for the request is over")


def _no_answer(error: Exception, url: httpx.URL) -> NoAnswer:
    what = f"{type(error).__name__}: {_said(error)}" if isinstance(error, _FAILURES) else type(error).__name__
    what = one_line(what, 200).rstrip(": ").rstrip(".")
    proxy = proxy_on_the_way(url)
    return NoAnswer(
        f"{what}; asked by way of the proxy {proxy}" if proxy else what,
        sent=not isinstance(error, _BEFORE_SENDING),
        is_timeout=isinstance(error, _TIMEOUTS),
    )


def _said(error: Exception) -> str:
    """Return the words of a library, without those of a server, which may be anything."""
    words = str(error)
    if isinstance(error, httpcore.ProxyError) and words[:3].isdigit():
        return f"HTTP {words[:3]}"  # what comes behind is the proxy's
    if certificate := re.search(rf"{UNTRUSTED}: ([\w -]+)", words):
        return f"{UNTRUSTED}: {certificate[1].strip()}"
    return re.sub(r"""(bytearray\()?b?['"].*""", "...", words, flags=re.DOTALL)
