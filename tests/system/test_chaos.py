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
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from clusters import IMPATIENT, Cluster

from airflow_provider_cdf.demo import emulator, examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflow

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "4"))
SEED = os.environ.get("CHAOS_SEED") or str(random.randrange(10_000))
TITLE = "chaos: what was killed when, and how the DAG run and its execution ended"
VICTIMS = ("task", "supervisor", "triggerer", "scheduler", "connection")
#: Seconds that a round may take. A retry that waits for what the try before may have under way takes two
#: minutes, and begins anew when a blow for another round strikes it: a scheduler's death ends its tasks.
PATIENCE = 420.0
#: Retries that a task has, as a careful user would give it.
RETRIES = 3
#: Rounds that may go on while the next one begins. What is struck for one may strike them, too.
AT_ONCE = 4


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
        text, replaced = re.subn(
            r'"retries": \d+, "retry_delay": timedelta\(seconds=\d+\)',
            f'"retries": {RETRIES}, "retry_delay": timedelta(seconds=1)',
            file.read_text(),
        )
        assert replaced == 1, file
        (dags / file.name).write_text(text)
    with emulator() as cdf:
        env = {
            "AIRFLOW_CONN_CDF_DEFAULT": cdf.airflow_connection_uri(),
            **IMPATIENT,
        }
        with LocalAirflow(dags, env=env) as airflow:
            airflow.wait_until_healthy()
            yield Cluster(cdf, airflow)


@dataclass
class Round:
    """A DAG run that goes on, and what has befallen it."""

    plan: Plan
    cluster: Cluster

    def __post_init__(self) -> None:
        self.run_id = self.cluster.airflow.trigger_dag(self.plan.dag_id)
        self.began = time.monotonic()
        time.sleep(self.plan.moment)
        self.hit = self._strike()

    def state(self) -> str | None:
        """How the DAG run has ended; ``None`` while it goes on."""
        airflow = self.cluster.airflow
        state = airflow.dag_run_state(self.plan.dag_id, self.run_id)
        if state in ("success", "failed"):
            return state
        return None if self.seconds() < PATIENCE else state

    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self.began

    def tasks(self) -> str:
        """In which state each task is, and in which try."""
        return ", ".join(
            f"{task['task_id']} (try {task['try_number']})={task['state']}"
            for task in self.cluster.airflow.task_instances(self.plan.dag_id, self.run_id)
        )

    def executions(self) -> list[Any]:
        with self.cluster.cdf.turn() as engine:
            return [
                execution
                for execution in engine.store.executions.values()
                if execution.metadata.get("airflow_run_id") == self.run_id
            ]

    def _strike(self) -> str:
        """Do what the plan says, and return what was hit."""
        airflow, victim = self.cluster.airflow, self.plan.victim
        if victim in ("triggerer", "scheduler"):
            airflow.kill(victim, tree=victim == "triggerer")
            airflow.start(victim)
            return victim
        if victim == "connection":
            drop = "after" if self.plan.number % 2 else "before"
            self.cluster.cdf.faults.add(path="*/api/v1/*", drop=drop, times=2)
            return f"the next two requests, {drop} the work"
        task = self._running_task()
        if task is None:
            return "nobody: no task was running"
        # Without its supervisor, a task goes on as an orphan beside its own retry.
        target = task if victim == "task" else task.parent()
        os.kill(target.pid, signal.SIGKILL)
        return f"pid {target.pid}"

    def _running_task(self, seconds: float = 15) -> psutil.Process | None:
        """The next process that runs a task of this DAG run, by the title that Airflow gives it."""
        airflow = self.cluster.airflow
        scheduler = psutil.Process(airflow.processes["scheduler"].pid)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            tasks = airflow.task_instances(self.plan.dag_id, self.run_id)
            titles = {f"airflow worker -- {task['id']}" for task in tasks}
            for process in scheduler.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                    if process.cmdline()[0] in titles:
                        return process
            time.sleep(0.05)
        return None


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
    plans = [Plan.make(number) for number in range(ROUNDS)]
    going_on: list[Round] = []
    while plans or going_on:
        if plans and len(going_on) < AT_ONCE:
            going_on.append(Round(plans.pop(0), chaos))
        for each in list(going_on):
            state = each.state()
            if state is None:
                continue
            going_on.remove(each)
            plan, executions = each.plan, each.executions()
            statuses = [str(execution.status) for execution in executions]
            left = [
                task.external_id
                for execution in executions
                for task in execution.tasks()
                if str(task.status) in ("IN_PROGRESS", "SCHEDULED")
            ]
            what = f"{plan.number:3} {plan.dag_id:17} {plan.victim:10} at {plan.moment:4.1f} s ({each.hit})"
            line = f"{what}: {state} after {each.seconds():.0f} s, {statuses}"
            tell(line)
            struck[plan.victim] += "nobody" not in each.hit
            if state != "success" or statuses != ["COMPLETED"] or left:
                failures.append(f"{line} left: {left}, tasks: {each.tasks()}")
        assert all(psutil.pid_exists(process.pid) for process in chaos.airflow.processes.values())
        time.sleep(0.5)
    tell(f"Struck: {dict(struck)}. Rounds that did not end as planned: {len(failures)}")
    assert not failures, "\n".join(failures)
