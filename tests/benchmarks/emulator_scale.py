"""
How the emulator does with many executions: requests per second, latency and memory.

    uv run python tests/benchmarks/emulator_scale.py [--executions 10000]

The emulator runs as a program of its own and is asked over HTTP, one request after the other by one client
unless said otherwise.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import psutil

RUNNING = 200


def task(external_id: str, is_async: bool, *after: str) -> dict[str, object]:
    call = {"externalId": "f", "data": {"plant": "${workflow.input.plant}"}}
    return {
        "externalId": external_id,
        "type": "function",
        "parameters": {"function": call, "isAsyncComplete": is_async},
        "dependsOn": [{"externalId": name} for name in after],
        # Else those that wait would time out within seconds of an emulator that is 600 times as fast.
        "timeout": 43_200,
    }


class Client:
    """A client that has logged in to the emulator that a program printed the connection of."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        extra = parse_qs(parts.query)
        login, _, host = parts.netloc.rpartition("@")
        client_id, _, secret = login.partition(":")
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": unquote(secret)}
        self.http = httpx.Client(base_url=unquote(host))
        token = self.http.post(extra["login_url"][0], data=form).raise_for_status().json()["access_token"]
        self.http.headers["authorization"] = f"Bearer {token}"
        self.project = f"/api/v1/projects/{extra['project'][0]}"

    def post(self, path: str, body: object) -> dict[str, object]:
        answer = self.http.post(self.project + path, json=body).raise_for_status()
        return dict(answer.json())

    def get(self, path: str) -> dict[str, object]:
        return dict(self.http.get(self.project + path).raise_for_status().json())

    def define(self, name: str, *tasks: dict[str, object]) -> None:
        item = {"workflowExternalId": name, "version": "1", "workflowDefinition": {"tasks": tasks}}
        self.post("/workflows/versions", {"items": [item]})

    def run(self, name: str) -> str:
        (session,) = self.post("/sessions", {"items": [{"tokenExchange": True}]})["items"]  # type: ignore[misc]
        body = {
            "authentication": {"nonce": session["nonce"]},
            "input": {"plant": "north"},
            "metadata": {"airflow_run_key": "0123456789abcdef0123456789abcdef"},
        }
        return str(self.post(f"/workflows/{name}/versions/1/run", body)["id"])


def measure(name: str, ask: Callable[[], object], times: int = 500) -> None:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - started)
    median, p99 = statistics.median(seconds) * 1000, statistics.quantiles(seconds, n=100)[98] * 1000
    print(f"{name:<46}{times / sum(seconds):>10.0f}{median:>12.2f}{p99:>10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=10_000)
    count = parser.parse_args().executions
    # 600 times as fast, so that thousands of executions end while others are being started.
    module = "airflow_provider_cdf.emulator"
    command = [sys.executable, "-m", module, "--port", "0", "--speed", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            uri = ""
            while not uri:
                _, _, rest = program.stdout.readline().partition("AIRFLOW_CONN_CDF_DEFAULT='")
                uri = rest.partition("'")[0]
            measure_all(Client(uri), psutil.Process(program.pid), count, uri)
        finally:
            program.terminate()


def measure_all(client: Client, process: psutil.Process, count: int, uri: str) -> None:
    client.define("ends", task("a", False), task("b", False, "a"), task("c", False, "b"))
    client.define("waits", task("a", False), task("b", True, "a"), task("c", False, "b"))
    memory = [process.memory_info().rss]
    started = time.perf_counter()
    for step in range(4):
        for _ in range(step * count // 4, (step + 1) * count // 4):
            client.run("ends")
        memory.append(process.memory_info().rss)
    took = time.perf_counter() - started
    megabytes = ", ".join(f"{rss / 1e6:.0f}" for rss in memory)
    growth = [(after - before) / (count / 4) / 1000 for before, after in pairwise(memory)]
    print(f"{count} executions of 3 tasks, each with a session of its own: {count / took:.0f} a second")
    print(f"memory in MB after each quarter: {megabytes}")
    print(f"kB for one more execution, by quarter: {', '.join(f'{kb:.1f}' for kb in growth)}")
    waiting = [client.run("waits") for _ in range(RUNNING)]

    title = f"with {RUNNING} of them running"
    print(f"\n{title:<46}{'per second':>10}{'median ms':>12}{'p99 ms':>10}")
    running = {"filter": {"status": ["RUNNING"]}, "limit": 1000}
    one = {"filter": {"workflowFilters": [{"externalId": "waits", "version": "1"}]}}
    since = client.get(f"/workflows/executions/{waiting[0]}")["createdTime"]
    recent = {"filter": {"createdTimeStart": since}}
    failed = {"filter": {"status": ["FAILED"]}}
    listing = "/workflows/executions/list"
    measure("GET execution", lambda: client.get(f"/workflows/executions/{waiting[7]}"))
    measure(f"list, RUNNING ({RUNNING} found)", lambda: client.post(listing, running))
    measure("list, first page of 100", lambda: client.post(listing, {}))
    measure("list, of one workflow", lambda: client.post(listing, one))
    measure("list, created lately", lambda: client.post(listing, recent))
    measure("list, FAILED (none found)", lambda: client.post(listing, failed))
    measure("session and run", lambda: client.run("ends"))

    clients = [Client(uri) for _ in range(8)]
    with ThreadPoolExecutor(len(clients)) as pool:
        started = time.perf_counter()

        def ask(each: Client) -> None:
            for _ in range(200):
                each.get(f"/workflows/executions/{waiting[7]}")

        list(pool.map(ask, clients))
        took = time.perf_counter() - started
    print(f"{'GET execution, by 8 clients at once':<46}{200 * len(clients) / took:>10.0f}")


if __name__ == "__main__":
    main()
