"""LocalAirflow: real Airflow processes, started, killed, replaced and ended."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from airflow_provider_cdf.demo.local_airflow import LocalAirflow, LocalAirflowError
from airflow_provider_cdf.demo.processes import MARK, end_all, marked
from airflow_provider_cdf.demo.shapes import Shape

pytestmark = pytest.mark.slow

DAGS = {
    "deferring.py": """
from datetime import timedelta

from airflow.providers.standard.triggers.file import FileTrigger
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, task


class Defer(BaseOperator):
    def execute(self, context):
        file = context["dag_run"].conf.get("until_there_is")
        trigger = FileTrigger(filepath=file, poke_interval=0.5) if file else TimeDeltaTrigger(timedelta(0))
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context, event=None):
        return {"seven": 7}


with DAG("deferring", schedule=None):

    @task
    def after(value):
        print(f"the value is {value}")

    after(Defer(task_id="defer").output)
""",
    "sleeping.py": """
import time
from pathlib import Path

from airflow.sdk import DAG, BaseOperator


class Sleep(BaseOperator):
    def execute(self, context):
        self.note = Path(context["dag_run"].conf["note"])
        self.note.write_text("running")
        time.sleep(600)
        self.note.write_text("finished")

    def on_kill(self):
        self.note.write_text("on_kill")


with DAG("sleeping", schedule=None):
    Sleep(task_id="sleep")
""",
    "broken.py": 'from airflow.sdk import DAG\nfrom nowhere import nothing\n\nDAG("broken")\n',
}


def processes_with_home(home: Path) -> list[psutil.Process]:
    """All processes whose environment has this AIRFLOW_HOME."""
    found = []
    for process in psutil.process_iter(["environ", "status"]):
        environ = process.info["environ"] or {}
        if process.info["status"] != psutil.STATUS_ZOMBIE and environ.get("AIRFLOW_HOME") == str(home):
            found.append(process)
    return found


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="module")
def dags_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dags")
    for name, text in DAGS.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def airflow(dags_folder: Path) -> Iterator[LocalAirflow]:
    # What a user has exported must not reach the cluster, nor a proxy come between its processes.
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AIRFLOW_HOME", "/nonexistent")
        monkeypatch.setenv("AIRFLOW_CONFIG", "/nonexistent/airflow.cfg")
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "NoSuchExecutor")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        with LocalAirflow(
            dags_folder,
            env={
                "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
                "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
            },
        ) as airflow:
            airflow.wait_until_healthy()
            yield airflow


def test_runs_a_dag_that_defers(airflow: LocalAirflow) -> None:
    run_id = airflow.trigger_dag("deferring")
    assert airflow.wait_for_dag_run("deferring", run_id) == "success"
    assert airflow.dag_run_state("deferring", run_id) == "success"
    tasks = airflow.task_instances("deferring", run_id)
    assert {task["task_id"]: task["state"] for task in tasks} == {"defer": "success", "after": "success"}
    assert airflow.xcom("deferring", run_id, "defer") == {"seven": 7}
    log = airflow.task_log("deferring", run_id, "after")
    assert "info the value is {'seven': 7}" in log
    airflow.check()


def test_keeps_to_its_own_home(airflow: LocalAirflow) -> None:
    assert not Path("/nonexistent").exists()
    assert "AIRFLOW_CONFIG" not in psutil.Process(airflow.processes["scheduler"].pid).environ()
    assert (airflow.home / "airflow.db").exists()
    assert {"scheduler.log", "triggerer.log"} <= {path.name for path in airflow.home.iterdir()}


def test_import_error_is_reported(airflow: LocalAirflow) -> None:
    with pytest.raises(
        LocalAirflowError, match=r"^Airflow could not import broken\.py:[^$]*No module named 'nowhere'"
    ):
        airflow.trigger_dag("broken")


def test_unknown_dag_is_reported(airflow: LocalAirflow) -> None:
    with pytest.raises(LocalAirflowError, match=r"no DAG 'unknown' in .* within 1 s"):
        airflow.trigger_dag("unknown", timeout=1)


def test_api_errors_say_what_airflow_answered(airflow: LocalAirflow) -> None:
    with pytest.raises(
        LocalAirflowError, match=r"answers 404 to GET /dags/deferring/dagRuns/none: .*not found"
    ):
        airflow.dag_run_state("deferring", "none")


def test_trigger_ids_are_not_reused(airflow: LocalAirflow) -> None:
    with sqlite3.connect(airflow.home / "airflow.db", timeout=30) as db:
        insert = "INSERT INTO trigger (classpath, kwargs, created_date) VALUES ('x', '', '') RETURNING id"
        ids = []
        for _ in range(2):
            ids.append(db.execute(insert).fetchone()[0])
            db.execute("DELETE FROM trigger WHERE id = ?", ids[-1:])
        assert ids[0] < ids[1]
        indexes = [name for _, name, *_ in db.execute("PRAGMA index_list('trigger')")]
        assert "idx_trigger_team_name" in indexes
        assert db.execute("PRAGMA foreign_key_list('trigger')").fetchone()[2] == "team"
        references = "SELECT count(*) FROM sqlite_master WHERE sql LIKE '%REFERENCES \"trigger\" (id)%'"
        assert db.execute(references).fetchone()[0] >= 3
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.rollback()


def test_killed_triggerer_is_named_and_replaced(airflow: LocalAirflow, tmp_path: Path) -> None:
    file = tmp_path / "go on"
    run_id = airflow.trigger_dag("deferring", conf={"until_there_is": str(file)})

    def states() -> list[str]:
        return [task["state"] for task in airflow.task_instances("deferring", run_id)]

    assert wait_until(lambda: "deferred" in states(), 60)
    # Airflow 3.3.2 fails a task that it has resumed before it has noticed the end of the worker that deferred
    # it, which it takes for that of the worker to come. On a busy machine that happens, so it is waited out.
    noticed = re.compile(rf"TaskInstance Finished: .*run_id={re.escape(run_id)},.* executor_state=success")
    assert wait_until(lambda: bool(noticed.search((airflow.home / "scheduler.log").read_text())), 60)
    killed = airflow.processes["triggerer"]
    children = psutil.Process(killed.pid).children(recursive=True)
    assert children
    for child in children:
        child.suspend()  # left to itself it would notice, and end by itself
    airflow.kill("triggerer")
    with pytest.raises(
        LocalAirflowError, match=r"Airflow's triggerer has died \(killed by SIGKILL\)"
    ) as error:
        airflow.check()
    assert "Starting the triggerer" in str(error.value)
    assert wait_until(lambda: not any(map(is_alive, children)), 10)

    airflow.start("triggerer")
    assert airflow.processes["triggerer"].pid != killed.pid
    with pytest.raises(LocalAirflowError, match="triggerer is still running"):
        airflow.start("triggerer")
    airflow.wait_until_healthy()
    assert "deferred" in states()
    file.touch()
    assert airflow.wait_for_dag_run("deferring", run_id) == "success", airflow.task_instances(
        "deferring", run_id
    )


def test_healthy_means_the_new_process(airflow: LocalAirflow, monkeypatch: pytest.MonkeyPatch) -> None:
    # The heartbeat of the process before it is still fresh.
    monkeypatch.setattr(airflow.processes["scheduler"], "started_at", time.time() + 60)
    with pytest.raises(LocalAirflowError, match=r"Airflow's scheduler did not become healthy within 1 s"):
        airflow.wait_until_healthy(timeout=1)


def test_port_that_is_taken(dags_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalAirflowError, match=f"Port {port} on 127.0.0.1 is taken by another program"):
            LocalAirflow(dags_folder, port=port)


def test_failed_start_leaves_no_process(dags_folder: Path) -> None:
    airflow = LocalAirflow(dags_folder, env={"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "nonsense://"})
    with pytest.raises(LocalAirflowError, match=r"could not be made \(exit code 1\)[^$]*nonsense") as error:
        airflow.start()
    try:
        assert error.value.__notes__ == [f"Airflow's logs are in {airflow.home}"]
        assert (airflow.home / "db-migrate.log").exists()
        assert processes_with_home(airflow.home) == []
    finally:
        for path in sorted(airflow.home.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        airflow.home.rmdir()


SECOND_CLUSTER = """
import json, sys, time
from pathlib import Path
from airflow_provider_cdf.demo.local_airflow import LocalAirflow

