"""
Kill -9, SIGTERM and restarts at random moments of a distributed Airflow, and see that CDF never notices.

    pytest tests/system/distributed/test_distributed_chaos.py -m long -s        # 40 rounds
    CHAOS_ROUNDS=10 CHAOS_SEED=1234 ...
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from chaos import Plan, Round, play
from clusters import Cluster
from distributed_cluster import start_cluster

pytestmark = pytest.mark.long

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "40"))
TITLE = "chaos, distributed: what was struck when, and how the DAG run and its execution ended"
#: What runs a task, found by that task; one component of a kind; and what there is one of.
OF_A_TASK = ("task", "supervisor", "pool child", "worker main", "worker", "worker told to stop")
VICTIMS = (*OF_A_TASK, "triggerer", "scheduler", "api-server", "redis", "postgres")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {
        # What a killed worker has fetched from the broker is queued again after a minute, not after ten.
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
        # Longer than a new api-server takes to start on a busy machine: no task can send a heartbeat then.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",
    }
    yield from start_cluster(tmp_path_factory.mktemp("chaos"), settings)


def test_nothing_runs_twice_and_nothing_is_lost(
    cluster: Cluster, record_property: Callable[[str, object], None]
) -> None:
    def tell(line: str) -> None:
        print(line, flush=True)
        record_property("summary", (TITLE, line))

    plans = [Plan.make(number, VICTIMS) for number in range(ROUNDS)]
    # A lost worker is noticed after some 45 s, and a retry may look for what was under way for two minutes.
    play(cluster, plans, strike, tell, at_once=2, patience=600)


def strike(round_: Round) -> str:
    """Do what the plan says, and return what was hit."""
    airflow, victim = round_.cluster.airflow, round_.plan.victim
    if victim not in OF_A_TASK:
        name = victim if victim in airflow.processes else f"{victim}-{1 + round_.plan.number % 2}"
        while airflow.processes[name].ending:  # a blow for another round has just struck it
            time.sleep(0.1)
        airflow.kill(name)
        return name
    task = round_.running_task(["worker-1", "worker-2"])
    if task is None:
        return "nobody: no task was running"
    with contextlib.suppress(psutil.NoSuchProcess, StopIteration):
        pids = {process.pid: name for name, process in airflow.processes.items()}
        parents = task.parents()
        worker = next(pids[parent.pid] for parent in parents if parent.pid in pids)
        if victim == "task":
            task.kill()
        elif victim in ("supervisor", "pool child"):
            parents[("supervisor", "pool child").index(victim)].kill()
        elif victim == "worker told to stop":
            airflow.processes[worker].signal(signal.SIGTERM)
        else:
            airflow.kill(worker, tree=victim == "worker")
        return f"{worker}, task {task.pid}"
    return "nobody: the task has just ended"
