"""
Two at once, and each is left alone: Airflows on one CDF project, and processes of one try.

Two Airflows may have the same DAGs and run ids. And Airflow's scheduler starts one try in two processes now
and then: it sets a task that was started already back to scheduled (apache/airflow#65248).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from clusters import Cluster
from runs import Run

from airflow_provider_cdf.demo import FUNCTIONS, examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflow
from airflow_provider_cdf.emulator import CdfEmulator, Pace

pytestmark = pytest.mark.slow

#: The connection of the DAG runs: without and with an ``airflow_name``.
CONNECTIONS = ("cdf_default", "cdf_named")
#: A worker that is lost is noticed sooner than after five minutes, and one of a busy machine is not lost.
ENV = {"AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30"}


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Cluster]]:
    dags = tmp_path_factory.mktemp("dags")
    shutil.copy(Path(__file__).parent / "dags" / "waits_for_cdf.py", dags)
    with ExitStack() as stack:
        cdf = stack.enter_context(
            CdfEmulator(
                workflows=[examples_folder() / "workflows"], functions=FUNCTIONS, pace=Pace(function=0.5)
            )
        )
        uri = cdf.airflow_connection_uri()
        airflows = []
        for name in ("blue", "green"):
            env = ENV | {
                "AIRFLOW_CONN_CDF_DEFAULT": uri,
                "AIRFLOW_CONN_CDF_NAMED": f"{uri}&airflow_name={name}",
            }
            airflows.append(stack.enter_context(LocalAirflow(dags, env=env)))
        for airflow in airflows:
            airflow.wait_until_healthy(180)
        blue, green = airflows
        yield Cluster(cdf, blue), Cluster(cdf, green)


@pytest.fixture
def cluster(clusters: tuple[Cluster, Cluster]) -> Cluster:
    """One of the two."""
    return clusters[0]


def start(clusters: tuple[Cluster, Cluster], mode: str, run_id: str, **conf: str) -> tuple[Run, Run]:
    """Start a DAG run of one id in both, and wait until each has its own execution."""
    blue, green = (Run(cluster, mode, run_id=run_id, **conf) for cluster in clusters)
    for run in (blue, green):
        run.wait_until(lambda run=run: run.statuses() == ["RUNNING"])
    return blue, green


def end(run: Run, state: str = "success") -> None:
    """Report the CDF task that a run waits with, and wait for the run's end."""
    run.finish_in_cdf()
    assert run.cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == state


def test_clearing_and_failing_in_one_leaves_the_others_alone(clusters: tuple[Cluster, Cluster]) -> None:
    blue, green = start(clusters, "deferred", "cleared")
    for run in (blue, green):
        run.wait_for("deferred")
    blue.clear()
    blue.wait_until(lambda: blue.statuses() == ["TERMINATED", "RUNNING"])
    blue.finish_in_cdf("FAILED")
    blue.wait_until(lambda: blue.statuses() == ["TERMINATED", "FAILED", "RUNNING"])
    assert green.statuses() == ["RUNNING"]
    end(green)
    end(blue)
    assert green.statuses() == ["COMPLETED"]
    assert blue.statuses() == ["TERMINATED", "FAILED", "COMPLETED"]


def test_a_retry_in_one_does_not_take_the_others_result_for_its_own(
    clusters: tuple[Cluster, Cluster],
) -> None:
    blue, green = start(clusters, "poking", "killed")
    blue.wait_for_log("CDF has started workflow")
    os.kill(int(blue.task()["pid"]), signal.SIGKILL)
    green.finish_in_cdf()
    blue.wait_for_log("of an earlier try", try_number=2)
    assert blue.statuses() == ["RUNNING"]
    assert green.cluster.airflow.wait_for_dag_run(green.dag_id, green.id) == "success"
    blue.finish_in_cdf("FAILED")
    assert blue.cluster.airflow.wait_for_dag_run(blue.dag_id, blue.id) == "failed"
    assert blue.statuses() == ["FAILED"]
    assert green.statuses() == ["COMPLETED"]


