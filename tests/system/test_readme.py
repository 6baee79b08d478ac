"""The README's first five minutes: its DAG, its workflow and its commands, word for word."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_cdf.demo import examples_folder

pytestmark = pytest.mark.slow

README = (Path(__file__).parents[2] / "README.md").read_text()
EMULATORS_PORT = "8200"


def blocks(heading: str, language: str) -> list[str]:
    """The blocks of one language in the section under a heading."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## )", README, re.DOTALL | re.MULTILINE)
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return found


class Reader:
    """Does what the README says, with a port of its own and in the environment that the tests run in."""

    def __init__(self, checkout: Path, port: int) -> None:
        self.checkout, self.port, self.exports = checkout, port, ""
        home = checkout / "home"
        home.mkdir()
        shutil.copytree(examples_folder(), checkout / "example_dags")
        own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
        self.environment = {**own, "HOME": str(home), "PATH": path}

    def script(self, command: str) -> list[str]:
        # `uv run` would look for the project of this directory.
        mine = command.replace(EMULATORS_PORT, str(self.port)).replace("uv run ", "")
        return ["bash", "-ec", f"{self.exports}\n{mine}"]

    def runs(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.script(command),
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )

    def leaves_running(self, command: str) -> subprocess.Popen[str]:
        output = (self.checkout / "emulator.log").open("w")
        # exec: what is ended is the program, not the shell around it.
        script = self.script(f"exec {command} --port {self.port}")
        return subprocess.Popen(
            script,
            cwd=self.checkout,
            env=self.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def executions(self) -> list[dict[str, Any]]:
        """What is in CDF, newest last, each with its tasks by external id."""
        url = f"http://127.0.0.1:{self.port}"
        keys = {
            "client_id": "emulator-client",
            "client_secret": "try-it-out",
            "grant_type": "client_credentials",
        }
        token = httpx.post(f"{url}/oauth2/token", data=keys).raise_for_status().json()["access_token"]
        project = httpx.Client(
            base_url=f"{url}/api/v1/projects/emulator/workflows/executions",
            headers={"authorization": f"Bearer {token}"},
        )
        with project:
            listed = project.post("/list", json={}).raise_for_status().json()["items"]
            found = [project.get(f"/{one['id']}").raise_for_status().json() for one in listed]
        return [
            {**one, "tasks": {task["externalId"]: task for task in one["executedTasks"]}} for one in found
        ]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """One who has done all but the last of the three commands."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reader = Reader(tmp_path_factory.mktemp("checkout"), port)
    dags = reader.checkout / "try" / "dags"
    dags.mkdir(parents=True)
    (dag,) = blocks("Try it in five minutes", "python")
    (dags / "pump_health.py").write_text(dag)
    emulator, exports, _, _ = blocks("Try it in five minutes", "bash")
    process = reader.leaves_running(emulator.strip())
    try:
        log = reader.checkout / "emulator.log"
        deadline = time.monotonic() + 120
        while "Stop with Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        reader.exports = exports.replace(EMULATORS_PORT, str(port))
        yield reader
    finally:
        process.terminate()
        process.wait(30)


def test_the_first_dag_is_green_after_three_commands(reader: Reader) -> None:
    _, _, run, demo = blocks("Try it in five minutes", "bash")
    assert "cdf-demo" in demo  # which has tests of its own

    done = reader.runs(run)

    assert done.returncode == 0, done.stdout
    assert re.search("DagRun Finished.*state=success", done.stdout), done.stdout
    # As docs/security.md says of Airflow's logs: no inputs, and of outputs only what Airflow itself logs.
    assert "P-101" not in done.stdout
    assert "vibration" not in done.stdout
    (execution,) = reader.executions()
    assert execution["status"] == "COMPLETED"
    assert execution["tasks"]["publish"]["input"]["function"]["data"]["risk"] == 0.72
    with contextlib.closing(sqlite3.connect(reader.checkout / "try" / "airflow.db")) as db:
        pushed = sorted(db.execute("SELECT task_id, key FROM xcom"))
    returned = [(name, "return_value") for name in ("ended", "report", "run", "score", "waits")]
    named = [("run", "execution_id"), *(("waits", key) for key in ("input", "output", "status"))]
    # As docs/reference.md says of each class.
    assert pushed == sorted(returned + named)


def test_where_the_work_fails_the_dag_is_red_and_cdf_is_told(reader: Reader) -> None:
    _, _, run, _ = blocks("Try it in five minutes", "bash")
    dag = reader.checkout / "try" / "dags" / "pump_health.py"
    dag.write_text(dag.read_text().replace("return {", 'raise ValueError("no wind")\n        return {'))

    done = reader.runs(run)

    assert done.returncode != 0, done.stdout
    (execution,) = (one for one in reader.executions() if one["status"] != "COMPLETED")
    assert execution["status"] == "FAILED"
    (failed,) = execution["tasks"]["score"]["output"]["airflow"]["failed_tasks"]
    assert failed["task_id"] == "score", done.stdout
    assert "no wind" not in str(execution), "what a task of the user's raises stays in Airflow"


def test_the_connection_that_airflow_stores_leads_to_cdf(reader: Reader) -> None:
    _, _, add_and_test, _ = blocks("Use it on your own Airflow", "bash")

    done = reader.runs(f"unset AIRFLOW_CONN_CDF_DEFAULT; airflow db migrate; {add_and_test}")

    assert done.returncode == 0, done.stdout
    assert "Connection success!" in done.stdout, done.stdout
