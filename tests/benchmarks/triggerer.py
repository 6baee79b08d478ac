"""
What waiting triggers cost: requests, CPU, memory, the event loop's lag, and the delay of an event.

Each case is a process of its own, with Airflow's TriggerRunner and so many triggers, beside a CDF in another
process. ``python tests/benchmarks/triggerer.py case --help`` runs one; ``performance.py`` runs them all.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
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
    intervals: int = 4
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
    #: Milliseconds from the IN_PROGRESS of a task to the event, mean; 0 if not measured.
    delay: float = 0.0


def measure(case: Case) -> Result:
    """Run a case beside a CDF."""
    with canned_cdf(case.executions, tasks=case.tasks, output=case.output, kind=case.kind) as url:
        arguments = [part for name, value in asdict(case).items() for part in (f"--{name}", str(value))]
        command = [sys.executable, __file__, "case", "--url", url, *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=_environment(url, case))
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def can_be_measured(how: str) -> bool:
    """Whether what a case needs is installed."""
    needs = {"http": "import airflow.providers.http", "sdk": "import cognite.client"}
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
        async def run(self) -> AsyncIterator[TriggerEvent]:
            headers = {"Authorization": "Bearer token"}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
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


async def _lag(lags: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.01)
        lags.append((time.perf_counter() - began - 0.01) * 1000)


async def _run(case: Case, url: str) -> Result:
    from airflow.jobs.triggerer_job_runner import TriggerRunner

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
    await asyncio.sleep(case.interval)  # what it imports and opens for all is not counted for each
    gc.collect()
    before = me.memory_info().rss
    for other in others:
        start(other)
    # The start costs what it costs once; and clients that are slow to be made take a while.
    await asyncio.sleep(case.interval + case.number * 0.03 * (case.how in RIVALS))
    async with httpx.AsyncClient(base_url=url) as asks:

        async def counts() -> int:
            said = (await asks.get("/counts")).json()
            return sum(number for kind, number in said.items() if kind != "token")

        requests, cpu, began = await counts(), time.process_time(), time.perf_counter()
        lags: list[float] = []
        probe = asyncio.create_task(_lag(lags))
        await asyncio.sleep(case.interval * case.intervals)
        probe.cancel()
        took = time.perf_counter() - began
        cpu = time.process_time() - cpu
        requests = await counts() - requests
        grown = me.memory_info().rss - before
        delays = []
        for number in range(case.begun):
            await asyncio.sleep(random.uniform(0, case.interval / 4))
            moment = (await asks.post(f"/begin/{execution_id(number)}")).json()["moment"]
            await asyncio.wait([running[number]])
            delays.append(ended[number] - moment)
    for one in running:
        one.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    lags.sort()
    return Result(
        requests_per_interval=requests / (took / case.interval),
        cpu_percent=cpu / took * 100,
        peak=_peak(me) / 1e6,
        # Of a few, what each takes is lost in what all of them take together.
        each=grown / len(others) / 1000 if len(others) >= 99 else 0.0,
        lag_p50=statistics.median(lags),
        lag_p99=lags[int(len(lags) * 0.99)],
        lag_max=lags[-1],
        delay=statistics.fmean(delays) * 1000 if delays else 0.0,
    )


def _peak(me: psutil.Process) -> float:
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) or float(me.memory_info().rss)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["case"])
    parser.add_argument("--url", required=True)
    for name, field in Case.__dataclass_fields__.items():
        parser.add_argument(f"--{name}", type={"str": str, "int": int, "float": float}[str(field.type)])
    given = vars(parser.parse_args())
    target = given.pop("url")
    given.pop("command")
    # What each trigger logs once is the same for all, and not what is measured.
    logging.disable(logging.CRITICAL)
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.path.insert(0, str(Path(__file__).parent))
    result = asyncio.run(
        _run(Case(**{name: value for name, value in given.items() if value is not None}), target)
    )
    print(json.dumps(asdict(result)))
