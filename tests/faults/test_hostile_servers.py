"""
The second table: every call, in both clients, to a server that is hostile to it for good.

The fault matrix is about servers that fail. Here requests take real time, and pauses take none. The table is
printed at the end of the run, the worse of both clients in each cell: how often CDF did the work, "ok" or the
class of the error, seconds, and megabytes; of large answers that are accepted, how many times their size.
"""

from __future__ import annotations

import asyncio
import base64
import html
import json
import logging
import time as real_time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from cdf.cdf_support import EXECUTION, EXECUTION_ID, TASK, Sender, loopback_server, settings
from cdf.hostile_server import HOSTILITIES, Gateway, hostile_gateway
from support import Project, function_task
from test_fault_matrix import CALLS, READS, TOKEN, WRITES, Time, Wire, World

from airflow_provider_cdf.cdf import auth, calls, clock, conversations
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
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.emulator.rules.clock import ManualClock

pytestmark = pytest.mark.slow

TITLE = "hostile servers, the worse of sync and async"
#: Seconds for one request to a server that never ends, and to one that does.
SHORT, LONG = 0.3, 30.0
#: What a busy machine may add to a cell, seconds.
SLACK = 15.0
MEGABYTE = 1024 * 1024
ROWS = {**CALLS, "token": TOKEN}
#: They go on until the time for the request is over; the others end, or are too large, before.
WITHOUT_END = (
    *("drips its body", "drips its headers", "drips 103s", "floods with 103s", "says nothing", "tiny chunks"),
)


class RunningTime(Time):
    """A clock that runs, as deadlines need it, and skips pauses."""

    def now(self) -> float:
        return real_time.monotonic() + self.seconds


@dataclass
class Cell:
    """One call to one hostile server."""

    world: World
    gateway: Gateway

    def perform(self, operation: Callable[[Settings], Any], *, is_async: bool, timeout: float) -> None:
        settings = Settings(
            base_url=self.gateway.url,
            project=self.world.cdf.project,
            credentials=ClientCredentials(
                f"{self.gateway.url}/oauth2/token", self.world.cdf.client_id, self.world.cdf.client_secret
            ),
            request_timeout=timeout,
            retry_for=3,
        )
        method = "send" if self.world.call == "get" else "perform"

        async def perform() -> None:
            async with AsyncCdfClient(settings) as client:
                await getattr(client, method)(operation(settings))

        if is_async:
            asyncio.run(perform())
        else:
            with CdfClient(settings) as client:
                getattr(client, method)(operation(settings))


@pytest.fixture(scope="module")
def emulator() -> Iterator[CdfEmulator]:
    today = ManualClock(round(real_time.time() * 1000))
    with CdfEmulator(clock=today, max_concurrent_executions=10_000) as cdf:
        yield cdf


@pytest.fixture(scope="module")
def gateway(emulator: CdfEmulator) -> Iterator[Gateway]:
    with hostile_gateway(emulator.url) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def workflow(emulator: CdfEmulator) -> str:
    return Project(emulator).define(function_task("approve", waits=True))


