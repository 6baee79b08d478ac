"""CDF starts, Airflow answers: an inbox with a schedule, on two schedulers and two workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clusters import Cluster
from distributed_cluster import start_cluster
from test_cdf_inbox import begin, hook, of, statuses, switch, wait_until

from airflow_provider_cdf.hooks.cdf import CdfHook

pytestmark = pytest.mark.long

__all__ = ["hook"]  # a fixture


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # What a killed worker has fetched from the broker is queued again after a minute, not after ten.
    queued = {"AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60"}
    yield from start_cluster(tmp_path_factory.mktemp("inbox"), queued)


def test_each_execution_is_taken_up_once_over_the_loss_of_a_scheduler_and_a_worker(
    cluster: Cluster, hook: CdfHook
) -> None:
    switch(cluster, "inbox")
    ids = begin(hook, "inbox", range(6))
    wait_until(cluster, lambda: of(cluster, "inbox", ids))
    for name in ("scheduler-1", "worker-1"):
        cluster.airflow.kill(name)
    ids.update(begin(hook, "inbox", range(6, 12)))
    wait_until(cluster, lambda: statuses(hook, ids) == {"COMPLETED"}, 900)
    assert len(of(cluster, "inbox", ids)) == 12
    for execution_id, number in ids.items():
        (score,) = hook.get_execution(execution_id).executed_tasks
        assert score.output["number"] == number
