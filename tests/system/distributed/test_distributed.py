"""The same promises on a distributed Airflow: the part that every full run tries."""

from __future__ import annotations

import psutil
import pytest
from clusters import Cluster
from distributed_cluster import xcoms_of
from runs import Run

pytestmark = pytest.mark.slow


def test_the_examples_end_well_with_one_execution_each(cluster: Cluster) -> None:
    airflow = cluster.airflow
    runs = [(dag_id, airflow.trigger_dag(dag_id)) for dag_id in ("cdf_roundtrip", "cdf_run_and_wait")]
    for dag_id, run_id in runs:
        assert airflow.wait_for_dag_run(dag_id, run_id, timeout=240) == "success"
        with cluster.cdf.turn() as engine:
            statuses = [
                str(execution.status)
                for execution in engine.store.executions.values()
                if execution.metadata.get("airflow_run_id") == run_id
            ]
        assert statuses == ["COMPLETED"]
        # The connection is in the database, and what a task has pushed is in a file.
        assert "AIRFLOW_CONN_CDF_DEFAULT" not in airflow.env
        assert [file for file in xcoms_of(airflow.dags_folder).rglob("*") if run_id in file.parts]


def test_a_try_that_is_started_again_while_it_waits_goes_on_with_its_execution(cluster: Cluster) -> None:
    run = Run(cluster, "poking")
    run.wait_for_log("CDF has started workflow", seconds=120)
    run.set_back_to_scheduled()
    run.wait_until(lambda: "goes on, for the next try" in run.log(), 120)
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id, timeout=240) == "success"
    assert run.statuses() == ["COMPLETED"]


def test_a_try_that_is_started_again_after_its_end_finds_its_execution(cluster: Cluster) -> None:
    let_go = cluster.airflow.home / "let_go"
    run = Run(cluster, "to_report", let_go=str(let_go))
    run.wait_until(lambda: run.task()["state"] == "success", 120)
    run.set_back_to_scheduled()
    run.wait_until(lambda: "of an earlier try" in run.log(), 120)
    run.wait_until(lambda: run.task()["state"] == "success", 120)
    let_go.touch()
    assert run.log().count("CDF has started workflow") == 1
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id, timeout=240) == "success"
    run.wait_until(lambda: run.statuses() == ["COMPLETED"])


def test_a_deferred_task_that_is_resumed_while_no_worker_is_free_keeps_its_execution(
    cluster: Cluster,
) -> None:
    run = Run(cluster, "deferred")
    run.wait_until(lambda: "starting" in run.log() if run.executions() else False, 120)
    workers = [psutil.Process(cluster.airflow.processes[name].pid) for name in ("worker-1", "worker-2")]
    for worker in workers:
        worker.suspend()
    try:
        run.set_back_to_scheduled()
        # Airflow tells the trigger that its task was killed. It was not.
        run.wait_until(lambda: "only the trigger moves" in run.log(), 120)
        assert run.statuses() == ["RUNNING"]
    finally:
        for worker in workers:
            worker.resume()
    run.wait_until(lambda: "resumed without word from its trigger" in run.log(), 120)
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id, timeout=240) == "success"
    assert run.statuses() == ["COMPLETED"]
