"""
What waiting triggers cost: requests, CPU, memory, the event loop's lag, and the delay of an event.

Each case is a process of its own, with Airflow's TriggerRunner and so many triggers, beside a CDF in another
process. ``performance.py`` runs them all.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import httpx
import psutil
import structlog
from canned_cdf import PROJECT, canned_cdf, execution_id

#: What a user would use instead, and what is needed for it.
RIVALS = {
    "httpx": "one httpx.AsyncClient for each trigger",
    "http": "HttpSensorTrigger of apache-airflow-providers-http",
    "sdk": "one AsyncCogniteClient of cognite-sdk for each trigger",
}
#: Triggers that do nothing: what Airflow itself, and looking at it, cost.
NOTHING = "nothing"
OURS = {"workflow": "CdfWorkflowTrigger", "task": "CdfTaskTrigger"}


@dataclass
class Case:
    """:param how: one of :data:`OURS` or :data:`RIVALS`, or :data:`NOTHING`."""

    how: str
    number: int
    interval: float = 5.0
    intervals: int = 2
    #: How often one process is measured, for so many intervals each.
    windows: int = 2
    executions: int = 1000
    connections: int = 1
    tasks: int = 3
    output: int = 100
    kind: str = "objects"
    #: How many executions begin to wait for a report while we look, for the delay.
    begun: int = 0


@dataclass
class Result:
    requests_per_interval: float
    cpu_percent: float
    #: MB, and KB for each trigger, if there are many.
    peak: float
    each: float
    #: Milliseconds.
    lag_p50: float
    lag_p99: float
    lag_max: float
    #: The most that this process itself did between two turns of the event loop, milliseconds of CPU; and how
    #: much of it Python searched for garbage.
    turn: float
    garbage: float
    #: Milliseconds from the IN_PROGRESS of a task to the event, mean; 0 if not measured.
    delay: float = 0.0


def measure(*cases: Case) -> list[list[Result]]:
    """Run some cases at once, each beside a CDF of its own; return what each window of each has shown."""
    with ExitStack() as stack:
        programs = [stack.enter_context(_started(case)) for case in cases]
        for program in programs:
            assert program.stdout is not None
            while (line := program.stdout.readline()) != "ready\n":
                assert line, "a case has failed"
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        said = [json.loads(program.communicate()[0].splitlines()[-1]) for program in programs]
        return [[Result(**window) for window in windows] for windows in said]


@contextmanager
def _started(case: Case) -> Iterator[subprocess.Popen[str]]:
    with canned_cdf(case.executions, tasks=case.tasks, output=case.output, kind=case.kind) as url:
        command = [sys.executable, __file__, url, json.dumps(asdict(case))]
        env, pipe = _environment(url, case), subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) as program:
            try:
                yield program
            finally:
                program.kill()


def can_be_measured(how: str) -> bool:
    """Whether what a case needs is installed."""
    needs = {"http": "import airflow.providers.http.triggers.http", "sdk": "import cognite.client"}
    command = [sys.executable, "-c", needs.get(how, "pass")]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def _environment(url: str, case: Case) -> dict[str, str]:
    extra = {"project": "plant", "login_url": f"{url}/oauth2/token"}
    connection = {"conn_type": "cdf", "host": url, "login": "client", "password": "secret", "extra": extra}
    env = {
        f"AIRFLOW_CONN_CDF_{number}": json.dumps({**connection, "login": f"client-{number}"})
        for number in range(case.connections)
    }
    return {**os.environ, **env, "AIRFLOW_CONN_HTTP_CDF": json.dumps({"conn_type": "http", "host": url})}


# -- in the process of a case ---------------------------------------------------------------------------


def _triggers(case: Case, url: str) -> list[Any]:
    from airflow.triggers.base import BaseTrigger, TriggerEvent

    class Rival(BaseTrigger):
        def __init__(self, one: str) -> None:
            super().__init__()
            self.one = one

        def serialize(self) -> tuple[str, dict[str, Any]]:
            return f"{__name__}.{type(self).__name__}", {}

    class IdleTrigger(Rival):
        async def run(self) -> AsyncIterator[TriggerEvent]:
            await asyncio.Event().wait()
            yield TriggerEvent({})

    class HttpxTrigger(Rival):
        # With one for each, a thousand would take half a minute to start, and 900 MB.
        tls = ssl.create_default_context()

        async def run(self) -> AsyncIterator[TriggerEvent]:
            common = {"headers": {"Authorization": "Bearer token"}, "timeout": 30, "verify": self.tls}
            async with httpx.AsyncClient(base_url=url, **common) as client:
                while True:
                    answer = await client.get(f"{PROJECT}/executions/{self.one}")
                    if answer.json()["status"] != "RUNNING":
                        yield TriggerEvent({})
                        return
                    await asyncio.sleep(case.interval)

    class SdkTrigger(Rival):
        async def run(self) -> AsyncIterator[TriggerEvent]:
            from cognite.client import AsyncCogniteClient, ClientConfig
            from cognite.client.credentials import Token

            config = ClientConfig(
                client_name="bench", project="plant", base_url=url, credentials=Token("token")
            )
            client = AsyncCogniteClient(config)
            while True:
                found = await client.workflows.executions.retrieve_detailed(self.one)
                if found is None or found.status != "running":
                    yield TriggerEvent({})
                    return
                await asyncio.sleep(case.interval)

    def make(number: int) -> Any:
        one = execution_id(number % case.executions)
        conn_id = f"cdf_{number % case.connections}"
        if case.how == "workflow":
            from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger

            end = time.time() + 7 * 86_400
            return CdfWorkflowTrigger(
                cdf_conn_id=conn_id, execution_id=one, poll_interval=case.interval, end_time=end
            )
        if case.how == "task":
            from airflow_provider_cdf.triggers.task import CdfTaskTrigger

            return CdfTaskTrigger(
                cdf_conn_id=conn_id,
                execution_id=one,
                poll_interval=case.interval,
                end_time=time.time() + 7 * 86_400,
                task_external_id="wait",
            )
        if case.how == "http":
            from airflow.providers.http.triggers.http import HttpSensorTrigger

            # A 404 means "not yet" to it.
            return HttpSensorTrigger(
                endpoint=f"{PROJECT}/executions/not-yet-{number}",
                http_conn_id="http_cdf",
                poke_interval=case.interval,
                method="GET",
            )
        kinds: dict[str, type[Rival]] = {NOTHING: IdleTrigger, "httpx": HttpxTrigger, "sdk": SdkTrigger}
        return kinds[case.how](one)

    return [make(number) for number in range(case.number)]


class Lag:
    """How late a coroutine gets its turn that wants one every 10 ms."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.turns: list[float] = []
        self.garbage = [0.0]
        self._began = 0.0

    async def watch(self) -> None:
        gc.callbacks.append(self._collecting)
        try:
            while True:
                began, used = time.perf_counter(), time.thread_time()
                await asyncio.sleep(0.01)
                self.late.append((time.perf_counter() - began - 0.01) * 1000)
                self.turns.append((time.thread_time() - used) * 1000)
        finally:
            gc.callbacks.remove(self._collecting)

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.garbage.append((time.thread_time() - self._began) * 1000)


