"""An Airflow with inboxes beside a CDF that starts executions itself, and what the tests ask of both."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clusters import Cluster

from airflow_provider_cdf.demo import emulator, examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflow
from airflow_provider_cdf.demo.shapes import Shape
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.emulator.rules.definitions import WorkflowDefinition

#: The workflow that each inbox looks at: one has a schedule, the other a watcher.
WORKFLOWS = {"inbox": "asks_the_inbox", "bell": "rings_the_bell"}
#: Of ``dags/``.
OF_THIS_DIRECTION = ("inbox", "cancelled", "endings_told", "every_minute")
#: A lost triggerer is noticed after seconds. Of tasks, Airflow is as patient as it is by default: a busy
#: machine lets them wait, and all that an impatient Airflow does then is to start them again.
SETTINGS = {
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "1",
}


class SeveralTriggerers(Shape):
    """
    The smallest shape, with more triggerers.

    :param number: how many; they are named ``triggerer-1`` and so on.
    """

    def __init__(self, number: int) -> None:
        triggerer = Shape.components["triggerer"]
        self.components: Mapping[str, Sequence[str]] = {
            **{name: command for name, command in Shape.components.items() if name != "triggerer"},
            **{f"triggerer-{each}": triggerer for each in range(1, number + 1)},
        }


@contextlib.contextmanager
def inboxes(
    folder: Path, *, triggerers: int = 1, cdf: CdfEmulator | None = None, **env: str
) -> Iterator[Inboxes]:
    """Start CDF and Airflow with the DAGs of this direction and all examples."""
    for source in (examples_folder(), Path(__file__).parent / "dags"):
        for file in source.glob("*.py"):
            if source.name != "dags" or file.stem in OF_THIS_DIRECTION:
                shutil.copy(file, folder)
    with cdf or emulator() as running:
        settings = {"AIRFLOW_CONN_CDF_DEFAULT": running.airflow_connection_uri(), **SETTINGS, **env}
        with LocalAirflow(folder, shape=SeveralTriggerers(triggerers), env=settings) as airflow:
            airflow.wait_until_healthy(300)
            yield Inboxes(Cluster(running, airflow))


class Inboxes:
    """
    Both sides, and what is asked of them.

    :param cluster: the emulator and Airflow.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cdf, self.airflow = cluster.cdf, cluster.airflow
        task = {
            "externalId": "score",
            "type": "function",
            "parameters": {
                "function": {"externalId": "ask_airflow", "data": {"number": "${workflow.input.number}"}},
                "isAsyncComplete": True,
            },
            "retries": 0,
        }
        definition = WorkflowDefinition.model_validate({"tasks": [task]})
        with self.cdf.turn() as engine:
            for workflow in (*WORKFLOWS.values(), "asks_every_minute"):
                engine.catalog.upsert_version(workflow, "1", definition)

    def switch(self, inbox: str, *, is_on: bool = True, works: bool = True) -> None:
        """Pause an inbox and its working DAG, or do not."""
        self.pause(f"{inbox}_work", not works)
        self.pause(inbox, not is_on)

    def pause(self, dag_id: str, is_paused: bool) -> None:
        self.wait_until(lambda: self.airflow._is_parsed(dag_id))
        self.airflow.api("PATCH", f"/dags/{dag_id}", json={"is_paused": is_paused})

    def begin(self, inbox: str, numbers: Iterable[int]) -> dict[str, int]:
        """Let CDF start executions; return their numbers by id."""
        return {self.start(WORKFLOWS[inbox], {"number": number}): number for number in numbers}

    def start(self, workflow: str, given: dict[str, Any]) -> str:
        with self.cdf.turn() as engine:
            return str(engine.run(workflow, "1", input=given).id)

    def cancel(self, execution_id: str, reason: str) -> None:
        with self.cdf.turn() as engine:
            engine.cancel(execution_id, reason)

    def execution(self, execution_id: str) -> Any:
        with self.cdf.turn() as engine:
            return engine.store.executions[execution_id]

    def score(self, execution_id: str) -> Any:
        """Return the current attempt at the task that waits for Airflow; ``None`` before there is one."""
        tasks = [one for one in self.execution(execution_id).tasks() if one.external_id == "score"]
        return tasks[-1] if tasks else None

    def statuses(self, ids: Iterable[str]) -> set[str]:
        return {str(self.execution(one).status) for one in ids}

    def have_completed(self, ids: Iterable[str]) -> bool:
        return self.statuses(ids) == {"COMPLETED"}

    def runs(self, dag_id: str, ids: Collection[str] | None = None) -> list[dict[str, Any]]:
        """Return DAG runs, of a working DAG those for some executions."""
        found = self.airflow._pages(f"/dags/{dag_id}/dagRuns", "dag_runs")
        return [run for run in found if ids is None or (run["conf"] or {}).get("execution_id") in ids]

    def lose(self, name: str) -> None:
        """Kill a process, and start it again."""
        self.airflow.kill(name)
        self.airflow.start(name)

    def wait_until(self, happened: Callable[[], Any], seconds: float = 900, *, is_whole: bool = True) -> Any:
        """
        Wait until something is true, and return it.

        :param is_whole: whether all of Airflow's processes have to run meanwhile.
        """
        deadline = time.monotonic() + seconds
        while not (result := happened()):
            if is_whole:
                self.airflow.check()
            if time.monotonic() > deadline:
                runs = self.airflow._pages("/dags/~/dagRuns", "dag_runs")
                left = [(run["dag_run_id"], run["state"]) for run in runs if run["state"] != "success"]
                raise AssertionError(f"not within {seconds:g} s; DAG runs that have not succeeded: {left}")
            time.sleep(0.5)
        return result
