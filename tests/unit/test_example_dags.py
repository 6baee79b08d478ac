"""Each example DAG runs in this process against the emulator, from its own file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moved import DagBag
from support import Project

from airflow_provider_cdf.demo import FUNCTIONS, examples_folder
from airflow_provider_cdf.emulator import CdfEmulator

EXAMPLES = sorted(examples_folder().glob("*.py"))


@pytest.fixture(scope="module")
def cdf() -> Iterator[CdfEmulator]:
    with CdfEmulator(workflows=[examples_folder() / "workflows"], functions=FUNCTIONS) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def project(cdf: CdfEmulator) -> Project:
    return Project(cdf)


def run_dag(file: Path) -> Any:
    bag = DagBag(str(file))
    assert not bag.import_errors
    (dag,) = bag.dags.values()
    return dag.test()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_dag_succeeds(
    file: Path, airflow_db: None, cdf_default: CdfEmulator, project: Project
) -> None:
    assert run_dag(file).state == "success"


def test_roundtrip_carries_the_value_from_cdf_through_airflow_and_back(
    airflow_db: None, cdf_default: CdfEmulator, project: Project
) -> None:
    run = run_dag(examples_folder() / "cdf_roundtrip.py")

    (execution,) = [
        e for e in project.executions("pump_health") if e["metadata"]["airflow_run_id"] == run.run_id
    ]
    tasks = {task["externalId"]: task for task in project.execution(execution["id"])["executedTasks"]}
    assert execution["status"] == "COMPLETED"
    assert tasks["score"]["output"]["risk"] == 0.72
    assert tasks["publish"]["input"]["function"]["data"] == {"pump": "P-101", "risk": 0.72}


def test_roundtrip_tells_cdf_when_the_work_in_airflow_fails(
    airflow_db: None, cdf_default: CdfEmulator, project: Project
) -> None:
    # A reading that the DAG's own task cannot work with.
    with cdf_default.turn() as engine:
        engine.functions.set("read_sensors", {"vibration": "broken"})
    try:
        run = run_dag(examples_folder() / "cdf_roundtrip.py")
    finally:
        with cdf_default.turn() as engine:
            engine.functions.set("read_sensors", FUNCTIONS["read_sensors"])

    assert run.state == "failed"
    (execution,) = [
        e for e in project.executions("pump_health") if e["metadata"]["airflow_run_id"] == run.run_id
    ]
    assert execution["status"] == "FAILED"
    score = project.task(execution["id"], "score", "FAILED_WITH_TERMINAL_ERROR")
    (failed,) = score["output"]["airflow"]["failed_tasks"]
    assert (failed["task_id"], failed["state"]) == ("judge", "failed")
