"""
What one call costs: by this package, by a bare ``httpx.Client``, and by ``cognite-sdk``.

    python tests/benchmarks/one_call.py [--rounds 7]

Interleaved, medians of so many rounds; each round takes the median of several calls.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from canned_cdf import PROJECT, canned_cdf, execution_id

GOAL_OVER_HTTPX, GOAL_OVER_SDK = 1.2, 0.5
CASES = {
    "get_execution, 3 tasks": {"tasks": 3, "output": 100},
    "get_execution, 200 tasks": {"tasks": 200, "output": 100},
    "get_execution, 15 MB": {"tasks": 200, "output": 75_000},
    "update_task": {"tasks": 3, "output": 100},
}


@dataclass
class Result:
    name: str
    #: Milliseconds, by who calls.
    ours: float
    httpx: float
    sdk: float

    @property
    def over_httpx(self) -> float:
        return self.ours / self.httpx

    @property
    def over_sdk(self) -> float:
        return self.ours / self.sdk


@contextmanager
def callers(url: str, name: str) -> Iterator[dict[str, Callable[[], object]]]:
    """Yield who calls what a case is about."""
    from cognite.client import ClientConfig, CogniteClient
    from cognite.client.credentials import Token

    from airflow_provider_cdf.cdf import calls, reports
    from airflow_provider_cdf.cdf.client import CdfClient
    from airflow_provider_cdf.cdf.logins.clients import ClientCredentials
    from airflow_provider_cdf.cdf.settings import Settings

    one = execution_id(0)
    output = {"risk": 0.1}
    settings = Settings(url, "plant", ClientCredentials(f"{url}/oauth2/token", "client", "secret"))
    sdk = CogniteClient(
        ClientConfig(client_name="bench", project="plant", base_url=url, credentials=Token("token"))
    )
    for name_of_logger in ("cognite", "httpx", "httpx2"):  # lines that only some of the three write
        logging.getLogger(name_of_logger).setLevel(logging.ERROR)
    headers = {"Authorization": "Bearer token"}
    with CdfClient(settings) as ours, httpx.Client(base_url=url, headers=headers) as bare:
        get = calls.get_execution
        if name == "update_task":
            yield {
                "ours": lambda: ours.perform(reports.update_task(settings, one, "COMPLETED", output)),
                "httpx": lambda: bare.post(
                    f"{PROJECT}/tasks/{one}/update", json={"status": "COMPLETED", "output": output}
                ).json(),
                "sdk": lambda: sdk.workflows.tasks.update(one, "completed", output),
            }
        else:
            yield {
                "ours": lambda: ours.send(get("plant", one)),
                "httpx": lambda: json.loads(bare.get(f"{PROJECT}/executions/{one}").content),
                "sdk": lambda: sdk.workflows.executions.retrieve_detailed(one),
            }


def measure(name: str, rounds: int, calls: int, clock: Callable[[], float] = time.perf_counter) -> Result:
    """:param clock: ``time.process_time`` leaves out what others do on this machine, and the waiting."""
    times: dict[str, list[float]] = {}
    with canned_cdf(1, **CASES[name]) as url, callers(url, name) as by_name:  # type: ignore[arg-type]
        for call in by_name.values():
            call()  # logs in, connects, builds its models
        for _ in range(rounds):
            for who, call in by_name.items():
                times.setdefault(who, []).append(statistics.median(_timed(call, clock) for _ in range(calls)))
    return Result(name, **{who: statistics.median(of) * 1000 for who, of in times.items()})


def _timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    call()
    return clock() - began


def table(rounds: int = 7, calls: int = 25) -> list[Result]:
    return [measure(name, rounds, max(calls // 5, 3) if "MB" in name else calls) for name in CASES]


def text(results: list[Result]) -> Iterator[str]:
    yield f"{'one call':<28}{'of httpx':>10}{'of the SDK':>12}{'ours ms':>10}{'httpx ms':>10}{'SDK ms':>10}"
    yield f"{'goals':<28}{GOAL_OVER_HTTPX:>10.2f}{GOAL_OVER_SDK:>12.2f}"
    for one in results:
        yield (
            f"{one.name:<28}{_said(one.over_httpx, GOAL_OVER_HTTPX)}{_said(one.over_sdk, GOAL_OVER_SDK, 11)}"
            f"{one.ours:>10.2f}{one.httpx:>10.2f}{one.sdk:>10.2f}"
        )


def _said(ratio: float, goal: float, width: int = 9) -> str:
    return f"{ratio:>{width}.2f}{'!' if ratio > goal else ' '}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    arguments: Any = parser.parse_args()
    print("\n".join(text(table(arguments.rounds))))
