"""Two Airflows with the same DAGs and run ids on one CDF project: neither touches what is the other's."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import IMPATIENT, Cluster
from runs import Run

from airflow_provider_cdf.demo import FUNCTIONS, examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflow
from airflow_provider_cdf.emulator import CdfEmulator, Pace

pytestmark = pytest.mark.slow

#: The connection of the DAG runs: without and with an ``airflow_name``.
CONNECTIONS = ("cdf_default", "cdf_named")


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
            env = IMPATIENT | {
                "AIRFLOW_CONN_CDF_DEFAULT": uri,
                "AIRFLOW_CONN_CDF_NAMED": f"{uri}&airflow_name={name}",
            }
            airflows.append(stack.enter_context(LocalAirflow(dags, env=env)))
        for airflow in airflows:
            airflow.wait_until_healthy()
        blue, green = airflows
        yield Cluster(cdf, blue), Cluster(cdf, green)


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
    blue.wait_until(lambda: "CDF runs workflow" in blue.log())
    os.kill(int(blue.task()["pid"]), signal.SIGKILL)
    green.finish_in_cdf()
    blue.wait_until(lambda: "Going on with execution" in blue.log(2))
    assert blue.statuses() == ["RUNNING"]
    assert green.cluster.airflow.wait_for_dag_run(green.dag_id, green.id) == "success"
    blue.finish_in_cdf("FAILED")
    assert blue.cluster.airflow.wait_for_dag_run(blue.dag_id, blue.id) == "failed"
    assert blue.statuses() == ["FAILED"]
    assert green.statuses() == ["COMPLETED"]


def test_the_callback_after_a_crash_in_one_leaves_the_others_alone(
    clusters: tuple[Cluster, Cluster],
) -> None:
    pairs = [
        start(clusters, "without_retry", f"crashed_with_{connection}", connection=connection)
        for connection in CONNECTIONS
    ]
    for blue, _ in pairs:
        blue.wait_until(lambda blue=blue: "CDF runs workflow" in blue.log())
        blue.lose_worker()
    for blue, _ in pairs:
        assert blue.cluster.airflow.wait_for_dag_run(blue.dag_id, blue.id) == "failed"
        blue.wait_until(lambda blue=blue: blue.statuses() == ["TERMINATED"])
    for _, green in pairs:
        assert green.statuses() == ["RUNNING"]
        end(green)
