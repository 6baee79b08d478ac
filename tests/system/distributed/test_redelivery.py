"""A broker that hands a message out again while its task still runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clusters import Cluster
from distributed_cluster import start_cluster
from runs import Run

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    visible_after = {"AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "15"}
    yield from start_cluster(tmp_path_factory.mktemp("redelivery"), visible_after)


def test_starts_nothing_twice(cluster: Cluster) -> None:
    run = Run(cluster, "poking")
    run.wait_for_log("CDF has started workflow", seconds=120)
    workers = [cluster.airflow.processes[name] for name in ("worker-1", "worker-2")]
    run.wait_until(lambda: any(worker.has_said("ignoring redelivered message") for worker in workers), 300)
    assert run.statuses() == ["RUNNING"]
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id, timeout=240) == "success"
    assert run.statuses() == ["COMPLETED"]
