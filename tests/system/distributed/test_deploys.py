"""Deploys, and what a broker or a machine does to components, while runs wait."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

import psutil
import pytest
from clusters import Cluster
from runs import Run

pytestmark = pytest.mark.long


def worker_of(run: Run) -> str:
    """The name of the worker that runs a task."""
    task, _ = run.processes()
    pids = {process.pid: name for name, process in run.cluster.airflow.processes.items()}
    return next(pids[parent.pid] for parent in task.parents() if parent.pid in pids)


def tree(cluster: Cluster, name: str) -> list[psutil.Process]:
    main = psutil.Process(cluster.airflow.processes[name].pid)
    return [main, *main.children(recursive=True)]


def wait_for_start(cluster: Cluster) -> None:
    time.sleep(2)  # until what has ended is started again
    cluster.airflow.wait_until_healthy(240)


def test_a_warm_shutdown_of_a_worker_lets_the_task_finish(cluster: Cluster) -> None:
    run = Run(cluster, "poking")
    run.wait_for_log("CDF has started workflow", seconds=120)
    # To the main process alone, as `airflow celery stop` does.
    cluster.airflow.processes[worker_of(run)].signal(signal.SIGTERM, tree=False)
    time.sleep(5)
    assert run.statuses() == ["RUNNING"]
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id, timeout=240) == "success"
    assert run.task()["try_number"] == 1
    wait_for_start(cluster)


def test_sigterm_to_all_processes_of_a_worker_leaves_the_execution_to_the_next_try(cluster: Cluster) -> None:
    run = Run(cluster, "poking")
    run.wait_for_log("CDF has started workflow", seconds=120)
    for process in tree(cluster, worker_of(run)):  # as systemd does, and a container's runtime with --init
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    run.wait_until(lambda: run.task()["try_number"] == 2 and run.task()["state"] == "running", 240)
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id, timeout=240) == "success"
    assert run.statuses() == ["COMPLETED"]
    wait_for_start(cluster)


@contextlib.contextmanager
def many(cluster: Cluster, deferred: int, poking: int) -> Iterator[list[Run]]:
    """Runs that wait while something happens; then all end well, with one execution each."""
    runs = [Run(cluster, "deferred", "many") for _ in range(deferred)]
    runs += [Run(cluster, "poking", "many") for _ in range(poking)]
    for run in runs:
        run.wait_until(lambda run=run: run.statuses() == ["RUNNING"], 300)
    for run in runs[:deferred]:
        run.wait_until(lambda run=run: "starting" in run.log(), 120)
    yield runs
    lost = [run for run in runs if run.statuses() != ["RUNNING"]]
    assert not lost, "\n".join(
        f"{run.statuses()}\n{run.log(try_number)}" for run in lost for try_number in (1, 2)
    )
    for run in runs:
        run.finish_in_cdf()
    for run in runs:
        assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id, timeout=600) == "success"
        assert run.statuses() == ["COMPLETED"]


def test_a_rolling_restart_of_everything_under_waiting_runs(cluster: Cluster) -> None:
    # Six poking tasks leave two slots free, which the deferred ones need to begin and to end.
    with many(cluster, deferred=20, poking=6):
        for name in cluster.airflow.shape.components:
            for process in tree(cluster, name):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.terminate()
            cluster.airflow.processes[name].popen.wait(90)
            wait_for_start(cluster)


def test_a_triggerer_that_is_frozen_beyond_its_health_threshold_loses_nothing(cluster: Cluster) -> None:
    with many(cluster, deferred=10, poking=0) as runs:
        for name in ("triggerer-1", "triggerer-2"):
            other = {"triggerer-1": "triggerer-2", "triggerer-2": "triggerer-1"}[name]
            frozen = tree(cluster, name)
            for process in frozen:
                process.suspend()
            try:
                time.sleep(20)  # three times the threshold
                assert cluster.airflow.processes[other].ending is None
            finally:
                for process in frozen:
                    process.resume()
            wait_for_start(cluster)
        assert not cluster.cdf.journal.count("POST", f"*/{runs[0].executions()[0].id}/cancel")


def test_a_restart_of_the_broker_and_of_the_database_loses_nothing(cluster: Cluster) -> None:
    with many(cluster, deferred=5, poking=2):
        for name in ("redis", "postgres"):
            cluster.airflow.kill(name)
            wait_for_start(cluster)
