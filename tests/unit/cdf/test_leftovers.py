"""An answer that came before its request belongs to nobody: RFC 9112, section 9.2. Over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import threading
from pathlib import Path
from typing import Any

import httpcore
import pytest
from anyio.abc import ByteStream
from cdf_support import EXECUTION, EXECUTION_ID, Answering, FakeTime, Sender, loopback_server, settings
from identity_provider import Pair

from airflow_provider_cdf.cdf import calls
from airflow_provider_cdf.cdf.client import AsyncCdfClient, CdfClient
from airflow_provider_cdf.cdf.connections import PIECE, AsyncStream, Received
from airflow_provider_cdf.cdf.errors import CdfAnswerError, CdfError

READ = calls.get_execution("my project", EXECUTION_ID)
OTHER_ID = "aaaaaaaa" + EXECUTION_ID[8:]


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    return head.encode() + b"\r\n\r\n" + body


def chunked(body: bytes, *, size: int = 100, trailers: bytes = b"") -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n" + trailers + b"\r\n"


def execution(number: int, status: str = "RUNNING", **more: Any) -> bytes:
    return json.dumps({**EXECUTION, "status": status, "input": {"number": number}, **more}).encode()


PUSHED = http(execution(99, "COMPLETED"))


class Server:
    """Writes these bytes, one item after the other, and executions after that."""

    def __init__(self, *answers: bytes | list[bytes]) -> None:
        self.answers = list(answers)
        self.token_answers: list[bytes] = []
        self.ports: list[int] = []
        self.token_ports: list[int] = []
        self.written = threading.Event()

    def __call__(self, request: Answering) -> None:
        if request.path == "/token":
            if self.token_answers:
                self.token_ports.append(request.client_address[1])
                request.wfile.write(self.token_answers.pop(0))
                self.written.set()
                return
            request.reply({"access_token": "the-token", "expires_in": 3600})
            return
        self.ports.append(request.client_address[1])
        pieces = self.answers.pop(0) if self.answers else http(execution(len(self.ports)))
        for piece in pieces if isinstance(pieces, list) else [pieces]:
            request.wfile.write(piece)
        self.written.set()


def ask(sender: Sender, server: Server, url: str, times: int = 2, **more: Any) -> list[Any]:
    """Return what came of each question: the number in an execution, or the class of an error."""
    config = settings(url, f"{url}/token", **more)
    came: list[Any] = []

    def took(execution: Any) -> None:
        came.append(execution.input["number"])

    async def aask() -> None:
        async with AsyncCdfClient(config) as client:
            for _ in range(times):
                try:
                    took(await client.send(READ))
                except CdfError as error:
                    came.append(type(error))
                server.written.wait(60)

    if sender.is_async:
        asyncio.run(aask())
        return came
    with CdfClient(config) as client:
        for _ in range(times):
            try:
                took(client.send(READ))
            except CdfError as error:
                came.append(type(error))
            server.written.wait(60)
    return came


FIRST = execution(1)
LEFT_OVER: dict[str, bytes] = {
    "another answer": http(FIRST) + PUSHED,
    "the same answer again": http(FIRST) * 2,
    "the same body again": http(FIRST) + FIRST,
    "a part of another answer": http(FIRST) + PUSHED[:20],
    "one byte more": http(FIRST) + b"}",
    "blanks": http(FIRST) + b"\r\n\r\n",
    "behind chunks": chunked(FIRST) + PUSHED,
    "chunks behind chunks": chunked(FIRST) + chunked(execution(99)),
    "behind chunks with trailers": chunked(FIRST, trailers=b"X: y\r\n") + PUSHED,
    "behind gzip": http(gzip.compress(FIRST), "Content-Encoding: gzip") + PUSHED,
}


@pytest.mark.parametrize("answer", LEFT_OVER.values(), ids=LEFT_OVER.keys())
def test_what_came_behind_an_answer_is_not_the_next_one(sender: Sender, answer: bytes) -> None:
    server = Server(answer)
    with loopback_server(server) as url:
        assert ask(sender, server, url, times=3) == [1, 2, 3]
    assert server.ports[0] != server.ports[1] == server.ports[2]


@pytest.mark.parametrize("size", [5_000, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 4 * PIECE, 16 * PIECE])
def test_what_came_behind_an_answer_of_any_size_is_not_the_next_one(sender: Sender, size: int) -> None:
    """What is read at once may end with it, and the rest lie where a socket does not show it."""
    empty = len(http(execution(1, metadata={"x": ""})))
    letters = size - empty
    answer = http(execution(1, metadata={"x": "y" * letters}))
    answer = http(execution(1, metadata={"x": "y" * (letters - len(answer) + size)}))
    assert len(answer) == size
    server = Server(answer + PUSHED)
    with loopback_server(server) as url:
        assert ask(sender, server, url, times=3) == [1, 2, 3]
    assert server.ports[0] != server.ports[1] == server.ports[2]


def test_what_a_socket_brought_beyond_what_was_read_shows_that_a_connection_is_not_idle() -> None:
    """Below TLS, too, which takes 64 KB at a time of the 256 KB that an event loop takes from a socket."""

    class Socket(ByteStream):
        async def receive(self, max_bytes: int = 65536) -> bytes:
            return b"x" * min(200_000, max_bytes)

        async def send(self, item: bytes) -> None: ...
        async def send_eof(self) -> None: ...
        async def aclose(self) -> None: ...

    async def read(times: int) -> bool:
        received = Received(Socket())
        stream = AsyncStream(httpcore.AsyncMockStream([]), received)
        assert sum([len(await received.receive()) for _ in range(times)]) == min(times * 65536, 200_000)
        return bool(stream.get_extra_info("is_readable"))

    assert asyncio.run(read(3))
    assert not asyncio.run(read(4))


@pytest.mark.parametrize("status", ["204 No Content", "503 Service Unavailable"])
def test_what_came_behind_an_answer_without_a_body_is_not_the_next_one(sender: Sender, status: str) -> None:
    server = Server(http(b"", status=status) + PUSHED)
    with loopback_server(server) as url:
        first, second = ask(sender, server, url)
    assert issubclass(first, CdfError)
    assert second == 2
    assert len(set(server.ports)) == 2


def test_what_came_by_itself_is_not_the_next_answer(sender: Sender, tmp_path: Path) -> None:
    """In a record of its own: TLS may hold it in memory, where the socket does not show it."""
    pair = Pair(names=["localhost"])
    (tmp_path / "certificate.pem").write_text(pair.certificate_pem())
    (tmp_path / "key.pem").write_text(pair.pem())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    server = Server([http(FIRST), PUSHED])
    with loopback_server(server, tls=context) as url:
        came = ask(sender, server, url, times=3, ca_bundle=str(tmp_path / "certificate.pem"))
    assert came == [1, 2, 3]
    assert server.ports[0] != server.ports[1] == server.ports[2]


COMPLETE: dict[str, bytes] = {
    "with its length": http(FIRST),
    "in chunks": chunked(FIRST),
    "in large chunks": chunked(execution(1, metadata={"x": "y" * 50_000}), size=40_000),
    "of a size that takes many reads": http(execution(1, metadata={"x": "y" * 50_000})),
    "in gzip": http(gzip.compress(FIRST), "Content-Encoding: gzip"),
    "refused, with little to say": http(b"{}", status="503 Service Unavailable"),
    "refused, with nothing to say": http(b"", status="503 Service Unavailable"),
}


@pytest.mark.parametrize("answer", COMPLETE.values(), ids=COMPLETE.keys())
def test_a_connection_is_used_again_after_a_complete_answer(sender: Sender, answer: bytes) -> None:
    server = Server(answer)
    with loopback_server(server) as url:
        assert ask(sender, server, url)[1] == 2
    assert len(set(server.ports)) == 1


@pytest.mark.parametrize(
    "body",
    [execution(1, id=OTHER_ID), b"[]", b"{", b"\xff"],
    ids=["of another execution", "list", "cut", "no text"],
)
def test_a_connection_that_brought_a_foreign_answer_is_not_used_again(sender: Sender, body: bytes) -> None:
    server = Server(http(body))
    with loopback_server(server) as url:
        assert ask(sender, server, url, times=3) == [CdfAnswerError, 2, 3]
    assert server.ports[0] != server.ports[1] == server.ports[2]


def test_a_connection_that_brought_no_token_is_not_used_again(sender: Sender, time: FakeTime) -> None:
    server = Server()
    server.token_answers = [http(b"<html>"), http(b'{"access_token": "the-token", "expires_in": 3600}')]
    with loopback_server(server) as url:
        # A login that failed is not tried again at once: a repetition waits for it, on the clock of the test.
        assert ask(sender, server, url, times=1, retry_for=60) == [1]
    assert server.token_ports[0] != server.token_ports[1] == server.ports[0]
