"""
A gateway before the emulator that harms whoever asks, in ways that have names.

It forwards what it is asked to the emulator, so that the work is done, and answers as it likes.
"""

from __future__ import annotations

import base64
import html
import json
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, quote_plus

#: Seconds between two drops.
DRIP = 0.02
#: Bytes of a bomb, unpacked.
BOMB = 200 * 1024 * 1024
OTHER_ID = "aaaaaaaa-a17a-4102-910e-2c3591500cce"

Hostility = Callable[["Gateway", "Handler"], None]


@dataclass
class Gateway:
    """
    :param upstream: host and port of the emulator.
    :param hostile_to: method and path of the requests that are answered with hostility; ``None`` for none.
    """

    upstream: tuple[str, int]
    hostile_to: tuple[str, str] | None = None
    hostility: Hostility | None = None
    #: How many requests were answered with hostility.
    count: int = 0
    #: Set when the test is over: whoever still drips stops.
    over: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def harm(self, what: tuple[str, str], hostility: Hostility) -> None:
        self.hostile_to, self.hostility, self.count, self.over = what, hostility, 0, threading.Event()

    def rest(self) -> None:
        self.over.set()
        self.hostile_to = None

    def answer(self, request: Handler) -> None:
        method, path = self.hostile_to or ("", "")
        if request.command == method and fnmatchcase(request.path.partition("?")[0], path):
            self.count += 1
            assert self.hostility is not None
            self.hostility(self, request)
        else:
            self.forwarded(request)

    def forwarded(self, request: Handler) -> None:
        """Answer as the emulator does."""
        request.reply(*self.forward(request))

    def forward(self, request: Handler) -> tuple[int, bytes]:
        connection = HTTPConnection(*self.upstream, timeout=20)
        headers = {
            name: request.headers[name] for name in ("Authorization", "Content-Type") if request.headers[name]
        }
        connection.request(request.command, request.path, request.body or None, headers)
        response = connection.getresponse()
        status, body = response.status, response.read()
        connection.close()
        return status, body

    def repeat(self, request: Handler, piece: bytes, pause: float = DRIP) -> None:
        """Send a piece again and again, until nobody listens any more."""
        over = self.over
        while not over.wait(pause) if pause else not over.is_set():
            request.wfile.write(piece)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    gateway: Gateway

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self.gateway.answer(self)
        except OSError:
            self.close_connection = True

    do_POST = do_GET  # noqa: N815 - the name that http.server wants

    def begin(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.begin(
            status, **{"Content_Type": "application/json", **headers, "Content_Length": str(len(body))}
        )
        self.wfile.write(body)

    def said(self) -> str:
        """All that the client has said, secrets and all."""
        return f"{self.headers.get('Authorization', '')} {self.body.decode()}"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 200

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that hang up."""


@contextmanager
def hostile_gateway(upstream: str) -> Iterator[Gateway]:
    """A real HTTP server in threads of this process, before the emulator at a URL."""
    host, _, port = upstream.removeprefix("http://").partition(":")
    gateway = Gateway((host, int(port)))
    server = _Server(("127.0.0.1", 0), type("OneHandler", (Handler,), {"gateway": gateway}))
    gateway.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        gateway.rest()
        server.shutdown()
        server.server_close()
        thread.join()


# -- slow -------------------------------------------------------------------------------------------------


def drip_body(gateway: Gateway, request: Handler) -> None:
    gateway.forward(request)
    request.begin(200, Content_Length="1000000")
    gateway.repeat(request, b" ")


def drip_headers(gateway: Gateway, request: Handler) -> None:
    gateway.forward(request)
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    gateway.repeat(request, b"X-Patience: please\r\n")


def drip_103(gateway: Gateway, request: Handler) -> None:
    gateway.forward(request)
    gateway.repeat(request, b"HTTP/1.1 103 Early Hints\r\n\r\n")


def flood_103(gateway: Gateway, request: Handler) -> None:
    gateway.forward(request)
    gateway.repeat(request, b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000, pause=0)


def silence(gateway: Gateway, request: Handler) -> None:
    gateway.forward(request)
    gateway.over.wait(20)


# -- large ------------------------------------------------------------------------------------------------


def _bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    block = b" " * (1024 * 1024)
    return b"".join([*(packer.compress(block) for _ in range(BOMB // len(block))), packer.flush()])


_bombs: list[bytes] = []


def bomb(status: int) -> Hostility:
    def hostility(gateway: Gateway, request: Handler) -> None:
        gateway.forward(request)
        if not _bombs:
            _bombs.append(_bomb())
        request.reply(status, _bombs[0], Content_Encoding="gzip")

    return hostility


def endless(status: int) -> Hostility:
    def hostility(gateway: Gateway, request: Handler) -> None:
        if status < 400:
            gateway.forward(request)
        request.begin(status, Transfer_Encoding="chunked", Content_Type="application/json")
        gateway.repeat(request, b"10000\r\n" + b" " * 65536 + b"\r\n", pause=0)

    return hostility


def tiny_chunks(gateway: Gateway, request: Handler) -> None:
    gateway.forward(request)
    request.begin(200, Transfer_Encoding="chunked", Content_Type="application/json")
    gateway.repeat(request, b"1\r\n \r\n" * 10_000, pause=0)


def deep(status: int) -> Hostility:
    def hostility(gateway: Gateway, request: Handler) -> None:
        gateway.forward(request)
        request.reply(status, b'{"access_token":' + b"[" * (60_000 if status >= 300 else 1_000_000))

    return hostility


def large_headers(gateway: Gateway, request: Handler) -> None:
    gateway.forward(request)
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    gateway.repeat(request, b"X-Large: " + b"x" * 50_000 + b"\r\n", pause=0)


# -- unreadable -------------------------------------------------------------------------------------------


def charset(name: str) -> Hostility:
    def hostility(gateway: Gateway, request: Handler) -> None:
        gateway.forward(request)
        request.reply(503, b"\xff\xfe<html>\x1b[31m\xe2\x80\xae", Content_Type=f"text/html; charset={name}")

    return hostility


def other_encoding(gateway: Gateway, request: Handler) -> None:
    gateway.forward(request)
    request.reply(200, b"\x0b\x02\x80{}\x03", Content_Encoding="br")


def no_http(gateway: Gateway, request: Handler) -> None:
    gateway.forward(request)
    request.wfile.write(f"{request.said()}\r\n\r\n".encode())
    request.close_connection = True


# -- talkative --------------------------------------------------------------------------------------------

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda said: said,
    "percent": lambda said: quote(said, safe=""),
    "lower percent": lambda said: re.sub("%..", lambda code: code[0].lower(), quote(said, safe="")),
    "form": quote_plus,
    "JSON in JSON": lambda said: json.dumps(json.dumps(said)),
    "slashes": lambda said: said.replace("/", "\\/"),
    "HTML": html.escape,
    "code points": lambda said: "".join(f"\\u{ord(character):04x}" for character in said),
    "base64": lambda said: base64.b64encode(said.encode()).decode(),
    "base64, shifted": lambda said: base64.b64encode(b"x" + said.encode()).decode(),
    "base64 of JSON": lambda said: base64.b64encode(json.dumps({"said": said}).encode()).decode(),
}


def echo(encoding: str) -> Hostility:
    def hostility(gateway: Gateway, request: Handler) -> None:
        said = ENCODINGS[encoding](request.said())
        words = {"error": {"code": 400, "message": f"Bad: {said}"}, "error_description": f"Bad: {said}"}
        if request.path.endswith("/token"):
            words["error"] = "invalid_request"  # type: ignore[assignment]
        request.reply(
            400, json.dumps(words).encode(), X_Request_Id=quote(said)[:4000], X_Echo=quote(said)[:4000]
        )

    return hostility


def echo_page(gateway: Gateway, request: Handler) -> None:
    page = f"<html>\n<body>{html.escape(request.said())}</body></html>"
    request.reply(502, page.encode(), Content_Type="text/html")


def echo_status_line(gateway: Gateway, request: Handler) -> None:
    said = " ".join(request.said().split())
    request.wfile.write(f"HTTP/1.1 400 {said}\r\nX-Echo: {said}\r\nContent-Length: 0\r\n\r\n".encode())


# -- wrong ------------------------------------------------------------------------------------------------


def wrong_id(gateway: Gateway, request: Handler) -> None:
    status, body = gateway.forward(request)
    answer = json.loads(body)
    answer.update(id=OTHER_ID, status="COMPLETED", metadata={}, executedTasks=[])
    request.reply(status, json.dumps(answer).encode())


def endless_cursor(gateway: Gateway, request: Handler) -> None:
    request.reply(200, json.dumps({"items": [], "nextCursor": "again"}).encode())


def twice(gateway: Gateway, request: Handler) -> None:
    gateway.forward(request)
    request.reply(*gateway.forward(request))


HOSTILITIES: dict[str, Hostility] = {
    "drips its body": drip_body,
    "drips its headers": drip_headers,
    "drips 103s": drip_103,
    "floods with 103s": flood_103,
    "says nothing": silence,
    "gzip bomb, 200": bomb(200),
    "gzip bomb, 503": bomb(503),
    "endless, 200": endless(200),
    "endless, 400": endless(400),
    "tiny chunks": tiny_chunks,
    "deep JSON, 200": deep(200),
    "deep JSON, 503": deep(503),
    "large headers": large_headers,
    "charset=hex": charset("hex"),
    "charset=utf-16": charset("utf-16"),
    "Content-Encoding: br": other_encoding,
    "no HTTP": no_http,
    # test_foreign.py has all of them.
    **{f"echo, {name}": echo(name) for name in ("plain", "JSON in JSON", "code points", "base64, shifted")},
    "echo, page": echo_page,
    "echo, status line": echo_status_line,
    "wrong id": wrong_id,
    "endless cursor": endless_cursor,
    "sends it twice": twice,
}
