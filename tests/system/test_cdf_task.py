"""Work for a CDF task on a real Airflow: what CDF is told, whatever befalls function, group and callbacks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from conftest import Cluster

from airflow_provider_cdf.demo import FUNCTIONS
from airflow_provider_cdf.versions import HAS_STATES_IN_CALLBACKS

pytestmark = pytest.mark.slow


class Work:
    """
    A DAG run with work for the CDF task ``score``.

    :param how: what its function does: see ``dags/works_for_cdf.py``.
    """

    def __init__(self, cluster: Cluster, folder: Path, how: str, dag_id: str = "works_for_cdf") -> None:
        self.cluster, self.airflow, self.dag_id = cluster, cluster.airflow, dag_id
        self.let_go_file, self.began = folder / f"{uuid.uuid4()}", folder / f"{uuid.uuid4()}"
        conf = {"how": how, "let_go": str(self.let_go_file), "began": str(self.began)}
        self.id = self.airflow.trigger_dag(dag_id, conf=conf)

    def let_go(self) -> None:
        self.let_go_file.touch()

    def wait_until(self, happened: Callable[[], Any], seconds: float = 180) -> Any:
        deadline = time.monotonic() + seconds
        while not (result := happened()):
            self.airflow.check()
            states = {one["task_id"]: one["state"] for one in self.tasks()}
            assert time.monotonic() < deadline, (states, [str(one.status) for one in self.attempts()])
            time.sleep(0.3)
        return result

    def wait_for_end(self) -> str:
        return str(self.airflow.wait_for_dag_run(self.dag_id, self.id, timeout=300))

    def tasks(self) -> list[dict[str, Any]]:
        return self.airflow.task_instances(self.dag_id, self.id)

    def task(self, task_id: str = "judge") -> dict[str, Any]:
        return next(one for one in self.tasks() if one["task_id"] == task_id)

    def execution(self) -> Any:
        with self.cluster.cdf.turn() as engine:
            found = [
                one
                for one in engine.store.executions.values()
                if one.metadata.get("airflow_run_id") == self.id
                and one.metadata.get("airflow_dag_id") == self.dag_id
            ]
        return found[0] if found else None

    def attempts(self) -> list[Any]:
        execution = self.execution()
        return [] if execution is None else [one for one in execution.tasks() if one.external_id == "score"]

    def status(self) -> str:
        (attempt,) = self.attempts()
        return str(attempt.status)

    def output(self) -> dict[str, Any]:
        output: dict[str, Any] = self.attempts()[-1].output
        return output

    def log(self) -> str:
        """The logs of all tries; on a busy machine, Airflow counts some that did not even start."""
        tries = range(1, self.task()["try_number"] + 1)
        return "\n".join(self.airflow.task_log(self.dag_id, self.id, "judge", number) for number in tries)

    def process(self) -> psutil.Process:
        return psutil.Process(int(self.task()["pid"]))

    def hold(self) -> None:
        """Wait until the function runs."""
        self.wait_until(self.began.exists)

    def mark(self, state: str) -> None:
        path = f"/dags/{self.dag_id}/dagRuns/{quote(self.id, safe='')}/taskInstances/judge"
        self.airflow.api("PATCH", path, json={"new_state": state})

    def mark_run(self, state: str) -> None:
        path = f"/dags/{self.dag_id}/dagRuns/{quote(self.id, safe='')}"
        self.airflow.api("PATCH", path, json={"state": state})

    def clear(self) -> None:
        body = {"dry_run": False, "dag_run_id": self.id, "task_ids": ["judge"], "only_failed": False}
        self.airflow.api("POST", f"/dags/{self.dag_id}/clearTaskInstances", json=body)


@pytest.fixture
def reading(cluster: Cluster) -> Iterator[Callable[[Any], None]]:
    """Choose what CDF measures."""
    yield lambda vibration: cluster.cdf.set_function("read_sensors", {"vibration": vibration})
    cluster.cdf.set_function("read_sensors", FUNCTIONS["read_sensors"])


class TestFunction:
    def test_gets_the_task_and_its_result_goes_on_in_cdf(self, cluster: Cluster, tmp_path: Path) -> None:
        work = Work(cluster, tmp_path, "succeeds")

        assert work.wait_for_end() == "success"
        assert (work.status(), work.output()["risk"]) == ("COMPLETED", 0.72)
        work.wait_until(lambda: work.execution().status == "COMPLETED")
        (publish,) = [one for one in work.execution().tasks() if one.external_id == "publish"]
        assert publish.input["function"]["data"]["risk"] == 0.72
        assert cluster.airflow.xcom(work.dag_id, work.id, "judge")["risk"] == 0.72
        assert "Pausing task as DEFERRED" in work.log()

    def test_that_fails_for_good_is_told_to_cdf_after_the_last_try(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        work = Work(cluster, tmp_path, "fails")

        assert work.wait_for_end() == "failed"
        assert work.status() == "FAILED_WITH_TERMINAL_ERROR"
        told = work.output()["airflow"]
        last = work.task()["try_number"]
        assert told["error"] == {"type": "RuntimeError", "message": f"the historian is down, try {last}"}
        assert told["try_number"] == last >= 2
        assert told["url"].startswith(cluster.airflow.url)
        assert told["failed_tasks"][0]["url"].endswith("/tasks/judge")
        assert "goes on waiting, for the next try" in work.log()
        work.wait_until(lambda: work.execution().status == "FAILED")

    def test_that_fails_once_is_not_told_to_cdf(self, cluster: Cluster, tmp_path: Path) -> None:
        work = Work(cluster, tmp_path, "fails once")

        assert work.wait_for_end() == "success"
        assert work.status() == "COMPLETED"
        assert work.task()["try_number"] >= 2


@pytest.mark.long
class TestPeople:
    def test_who_mark_the_task_failed_tell_cdf(self, cluster: Cluster, tmp_path: Path) -> None:
        work = Work(cluster, tmp_path, "holds on")
        work.hold()
        work.mark("failed")

        work.wait_until(lambda: work.status() == "FAILED_WITH_TERMINAL_ERROR", seconds=60)
        assert work.output()["airflow"]["error"]["type"] == "MarkedFailedError"
        assert work.wait_for_end() == "failed"

    def test_who_mark_the_dag_run_failed_tell_cdf(self, cluster: Cluster, tmp_path: Path) -> None:
        work = Work(cluster, tmp_path, "holds on")
        work.hold()
        work.mark_run("failed")

        work.wait_until(lambda: work.status() == "FAILED_WITH_TERMINAL_ERROR", seconds=60)

    def test_who_mark_it_successful_complete_the_task(self, cluster: Cluster, tmp_path: Path) -> None:
        work = Work(cluster, tmp_path, "holds on")
        work.hold()
        work.mark("success")

        work.wait_until(lambda: work.status() == "COMPLETED", seconds=60)
        assert work.output()["airflow"]["marked"] == "success"
        assert work.wait_for_end() == "success"

    def test_who_clear_it_leave_the_task_waiting_for_the_next_try(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        work = Work(cluster, tmp_path, "holds on")
        work.hold()
        (waiting,) = work.attempts()
        work.began.unlink()
        work.clear()
        work.hold()
        # Whether the first try has logged why: on a busy machine, Airflow kills it before.
        assert work.status() == "IN_PROGRESS"
        work.let_go()

        assert work.wait_for_end() == "success"
        assert (work.status(), work.output()["attempt"]) == ("COMPLETED", waiting.id)


@pytest.mark.long
class TestMachines:
    def test_that_shut_a_worker_down_tell_cdf_nothing(self, cluster: Cluster, tmp_path: Path) -> None:
        work = Work(cluster, tmp_path, "holds on")
        work.hold()
        work.process().terminate()
        work.wait_until(lambda: "told to stop" in work.log())
        work.let_go()

        assert work.wait_for_end() == "success"
        assert work.task()["try_number"] >= 2
        assert work.status() == "COMPLETED"

    def test_that_die_on_the_last_try_leave_the_report_to_the_callback(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        work = Work(cluster, tmp_path, "holds on", "works_for_cdf_once")
        work.hold()
        # Task and supervisor: where only the task's process dies, Airflow 3.3 calls no callback.
        supervisor = work.process().parent()
        assert supervisor is not None
        assert supervisor.cmdline()[0].startswith("airflow worker -- LocalExecutor"), supervisor.cmdline()
        task = work.process()
        supervisor.kill()
        task.kill()

        work.wait_until(lambda: work.status() == "FAILED_WITH_TERMINAL_ERROR")
        assert work.output()["airflow"]["failed_tasks"][0]["task_id"] == "judge"
        assert work.wait_for_end() == "failed"


@pytest.mark.long
def test_a_function_that_asks_stops_when_cdf_has_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    work = Work(cluster, tmp_path, "asks")
    work.hold()
    with cluster.cdf.turn() as engine:
        engine.cancel(work.execution().id, "shift change")

    assert work.wait_for_end() == "failed"
    assert work.task()["try_number"] == 1
    assert "already ended CANCELED" in work.log()
    assert "shift change" in work.log()


@pytest.mark.long
class TestGroup:
    """The example DAG, whose group has a task behind it."""

    def states(self, work: Work) -> dict[str, str]:
        return {one["task_id"]: str(one["state"]) for one in work.tasks()}

    def test_reports_success(self, cluster: Cluster, tmp_path: Path) -> None:
        work = Work(cluster, tmp_path, "", "cdf_task_group")
        assert work.wait_for_end() == "success"
        assert (work.status(), work.output()["risk"]) == ("COMPLETED", 0.72)
        ended, report = work.task("ended"), work.task("score.report")
        assert ended["start_date"] >= report["end_date"]

    def test_reports_failure_and_the_run_is_red(
        self, cluster: Cluster, tmp_path: Path, reading: Callable[[Any], None]
    ) -> None:
        reading("broken")
        work = Work(cluster, tmp_path, "", "cdf_task_group")
        assert work.wait_for_end() == "failed"
        assert work.status() == "FAILED_WITH_TERMINAL_ERROR"
        assert self.states(work)["ended"] == "upstream_failed"

    def test_reports_a_short_circuit_and_the_run_is_red(
        self, cluster: Cluster, tmp_path: Path, reading: Callable[[Any], None]
    ) -> None:
        reading(None)
        work = Work(cluster, tmp_path, "", "cdf_task_group")
        assert work.wait_for_end() == "failed"
        assert work.status() == "FAILED_WITH_TERMINAL_ERROR"
        assert self.states(work)["ended"] == "skipped"

    def test_tells_cdf_when_a_person_marks_the_run_failed_and_it_stays_red(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        work = Work(cluster, tmp_path, "", "cdf_task_group")
        work.wait_until(lambda: self.states(work)["score.waits"] == "success")
        work.mark_run("failed")

        work.wait_until(lambda: self.states(work)["score.outcome"] in ("success", "failed"))
        assert work.airflow.dag_run_state(work.dag_id, work.id) == "failed"
        # Unless the work was done by then.
        is_done = self.states(work)["score.judge"] == "success"
        assert work.status() == ("COMPLETED" if is_done else "FAILED_WITH_TERMINAL_ERROR")


@pytest.mark.long
class TestNotifier:
    """The example DAG, whose callbacks run in Airflow's DAG processor."""

    def test_reports_success(self, cluster: Cluster, tmp_path: Path) -> None:
        work = Work(cluster, tmp_path, "", "cdf_notifier")
        assert work.wait_for_end() == "success"
        work.wait_until(lambda: work.status() == "COMPLETED")
        assert work.output()["risk"] == "0.72"

    def test_reports_failure(self, cluster: Cluster, tmp_path: Path, reading: Callable[[Any], None]) -> None:
        reading("broken")
        work = Work(cluster, tmp_path, "", "cdf_notifier")
        assert work.wait_for_end() == "failed"
        work.wait_until(lambda: work.status() == "FAILED_WITH_TERMINAL_ERROR")
        told = work.output()["airflow"]
        assert (told["dag_id"], told["run_id"]) == ("cdf_notifier", work.id)
        assert "task_id" not in told  # it is the DAG that reports
        assert told["url"].startswith("http")
        failed = [one["task_id"] for one in told.get("failed_tasks", [])]
        assert failed == (["judge"] if HAS_STATES_IN_CALLBACKS else [])


@pytest.mark.long
@pytest.mark.parametrize("dag_id", ["cdf_fan_out", "cdf_fan_out_each"])
def test_fan_out_does_all_children(cluster: Cluster, tmp_path: Path, dag_id: str) -> None:
    work = Work(cluster, tmp_path, "", dag_id)
    assert work.wait_for_end() == "success"
    risks = {
        one.external_id: one.output["risk"]
        for one in work.execution().tasks()
        if one.external_id.startswith("inspect_")
    }
    assert risks == {"inspect_P-101": 0.72, "inspect_P-102": 0.14, "inspect_P-103": 0.39}
