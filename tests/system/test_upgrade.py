"""An Airflow without a store of task states is upgraded to this one while CDF works: nothing starts twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clusters import IMPATIENT
from runs import scores

from airflow_provider_cdf.demo import emulator
from airflow_provider_cdf.demo.local_airflow import LocalAirflow
from airflow_provider_cdf.emulator import CdfEmulator

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))
from matrix import Row, environment, install, run  # noqa: E402 - a program beside the tests
from pins import AIRFLOWS  # noqa: E402

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (ROOT / "airflow_provider_cdf").is_dir(), reason="needs a checkout"),
    pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv"),
]

DAGS = """
from datetime import timedelta

from airflow.sdk import DAG
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator

for mode in ("polls", "defers", "is_cleared"):
    with DAG(f"upgraded_{mode}", schedule=None):
        CdfWorkflowRunOperator(
            task_id="run",
            workflow_external_id="pump_health",
            version="1",
            deferrable=mode != "polls",
            poll_interval=1,
            retries=2,
            retry_delay=timedelta(seconds=2),
        )
"""
#: What the older Airflow does. Its scheduler is killed with the task that polls, and the rest is stopped.
BEFORE = """
import json, sys, time
from pathlib import Path

from airflow_provider_cdf.demo.local_airflow import LocalAirflow, LocalAirflowError

dags, home, env = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
states = {"polls": "running", "defers": "deferred", "is_cleared": "deferred"}
with LocalAirflow(dags, home=home, env=env) as airflow:
    airflow.wait_until_healthy(300)
    runs = {mode: airflow.trigger_dag(f"upgraded_{mode}", timeout=300) for mode in states}
    for mode, state in states.items():
        while True:
            airflow.check()
            (task,) = airflow.task_instances(f"upgraded_{mode}", runs[mode])
            if task["state"] == state:
                try:
                    airflow.xcom(f"upgraded_{mode}", runs[mode], "run", "execution_id")
                    break
                except LocalAirflowError:  # not yet
                    pass
            time.sleep(0.5)
    airflow.kill("scheduler")
print(json.dumps(runs))
"""
#: Seconds for anything to happen; the first start of an Airflow may take long.
PATIENCE = 300


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The Python of an Airflow 3.1 with the wheel."""
    (airflow,) = [one for one in AIRFLOWS if one.minor == "3.1"]
    run("uv", "build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", cwd=ROOT)
    return install(Row(airflow, airflow.pythons[0]), tmp_path / "dist", tmp_path / "older", tools=())


def until(happened: Callable[[], bool], says: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, says()
        time.sleep(0.5)


def test_what_was_started_before_is_found(older: Path, tmp_path: Path) -> None:
    (dags := tmp_path / "dags").mkdir()
    (dags / "upgraded.py").write_text(DAGS)
    with emulator() as cdf:
        env = {**IMPATIENT, "AIRFLOW_CONN_CDF_DEFAULT": cdf.airflow_connection_uri()}
        before = [str(older), "-c", BEFORE, str(dags), str(tmp_path / "home"), json.dumps(env)]
        done = subprocess.run(before, cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        runs: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        assert {mode: statuses(cdf, one) for mode, one in runs.items()} == {
            mode: ["RUNNING"] for mode in runs
        }

        with LocalAirflow(dags, home=tmp_path / "home", env=env) as airflow:
            airflow.wait_until_healthy(PATIENCE)
            body = {"dry_run": False, "dag_run_id": runs["is_cleared"], "only_failed": False}
            airflow.api("POST", "/dags/upgraded_is_cleared/clearTaskInstances", json=body)
            tries = {"polls": (2, "running"), "defers": (1, "deferred"), "is_cleared": (2, "deferred")}

            def seen() -> dict[str, tuple[int, str]]:
                found = {}
                for mode, one in runs.items():
                    (task,) = airflow.task_instances(f"upgraded_{mode}", one)
                    found[mode] = (task["try_number"], task["state"])
                return found

            until(lambda: seen() == tries, seen)
            for one in runs.values():
                finish(cdf, one)
            for mode, one in runs.items():
                assert airflow.wait_for_dag_run(f"upgraded_{mode}", one, timeout=PATIENCE) == "success"

        assert {mode: statuses(cdf, one) for mode, one in runs.items()} == {
            "polls": ["COMPLETED"],
            "defers": ["COMPLETED"],
            "is_cleared": ["TERMINATED", "COMPLETED"],
        }


def executions(cdf: CdfEmulator, run_id: str) -> list[Any]:
    """Those of a DAG run, oldest first."""
    with cdf.turn() as engine:
        return [
            one for one in engine.store.executions.values() if one.metadata.get("airflow_run_id") == run_id
        ]


def statuses(cdf: CdfEmulator, run_id: str) -> list[str]:
    return [str(one.status) for one in executions(cdf, run_id)]


def finish(cdf: CdfEmulator, run_id: str) -> None:
    """Report the task of the only execution that runs."""
    until(lambda: statuses(cdf, run_id).count("RUNNING") == 1, lambda: statuses(cdf, run_id))
    (running,) = [one for one in executions(cdf, run_id) if one.status == "RUNNING"]
    until(lambda: [one.status for one in scores(running)] == ["IN_PROGRESS"], lambda: scores(running))
    with cdf.turn() as engine:
        engine.update_task(scores(running)[0].id, "COMPLETED", {"risk": 0.1})
