"""
Kill -9 at random moments of a real Airflow, and see that CDF never notices.

    pytest tests/system/test_chaos.py -s                       # a few rounds
    CHAOS_ROUNDS=40 pytest tests/system/test_chaos.py -s       # a full run
    CHAOS_SEED=1234 ...                                        # the rounds of an earlier run again
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from conftest import IMPATIENT, Cluster

from airflow_provider_cdf.demo import emulator, examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflow

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "4"))
SEED = os.environ.get("CHAOS_SEED") or str(random.randrange(10_000))
TITLE = "chaos: what was killed when, and how the DAG run and its execution ended"
VICTIMS = ("task", "supervisor", "triggerer", "scheduler", "connection")
#: A round may take this long: a lost heartbeat costs 20 s, and a retry that waits for what the try before
#: may have under way costs two minutes.
PATIENCE = 420.0


@dataclass(frozen=True)
class Plan:
    """What befalls one DAG run; the same for the same seed."""

    number: int
    dag_id: str
    victim: str
    moment: float

    @classmethod
    def make(cls, number: int) -> Plan:
        # Not a secret: a repeatable choice.
        dice = random.Random(f"{SEED}/{number}")
        return cls(
            number,
            dice.choice(("cdf_roundtrip", "cdf_run_and_wait")),
            VICTIMS[number % len(VICTIMS)],
            # A run takes some 15 s; tasks of its end would hardly ever be hit by a longer wait.
            round(dice.uniform(0, 12), 1),
        )


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    dags = tmp_path_factory.mktemp("dags")
    for file in examples_folder().glob("*.py"):
        shutil.copy(file, dags)
    with emulator() as cdf:
        env = {
            "AIRFLOW_CONN_CDF_DEFAULT": cdf.airflow_connection_uri(),
            "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "3",
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
            **IMPATIENT,
        }
        with LocalAirflow(dags, env=env) as airflow:
            airflow.wait_until_healthy()
            yield Cluster(cdf, airflow)


def strike(cluster: Cluster, plan: Plan) -> str:
    """Do what the plan says, and return what was hit."""
    airflow = cluster.airflow
    if plan.victim in ("triggerer", "scheduler"):
        airflow.kill(plan.victim, tree=plan.victim == "triggerer")
        airflow.start(plan.victim)
        return plan.victim
    if plan.victim == "connection":
        drop = "after" if plan.number % 2 else "before"
        cluster.cdf.faults.add(path="*/api/v1/*", drop=drop, times=2)
        return f"the next two requests, {drop} the work"
    task = a_running_task(airflow)
    if task is None:
        return "nobody: no task was running"
    # Without its supervisor, a task goes on as an orphan beside its own retry.
    target = task if plan.victim == "task" else task.parent()
    os.kill(target.pid, signal.SIGKILL)
    return f"pid {target.pid}"


def a_running_task(airflow: LocalAirflow, seconds: float = 8) -> psutil.Process | None:
    """The next process that runs a task, by the title that Airflow gives it."""
    scheduler = psutil.Process(airflow.processes["scheduler"].pid)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for process in scheduler.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                title = process.cmdline()[0]
                if title.startswith("airflow worker -- ") and "LocalExecutor" not in title:
                    return process
        time.sleep(0.05)
    return None


def executions_of(cluster: Cluster, run_id: str) -> list[Any]:
    with cluster.cdf.turn() as engine:
        return [
            one for one in engine.store.executions.values() if one.metadata.get("airflow_run_id") == run_id
        ]


def wait_for_end(cluster: Cluster, plan: Plan, run_id: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while (state := cluster.airflow.dag_run_state(plan.dag_id, run_id)) not in ("success", "failed"):
        if time.monotonic() > deadline:
            tasks = cluster.airflow.task_instances(plan.dag_id, run_id)
            return f"{state}: " + ", ".join(f"{task['task_id']}={task['state']}" for task in tasks)
        time.sleep(0.5)
    return state


def test_nothing_runs_twice_and_nothing_is_lost(
    chaos: Cluster, record_property: Callable[[str, object], None]
) -> None:
    def tell(line: str) -> None:
        print(line, flush=True)
        record_property("summary", (TITLE, line))

    print()
    tell(f"CHAOS_SEED={SEED}, {ROUNDS} rounds")
    failures: list[str] = []
    struck: Counter[str] = Counter()
    for number in range(ROUNDS):
        plan = Plan.make(number)
        run_id = chaos.airflow.trigger_dag(plan.dag_id)
        time.sleep(plan.moment)
        hit = strike(chaos, plan)
        state = wait_for_end(chaos, plan, run_id)
        executions = executions_of(chaos, run_id)
        statuses = [str(execution.status) for execution in executions]
        left = [
            task.external_id
            for execution in executions
            for task in execution.tasks()
            if str(task.status) in ("IN_PROGRESS", "SCHEDULED")
        ]
        what = f"{number:3} {plan.dag_id:17} {plan.victim:10} at {plan.moment:4.1f} s ({hit})"
        line = f"{what}: {state}, {statuses}"
        tell(line)
        struck[plan.victim] += "nobody" not in hit
        if state != "success" or statuses != ["COMPLETED"] or left:
            failures.append(f"{line} left: {left}")
        assert all(psutil.pid_exists(process.pid) for process in chaos.airflow.processes.values())
    tell(f"Struck: {dict(struck)}. Rounds that did not end as planned: {len(failures)}")
    assert not failures, "\n".join(failures)
