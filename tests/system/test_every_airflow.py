"""The example DAGs on the scheduler and the triggerer of whatever Airflow is installed, 2.11 included."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow2 import Airflow2

from airflow_provider_cdf.demo import emulator, examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflow
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.versions import HAS_TASK_API

pytestmark = pytest.mark.slow

#: Those that need nothing of one Airflow only, nor of another DAG.
EXAMPLES = (
    "cdf_cancel_teardown",
    "cdf_report_and_cancel",
    "cdf_report_teardown",
    "cdf_roundtrip",
    "cdf_run_and_wait",
)
#: Generous, because Airflow 2 runs one task at a time on SQLite, and starts each anew.
MINUTES = 600

SKIPS = """
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor

with DAG("skips", schedule=None):
    run = CdfWorkflowRunOperator(
        task_id="run", workflow_external_id="pump_health", version="1", wait_for_completion=False
    )
    for option in ("soft_fail", "never_fail"):
        CdfTaskSensor(
            task_id=option,
            execution_id=run.output,
            task_external_id="score",
            target_status="FAILED",  # it waits for a report that nobody makes
            poke_interval=1,
            timeout=20,
            deferrable=True,
            **{option: True},
        )
"""


@pytest.fixture(scope="module")
def cdf() -> Iterator[CdfEmulator]:
    with emulator() as cdf:
        yield cdf


@pytest.fixture(scope="module")
def airflow(cdf: CdfEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    dags = tmp_path_factory.mktemp("dags")
    for name in EXAMPLES:
        shutil.copy(examples_folder() / f"{name}.py", dags)
    (dags / "skips.py").write_text(SKIPS)
    kind = LocalAirflow if HAS_TASK_API else Airflow2
    env = {
        "AIRFLOW_CONN_CDF_DEFAULT": cdf.airflow_connection_uri(),
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
    }
    with kind(dags, env=env) as airflow:
        airflow.wait_until_healthy(300)
        yield airflow


@pytest.fixture(scope="module")
def runs(airflow: LocalAirflow) -> dict[str, str]:
    """One run of each DAG, by DAG id; all begin at once."""
    return {dag_id: airflow.trigger_dag(dag_id, timeout=300) for dag_id in [*EXAMPLES, "skips"]}


def executions(cdf: CdfEmulator, run_id: str) -> list[Any]:
    with cdf.turn() as engine:
        return [
            one for one in engine.store.executions.values() if one.metadata.get("airflow_run_id") == run_id
        ]


@pytest.mark.parametrize("dag_id", EXAMPLES)
def test_an_example_runs_and_cdf_agrees(
    cdf: CdfEmulator, airflow: LocalAirflow, runs: dict[str, str], dag_id: str
) -> None:
    assert airflow.wait_for_dag_run(dag_id, runs[dag_id], timeout=MINUTES) == "success"
    assert [str(one.status) for one in executions(cdf, runs[dag_id])] == ["COMPLETED"]


def test_a_value_travels_from_cdf_through_airflow_and_back(
    cdf: CdfEmulator, airflow: LocalAirflow, runs: dict[str, str]
) -> None:
    assert airflow.wait_for_dag_run("cdf_roundtrip", runs["cdf_roundtrip"], timeout=MINUTES) == "success"
    (execution,) = executions(cdf, runs["cdf_roundtrip"])
    tasks = {task.external_id: task for task in execution.tasks()}
    assert tasks["score"].output["risk"] == 0.72
    assert tasks["publish"].input["function"]["data"]["risk"] == 0.72
    assert airflow.xcom("cdf_roundtrip", runs["cdf_roundtrip"], "judge") == {"risk": 0.72}


def test_what_should_never_fail_skips_after_a_deferral(airflow: LocalAirflow, runs: dict[str, str]) -> None:
    airflow.wait_for_dag_run("skips", runs["skips"], timeout=MINUTES)
    tasks = {task["task_id"]: task for task in airflow.task_instances("skips", runs["skips"])}
    log = {name: airflow.task_log("skips", runs["skips"], name) for name in ("soft_fail", "never_fail")}
    assert {name: task["state"] for name, task in tasks.items()} == {
        "run": "success",
        "soft_fail": "skipped",
        "never_fail": "skipped",
    }, log
    assert all("Deferred: the triggerer looks" in text for text in log.values()), log


def test_a_wait_outlives_its_triggerer(cdf: CdfEmulator, airflow: LocalAirflow, runs: dict[str, str]) -> None:
    for dag_id, run_id in runs.items():
        airflow.wait_for_dag_run(dag_id, run_id, timeout=MINUTES)
    airflow.kill("triggerer")
    run_id = airflow.trigger_dag("cdf_run_and_wait")
    deadline = time.monotonic() + MINUTES
    while "deferred" not in {one["state"] for one in airflow.task_instances("cdf_run_and_wait", run_id)}:
        assert time.monotonic() < deadline, airflow.task_instances("cdf_run_and_wait", run_id)
        time.sleep(0.5)
    airflow.start("triggerer")

    assert airflow.wait_for_dag_run("cdf_run_and_wait", run_id, timeout=MINUTES) == "success"
    assert [str(one.status) for one in executions(cdf, run_id)] == ["COMPLETED"]


def test_no_secret_is_in_any_log(cdf: CdfEmulator, airflow: LocalAirflow, runs: dict[str, str]) -> None:
    for dag_id, run_id in runs.items():
        airflow.wait_for_dag_run(dag_id, run_id, timeout=MINUTES)
    logs = [path for path in Path(airflow.home).rglob("*.log*") if path.is_file()]
    text = "\n".join(path.read_text(errors="replace") for path in logs)
    assert "Deferred: the triggerer looks" in text
    assert cdf.client_secret not in text
    assert [token for token in cdf.tokens._tokens if token in text] == []
