"""One request within its deadline and its size, and what it leaves behind, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpcore
import httpx
import pytest
from cdf_support import (
    EXECUTION,
    EXECUTION_ID,
    TASK_ID,
    Answering,
    FakeTime,
    Network,
    Sender,
    loopback_server,
    settings,
    wired,
)
from hostile_server import HOSTILITIES, Gateway, hostile_gateway
from identity_provider import Pair

from airflow_provider_cdf.cdf import auth, calls, clock, connections, network, proxies, transport
from airflow_provider_cdf.cdf import client as client_module
from airflow_provider_cdf.cdf.client import AsyncCdfClient, CdfClient
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfConnectionError,
    CdfInputError,
    CdfLoginError,
    CdfUnreachableError,
)
from airflow_provider_cdf.hosts import is_loopback

READ = calls.get_execution("my project", EXECUTION_ID)
RUN = calls.run("my project", "pump", "1", nonce="n0nce")
PADDING = "x" * 1000


def execution_of(size: int) -> bytes:
    """An execution of some bytes of JSON."""
    content = httpx.Response(200, json=EXECUTION).content[:-1] + b', "padding": "'
    return content + b"x" * (size - len(content) - 2) + b'"}'


# -- size -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(("size", "is_read"), [(32 * 1024**2, True), (32 * 1024**2 + 1, False)])
def test_an_answer_has_at_most_32_mb_unpacked(
    sender: Sender, size: int, is_read: bool, is_packed: bool
) -> None:
    content = execution_of(size)
    assert len(content) == size
    headers = {"Content-Encoding": "gzip"} if is_packed else {}
    packed = gzip.compress(content, compresslevel=1, mtime=0) if is_packed else content
    answer = httpx.Response(200, stream=httpx.ByteStream(packed), headers=headers)
    # Not by way of Network, which copies decoded bodies.
    handler = httpx.MockTransport(lambda request: token_or(request, answer))
    if is_read:
        assert use(sender, handler, READ).id == EXECUTION_ID
    else:
        with pytest.raises(CdfAnswerError, match="it has more than 33554432 bytes"):
            use(sender, handler, READ)


def token_or(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
    if request.url.host == "idp.example.com":
        return httpx.Response(200, json={"access_token": "the-token"})
    return answer


def use(sender: Sender, handler: httpx.MockTransport, call: calls.Call[Any]) -> Any:
    async def asend() -> Any:
        async with wired(AsyncCdfClient(settings()), handler) as client:
            return await client.send(call)

    if sender.is_async:
        return asyncio.run(asend())
    with wired(CdfClient(settings()), handler) as client:
        return client.send(call)


@pytest.mark.parametrize(("size", "is_read"), [(65_536, True), (65_537, False)])
def test_an_error_page_has_at_most_64_kb_and_keeps_its_status(
    sender: Sender, size: int, is_read: bool
) -> None:
    content = b'{"error": {"message": "No such thing"}, "padding": "'
    content += b"x" * (size - len(content) - 2) + b'"}'
    with pytest.raises(CdfApiError) as caught:
        sender.send(Network(httpx.Response(404, content=content)), READ)
    assert caught.value.code == 404
    assert ("No such thing" in str(caught.value)) is is_read
    assert ("more than 65536 bytes" in str(caught.value)) is not is_read


def raw(content: bytes, encoding: str, status: int = 200) -> httpx.MockTransport:
    answer = httpx.Response(status, stream=httpx.ByteStream(content), headers={"Content-Encoding": encoding})
    return httpx.MockTransport(lambda request: token_or(request, answer))


WHOLE = json.dumps(EXECUTION, separators=(",", ":")).encode()
PACKED = gzip.compress(WHOLE, mtime=0)


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (WHOLE, "identity"),
        (PACKED, "gzip"),
        (PACKED, "GZIP"),
        (PACKED, "x-gzip"),
        (PACKED + b"trailer", "gzip"),
    ],
)
def test_an_answer_may_be_packed_with_gzip(sender: Sender, content: bytes, encoding: str) -> None:
    assert use(sender, raw(content, encoding), READ).id == EXECUTION_ID


@pytest.mark.parametrize(
    ("content", "encoding", "why"),
    [
        (PACKED[:-9], "gzip", "it ends too early"),
        (PACKED[:5], "gzip", "it ends too early"),
        (WHOLE, "gzip", "it is not the gzip that it says it is"),
        (PACKED[:20] + b"\xff" * 20, "gzip", "it is not the gzip that it says it is"),
        (PACKED, "gzip, gzip", "packed in a way that was not asked for"),
        (PACKED, "br", "packed in a way that was not asked for"),
        (PACKED, "deflate", "packed in a way that was not asked for"),
    ],
)
def test_an_answer_that_cannot_be_unpacked_is_unreadable(
    sender: Sender, content: bytes, encoding: str, why: str
) -> None:
    with pytest.raises(CdfAnswerError, match=why):
        use(sender, raw(content, encoding), READ)
    with pytest.raises(CdfApiError, match=why) as caught:
        use(sender, raw(content, encoding, status=503), READ)
    assert caught.value.code == 503


def test_what_is_behind_the_end_of_a_gzip_is_not_kept() -> None:
    """zlib collects it, and copies all that it has at each piece: 31 MB took minutes."""
    response = httpx.Response(200, headers={"Content-Encoding": "gzip"})
    reading = transport._Reading(response, 1024 * 1024)
    for piece in (PACKED, b"x" * 1000, b"y" * 1000):
        for _ in reading.take(piece):
            pass
    assert reading._gzip is not None
    assert reading._gzip.unused_data == b""
    assert reading.answer().content == WHOLE
    assert not reading.answer().why_unread


def test_only_gzip_is_asked_for(sender: Sender) -> None:
    net = Network(httpx.Response(200, json=EXECUTION))
    sender.send(net, READ)
    assert {one.headers["Accept-Encoding"] for one in (*net.requests, *net.token_requests)} == {"gzip"}


COSTS = """
import asyncio, json, sys, time
from airflow_provider_cdf.cdf import calls
from airflow_provider_cdf.cdf.logins.clients import ClientCredentials
from airflow_provider_cdf.cdf.client import AsyncCdfClient
from airflow_provider_cdf.cdf.settings import Settings
from airflow_provider_cdf.cdf.errors import CdfError

