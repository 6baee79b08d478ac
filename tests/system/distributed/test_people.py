"""What a person does to a deferred task where two triggerers share the work: one cancellation each."""

from __future__ import annotations

import pytest
from clusters import Cluster
from runs import Run

pytestmark = pytest.mark.long


@pytest.fixture
def deferred(cluster: Cluster) -> Run:
    """A deferred task that a triggerer has taken over."""
    run = Run(cluster, "deferred")
    run.wait_until(lambda: bool(run.executions()) and "starting" in run.log(), 120)
    return run


def cancellations(run: Run) -> int:
    """How often CDF was asked to cancel the first execution of a run."""
    return run.cluster.cdf.journal.count("POST", f"*/{run.executions()[0].id}/cancel")


@pytest.mark.parametrize("state", ["failed", "success"])
def test_marking_the_task(deferred: Run, state: str) -> None:
    deferred.mark(state)
    deferred.wait_until(lambda: deferred.statuses() == ["TERMINATED"])
    assert cancellations(deferred) == 1
    assert deferred.task()["state"] == state


def test_marking_the_dag_run_failed(deferred: Run) -> None:
    path = f"/dags/{deferred.dag_id}/dagRuns/{deferred.id}"
    deferred.cluster.airflow.api("PATCH", path, json={"state": "failed"})
    deferred.wait_until(lambda: deferred.statuses() == ["TERMINATED"])
    assert cancellations(deferred) == 1


def test_clearing_the_task(deferred: Run) -> None:
    deferred.clear()
    deferred.wait_until(lambda: deferred.statuses() == ["TERMINATED", "RUNNING"], 120)
    assert cancellations(deferred) == 1
    deferred.finish_in_cdf()
    airflow = deferred.cluster.airflow
    assert airflow.wait_for_dag_run(deferred.dag_id, deferred.id, timeout=240) == "success"
    assert deferred.statuses() == ["TERMINATED", "COMPLETED"]