with LocalAirflow(Path(sys.argv[1])) as airflow:
    airflow.wait_until_healthy()
    print(json.dumps([str(airflow.home), airflow._guard.pid]), flush=True)
    time.sleep(600)
"""


def test_a_killed_parent_takes_its_cluster_along_and_no_other(
    airflow: LocalAirflow, dags_folder: Path
) -> None:
    command = [sys.executable, "-c", SECOND_CLUSTER, str(dags_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        home, guard = json.loads(parent.stdout.readline())
        assert len(processes_with_home(Path(home))) >= len(Shape.components)
        parent.kill()
    assert wait_until(lambda: not processes_with_home(Path(home)), 10)
    assert wait_until(lambda: not Path(home).exists() and not psutil.pid_exists(guard), 5)
    airflow.check()
    airflow.wait_until_healthy(timeout=10)


def test_end_all_finds_what_hides() -> None:
    """A grandchild in another session, that ignores SIGTERM and has another environment."""
    hidden = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(0, flush=True); time.sleep(60)"
    )
    script = (
        "import subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {hidden!r}], env={{}}, start_new_session=True); "
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, MARK: "hiding"},
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"0\n"
        found = marked("hiding")
        assert len(found) == 2
        end_all("hiding", grace=0.5)
        assert not any(map(is_alive, found))
        assert parent.wait() == -signal.SIGTERM


def test_stop_leaves_nothing(airflow: LocalAirflow, tmp_path: Path) -> None:
    """The last one: it ends the cluster that the others share."""
    note = tmp_path / "note"
    airflow.trigger_dag("sleeping", conf={"note": str(note)})
    assert wait_until(lambda: note.exists() and note.read_text() == "running", 20)
    pids = {process.pid for process in processes_with_home(airflow.home)}
    assert {process.pid for process in airflow.processes.values()} < pids
    airflow.stop()
    assert processes_with_home(airflow.home) == []
    assert not airflow.home.exists()
    assert note.read_text() == "on_kill"  # asked to stop, and not waited for
    airflow.stop()
