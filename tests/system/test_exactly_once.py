"""One logical run of an Airflow task is one CDF execution, whatever befalls a real Airflow."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from clusters import Cluster
from runs import Run, scores

pytestmark = pytest.mark.slow


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
    run.wait_until(lambda: "CDF has started workflow" in run.log())
    os.kill(int(run.task()["pid"]), signal.SIGKILL)
    run.wait_until(lambda: run.task()["try_number"] == 2 and run.task()["state"] == "running")
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.statuses() == ["COMPLETED"]


def test_the_retry_goes_on_with_the_execution_of_a_worker_that_was_told_to_stop(cluster: Cluster) -> None:
    run = Run(cluster, "poking")
    run.wait_for("running")
    run.wait_until(lambda: "CDF has started workflow" in run.log())
    _, supervisor = run.processes()
    # What Kubernetes sends to a pod. The supervisor hands it on to the task's process and lives on.
    supervisor.terminate()
    run.wait_until(lambda: run.task()["try_number"] == 2 and run.task()["state"] == "running")
    run.finish_in_cdf()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "success"
    assert run.statuses() == ["COMPLETED"]
    assert "goes on, for the next try" in run.log()


def test_a_task_that_lost_its_supervisor_goes_on_beside_its_retry_and_does_no_harm(cluster: Cluster) -> None:
    run = Run(cluster, "poking")
    run.wait_for("running")
    run.wait_until(lambda: "CDF has started workflow" in run.log())
    # Until then it has more to log, and it does not outlive a log line that no supervisor takes.
    run.wait_until(lambda: "CDF waits for a report" in run.log())
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


@pytest.mark.long
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
    run.wait_until(lambda: "CDF has started workflow" in run.log())
    run.lose_worker()
    assert cluster.airflow.wait_for_dag_run(run.dag_id, run.id) == "failed"
    run.wait_until(lambda: run.statuses() == ["TERMINATED"])


@pytest.mark.long
def test_of_a_mapped_task_only_the_execution_whose_worker_died_is_cancelled(cluster: Cluster) -> None:
    run = Run(cluster, "mapped")
    run.wait_until(lambda: run.statuses_of_pumps() == {"P-101": ["RUNNING"], "P-102": ["RUNNING"]})
    run.wait_until(lambda: "CDF has started workflow" in run.log(map_index=1))
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


@pytest.mark.long
def test_an_edit_of_retries_between_two_tries_makes_no_second_run(cluster: Cluster) -> None:
    file = cluster.airflow.dags_folder / "waits_for_cdf.py"
    before = file.read_text()
    slow = before.replace("RETRY_DELAY = timedelta(seconds=1)", "RETRY_DELAY = timedelta(seconds=15)")
    try:
        file.write_text(slow.replace("waits_", "edited_"))
        run = Run(cluster, "poking", prefix="edited")
        run.wait_for("running")
        run.wait_until(lambda: "CDF has started workflow" in run.log())
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
