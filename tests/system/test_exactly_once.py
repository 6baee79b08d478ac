"""One logical run of an Airflow task is one CDF execution, whatever befalls a real Airflow."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Cluster

pytestmark = pytest.mark.slow


class Run:
    """A DAG run with a task that waits for CDF, once or, if it is mapped, for each of two pumps."""

    def __init__(self, cluster: Cluster, mode: str, prefix: str = "waits", **conf: str) -> None:
        self.cluster, self.dag_id = cluster, f"{prefix}_{mode}"
        self.id = cluster.airflow.trigger_dag(self.dag_id, conf=conf)

    def executions(self) -> list[Any]:
        """The executions that belong to this DAG run, oldest first, as the emulator has them."""
        with self.cluster.cdf.turn() as engine:
            return [
                execution
                for execution in engine.store.executions.values()
                if execution.metadata.get("airflow_run_id") == self.id
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

    def wait_until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self.cluster.airflow.check()
            if time.monotonic() > deadline:
                tasks = self.cluster.airflow.task_instances(self.dag_id, self.id)
                states = [(task["task_id"], task["map_index"], task["state"]) for task in tasks]
                scheduler = (self.cluster.airflow.home / "scheduler.log").read_text().splitlines()
                raise AssertionError(
                    "\n".join([f"not within {seconds:g} s: {states}, {self.statuses()}", *scheduler[-60:]])
                )
            time.sleep(0.2)

    def wait_for(self, state: str) -> None:
        self.wait_until(lambda: self.task()["state"] == state and bool(self.executions()))

    def processes(self, task_id: str = "run", map_index: int = -1) -> tuple[psutil.Process, psutil.Process]:
        """The process that runs the task, and its parent, which supervises it."""
        task = psutil.Process(int(self.task(task_id, map_index)["pid"]))
        supervisor = task.parent()
        assert supervisor is not None
        # Not the scheduler: a worker of the LocalExecutor, whose title names the task it supervises.
        assert supervisor.cmdline()[0].startswith("airflow worker -- LocalExecutor"), supervisor.cmdline()
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

    def finish_in_cdf(self) -> None:
        """Report the task that the last execution still running waits with."""
        running = [execution for execution in self.executions() if execution.status == "RUNNING"]
        self.wait_until(lambda: [score.status for score in scores(running[-1])] == ["IN_PROGRESS"])
        with self.cluster.cdf.turn() as engine:
            engine.update_task(scores(running[-1])[0].id, "COMPLETED", {"risk": 0.1})


def scores(execution: Any) -> list[Any]:
    """The attempts at the task that waits for Airflow's report."""
    return [task for task in execution.tasks() if task.external_id == "score"]


@pytest.mark.parametrize("state", ["failed", "success"])
def test_marking_a_deferred_task_cancels_its_execution(cluster: Cluster, state: str) -> None:
    run = Run(cluster, "deferred")
    run.wait_for("deferred")
    # Within the two seconds before a triggerer has taken it over, Airflow drops a trigger without on_kill.
    run.wait_until(lambda: "starting" in run.log())
    run.mark(state)
    run.wait_until(lambda: run.statuses() == ["TERMINATED"], seconds=10)


def test_marking_one_deferred_instance_of_a_mapped_task_failed_cancels_only_its_execution(
    cluster: Cluster,
) -> None:
    run = Run(cluster, "mapped_deferred")
    run.wait_until(lambda: run.statuses_of_pumps() == {"P-101": ["RUNNING"], "P-102": ["RUNNING"]})
    run.wait_until(lambda: "starting" in run.log(map_index=0) and "starting" in run.log(map_index=1))
    run.mark("failed", map_index=1)
    marked = {"P-101": ["RUNNING"], "P-102": ["TERMINATED"]}
    run.wait_until(lambda: run.statuses_of_pumps() == marked, seconds=10)
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "failed"
    assert run.statuses_of_pumps() == {"P-101": ["COMPLETED"], "P-102": ["TERMINATED"]}


def test_a_triggerer_that_is_killed_and_replaced_cancels_nothing(cluster: Cluster) -> None:
    run = Run(cluster, "deferred")
    run.wait_for("deferred")
    cluster.airflow.kill("triggerer")
    cluster.airflow.start("triggerer")
    cluster.airflow.wait_until_healthy()
    assert run.statuses() == ["RUNNING"]
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.statuses() == ["COMPLETED"]


@pytest.mark.parametrize("mode", ["deferred", "poking"])
def test_clearing_a_task_cancels_the_old_execution_and_starts_a_new_one(cluster: Cluster, mode: str) -> None:
    run = Run(cluster, mode)
    run.wait_for("deferred" if mode == "deferred" else "running")
    run.clear()
    run.wait_until(lambda: run.statuses() == ["TERMINATED", "RUNNING"])
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.statuses() == ["TERMINATED", "COMPLETED"]


def test_clearing_a_finished_task_starts_a_new_execution_and_leaves_the_old_one(cluster: Cluster) -> None:
    run = Run(cluster, "deferred")
    run.wait_for("deferred")
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    run.clear()
    run.wait_until(lambda: run.statuses() == ["COMPLETED", "RUNNING"])
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.statuses() == ["COMPLETED", "COMPLETED"]


def test_the_retry_of_a_killed_task_process_goes_on_with_its_execution(cluster: Cluster) -> None:
    run = Run(cluster, "poking")
    run.wait_for("running")
    run.wait_until(lambda: "CDF started execution" in run.log())
    os.kill(int(run.task()["pid"]), signal.SIGKILL)
    run.wait_until(lambda: run.task()["try_number"] == 2 and run.task()["state"] == "running")
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.statuses() == ["COMPLETED"]


