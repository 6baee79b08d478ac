"""
The fault matrix: everything that can go wrong with every call, in both clients, against the emulator.

Time stands still, and a pause of the client moves it, in the client and in the emulator alike. Only a request
that gets no answer takes real time. The table is printed at the end of the run: for each cell how often the
emulator did the work, and "ok" or the class of the error.
"""

from __future__ import annotations

import asyncio
import socket
import time as real_time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import httpx
import pytest
from support import Project, function_task

from airflow_provider_cdf.cdf import auth, calls, clock, conversations, reports
from airflow_provider_cdf.cdf.client import AsyncCdfClient, CdfClient
from airflow_provider_cdf.cdf.errors import (
    CdfAnswerError,
    CdfApiError,
    CdfError,
    CdfLoginError,
    CdfRefusedError,
    CdfReportRefusedError,
    CdfSessionError,
    CdfUnreachableError,
)
from airflow_provider_cdf.cdf.logins.clients import ClientCredentials
from airflow_provider_cdf.cdf.settings import Settings
from airflow_provider_cdf.emulator import CdfEmulator, ManualClock
from airflow_provider_cdf.emulator.rules.engine import Engine

pytestmark = pytest.mark.slow

TITLE = "fault matrix, sync and async alike: how often the emulator did it, and how it ended"
#: Seconds, the only real ones: after the first the client gives up, after the second the emulator goes on.
SHORT, LONG = 0.25, 0.5
FOREVER = 10_000

#: By call: the requests that the fault happens to.
CALLS = {
    "create session": ("POST", "*/sessions"),
    "run": ("POST", "*/run"),
    "get": ("GET", "*/executions/*"),
    "list": ("POST", "*/executions/list"),
    "cancel": ("POST", "*/cancel"),
    "retry": ("POST", "*/retry"),
    "update": ("POST", "*/update"),
}
TOKEN = ("POST", "/oauth2/token")
READS = ("get", "list")
WRITES = ("run", "cancel", "retry", "update")


class Time:
    """A clock that only pauses move; the emulator's goes with it."""

    def __init__(self, cdf: CdfEmulator) -> None:
        self.cdf = cdf
        self.seconds = 1000.0
        self.pauses: list[float] = []

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.seconds += seconds
        self.cdf.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


@dataclass
class Wire:
    """What goes wrong on the client's side of the wire, to the next requests that match."""

    closed_port: int
    refuse: tuple[str, str] | None = None
    empty: tuple[str, str] | None = None
    times: int = 0

    def hits(self, what: tuple[str, str] | None, request: httpx.Request) -> bool:
        matches = what is not None and request.method == what[0] and fnmatchcase(request.url.path, what[1])
        if not matches or not self.times:
            return False
        self.times -= 1
        return True

    def prepare(self, request: httpx.Request) -> bool:
        """Lead a request to where nobody listens; return whether its answer is to lose its body."""
        if self.hits(self.refuse, request):
            request.url = request.url.copy_with(port=self.closed_port)
        return self.hits(self.empty, request)


class Transport(httpx.HTTPTransport):
    def __init__(self, wire: Wire) -> None:
        super().__init__(trust_env=False)
        self.wire = wire

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        empty = self.wire.prepare(request)
        try:
            response = super().handle_request(request)
        finally:
            request.url = url
        if empty:
            response.read()
            return httpx.Response(response.status_code)
        return response


class AsyncTransport(httpx.AsyncHTTPTransport):
    def __init__(self, wire: Wire) -> None:
        super().__init__(trust_env=False)
        self.wire = wire

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        empty = self.wire.prepare(request)
        try:
            response = await super().handle_async_request(request)
        finally:
            request.url = url
        if empty:
            await response.aread()
            return httpx.Response(response.status_code)
        return response


