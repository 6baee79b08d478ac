"""Rounds of chaos: DAG runs that something befalls at a random moment, and how each has to end."""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from clusters import Cluster

from airflow_provider_cdf.demo import examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflowError

#: The examples that befall nothing by themselves: Airflow starts the workflow.
DAGS = ("cdf_roundtrip", "cdf_run_and_wait")
#: CDF starts it, and an inbox takes up its task. The working DAG is what a round is about.
INBOX, WORK = "cdf_inbox_watched", "cdf_inbox_work"
#: The inbox has a workflow of its own, or it would do the work of other rounds.
WORKFLOW, WORKFLOW_OF_INBOX = "pump_health", "pump_health_for_the_inbox"
SEED = os.environ.get("CHAOS_SEED") or str(random.randrange(10_000))


def write_dags(folder: Path, retries: int = 3) -> None:
    """Write the examples into a folder, with retries as a careful user would give them."""
    for name in (*DAGS, WORK):
        text, replaced = re.subn(
            r'"retries": \d+, "retry_delay": timedelta\(seconds=\d+\)',
            f'"retries": {retries}, "retry_delay": timedelta(seconds=1)',
            (examples_folder() / f"{name}.py").read_text(),
        )
        assert replaced == 1, name
        (folder / f"{name}.py").write_text(text)
    text = (examples_folder() / f"{INBOX}.py").read_text()
    assert text.count(f'"{WORKFLOW}"') == 1
    (folder / f"{INBOX}.py").write_text(text.replace(f'"{WORKFLOW}"', f'"{WORKFLOW_OF_INBOX}"'))


@dataclass(frozen=True)
class Plan:
    """What befalls one DAG run; the same for the same seed."""

    number: int
    dag_id: str
    victim: str
    moment: float

    @classmethod
    def make(cls, number: int, victims: Sequence[str]) -> Plan:
        dice = random.Random(f"{SEED}/{number}")  # not a secret: a repeatable choice
        return cls(
            number,
            # Every third round is of the other direction.
            WORK if number % 3 == 2 else dice.choice(DAGS),
            victims[number % len(victims)],
            # A run takes some 15 s; tasks of its end would hardly ever be hit by a longer wait.
            round(dice.uniform(0, 12), 1),
        )


