"""DAG runs of ``dags/waits_for_cdf.py``, seen from Airflow and from CDF, and what befalls them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
from clusters import Cluster


class Run:
    """A DAG run with a task that waits for CDF, once or, if it is mapped, for each of two pumps."""

    def __init__(
        self, cluster: Cluster, mode: str, prefix: str = "waits", run_id: str | None = None, **conf: str
    ) -> None:
        self.cluster, self.dag_id = cluster, f"{prefix}_{mode}"
        self.id = cluster.airflow.trigger_dag(self.dag_id, run_id=run_id, conf=conf, timeout=180)

    def executions(self) -> list[Any]:
        """The executions that belong to this DAG run, oldest first, as the emulator has them."""
        with self.cluster.cdf.turn() as engine:
            return [
                execution
                for execution in engine.store.executions.values()
                if execution.metadata.get("airflow_run_id") == self.id
                # Another Airflow on the same CDF project may have a DAG run of the same id.
                and execution.metadata["airflow_url"].startswith(self.cluster.airflow.url)
            ]

    def statuses(self) -> list[str]:
        return [str(execution.status) for execution in self.executions()]

    def statuses_of_pumps(self) -> dict[str, list[str]]:
        statuses: dict[str, list[str]] = {}
        for execution in self.executions():
            statuses.setdefault(execution.input["pump"], []).append(str(execution.status))
        return statuses

    def task(self, task_id: str = "run", map_index: int = -1) -> dict[str, Any]:
        (task,) = [
            task
            for task in self.cluster.airflow.task_instances(self.dag_id, self.id)
            if (task["task_id"], task["map_index"]) == (task_id, map_index)
        ]
        return task

    def wait_until(self, condition: Callable[[], bool], seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self.cluster.airflow.check()
            if time.monotonic() > deadline:
                tasks = self.cluster.airflow.task_instances(self.dag_id, self.id)
                states = [(task["task_id"], task["map_index"], task["state"]) for task in tasks]
                logs = sorted(self.cluster.airflow.home.glob("scheduler*.log"))
                scheduler = [line for log in logs for line in log.read_text().splitlines()[-60:]]
                raise AssertionError(
                    "\n".join([f"not within {seconds:g} s: {states}, {self.statuses()}", *scheduler])
                )
            time.sleep(0.2)

    def wait_for_log(self, text: str, try_number: int = 1, seconds: float = 180) -> None:
        def is_there() -> bool:
            task = self.task()
            return (
                task["try_number"] >= try_number and bool(task["start_date"]) and text in self.log(try_number)
            )

        self.wait_until(is_there, seconds)

    def wait_for(self, state: str) -> None:
        self.wait_until(lambda: self.task()["state"] == state and bool(self.executions()))

    def processes(self, task_id: str = "run", map_index: int = -1) -> tuple[psutil.Process, psutil.Process]:
        """The process that runs the task, and its parent, which supervises it."""
        task = psutil.Process(int(self.task(task_id, map_index)["pid"]))
        supervisor = task.parent()
        assert supervisor is not None
        # Not the scheduler: a worker of the LocalExecutor, or below a child of a Celery worker.
        title = " ".join(supervisor.cmdline())
        assert title.startswith(("airflow worker -- LocalExecutor", "airflow supervisor")), title
        return task, supervisor

    def lose_worker(self, task_id: str = "run", map_index: int = -1) -> None:
        """A machine that fails takes both processes with it."""
        task, supervisor = self.processes(task_id, map_index)
        supervisor.kill()
        task.kill()

    def log(self, try_number: int = 1, map_index: int = -1) -> str:
        return self.cluster.airflow.task_log(self.dag_id, self.id, "run", try_number, map_index=map_index)

    def mark(self, state: str, map_index: int = -1) -> None:
        path = f"/dags/{self.dag_id}/dagRuns/{self.id}/taskInstances/run/{map_index}"
        self.cluster.airflow.api("PATCH", path, json={"new_state": state})

    def clear(self) -> None:
        body = {
            "dry_run": False,
            "dag_run_id": self.id,
            "task_ids": ["run"],
            "only_failed": False,
            "reset_dag_runs": True,
        }
        self.cluster.airflow.api("POST", f"/dags/{self.dag_id}/clearTaskInstances", json=body)

    def set_back_to_scheduled(self) -> None:
        """
        Do what Airflow's scheduler does to a task that it wrongly takes for stuck in the queue.

        It keeps the try number, and asks neither for the state nor for a process (apache/airflow#65248).
        """
        changed = self.cluster.airflow.sql(
            "UPDATE task_instance SET state = 'scheduled', queued_dttm = NULL, queued_by_job_id = NULL, "
            "scheduled_dttm = CURRENT_TIMESTAMP "
            "WHERE dag_id = :dag_id AND run_id = :run_id AND task_id = 'run'",
            dag_id=self.dag_id,
            run_id=self.id,
        )
        assert changed == 1

    def finish_in_cdf(self, status: str = "COMPLETED") -> None:
        """Report the task that the last execution still running waits with, well or badly."""
        running = [execution for execution in self.executions() if execution.status == "RUNNING"]
        self.wait_until(lambda: [score.status for score in scores(running[-1])] == ["IN_PROGRESS"])
        with self.cluster.cdf.turn() as engine:
            engine.update_task(scores(running[-1])[0].id, status, {"risk": 0.1})


def scores(execution: Any) -> list[Any]:
    """The attempts at the task that waits for Airflow's report."""
    return [task for task in execution.tasks() if task.external_id == "score"]
