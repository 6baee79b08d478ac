"""A newcomer: the wheel under Airflow's pins, no checkout, the README's DAG, to a green run."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))
from matrix import Row, install  # noqa: E402 - a program beside the tests
from pins import AIRFLOWS  # noqa: E402

pytestmark = [pytest.mark.long, pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv")]
SECRET = "the-newcomers-secret"


@pytest.fixture(scope="module", params=[AIRFLOWS[0], AIRFLOWS[-1]], ids=lambda airflow: airflow.version)
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with nothing of the tests in it."""
    folder = tmp_path_factory.mktemp("newcomer")
    done = subprocess.run(
        ["uv", "build", "--quiet", "--out-dir", folder / "dist"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return install(Row(request.param, "3.11"), folder / "dist", folder / "home", tools=())


@pytest.fixture(scope="module")
def emulator(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The emulator from the wheel, with the workflow that the wheel has, too."""
    folder = tmp_path_factory.mktemp("emulator")
    where = "import airflow_provider_cdf as p, pathlib; print(pathlib.Path(p.__file__).parent)"
    package = subprocess.check_output([python, "-c", where], text=True, cwd=folder).strip()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(python, "-m", "airflow_provider_cdf.emulator", "--port", str(port), "--client-secret", SECRET),
        *("--workflows", f"{package}/example_dags/workflows"),
        *("--function", 'read_sensors={"vibration": 7.2}'),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while not answers(url):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False)
    except httpx.TransportError:
        return False
    return True


def test_from_the_wheel_to_a_green_dag(python: Path, emulator: str, tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (dag,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    has_sdk = subprocess.run([python, "-c", "import airflow.sdk"], cwd=tmp_path, capture_output=True)
    if has_sdk.returncode != 0:  # as the README says
        dag = dag.replace("from airflow.sdk import", "from airflow.providers.common.compat.sdk import")
    (tmp_path / "dags" / "pump_health.py").write_text(dag)
    names = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env = {**names, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    env |= {"AIRFLOW__CORE__TEST_CONNECTION": "Enabled", "NO_COLOR": "1"}

    def airflow(*arguments: str) -> str:
        done = subprocess.run(
            [python.parent / "airflow", *arguments],
            env=env,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    connection = {
        "conn_type": "cdf",
        "host": emulator,
        "login": "emulator-client",
        "password": SECRET,
        "extra": {"project": "emulator", "token_url": f"{emulator}/oauth2/token"},
    }
    airflow("db", "migrate")
    airflow("connections", "add", "cdf_default", "--conn-json", json.dumps(connection))
    assert "Connection success" in airflow("connections", "test", "cdf_default")
    output = airflow("dags", "test", "pump_health", "2026-01-01")

    assert "state=success" in output or "in success state" in output or "state:success" in output, output
    (execution,) = executions(emulator)
    assert execution["status"] == "COMPLETED"
    assert SECRET not in output


def executions(url: str) -> list[Any]:
    form = {"grant_type": "client_credentials", "client_id": "emulator-client", "client_secret": SECRET}
    with httpx.Client(trust_env=False, timeout=60) as http:
        token = http.post(f"{url}/oauth2/token", data=form).raise_for_status().json()["access_token"]
        answer = http.post(
            f"{url}/api/v1/projects/emulator/workflows/executions/list",
            json={},
            headers={"Authorization": f"Bearer {token}"},
        )
        return list(answer.raise_for_status().json()["items"])