def patiently(ask: Callable[[], Any], seconds: float = 180) -> Any:
    """Ask an Airflow whose api-server or database may just be starting again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except LocalAirflowError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


@dataclass
class Round:
    """A DAG run that goes on, and what has befallen it."""

    plan: Plan
    cluster: Cluster

    def __post_init__(self) -> None:
        # An id of its own: a start whose answer was lost is not made twice.
        self.run_id = f"round-{self.plan.number}"
        patiently(self.start)
        self.began = time.monotonic()

    @classmethod
    def of(cls, plan: Plan, cluster: Cluster) -> Round:
        """Begin the round of a plan."""
        return RoundOfInbox(plan, cluster) if plan.dag_id == WORK else cls(plan, cluster)

    def start(self) -> None:
        """Start the DAG run, unless it is there."""
        airflow = self.cluster.airflow
        with contextlib.suppress(LocalAirflowError):
            airflow.dag_run_state(self.plan.dag_id, self.run_id)
            return
        airflow.trigger_dag(self.plan.dag_id, run_id=self.run_id)

    def look(self) -> str:
        """Return the state of the DAG run."""
        return self.cluster.airflow.dag_run_state(self.plan.dag_id, self.run_id)

    def state(self, patience: float) -> str | None:
        """How the DAG run has ended; ``None`` while it goes on."""
        try:
            state = self.look()
        except LocalAirflowError as error:
            state = f"unknown: {error}"
        return state if state in ("success", "failed") or self.seconds() > patience else None

    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self.began

    def task_instances(self) -> list[dict[str, Any]]:
        """Return the tasks that something may befall."""
        return self.cluster.airflow.task_instances(self.plan.dag_id, self.run_id)

    def tasks(self) -> str:
        """In which state each task is, and in which try."""
        tasks = patiently(self.task_instances)
        return ", ".join(f"{task['task_id']} (try {task['try_number']})={task['state']}" for task in tasks)

    def executions(self) -> list[Any]:
        with self.cluster.cdf.turn() as engine:
            return [
                execution
                for execution in engine.store.executions.values()
                if execution.metadata.get("airflow_run_id") == self.run_id
            ]

    def running_task(self, components: Sequence[str], seconds: float = 60) -> psutil.Process | None:
        """
        The next process that runs a task of this DAG run, by the title that Airflow gives it.

        :param components: whose descendants run tasks.
        """
        airflow = self.cluster.airflow
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            tasks = patiently(self.task_instances)
            titles = {f"airflow worker -- {task['id']}" for task in tasks}
            for name in components:
                with contextlib.suppress(psutil.NoSuchProcess):
                    for process in psutil.Process(airflow.processes[name].pid).children(recursive=True):
                        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                            if process.cmdline()[0] in titles:
                                return process
            time.sleep(0.05)
        return None


class RoundOfInbox(Round):
    """An execution that CDF starts, and the one DAG run that an inbox starts for it."""

    def start(self) -> None:
        """Start the execution, which cannot fail."""
        for dag_id in (INBOX, WORK):
            self.cluster.airflow.switch_on(dag_id)
        with self.cluster.cdf.turn() as engine:
            definition = engine.catalog.version(WORKFLOW, "1").definition
            engine.catalog.upsert_version(WORKFLOW_OF_INBOX, "1", definition)
            self.execution_id = engine.run(WORKFLOW_OF_INBOX, "1", input={"pump": "P-101"}).id

    def executions(self) -> list[Any]:
        """Return the one that was started."""
        with self.cluster.cdf.turn() as engine:
            return [engine.store.executions[self.execution_id]]

    def runs(self) -> list[dict[str, Any]]:
        """Return the DAG runs for it."""
        runs = self.cluster.airflow._pages(f"/dags/{WORK}/dagRuns", "dag_runs")
        return [run for run in runs if run["conf"]["execution_id"] == self.execution_id]

    def look(self) -> str:
        """Return the state of its DAG run, or that there is none yet, or too many."""
        states = [str(run["state"]) for run in self.runs()]
        if len(states) != 1:
            return f"{len(states)} DAG runs"
        # No task of the DAG run waits for what CDF does with the report.
        goes_on = states == ["success"] and str(self.executions()[0].status) == "RUNNING"
        return "running in CDF" if goes_on else states[0]

    def task_instances(self) -> list[dict[str, Any]]:
        """Return the tasks of its DAG run, and those of the inbox."""
        airflow = self.cluster.airflow
        newest = airflow.api("GET", f"/dags/{INBOX}/dagRuns", params={"order_by": "-run_after", "limit": 1})
        runs = [(WORK, run) for run in self.runs()] + [(INBOX, run) for run in newest["dag_runs"]]
        return [task for dag_id, run in runs for task in airflow.task_instances(dag_id, run["dag_run_id"])]


def play(
    cluster: Cluster,
    plans: list[Plan],
    strike: Callable[[Round], str],
    tell: Callable[[str], None],
    *,
    at_once: int,
    patience: float,
) -> None:
    """
    Play the rounds, and fail unless each ends with one execution, COMPLETED.

    :param strike: does what a round's plan says, and returns what was hit.
    :param tell: takes a line for each round.
    :param at_once: rounds that may go on at a time. What is struck for one may strike the others, too.
    :param patience: seconds that a round may take.
    """
    print()
    tell(f"CHAOS_SEED={SEED}, {len(plans)} rounds")
    failures: list[str] = []
    struck: Counter[str] = Counter()
    going_on: list[tuple[Round, str]] = []
    while plans or going_on:
        if plans and len(going_on) < at_once:
            each = Round.of(plans.pop(0), cluster)
            time.sleep(each.plan.moment)
            going_on.append((each, strike(each)))
        for each, hit in list(going_on):
            state = each.state(patience)
            if state is None:
                continue
            going_on.remove((each, hit))
            plan, executions = each.plan, each.executions()
            statuses = [str(execution.status) for execution in executions]
            left = [
                task.external_id
                for execution in executions
                for task in execution.tasks()
                if str(task.status) in ("IN_PROGRESS", "SCHEDULED")
            ]
            what = f"{plan.number:3} {plan.dag_id:17} {plan.victim:10} at {plan.moment:4.1f} s ({hit})"
            line = f"{what}: {state} after {each.seconds():.0f} s, {statuses}"
            tell(line)
            struck[plan.victim] += "nobody" not in hit
            if state != "success" or statuses != ["COMPLETED"] or left:
                failures.append(f"{line} left: {left}, tasks: {each.tasks()}")
        time.sleep(0.5)
    tell(f"Struck: {dict(struck)}. Rounds that did not end as planned: {len(failures)}")
    assert not failures, "\n".join(failures)
