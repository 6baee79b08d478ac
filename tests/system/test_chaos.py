"""
Kill -9 at random moments of a real Airflow, and see that CDF never notices.

    pytest tests/system/test_chaos.py -s                       # a few rounds
    CHAOS_ROUNDS=40 pytest tests/system/test_chaos.py -s       # a full run
    CHAOS_SEED=1234 ...                                        # the rounds of an earlier run again
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import psutil
import pytest
from chaos import Plan, Round, play, write_dags
from clusters import IMPATIENT, Cluster

from airflow_provider_cdf.demo import emulator
from airflow_provider_cdf.demo.local_airflow import LocalAirflow

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "4"))
TITLE = "chaos: what was killed when, and how the DAG run and its execution ended"
VICTIMS = ("task", "supervisor", "triggerer", "scheduler", "connection")
#: Seconds that a round may take. A retry that waits for what the try before may have under way takes two
#: minutes, and begins anew when a blow for another round strikes it: a scheduler's death ends its tasks.
PATIENCE = 420.0
#: Retries that a task has, as a careful user would give it.
RETRIES = 3
#: Rounds that may go on while the next one begins. What is struck for one may strike them, too.
AT_ONCE = 4


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    dags = tmp_path_factory.mktemp("dags")
    write_dags(dags, RETRIES)
    with emulator() as cdf:
        env = {
            "AIRFLOW_CONN_CDF_DEFAULT": cdf.airflow_connection_uri(),
            **IMPATIENT,
        }
        with LocalAirflow(dags, env=env) as airflow:
            airflow.wait_until_healthy()
            yield Cluster(cdf, airflow)


def strike(round_: Round) -> str:
    """Do what the plan says, and return what was hit."""
    cluster, victim = round_.cluster, round_.plan.victim
    if victim in ("triggerer", "scheduler"):
        cluster.airflow.kill(victim, tree=victim == "triggerer")
        cluster.airflow.start(victim)
        return victim
    if victim == "connection":
        drop = "after" if round_.plan.number % 2 else "before"
        cluster.cdf.faults.add(path="*/api/v1/*", drop=drop, times=2)
        return f"the next two requests, {drop} the work"
    task = round_.running_task(["scheduler"])
    if task is None:
        return "nobody: no task was running"
    # Without its supervisor, a task goes on as an orphan beside its own retry.
    target = task if victim == "task" else task.parent()
    os.kill(target.pid, signal.SIGKILL)
    return f"pid {target.pid}"


def test_nothing_runs_twice_and_nothing_is_lost(
    chaos: Cluster, record_property: Callable[[str, object], None]
) -> None:
    def tell(line: str) -> None:
        print(line, flush=True)
        record_property("summary", (TITLE, line))

    plans = [Plan.make(number, VICTIMS) for number in range(ROUNDS)]
    play(chaos, plans, strike, tell, at_once=AT_ONCE, patience=PATIENCE)
    assert all(psutil.pid_exists(process.pid) for process in chaos.airflow.processes.values())
