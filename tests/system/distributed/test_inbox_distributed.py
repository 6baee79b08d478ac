"""CDF starts, Airflow answers: an inbox with a schedule, on two schedulers and two workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed_cluster import start_cluster
from inboxes import Inboxes

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inboxes]:
    # What a killed worker has fetched from the broker is queued again after a minute, not after ten.
    queued = {"AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60"}
    for cluster in start_cluster(tmp_path_factory.mktemp("inbox"), queued):
        yield Inboxes(cluster)


def test_each_execution_is_taken_up_once_over_the_loss_of_a_scheduler_and_a_worker(both: Inboxes) -> None:
    both.switch("inbox")
    ids = both.begin("inbox", range(6))
    both.wait_until(lambda: both.runs("inbox_work", ids))
    for name in ("scheduler-1", "worker-1"):
        both.airflow.kill(name)
    ids.update(both.begin("inbox", range(6, 12)))
    both.wait_until(lambda: both.have_completed(ids), is_whole=False)
    assert len(both.runs("inbox_work", ids)) == 12
    for execution_id, number in ids.items():
        assert both.score(execution_id).output["number"] == number