@pytest.fixture
def nonces(emulator: CdfEmulator, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The nonces that CDF has given."""
    nonces: list[str] = []
    with emulator.turn() as engine:
        create = engine.sessions.create

        def create_session(*args: Any, **kwargs: Any) -> Any:
            session = create(*args, **kwargs)
            nonces.append(session.nonce)
            return session

        monkeypatch.setattr(engine.sessions, "create", create_session)
    return nonces


@pytest.fixture
def cell(
    emulator: CdfEmulator, gateway: Gateway, workflow: str, row: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cell]:
    time = RunningTime(emulator)
    for name in ("now", "sleep", "asleep"):
        monkeypatch.setattr(clock, name, getattr(time, name))
    monkeypatch.setattr(auth, "_shared", {})
    world = World(emulator, time, Wire(0), "get" if row == "token" else row, workflow)
    with emulator.turn() as engine:
        world.watch(engine, monkeypatch)
    yield Cell(world, gateway)
    gateway.rest()
    emulator.journal.clear()


# -- what must not come out -------------------------------------------------------------------------------


def forms(secret: str) -> set[str]:
    """A secret as servers, and whoever logs them, write it. Written down here anew, on purpose."""
    packed = set()
    for before in (b"", b"x", b"xx", b"the-client:"):
        # Without the ends, which depend on what is beside it.
        packed.add(base64.b64encode(before + secret.encode())[len(before) + 4 : -4].decode())
    in_json = json.dumps(secret)[1:-1]
    return packed | {
        *(secret, quote(secret, safe=""), quote_plus(secret), quote(secret, safe="").lower(), in_json),
        *(json.dumps(in_json)[1:-1], secret.replace("/", "\\/"), html.escape(secret), secret.encode().hex()),
        "".join(f"\\u{ord(character):04x}" for character in secret),
    }


def everything_of(error: BaseException | None) -> Iterator[str]:
    """What a tool shows of an error: its words, and the local variables of its frames in this package."""
    seen: set[int] = set()
    errors = [error]
    while errors:
        one = errors.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield from (str(one), repr(one), repr(one.args), repr(vars(one)))
        frame = one.__traceback__
        while frame is not None:
            if __file__ not in frame.tb_frame.f_code.co_filename:
                for name, value in list(frame.tb_frame.f_locals.items()):
                    yield f"{frame.tb_frame.f_code.co_qualname}: {name} = {value!r}"
            frame = frame.tb_next
        errors += [one.__cause__, one.__context__]


# -- the cells --------------------------------------------------------------------------------------------


def expected(column: str, row: str) -> type[CdfError] | None:
    """The class of the error that a cell ends in; ``None`` for success."""

    def session_or(lost: type[CdfError]) -> type[CdfError]:
        return CdfSessionError if row == "create session" else lost

    if column == "sends it twice":
        return None
    if column in (*WITHOUT_END, "no HTTP", "large headers"):
        return None if row in WRITES else session_or(CdfUnreachableError)
    if row == "token":
        return CdfLoginError
    if column == "echo, page":
        return CdfUnreachableError if row in WRITES else session_or(CdfApiError)
    if column in ("endless, 400", "echo, status line"):  # no words of CDF: a gateway's
        return CdfReportRefusedError if row == "update" else CdfApiError
    if column.startswith("echo, "):
        return CdfReportRefusedError if row == "update" else CdfRefusedError
    if row in WRITES:
        return None  # the work was done, and is found
    return session_or(CdfApiError if "503" in column or "charset" in column else CdfAnswerError)


def cells() -> Iterator[Any]:
    for column in HOSTILITIES:
        for row in ROWS:
            if column == "wrong id" and row in ("create session", "list", "token"):
                continue
            if column == "endless cursor" and row != "list":
                continue
            yield pytest.param(column, row, id=f"{row}-{column}")


@pytest.mark.parametrize(("column", "row"), list(cells()))
def test_cell(
    cell: Cell,
    nonces: list[str],
    column: str,
    row: str,
    record_property: Callable[[str, object], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    timeout = SHORT if column in WITHOUT_END else LONG
    worst = [0.0, 0.0]
    outcomes = set()
    for is_async in (False, True):
        operation = cell.world.operation()
        if row == "list":
            operation = conversations.list_executions  # all pages
        cell.world.done.clear()
        auth._shared.clear()
        caplog.clear()
        cell.gateway.harm(ROWS[row], HOSTILITIES[column])

        error: CdfError | None = None
        begun = real_time.monotonic()
        tracemalloc.start()
        try:
            cell.perform(operation, is_async=is_async, timeout=timeout)
        except CdfError as caught:
            error = caught
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        took = real_time.monotonic() - begun
        cell.gateway.rest()
        assert cell.gateway.count, "the gateway was not asked"

        secrets = [
            cell.world.cdf.client_secret,
            *(token for login in auth._shared.values() for token in login.known_tokens),
            *nonces,
        ]
        shown = "\n".join([*everything_of(error), caplog.text])
        for secret in secrets:
            found = [form for form in forms(secret) if form in shown]
            assert not found, f"{shown[max(0, shown.index(found[0]) - 300) :][:600]!r} shows {secret}"
        assert all(character.isprintable() for character in str(error))

        did = sum(cell.world.done.values())
        outcome = "ok" if error is None else type(error).__name__.removeprefix("Cdf").removesuffix("Error")
        outcomes.add(outcome if row in (*READS, "token") else f"{did} {outcome}")
        worst = [max(worst[0], took), max(worst[1], peak / MEGABYTE)]
        wanted = expected(column, row)
        assert type(error) is (wanted or type(None)), error
        if row in WRITES:
            assert did == 1 or (error is not None and did == 0), error
        assert took < cell.gateway.count * timeout + SLACK
        assert peak < 100 * MEGABYTE
    text = f"{'/'.join(sorted(outcomes))} {worst[0]:.1f} s {worst[1]:.0f} MB"
    record_property("cell", (TITLE, column, row, text))


# -- large, and accepted ----------------------------------------------------------------------------------


def execution_of(*outputs: dict[str, Any]) -> dict[str, Any]:
    function = {"externalId": "score_pump", "data": {"pump": "P-101"}, "isAsyncComplete": True}
    task = {**TASK, "status": "COMPLETED", "startTime": 10**12, "endTime": 10**12, "input": function}
    definition = {"externalId": "score", "type": "function", "parameters": {"function": function}}
    return {
        **EXECUTION,
        "executedTasks": [{**task, "output": output} for output in outputs],
        "workflowDefinition": {"hash": "4f", "tasks": [definition] * len(outputs)},
    }


#: By what is much in it: who asks, and what the answer holds.
ACCEPTED: dict[str, tuple[str, calls.Call[Any], Callable[[], dict[str, Any]]]] = {
    "2 000 tasks": (
        "get",
        calls.get_execution("p", EXECUTION_ID),
        lambda: execution_of(*[{"callId": n, "response": {"risk": n / 7}} for n in range(2000)]),
    ),
    "an output of 2 MB": (
        "get",
        calls.get_execution("p", EXECUTION_ID),
        lambda: execution_of({"series": [{"time": 10**12 + n, "value": n / 7} for n in range(50_000)]}),
    ),
    "a page of 1 000": (
        "list",
        calls.list_executions("p"),
        lambda: {
            "items": [
                {**EXECUTION, "metadata": {f"key-{pair}": f"{n}" * 20 for pair in range(10)}}
                for n in range(calls.PAGE_SIZE)
            ]
        },
    ),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_an_accepted_answer_costs_at_most_15_times_its_size(
    what: str, record_property: Callable[[str, object], None]
) -> None:
    row, call, answer = ACCEPTED[what]
    content = json.dumps(answer()).encode()
    token = json.dumps({"access_token": "a-token", "expires_in": 3600}).encode()

    def reply(request: Any) -> None:
        said = token if request.path == "/token" else content
        request.send_response(200)
        request.send_header("Content-Length", str(len(said)))
        request.end_headers()
        request.wfile.write(said)

    times = 0.0
    with loopback_server(reply) as url:
        for is_async in (False, True):
            sender, config = Sender(is_async), settings(url, f"{url}/token")
            sender.send(None, call, config)  # what the first one loads is no matter here
            tracemalloc.start()
            try:
                sender.send(None, call, config)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            times = max(times, peak / len(content))
    record_property(
        "cell", (TITLE, f"{what}, {len(content) / MEGABYTE:.1f} MB", row, f"ok, {times:.1f} times")
    )
    assert times <= 15