@pytest.mark.long
def test_the_callback_after_a_crash_in_one_leaves_the_others_alone(
    clusters: tuple[Cluster, Cluster],
) -> None:
    pairs = [
        start(clusters, "without_retry", f"crashed_with_{connection}", connection=connection)
        for connection in CONNECTIONS
    ]
    for blue, _ in pairs:
        blue.wait_for_log("CDF has started workflow")
        blue.lose_worker()
    for blue, _ in pairs:
        assert blue.cluster.airflow.wait_for_dag_run(blue.dag_id, blue.id) == "failed"
        blue.wait_until(lambda blue=blue: blue.statuses() == ["TERMINATED"])
    for _, green in pairs:
        assert green.statuses() == ["RUNNING"]
        end(green)


@contextlib.contextmanager
def no_free_slot(cluster: Cluster) -> Iterator[None]:
    """Let no task begin in the meantime."""
    pool = "/pools/default_pool"
    before = cluster.airflow.api("GET", pool)["slots"]
    for slots in (0, before):
        body = {"pool": "default_pool", "slots": slots}
        cluster.airflow.api("PATCH", pool, json=body, params={"update_mask": "slots"})
        if slots == 0:
            yield


def test_of_one_try_that_has_ended(cluster: Cluster, tmp_path: Path) -> None:
    door = tmp_path / "door"
    run = Run(cluster, "for_nobody", door=str(door))
    run.wait_until(lambda: run.task("goes_on")["state"] == "running")
    run.set_back_to_scheduled()
    run.wait_for_log("of an earlier try")
    door.touch()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.log().count("CDF has started workflow") == 1
    assert run.task()["try_number"] == 1
    assert run.statuses() == ["RUNNING"]
    run.finish_in_cdf()


@pytest.mark.long
def test_of_one_try_that_is_running(cluster: Cluster) -> None:
    run = Run(cluster, "poking")
    run.wait_for_log("CDF has started workflow")
    run.set_back_to_scheduled()
    # Airflow tells the first process to stop, but the task goes on. Its end counts as the try's, so that the
    # second one has to stop, too.
    run.wait_until(lambda: "goes on, for the next try" in run.log())
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.statuses() == ["COMPLETED"]


@pytest.mark.long
def test_of_one_try_that_is_about_to_start(cluster: Cluster, tmp_path: Path) -> None:
    door = tmp_path / "door"
    run = Run(cluster, "at_the_door_to_start", door=str(door))
    run.wait_for_log("At the door.")
    run.set_back_to_scheduled()
    # Both have seen that nothing was started yet.
    run.wait_until(lambda: run.log().count("At the door.") == 2)
    door.touch()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    run.wait_until(lambda: run.statuses().count("RUNNING") == 1)
    (goes_on,) = [execution for execution in run.executions() if execution.status == "RUNNING"]
    assert cluster.airflow.xcom(run.dag_id, run.id, "run") == goes_on.id
    run.finish_in_cdf()


@pytest.mark.long
def test_of_one_try_that_is_deferred_and_finds_no_slot(cluster: Cluster) -> None:
    run = Run(cluster, "deferred")
    run.wait_for("deferred")
    run.wait_until(lambda: "starting" in run.log())
    with no_free_slot(cluster):
        run.set_back_to_scheduled()
        # Airflow tells the trigger that its task was killed. It was not.
        run.wait_until(lambda: "goes on: its task is scheduled, only the trigger moves" in run.log())
        assert run.statuses() == ["RUNNING"]
    run.wait_until(lambda: "resumed without word from its trigger" in run.log())
    run.wait_for("deferred")
    assert run.statuses() == ["RUNNING"]
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.task()["try_number"] == 1
    assert run.statuses() == ["COMPLETED"]