def test_a_worker_that_is_told_to_stop_cancels_and_the_retry_starts_anew(cluster: Cluster) -> None:
    run = Run(cluster, "poking")
    run.wait_for("running")
    run.wait_until(lambda: "CDF started execution" in run.log())
    _, supervisor = run.processes()
    # What Kubernetes sends to a pod. The supervisor hands it on to the task's process and lives on.
    supervisor.terminate()
    run.wait_until(lambda: run.statuses() == ["TERMINATED", "RUNNING"])
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.statuses() == ["TERMINATED", "COMPLETED"]


def test_a_task_that_lost_its_supervisor_goes_on_beside_its_retry_and_does_no_harm(cluster: Cluster) -> None:
    run = Run(cluster, "poking")
    run.wait_for("running")
    run.wait_until(lambda: "CDF started execution" in run.log())
    orphan, supervisor = run.processes()
    supervisor.kill()
    run.wait_until(lambda: run.task()["try_number"] == 2 and run.task()["state"] == "running")
    run.wait_until(lambda: "of an earlier try" in run.log(2))
    assert orphan.is_running(), "the task process ended with its supervisor, so there was nothing to show"
    assert orphan.status() != psutil.STATUS_ZOMBIE
    assert run.processes()[0].pid != orphan.pid
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.statuses() == ["COMPLETED"]
    # It saw the end too, had nobody to tell, and ended without touching what is over.
    run.wait_until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)
    assert run.statuses() == ["COMPLETED"]
    assert run.task()["state"] == "success"


def test_a_task_that_lost_its_supervisor_starts_nothing_beside_its_retry(
    cluster: Cluster, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    run = Run(cluster, "at_the_door", door=str(door))
    run.wait_until(lambda: run.task()["state"] == "running" and "At the door." in run.log())
    orphan, supervisor = run.processes()
    supervisor.kill()
    run.wait_until(lambda: run.task()["try_number"] == 2 and run.statuses() == ["RUNNING"])
    assert orphan.is_running()
    door.touch()
    run.wait_until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.statuses() == ["COMPLETED"]


def test_an_execution_whose_worker_died_on_the_last_try_is_cancelled(cluster: Cluster) -> None:
    run = Run(cluster, "without_retry")
    run.wait_for("running")
    run.wait_until(lambda: "CDF started execution" in run.log())
    run.lose_worker()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "failed"
    run.wait_until(lambda: run.statuses() == ["TERMINATED"])


def test_of_a_mapped_task_only_the_execution_whose_worker_died_is_cancelled(cluster: Cluster) -> None:
    run = Run(cluster, "mapped")
    run.wait_until(lambda: run.statuses_of_pumps() == {"P-101": ["RUNNING"], "P-102": ["RUNNING"]})
    run.wait_until(lambda: "CDF started execution" in run.log(map_index=1))
    run.lose_worker(map_index=1)
    run.wait_until(lambda: run.statuses_of_pumps() == {"P-101": ["RUNNING"], "P-102": ["TERMINATED"]})
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "failed"
    assert run.statuses_of_pumps() == {"P-101": ["COMPLETED"], "P-102": ["TERMINATED"]}
    assert [run.task(map_index=each)["state"] for each in (0, 1)] == ["success", "failed"]


def test_a_report_whose_worker_died_on_the_last_try_is_made_as_a_failure(cluster: Cluster) -> None:
    run = Run(cluster, "to_report")
    # The report of the killed process waits here, and is never made.
    cluster.cdf.faults.add("POST", "*/tasks/*/update", delay=60, drop="before")
    try:
        run.wait_until(lambda: not cluster.cdf.faults.waiting())
        run.lose_worker("report")
        (execution,) = run.executions()
        assert [score.status for score in scores(execution)] == ["IN_PROGRESS"]
        assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "failed"
        run.wait_until(lambda: run.statuses() == ["FAILED"])
    finally:
        cluster.cdf.faults.clear()
    (score,) = scores(execution)
    assert score.status == "FAILED_WITH_TERMINAL_ERROR"
    (failed,) = score.output["airflow"]["failed_tasks"]
    assert (failed["task_id"], failed["state"]) == ("report", "failed")


def test_an_edit_of_retries_between_two_tries_makes_no_second_run(cluster: Cluster) -> None:
    file = cluster.airflow.dags_folder / "waits_for_cdf.py"
    before = file.read_text()
    slow = before.replace("RETRY_DELAY = timedelta(seconds=1)", "RETRY_DELAY = timedelta(seconds=15)")
    try:
        file.write_text(slow.replace("waits_", "edited_"))
        run = Run(cluster, "poking", prefix="edited")
        run.wait_for("running")
        run.wait_until(lambda: "CDF started execution" in run.log())
        os.kill(int(run.task()["pid"]), signal.SIGKILL)
        run.wait_until(lambda: run.task()["state"] == "up_for_retry")
        edited = slow.replace("waits_", "edited_").replace('("poking", False, 1)', '("poking", False, 7)')
        file.write_text(edited)
        run.wait_until(lambda: run.task()["try_number"] == 2 and run.task()["state"] == "running")
        run.wait_until(lambda: "of an earlier try" in run.log(2))
    finally:
        file.write_text(before)
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.statuses() == ["COMPLETED"]
