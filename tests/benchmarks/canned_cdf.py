"""
A CDF that answers from memory, in a process of its own, so that the benchmarks measure its clients only.

    python tests/benchmarks/canned_cdf.py --executions 1000 --tasks 3 --output 100

It prints its URL. What it is asked for beside CDF's API: ``GET /counts`` (requests so far, by kind),
``POST /begin/{execution}`` (its task ``wait`` is IN_PROGRESS from now on; answers the moment).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = "/api/v1/projects/plant/workflows"
BEGAN = 1_760_000_000_000


def execution_id(number: int) -> str:
    return str(uuid.UUID(int=number + 1, version=4))


def task(number: int, output: Any, status: str = "COMPLETED") -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "externalId": "wait" if number == 0 else f"task-{number}",
        "status": status,
        "taskType": "function",
        "version": "1",
        "input": {
            "function": {"externalId": "f", "data": {"pump": "P-101"}},
            "isAsyncComplete": number == 0,
        },
        "output": output,
        "startTime": BEGAN,
        "endTime": BEGAN + 1000 if status == "COMPLETED" else None,
        "reasonForIncompletion": None,
    }


def definition(number: int) -> dict[str, Any]:
    return {
        "externalId": "wait" if number == 0 else f"task-{number}",
        "type": "function",
        "name": f"Task {number}",
        "description": "What a plant does",
        "parameters": {
            "function": {"externalId": "f", "data": {"pump": "${workflow.input.pump}"}},
            "isAsyncComplete": number == 0,
        },
        "retries": 3,
        "timeout": 3600,
        "onFailure": "abortWorkflow",
        "dependsOn": [],
    }


def output_of(size: int, kind: str) -> Any:
    """Some bytes of output: text, numbers or small objects."""
    if kind == "text":
        return {"text": "x" * size}
    if kind == "numbers":
        return {"numbers": [index / 7 for index in range(size // 20)]}
    return {"objects": [{"id": index, "name": "pump"} for index in range(size // 30)]}


class Cdf:
    """:param tasks: of each execution; the first one, ``wait``, is SCHEDULED until it is begun."""

    def __init__(self, executions: int, tasks: int, output: int, kind: str) -> None:
        self.counts: Counter[str] = Counter()
        self._begun: set[str] = set()
        self._others = [task(number, output_of(output, kind)) for number in range(1, tasks)]
        self._definition = {"hash": "h", "tasks": [definition(number) for number in range(tasks)]}
        self._ids = [execution_id(number) for number in range(executions)]
        self._known = set(self._ids)
        self._bodies: dict[str, bytes] = {}
        listed = [self._listed(one) for one in self._ids]
        self._pages = [
            json.dumps(
                {"items": listed[at : at + 1000]}
                | ({"nextCursor": str(at + 1000)} if at + 1000 < len(listed) else {})
            ).encode()
            for at in range(0, max(len(listed), 1), 1000)
        ]

    def _listed(self, one: str) -> dict[str, Any]:
        return {
            "id": one,
            "workflowExternalId": "pumps",
            "version": "1",
            "status": "RUNNING",
            "engineExecutionId": str(uuid.uuid4()),
            "createdTime": BEGAN,
            "startTime": BEGAN,
            "metadata": {
                f"airflow_{name}": "x" * 40 for name in ("run_key", "submit_id", "dag_id", "run_id", "url")
            },
        }

    def _details(self, one: str) -> bytes:
        if one not in self._bodies:
            first = task(0, {}, "IN_PROGRESS" if one in self._begun else "SCHEDULED")
            self._bodies[one] = json.dumps(
                self._listed(one)
                | {
                    "input": {"pump": "P-101"},
                    "workflowDefinition": self._definition,
                    "executedTasks": [first, *self._others],
                }
            ).encode()
        return self._bodies[one]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/counts":
            return 200, json.dumps(self.counts).encode()
        if path.startswith("/begin/"):
            one = path.removeprefix("/begin/")
            self._begun.add(one)
            self._bodies.pop(one, None)
            return 200, json.dumps({"moment": time.time()}).encode()
        if path == "/oauth2/token":
            self.counts["token"] += 1
            return 200, b'{"access_token": "token", "token_type": "Bearer", "expires_in": 3600}'
        if path == f"{PROJECT}/executions/list":
            self.counts["list"] += 1
            return 200, self._pages[int(json.loads(body).get("cursor") or 0) // 1000]
        if method == "POST" and path.startswith(f"{PROJECT}/tasks/"):
            self.counts["update"] += 1
            one = path.split("/")[-2]
            return 200, json.dumps({**task(0, {"risk": 0.1}), "id": one}).encode()
        one = path.removeprefix(f"{PROJECT}/executions/")
        self.counts["look"] += 1
        return (200, self._details(one)) if one in self._known else (404, b'{"error": {"code": 404}}')

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                length = next(
                    (int(line.split(":")[1]) for line in head if line.lower().startswith("content-length:")),
                    0,
                )
                status, content = self.answer(method, path, await reader.readexactly(length))
                writer.write(
                    b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                    % (status, len(content))
                )
                writer.write(content)
                await writer.drain()
        writer.close()


@contextmanager
def canned_cdf(
    executions: int = 1, *, tasks: int = 3, output: int = 0, kind: str = "objects"
) -> Iterator[str]:
    """Run one, and yield its URL."""
    numbers = {"executions": executions, "tasks": tasks, "output": output, "kind": kind}
    arguments = [part for name, value in numbers.items() for part in (f"--{name}", str(value))]
    with subprocess.Popen(
        [sys.executable, str(Path(__file__)), *arguments], stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            yield program.stdout.readline().strip()
        finally:
            program.terminate()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--output", type=int, default=0, help="bytes of each task's output")
    parser.add_argument("--kind", choices=("text", "numbers", "objects"), default="objects")
    cdf = Cdf(**vars(parser.parse_args()))
    server = await asyncio.start_server(cdf.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