async def _run(case: Case, url: str) -> list[Result]:
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    # What each trigger logs once is the same for all, and not what is measured.
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    runner = TriggerRunner()
    me = psutil.Process()
    ended: dict[int, float] = {}
    running: list[asyncio.Task[None]] = []

    def start(trigger: Any) -> None:
        trigger_id = len(running)
        runner.triggers[trigger_id] = {"name": str(trigger_id), "events": 0, "is_watcher": False}  # type: ignore
        one = asyncio.create_task(runner.run_trigger(trigger_id, trigger))
        one.add_done_callback(lambda _: ended.setdefault(trigger_id, time.time()))
        running.append(one)

    first, *others = _triggers(case, url)
    start(first)
    await asyncio.sleep(3)  # what it imports and opens for all is not counted for each
    gc.collect()
    before = me.memory_info().rss
    for other in others:
        start(other)
        await asyncio.sleep(0)  # as Airflow does
    await asyncio.sleep(case.interval)
    async with httpx.AsyncClient(base_url=url, timeout=60) as asks:

        async def counts() -> int:
            said = (await asks.get("/counts")).json()
            return sum(number for kind, number in said.items() if kind != "token")

        async def window() -> Result:
            requests, cpu, began = await counts(), time.process_time(), time.perf_counter()
            lag = Lag()
            probe = asyncio.create_task(lag.watch())
            await asyncio.sleep(case.interval * case.intervals)
            probe.cancel()
            took = time.perf_counter() - began
            cpu = time.process_time() - cpu
            requests = await counts() - requests
            grown = me.memory_info().rss - before
            late = sorted(lag.late)
            return Result(
                requests_per_interval=requests / (took / case.interval),
                cpu_percent=cpu / took * 100,
                peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
                # Of a few, what each takes is lost in what all of them take together.
                each=grown / len(others) / 1000 if len(others) >= 99 else 0.0,
                lag_p50=statistics.median(late),
                lag_p99=late[int(len(late) * 0.99)],
                lag_max=late[-1],
                turn=max(lag.turns),
                garbage=max(lag.garbage),
            )

        async def delay(number: int) -> float:
            # Spread evenly over an interval: chance would make more of the mean than what is measured.
            await asyncio.sleep(case.interval * (number + 0.5) / case.begun)
            moment = (await asks.post(f"/begin/{execution_id(number)}")).json()["moment"]
            await asyncio.wait([running[number]])
            return float(ended[number] - moment) * 1000

        await counts()
        gc.collect()  # of what the start has left
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        found = [await window() for _ in range(case.windows)]
        if delays := await asyncio.gather(*map(delay, range(case.begun))):
            found = [replace(one, delay=statistics.fmean(delays)) for one in found]
    for one in running:
        one.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return found


if __name__ == "__main__":
    results = asyncio.run(_run(Case(**json.loads(sys.argv[2])), sys.argv[1]))
    print(json.dumps([asdict(one) for one in results]))