@dataclass
class World:
    """One cell's emulator, clock and wire, and how often the emulator did the work."""

    cdf: CdfEmulator
    time: Time
    wire: Wire
    call: str
    workflow: str
    #: How often the emulator has changed something for a client, by method.
    done: Counter[str] = field(default_factory=Counter)
    #: How many of the next sessions are to be older than they should be.
    expired: int = 0

    def watch(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count what the emulator does, and let sessions be old."""

        def counted(name: str) -> Callable[..., Any]:
            original = getattr(engine, name)

            def method(*args: Any, **kwargs: Any) -> Any:
                # A second cancellation is answered as the first, and changes nothing.
                changes = name != "cancel" or engine.execution(args[0]).status == "RUNNING"
                result = original(*args, **kwargs)
                self.done[name] += changes
                return result

            return method

        for name in ("run", "cancel", "retry", "update_task"):
            monkeypatch.setattr(engine, name, counted(name))
        create = engine.sessions.create

        def create_session(*args: Any, **kwargs: Any) -> Any:
            session = create(*args, **kwargs)
            if self.expired:
                self.expired -= 1
                session.creation_time -= 61_000
            return session

        monkeypatch.setattr(engine.sessions, "create", create_session)

    def operation(self) -> Callable[[Settings], Any]:
        """Prepare what the call needs, and return the conversation or call that makes it."""
        if self.call in ("create session", "run"):
            return lambda settings: conversations.run_workflow(settings, self.workflow, "1")
        with self.cdf.turn() as engine:
            execution = engine.run(self.workflow, "1")
        self.cdf.advance(1)
        (task,) = execution.tasks()
        assert task.status == "IN_PROGRESS"
        if self.call == "retry":
            with self.cdf.turn() as engine:
                engine.update_task(task.id, "FAILED")
        return {
            "get": lambda settings: calls.get_execution(settings.project, execution.id),
            "list": lambda settings: calls.list_executions(settings.project),
            "cancel": lambda settings: conversations.cancel_execution(settings, execution.id),
            "retry": lambda settings: conversations.retry_execution(settings, execution.id),
            "update": lambda settings: reports.update_task(
                settings, task.id, "completed", {"risk": 1}, execution_id=execution.id
            ),
        }[self.call]

    def perform(self, operation: Callable[[Settings], Any], *, is_async: bool, timeout: float) -> None:
        """Do it with one of the two clients."""
        settings = Settings(
            base_url=self.cdf.url,
            project=self.cdf.project,
            credentials=ClientCredentials(self.cdf.token_url, self.cdf.client_id, self.cdf.client_secret),
            request_timeout=timeout,
        )
        method = "send" if self.call in READS else "perform"

        async def perform() -> None:
            async with AsyncCdfClient(settings) as client:
                vars(client)["_transport"] = lambda: AsyncTransport(self.wire)
                await getattr(client, method)(operation(settings))

        if is_async:
            asyncio.run(perform())
        else:
            with CdfClient(settings) as client:
                vars(client)["_transport"] = lambda: Transport(self.wire)
                getattr(client, method)(operation(settings))

    def settle(self) -> None:
        """Wait until the emulator has dealt with the slow request too, whose answer nobody waits for."""
        slow = self.cdf.journal.requests(*CALLS[self.call])[0]
        for _ in range(1000):
            if slow.status is not None:
                return
            real_time.sleep(0.01)
        raise AssertionError(f"still not answered: {slow}")

    def fault(self, times: int, **what: Any) -> None:
        self.cdf.faults.add(*CALLS[self.call], times=times, **what)


Fault = Callable[[World, int], None]


def refuse(where: tuple[str, str] | None = None) -> Fault:
    def fault(world: World, times: int) -> None:
        world.wire.refuse, world.wire.times = where or CALLS[world.call], times

    return fault


def empty(world: World, times: int) -> None:
    world.wire.empty, world.wire.times = CALLS[world.call], times


def at_call(**what: Any) -> Fault:
    return lambda world, times: world.fault(times, **what)


def at_login(**what: Any) -> Fault:
    return lambda world, times: world.cdf.faults.add(*TOKEN, times=times, **what)


def expire(world: World, times: int) -> None:
    world.expired = times


def lag(world: World, times: int) -> None:
    world.fault(1, drop="after")
    with world.cdf.turn() as engine:
        engine.hide_new_executions(50)


FAULTS: dict[str, Fault] = {
    "connection refused": refuse(),
    "reset before the work": at_call(drop="before"),
    "reset after the work": at_call(drop="after"),
    "read timeout": at_call(delay=LONG, drop="before"),
    "401": at_call(status=401),
    "403": at_call(status=403),
    "429": at_call(status=429),
    "429 with Retry-After": at_call(status=429, retry_after=7),
    "500": at_call(status=500),
    "502": at_call(status=502),
    "503": at_call(status=503),
    "truncated body": at_call(spoil="truncate"),
    "not JSON": at_call(spoil="not-json"),
    "empty body": empty,
    "done after our timeout": at_call(delay=LONG),
    "expired nonce": expire,
    "token endpoint down": refuse(TOKEN),
    "token endpoint 503": at_login(status=503),
    "token endpoint says HTML": at_login(spoil="not-json"),
    "not in the list yet": lag,
}
SLOW = ("read timeout", "done after our timeout")
#: Faults that a request survives in CDF: the work is done, but the answer is not readable.
DONE_BUT_LOST = ("reset after the work", "truncated body", "not JSON", "empty body")


def expected(fault: str, call: str, for_good: bool) -> type[CdfError] | None:
    """The class of the error that a cell ends in; ``None`` for success."""
    if call == "update" and fault in ("401", "403"):
        # The task still waits, so it was not refused because of its state.
        return CdfReportRefusedError if for_good else None
    if fault == "403":
        return CdfRefusedError
    if not for_good:
        return None
    if call in WRITES and (fault in DONE_BUT_LOST or fault == "not in the list yet"):
        return None  # the look-up finds that it is done
    if fault == "expired nonce":
        return CdfRefusedError
    if fault in ("token endpoint 503", "token endpoint says HTML"):
        return CdfLoginError
    if fault in ("401", "429", "429 with Retry-After"):
        return CdfApiError
    if call == "create session" and fault not in ("connection refused", "token endpoint down"):
        return CdfSessionError  # whether there is one is not known, and it does not matter
    if fault in ("500", "502", "503"):
        return CdfUnreachableError if call in WRITES else CdfApiError  # a write: it stays unknown
    if fault in ("not JSON", "empty body"):
        return CdfAnswerError
    return CdfUnreachableError


def cells() -> Iterator[Any]:
    for fault in FAULTS:
        for call in CALLS:
            if fault == "expired nonce" and call not in ("run", "retry"):
                continue
            if fault == "not in the list yet" and call != "run":
                continue
            yield pytest.param(fault, call, False, id=f"{call}-{fault}-once")
            # The two that take real time are, for good, what "reset" is.
            if fault not in SLOW and fault != "not in the list yet":
                yield pytest.param(fault, call, True, id=f"{call}-{fault}-for good")


@pytest.fixture(scope="module")
def emulator() -> Iterator[CdfEmulator]:
    today = ManualClock(round(real_time.time() * 1000))
    with CdfEmulator(clock=today, max_concurrent_executions=10_000) as cdf:
        yield cdf


@pytest.fixture(scope="module")
def workflow(emulator: CdfEmulator) -> str:
    """A workflow whose task waits for a report."""
    return Project(emulator).define(function_task("approve", waits=True))


@pytest.fixture
def world(
    emulator: CdfEmulator, workflow: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    time = Time(emulator)
    for name in ("now", "sleep", "asleep"):
        monkeypatch.setattr(clock, name, getattr(time, name))
    monkeypatch.setattr(auth, "_shared", {})
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        world = World(emulator, time, Wire(unused.getsockname()[1]), call, workflow)
        with emulator.turn() as engine:
            world.watch(engine, monkeypatch)
        yield world
    emulator.faults.clear()
    emulator.journal.clear()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("fault", "call", "for_good"), list(cells()))
def test_cell(
    world: World,
    record_property: Callable[[str, object], None],
    fault: str,
    call: str,
    for_good: bool,
    is_async: bool,
) -> None:
    operation = world.operation()
    world.done.clear()
    FAULTS[fault](world, FOREVER if for_good else 1)

    error: CdfError | None = None
    try:
        world.perform(operation, is_async=is_async, timeout=SHORT if fault in SLOW else 10)
    except CdfError as caught:
        error = caught
    if fault == "done after our timeout":
        world.settle()

    did = sum(world.done.values())
    outcome = "ok" if error is None else type(error).__name__.removeprefix("Cdf").removesuffix("Error")
    row = f"{fault}, {'for good' if for_good else 'once'}"
    record_property("cell", (TITLE, row, call, outcome if call in READS else f"{did} {outcome}"))

    if not for_good:
        did_not_happen = [*world.cdf.faults.waiting(), *[world.wire] * world.wire.times, *[0] * world.expired]
        assert did_not_happen == []
    # What was meant to happen has happened exactly once, and what is said to have failed has not happened.
    assert did == (0 if call in READS or error is not None else 1), error
    wanted = expected(fault, call, for_good)
    assert type(error) is (wanted or type(None)), error
    if "Retry-After" in fault and error is None:
        assert max(world.time.pauses) >= 7
    if call in WRITES and isinstance(error, CdfUnreachableError):
        assert str(error).count("It is not known") == (1 if error.sent else 0)
        assert ("To find out, look" in str(error)) is error.sent