url, count = sys.argv[1], int(sys.argv[2])
settings = Settings(url, "p", ClientCredentials(url + "/token", "c", "secret"), retry_for=0)
call = calls.get_execution("p", "059edaa4-a17a-4102-910e-2c3591500cce")


def megabytes(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


async def main():
    client, longest = AsyncCdfClient(settings), 0.0

    async def heart():
        # The seconds of CPU that this thread has used between two turns: they do not depend on other load.
        nonlocal longest
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    await client.send(call)  # what the first one loads is no matter here
    for _ in range(count):
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")  # from now on
        begun, longest = megabytes("VmRSS"), 0.0
        beating = asyncio.create_task(heart())
        await asyncio.sleep(0)
        try:
            await client.send(call)
        except CdfError as caught:
            error = caught
        beating.cancel()
        print(json.dumps([type(error).__name__, megabytes("VmHWM") - begun, longest]))


asyncio.run(main())
"""
REFUSED = {
    "gzip bomb, 200": "CdfAnswerError",
    "gzip bomb, 503": "CdfApiError",
    "endless, 200": "CdfAnswerError",
    "endless, 400": "CdfApiError",  # no words of CDF: a gateway's
    "deep JSON, 200": "CdfAnswerError",
    "deep JSON, 503": "CdfApiError",
    "echo, page": "CdfApiError",
    "echo, JSON in JSON": "CdfRefusedError",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of memory")
def test_a_refused_answer_costs_less_than_100_mb_and_holds_the_event_loop_for_less_than_100_ms(
    record_property: Any,
) -> None:
    def one_after_the_other(gateway: Gateway, request: Any) -> None:
        # The first one is answered as it should be.
        hostilities = [Gateway.forwarded, *(HOSTILITIES[name] for name in REFUSED)]
        hostilities[gateway.count - 1](gateway, request)

    with loopback_server(reply_as_both) as url, hostile_gateway(url) as gateway:
        gateway.harm(("GET", "*/executions/*"), one_after_the_other)
        arguments = [sys.executable, "-c", COSTS, gateway.url, str(len(REFUSED))]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for (name, error), line in zip(REFUSED.items(), done.stdout.splitlines(), strict=True):
        kind, megabytes, seconds = json.loads(line)
        cost = f"{name}: {megabytes:.0f} MB, holds the event loop for {seconds * 1000:.0f} ms"
        record_property("summary", ("what a refused answer costs", cost))
        assert kind == error, name
        assert megabytes < 100, name
        assert seconds < 0.1, name


# -- time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("within", "request_timeout", "limit"), [(None, 10, 10), (3, 10, 3), (60, 10, 10), (0.5, 10, 0.5)]
)
def test_a_request_ends_with_the_time_that_the_caller_has_left(
    sender: Sender, time: FakeTime, within: float | None, request_timeout: float, limit: float
) -> None:
    net = Network(httpx.Response(200, json=EXECUTION))
    config = settings(request_timeout=request_timeout)
    with_less_time(sender, net, within, config)
    assert net.requests[0].extensions["timeout"] == dict.fromkeys(("connect", "read", "write", "pool"), limit)


def test_a_request_that_waits_for_a_free_connection_ends_in_its_own_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = httpcore.AsyncConnectionPool
    monkeypatch.setattr(
        httpcore, "AsyncConnectionPool", lambda **options: pool(**{**options, "max_connections": 1})
    )
    asked, is_over = threading.Event(), threading.Event()

    def answer(request: Answering) -> None:
        if request.path != "/token":
            asked.set()
            is_over.wait(60)
        reply_as_both(request)

    async def ask_twice(url: str) -> None:
        async with AsyncCdfClient(settings(url, f"{url}/token")) as client:
            first = asyncio.create_task(client.send(READ))
            await asyncio.to_thread(asked.wait, 60)
            with pytest.raises(CdfUnreachableError) as caught:
                await client.send(READ, within=0.2)
            assert not caught.value.sent
            assert not first.done()
            is_over.set()
            await first

    with loopback_server(answer) as url:
        asyncio.run(ask_twice(url))


def with_less_time(sender: Sender, net: Network, within: float | None, config: Any) -> Any:
    async def asend() -> Any:
        async with wired(AsyncCdfClient(config), httpx.MockTransport(net)) as client:
            return await client.send(READ, within=within)

    if sender.is_async:
        return asyncio.run(asend())
    with wired(CdfClient(config), httpx.MockTransport(net)) as client:
        return client.send(READ, within=within)


@pytest.mark.usefixtures("longest_pauses")
def test_all_repetitions_end_with_the_time_that_the_caller_has_left(sender: Sender, time: FakeTime) -> None:
    begun = time.now()
    with pytest.raises(CdfUnreachableError):
        with_less_time(sender, Network(*[httpx.ReadTimeout("")] * 20), 10, settings(retry_for=60))
    assert time.now() - begun < 10
    assert time.pauses == [1, 2, 4]


@pytest.mark.parametrize("within", [0, -5])
def test_without_any_time_nothing_is_sent(sender: Sender, time: FakeTime, within: float) -> None:
    net = Network()
    with pytest.raises(CdfUnreachableError, match="no time is left") as caught:
        with_less_time(sender, net, within, settings(retry_for=60))
    assert not caught.value.sent
    assert net.requests == net.token_requests == []


def test_a_body_that_arrives_after_the_end_is_not_waited_for(sender: Sender, time: FakeTime) -> None:
    class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
        def pieces(self) -> Iterator[bytes]:
            for _ in range(1000):
                time.seconds += 1
                yield b" "

        __iter__ = pieces

        async def __aiter__(self) -> Any:
            for piece in self.pieces():
                yield piece

    begun = time.now()
    handler = httpx.MockTransport(lambda request: token_or(request, httpx.Response(200, stream=Body())))
    with pytest.raises(CdfUnreachableError, match="the time for the request is over") as caught:
        use(sender, handler, RUN)
    assert caught.value.sent
    assert time.now() - begun == 400


@pytest.mark.parametrize("name", ["request_timeout", "retry_for"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1])
def test_a_time_without_end_or_sense_is_refused(name: str, value: float) -> None:
    with pytest.raises(CdfInputError, match=name):
        settings(**{name: value})


def test_a_request_needs_some_time() -> None:
    with pytest.raises(CdfInputError, match="request_timeout"):
        settings(request_timeout=0)


@contextmanager
def a_server_that_drips(reply: bytes) -> Iterator[str]:
    """Send some bytes again and again, after the first byte of a request."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while not over.wait(0.05):
                    connection.sendall(reply)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        over.set()
        server.shutdown(socket.SHUT_RDWR)


def test_a_tls_handshake_without_end_was_never_a_request(sender: Sender) -> None:
    # The head of a long TLS record, and then one byte of it now and then.
    with a_server_that_drips(b"\x16\x03\x03\x3f\xff") as server:
        config = settings(f"https://{server}", f"https://{server}/token", request_timeout=0.3)
        begun = time.monotonic()
        with pytest.raises(CdfUnreachableError, match="token endpoint") as caught:
            sender.send(None, RUN, config)
    assert not caught.value.sent
    assert time.monotonic() - begun < 15


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have each name resolve to these addresses."""
    resolve = socket.getaddrinfo

    def answer(host: str, port: int, *args: Any, **more: Any) -> Any:
        if not host[0].isdigit():
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]
        return resolve(host, port, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def test_each_address_of_a_name_gets_its_share_of_what_is_left(
    monkeypatch: pytest.MonkeyPatch, time: FakeTime
) -> None:
    tried: list[tuple[str, float | None]] = []

    def no_answer(self: Any, host: str, port: int, timeout: float | None, *_: Any) -> Any:
        tried.append((host, timeout))
        time.seconds += 4 if host.endswith(".1") else 2
        raise httpcore.ConnectTimeout("timed out")

    resolve_to(monkeypatch, "192.0.2.1", "192.0.2.2", "192.0.2.3")
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", no_answer)
    with pytest.raises(CdfUnreachableError) as caught:
        Sender(is_async=False).send(None, READ, settings(request_timeout=12))
    assert not caught.value.sent
    assert tried == [("192.0.2.1", 4), ("192.0.2.2", 4), ("192.0.2.3", 6)]


def test_an_address_that_leads_nowhere_is_passed_over_and_tried_last_from_then_on(
    monkeypatch: pytest.MonkeyPatch, time: FakeTime
) -> None:
    """Such as one of IPv6 behind a firewall that drops it."""
    tried: list[str] = []
    connect = httpcore.SyncBackend.connect_tcp

    def drop_the_first(self: Any, host: str, port: int, timeout: float | None, *more: Any) -> Any:
        tried.append(host)
        if host == "192.0.2.1":
            time.seconds += timeout or 0
            raise httpcore.ConnectTimeout("timed out")
        return connect(self, host, port, timeout, *more)

    resolve_to(monkeypatch, "192.0.2.1", "127.0.0.1")
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", drop_the_first)
    monkeypatch.setattr(connections, "time_left", lambda _: 60.0)
    backend = connections.Backend()
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(2):
            backend.connect_tcp("cdf.example.com", server.getsockname()[1]).close()
    assert tried == ["192.0.2.1", "127.0.0.1", "127.0.0.1"]


def test_a_name_that_does_not_exist_was_never_asked(sender: Sender) -> None:
    config = settings("https://no-such-host.invalid", "https://no-such-host.invalid/token")
    with pytest.raises(CdfUnreachableError, match=r"token endpoint at no-such-host\.invalid") as caught:
        sender.send(None, READ, config)
    assert not caught.value.sent


# -- what httpcore promises -------------------------------------------------------------------------------


def test_httpcore_still_opens_connections_through_the_backend_that_it_is_given(sender: Sender) -> None:
    """If it did not, requests would have no end, and only a hostile server would show it."""
    used: list[str] = []
    name = "AsyncStream" if sender.is_async else "Stream"
    kind = getattr(connections, name)

    class Watched(kind):  # type: ignore[misc, valid-type]
        def get_extra_info(self, info: str) -> Any:
            used.append(info)
            return super().get_extra_info(info)

    with pytest.MonkeyPatch.context() as patch, loopback_server(reply_as_both) as url:
        patch.setattr(connections, name, Watched)
        sender.send(None, READ, settings(url, f"{url}/token"))
    assert used


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (connections.Stream, httpcore.NetworkStream),
        (connections.Backend, httpcore.NetworkBackend),
        (connections.AsyncStream, httpcore.AsyncNetworkStream),
        (connections.AsyncBackend, httpcore.AsyncNetworkBackend),
    ],
)
def test_the_backend_has_the_methods_that_httpcore_calls(ours: type, theirs: type) -> None:
    for name, method in vars(theirs).items():
        if name.startswith("_") or not callable(method):
            continue
        expected = list(inspect.signature(method).parameters)
        assert list(inspect.signature(getattr(ours, name)).parameters) == expected, name


def reply_as_both(request: Answering) -> None:
    request.reply({"access_token": "the-token"} if request.path == "/token" else EXECUTION)


# -- nothing is left behind -------------------------------------------------------------------------------


def test_no_cookie_is_kept(sender: Sender) -> None:
    """A server that sets another one with each answer ended in HTTP 431."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=EXECUTION, headers={"Set-Cookie": f"c{len(net.requests)}={PADDING}"})

    net = Network(*[answer] * 3)
    handler = httpx.MockTransport(net)

    async def athree() -> None:
        async with wired(AsyncCdfClient(settings()), handler) as client:
            for _ in range(3):
                await client.send(READ)

    if sender.is_async:
        asyncio.run(athree())
    else:
        with wired(CdfClient(settings()), handler) as client:
            for _ in range(3):
                client.send(READ)
    assert all("Cookie" not in request.headers for request in net.requests)


def test_a_connection_is_used_again(sender: Sender) -> None:
    ports = []

    def answer(request: Answering) -> None:
        ports.append(request.client_address[1])
        reply_as_both(request)

    with loopback_server(answer) as url:
        config = settings(url, f"{url}/token")

        async def athree() -> None:
            async with AsyncCdfClient(config) as client:
                for _ in range(3):
                    await client.send(READ)

        if sender.is_async:
            asyncio.run(athree())
        else:
            with CdfClient(config) as client:
                for _ in range(3):
                    client.send(READ)
    assert len(ports) == 4
    assert len(set(ports)) == 1


def test_a_closed_client_opens_other_connections() -> None:
    with loopback_server(reply_as_both) as url:
        client = CdfClient(settings(url, f"{url}/token"))
        for _ in range(2):
            assert client.send(READ).id == EXECUTION_ID
            client.close()


# -- in whatever thread, loop and process -------------------------------------------------------------------


def test_one_client_serves_several_event_loops_one_after_the_other() -> None:
    with loopback_server(reply_as_both) as url:
        client = AsyncCdfClient(settings(url, f"{url}/token"))
        for _ in range(3):
            assert asyncio.run(client.send(READ)).id == EXECUTION_ID
            assert len(client._opened) == 1, "those of ended loops are dropped"


def test_one_client_serves_several_event_loops_at_once() -> None:
    barrier = threading.Barrier(4, timeout=20)
    ids: list[str] = []

    async def ask(client: AsyncCdfClient) -> None:
        ids.extend(one.id for one in await asyncio.gather(*(client.send(READ) for _ in range(10))))
        await asyncio.to_thread(barrier.wait)
        assert len(client._opened) == 4
        await asyncio.to_thread(barrier.wait)
        ids.append((await client.send(READ)).id)

    with loopback_server(reply_as_both) as url:
        client = AsyncCdfClient(settings(url, f"{url}/token"))
        threads = [threading.Thread(target=lambda: asyncio.run(ask(client))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert ids == [EXECUTION_ID] * 44


def test_one_client_serves_several_threads() -> None:
    ids: list[str] = []
    with loopback_server(reply_as_both) as url, CdfClient(settings(url, f"{url}/token")) as client:
        threads = [
            threading.Thread(target=lambda: ids.extend(client.send(READ).id for _ in range(5)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(client._opened) == 1
    assert ids == [EXECUTION_ID] * 40


FORKED = """
import asyncio, json, os, signal, sys, threading, uuid
from airflow_provider_cdf.cdf import calls
from airflow_provider_cdf.cdf.logins.clients import ClientCredentials
from airflow_provider_cdf.cdf.client import AsyncCdfClient, CdfClient
from airflow_provider_cdf.cdf.settings import Settings

url, is_async, answers = sys.argv[1], sys.argv[2] == "async", int(sys.argv[3])
settings = Settings(url, "p", ClientCredentials(url + "/token", "c", "s"), retry_for=0)
client = AsyncCdfClient(settings) if is_async else CdfClient(settings)


def ask(count):
    # The ids are looked at here, by the answers' own words, and not by the client.
    wrong = 0
    if is_async:
        async def all():
            nonlocal wrong
            for _ in range(count):
                wanted = str(uuid.uuid4())
                wrong += (await client.send(calls.get_execution("p", wanted))).id != wanted
        asyncio.run(all())
    else:
        for _ in range(count):
            wanted = str(uuid.uuid4())
            wrong += client.send(calls.get_execution("p", wanted)).id != wanted
    return wrong


assert ask(3) == 0  # its connection is open when the children are made
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        try:
            wrong = ask(answers)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            wrong = 100
        os._exit(min(wrong, 100))
    children.append(child)
wrong = ask(answers // 10)  # and the parent goes on with its own
statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print(json.dumps([wrong, *statuses]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork()")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_of_2000_answers_in_two_forked_children_none_is_foreign(kind: str) -> None:
    def answer(request: Answering) -> None:
        if request.path == "/token":
            request.reply({"access_token": "t"})
        else:
            request.reply({**EXECUTION, "id": request.path.rpartition("/")[2]})

    with loopback_server(answer) as url:
        done = subprocess.run(
            [sys.executable, "-c", FORKED, url, kind, "1000"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert httpx.Response(200, content=done.stdout).json() == [0, 0, 0], done.stderr


def test_what_was_opened_before_a_fork_is_dropped_and_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(network.Network, "close", lambda self: closed.append(self))
    with loopback_server(reply_as_both) as url:
        client = CdfClient(settings(url, f"{url}/token"))
        client.send(READ)
        (parents,) = client._opened.values()
        monkeypatch.setattr(client_module, "os", SimpleNamespace(getpid=lambda: -1))
        client.send(READ)
        (childs,) = client._opened.values()
        client.close()
    assert childs is not parents
    assert closed == [childs]


def test_what_an_event_loop_opened_before_a_fork_is_dropped_and_not_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A loop itself may outlive a fork: made before it, and run on both sides."""
    closed = []

    async def close(self: network.AsyncNetwork) -> None:
        closed.append(self)

    async def ask(client: AsyncCdfClient) -> Any:
        await client.send(READ)
        return next(iter(client._opened.values()))

    monkeypatch.setattr(network.AsyncNetwork, "aclose", close)
    with loopback_server(reply_as_both) as url, asyncio.Runner() as runner:
        client = AsyncCdfClient(settings(url, f"{url}/token"))
        parents = runner.run(ask(client))
        monkeypatch.setattr(client_module, "os", SimpleNamespace(getpid=lambda: -1))
        childs = runner.run(ask(client))
        runner.run(client.close())
    assert childs is not parents
    assert closed == [childs]


# -- through proxies, or not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.2",
        "127.1.2.3",
        "::1",
        "0:0:0:0:0:0:0:1",
        "[::1]",
        "[0:0::1]",
        "localhost",
        "LocalHost",
    ],
)
def test_this_machine_by_any_name_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "10.0.0.1", "128.0.0.1", "0.0.0.0", "::2", "::", "localhost.evil.com", "127.0.0.1.evil.com"]
)
def test_other_machines_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A proxy that the environment names; the first lines of what it was sent. It answers 502 to all."""
    asked: list[str] = []
    over = threading.Event()

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(20)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                asked.append(head.decode().replace("\r\n", "\n"))
                connection.sendall(
                    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )

    with socket.create_server(("127.0.0.1", 0)) as server:
        for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        monkeypatch.setenv("all_proxy", f"http://user:pass@127.0.0.1:{server.getsockname()[1]}")
        yield asked
        over.set()
        server.shutdown(socket.SHUT_RDWR)
    thread.join(20)


def test_https_goes_through_the_proxy_of_the_environment(sender: Sender, proxy: list[str]) -> None:
    config = settings("https://cdf.invalid", "https://idp.invalid/token")
    with pytest.raises(CdfUnreachableError, match="HTTP 502; asked by way of the proxy") as caught:
        sender.send(None, READ, config)
    assert not caught.value.sent
    (head,) = proxy
    assert head.startswith("CONNECT idp.invalid:443 HTTP/1.1\n")
    assert "Proxy-Authorization: Basic dXNlcjpwYXNz" in head
    assert "pass" not in str(caught.value)


def test_permitted_plain_http_goes_through_the_proxy_of_the_environment(
    sender: Sender, proxy: list[str]
) -> None:
    with pytest.raises(CdfLoginError, match=r"token endpoint at idp\.invalid/token answered HTTP 502"):
        sender.send(None, READ, settings("http://cdf.invalid", "http://idp.invalid/token"))
    assert proxy[0].startswith("POST http://idp.invalid/token HTTP/1.1\n")


@pytest.mark.parametrize("excepted", [".invalid", "idp.invalid", "a.example, idp.invalid:443"])
def test_what_the_environment_excepts_goes_through_no_proxy(
    sender: Sender, proxy: list[str], monkeypatch: pytest.MonkeyPatch, excepted: str
) -> None:
    monkeypatch.setenv("no_proxy", excepted)
    with pytest.raises(CdfUnreachableError):
        sender.send(None, READ, settings("https://cdf.invalid", "https://idp.invalid/token"))
    assert proxy == []


@pytest.mark.parametrize("excepted", ["idp.invalid:8443", "10.0.0.0/8"])
def test_an_exception_for_another_port_or_a_range_is_none(
    sender: Sender, proxy: list[str], monkeypatch: pytest.MonkeyPatch, excepted: str
) -> None:
    monkeypatch.setenv("no_proxy", excepted)
    host = "10.1.2.3" if "/" in excepted else "idp.invalid"
    with pytest.raises(CdfUnreachableError, match="HTTP 502; asked by way of the proxy"):
        sender.send(None, READ, settings("https://cdf.invalid", f"https://{host}/token"))
    assert len(proxy) == 1


def test_an_exception_for_one_port_leaves_the_others_to_the_proxy(
    sender: Sender, proxy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each port is a server of its own, also for the pools of connections."""
    pools = network._Pools(httpcore.ConnectionPool, connections.Backend(), transport.tls)
    monkeypatch.setenv("no_proxy", "cdf.invalid:8443,[2001:db8::1]:8443,2001:db8::2")
    proxied = {
        url: pools.pool_for(httpx.URL(url))._proxy is not None
        for url in (
            *("https://cdf.invalid:8443", "https://cdf.invalid", "https://cdf.invalid:9443"),
            *("https://[2001:db8::1]:8443", "https://[2001:db8::1]", "https://[2001:db8::2]:8443"),
        )
    }
    assert list(proxied.values()) == [False, True, True, False, True, False]


@pytest.mark.parametrize("host", ["127.0.0.2", "127.1.2.3", "[0:0:0:0:0:0:0:1]", "localhost"])
def test_nothing_for_this_machine_goes_through_a_proxy(sender: Sender, proxy: list[str], host: str) -> None:
    """Plain http is permitted there, and a proxy would see the secret in clear text."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://{host}:{unused.getsockname()[1]}"
        with pytest.raises(CdfUnreachableError):
            sender.send(None, READ, settings(url, f"{url}/token"))
    assert proxy == []


@pytest.mark.parametrize("named", ["socks5://user:pass@127.0.0.1:1", "SOCKS5H://127.0.0.1:1"])
def test_a_socks_proxy_without_its_package_is_named_and_nothing_was_sent(
    sender: Sender, proxy: list[str], monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    try:
        httpx.Proxy(named)
    except ValueError:
        pytest.skip("this httpx does not know socks5h")
    monkeypatch.setattr(proxies, "find_spec", lambda _: None)
    monkeypatch.setenv("all_proxy", named)
    call = calls.update_task("p", TASK_ID, "COMPLETED")
    with pytest.raises(CdfUnreachableError, match=r"the proxy socks5h?://127.0.0.1:1.*socksio") as caught:
        sender.send(None, call, settings("https://cdf.invalid", "https://idp.invalid/token"))
    assert not caught.value.sent
    assert "Nothing was sent to CDF." in str(caught.value)
    assert "user" not in str(caught.value)


@pytest.mark.parametrize("named", ["ftp://proxy", "http://[::1", "http://proxy:port"])
def test_a_proxy_that_is_none_is_one_of_our_errors(
    sender: Sender, proxy: list[str], monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("all_proxy", named)
    with pytest.raises(CdfUnreachableError, match="the proxy that the environment names") as caught:
        sender.send(None, READ, settings("https://cdf.invalid", "https://idp.invalid/token"))
    assert not caught.value.sent


# -- certificates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_ca_bundle_that_cannot_be_read_is_named(sender: Sender, tmp_path: Any, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CdfConnectionError, match=r"its CA bundle 'ca.pem' cannot be read"):
        sender.send(None, READ, settings(ca_bundle=str(path)))


def test_certificates_are_read_once_a_process_and_checked() -> None:
    context = transport.tls()
    assert transport.tls() is context
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def certificate_for(pair: Pair, folder: Path) -> ssl.SSLContext:
    """Return what a server shows that has this certificate."""
    (folder / "certificate.pem").write_text(pair.certificate_pem())
    (folder / "key.pem").write_text(pair.pem())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize("is_of_the_environment", [False, True], ids=["verify", "SSL_CERT_FILE"])
def test_a_ca_bundle_that_is_renewed_on_disk_is_read_again_by_the_same_client(
    sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_of_the_environment: bool
) -> None:
    bundle = tmp_path / "ca.pem"
    pair = Pair(names=["localhost"])
    renewals = {
        "that of another": Pair(names=["localhost"]).certificate_pem(),
        "half done": "no certificate",
        "the right one": pair.certificate_pem(),
    }
    came: list[str] = []
    if is_of_the_environment:
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with loopback_server(reply_as_both, tls=certificate_for(pair, tmp_path)) as url, asyncio.Runner() as loop:
        config = settings(url, f"{url}/token", ca_bundle=None if is_of_the_environment else str(bundle))
        client: Any = AsyncCdfClient(config) if sender.is_async else CdfClient(config)

        def wait_for(sent: Any) -> Any:
            return loop.run(sent) if sender.is_async else sent

        for changed_at, content in enumerate(renewals.values()):
            bundle.write_text(content)
            os.utime(bundle, (changed_at, changed_at))
            monkeypatch.setattr(auth, "_shared", {})  # a login that failed is not tried again at once
            try:
                came.append(wait_for(client.send(READ)).id)
            except CdfUnreachableError as error:
                came.append("refused" if "certificate verify failed" in str(error) else str(error))
        wait_for(client.close())
    assert came == ["refused", "refused", EXECUTION_ID]


# -- logs of the libraries -----------------------------------------------------------------------------------


def test_the_log_of_other_users_of_httpcore_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with loopback_server(reply_as_both) as url, caplog.at_level(logging.DEBUG):
        httpx.get(f"{url}/executions", trust_env=False)
    assert any("receive_response_headers.complete return_value" in line for line in caplog.messages)


def test_the_log_of_httpcore_tells_what_happens_and_not_what_servers_say(
    sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    with loopback_server(reply_as_both) as url, caplog.at_level(logging.DEBUG):
        sender.send(None, READ, settings(url, f"{url}/token"))
    assert "receive_response_headers.complete" in caplog.messages
    assert not [line for line in caplog.messages if "return_value" in line]
    assert clock.now() > 0


# -- cancellation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["while it connects", "while it reads"])
def test_a_cancellation_that_something_below_forgets_ends_the_request(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As anyio does on Python 3.12, in the moment in which a connection is made."""
    backend, method = (
        (httpcore.AnyIOBackend, "connect_tcp")
        if where == "while it connects"
        else (connections.AsyncStream, "read")
    )
    real = getattr(backend, method)
    forgotten: list[str] = []
    asked: list[str] = []

    async def forgets(*arguments: Any, **options: Any) -> Any:
        done = await real(*arguments, **options)
        if not forgotten:
            forgotten.append(method)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(60)
        return done

    def answer(request: Answering) -> None:
        asked.append(request.path)
        request.reply({"access_token": "t"} if request.path == "/token" else EXECUTION)

    async def read() -> None:
        nonlocal reading
        with loopback_server(answer) as url:
            async with AsyncCdfClient(settings(base_url=url, token_url=f"{url}/token")) as client:
                reading = asyncio.create_task(client.send(READ))
                await asyncio.wait([reading])

    reading: asyncio.Task[Any]
    monkeypatch.setattr(backend, method, forgets)
    asyncio.run(read())
    assert reading.cancelled()
    assert asked == ([] if where == "while it connects" else ["/token"])
