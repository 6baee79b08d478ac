"""
A newcomer: does what the README says under "Use it on your own Airflow", word for word, to a green DAG.

In a new environment, with a home of its own, the wheel, and no checkout. Only what a reader changes is
changed: the version of Airflow, the address of its constraint file, and the port of the emulator.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tools.pins import AIRFLOWS, COMPAT, Airflow

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
#: In which the README is written.
VERSION, PORT = "3.3.2", "8200"
CONSTRAINTS = f"https://raw.githubusercontent.com/apache/airflow/constraints-{VERSION}/constraints-3.11.txt"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (ROOT / "airflow_provider_cdf").is_dir(), reason="needs a checkout"),
    pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv"),
    pytest.mark.skipif(shutil.which("python3.11") is None, reason="needs Python 3.11"),
]


def section(heading: str) -> str:
    (found,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## )", README, re.DOTALL | re.MULTILINE)
    return str(found)


def block(heading: str, language: str, number: int = 0) -> str:
    """A block of one language in a section of the README."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", section(heading), re.DOTALL)
    return blocks[number]


class Newcomer:
    """
    A reader with a folder that has the wheel, and with an empty environment of Python 3.11.

    :param airflow: the one to install.
    """

    def __init__(self, folder: Path, airflow: Airflow) -> None:
        self.folder, self.airflow = folder, airflow
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        (folder / "home").mkdir()
        subprocess.run(["python3.11", "-m", "venv", folder / "venv"], check=True)
        # Of this environment only how to reach a package index.
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        self.env = {
            **kept,
            "HOME": str(folder / "home"),
            "PATH": f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "NO_COLOR": "1",
        }

    def script(self, block: str) -> list[str]:
        """A block of the README, as this reader types it."""
        block = block.replace(CONSTRAINTS, "constraints.txt")
        block = block.replace(f"apache-airflow=={VERSION}", f"apache-airflow=={self.airflow.version}")
        return ["bash", "-ec", block.replace(PORT, str(self.port))]

    def types(self, block: str) -> str:
        """Run it, and return all that it prints."""
        done = subprocess.run(
            self.script(block),
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}"
        return done.stdout

    def executions(self) -> list[Any]:
        """What the emulator has run."""
        url = f"http://127.0.0.1:{self.port}"
        form = {
            "grant_type": "client_credentials",
            "client_id": "emulator-client",
            "client_secret": "try-it-out",
        }
        with httpx.Client(trust_env=False, timeout=60) as http:
            token = http.post(f"{url}/oauth2/token", data=form).raise_for_status().json()["access_token"]
            answer = http.post(
                f"{url}/api/v1/projects/emulator/workflows/executions/list",
                json={},
                headers={"Authorization": f"Bearer {token}"},
            )
            return list(answer.raise_for_status().json()["items"])


def run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_constraints(airflow: Airflow, file: Path) -> None:
    """Pin what Airflow's own constraint file pins of what Airflow itself needs: all as of its release."""
    file.write_text(f"apache-airflow=={airflow.version}\n{COMPAT}=={airflow.common_compat}\n")
    pins = run(
        *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"),
        *("--no-emit-find-links", "--python-version", "3.11", "--exclude-newer", airflow.day, file),
    )
    file.write_text(re.sub(r"\[[^]]*]", "", pins))  # pip takes no extras in constraints


@pytest.fixture(params=[AIRFLOWS[0], AIRFLOWS[-1]], ids=lambda airflow: airflow.version)
def newcomer(request: pytest.FixtureRequest, tmp_path: Path) -> Newcomer:
    """A reader who has been sent the wheel."""
    run("uv", "build", "--quiet", "--wheel", "--out-dir", tmp_path / "built")
    (wheel,) = (tmp_path / "built").glob("*.whl")
    folder = tmp_path / "newcomer"
    folder.mkdir()
    shutil.copy(wheel, folder)
    write_constraints(request.param, folder / "constraints.txt")
    return Newcomer(folder, request.param)


def test_from_the_wheel_to_a_green_dag(newcomer: Newcomer) -> None:
    own = "Use it on your own Airflow"
    newcomer.types(block(own, "bash", 0))
    assert "airflow-provider-cdf" in newcomer.types("airflow providers list")

    (newcomer.folder / "workflows").mkdir()
    workflow = newcomer.folder / "workflows" / "pump_health.WorkflowVersion.yaml"
    assert f"{workflow.parent.name}/{workflow.name}" in section(own)
    workflow.write_text(block("Try it in five minutes", "yaml"))
    with (newcomer.folder / "emulator.log").open("w+") as log:
        command = newcomer.script(f"exec {block(own, 'bash', 1).strip()} --port {newcomer.port}")
        emulator = subprocess.Popen(
            command, cwd=newcomer.folder, env=newcomer.env, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + 300
            while "Stop with Ctrl-C" not in Path(log.name).read_text():
                assert emulator.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < deadline, Path(log.name).read_text()
                time.sleep(0.2)
            go_on(newcomer)
        finally:
            emulator.terminate()
            emulator.wait()


def go_on(newcomer: Newcomer) -> None:
    """From the emulator to the DAG."""
    own = "Use it on your own Airflow"
    newcomer.types("airflow db migrate")
    assert "Connection success" in newcomer.types(block(own, "bash", 2))

    dag = block("Try it in five minutes", "python")
    if newcomer.airflow.version.startswith("2."):
        (other,) = re.findall(r"`(from airflow.providers[^`]+)`", section(own))
        dag = other + dag[dag.index("\n") :]
    dags = Path(newcomer.types("airflow config get-value core dags_folder").splitlines()[-1])
    assert dags.is_relative_to(newcomer.folder / "home")
    dags.mkdir(parents=True, exist_ok=True)
    (dags / "pump_health.py").write_text(dag)
    output = newcomer.types(block(own, "bash", 3))

    assert re.search("DagRun Finished.*state[=:]success", output), output
    (execution,) = newcomer.executions()
    assert execution["status"] == "COMPLETED"


def test_the_readme_is_written_for_the_newest_airflow() -> None:
    assert AIRFLOWS[-1].version == VERSION
    assert CONSTRAINTS in block("Use it on your own Airflow", "bash", 0)
