"""Airflow 2 for the tests: scheduler and triggerer on SQLite, asked by its command and its database."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_provider_cdf.demo.local_airflow import LocalAirflow, LocalAirflowError
from airflow_provider_cdf.demo.shapes import Shape


class OldShape(Shape):
    """Scheduler, which parses DAG files itself, and triggerer; no webserver, which wants a login."""

    components: Mapping[str, Sequence[str]] = {
        "scheduler": ["scheduler", "--skip-serve-logs"],
        "triggerer": ["triggerer", "--skip-serve-logs"],
    }

    def settings(self, home: Path) -> dict[str, str]:
        """Return the environment variables that make Airflow this shape."""
        return super().settings(home) | {
            # The executor starts a program named "airflow".
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            # The only one that it has for SQLite: one task at a time.
            "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "5",
        }


class Airflow2(LocalAirflow):
    """
    A local Airflow 2.11, asked by its command and its database.

    :param dags_folder: directory of the DAG files
    :param env: environment variables for its processes
    """

    def __init__(self, dags_folder: Path, *, env: Mapping[str, str] | None = None) -> None:
        super().__init__(dags_folder, shape=OldShape(), env=env)

    def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """Ask Airflow's database."""
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db", timeout=60)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(query, arguments)]

    def wait_until_healthy(self, timeout: float = 180) -> None:
        """Wait until scheduler and triggerer have written a heartbeat since they were started."""

        def beats(name: str) -> bool:
            kind = f"{name.capitalize()}Job"
            query = "SELECT latest_heartbeat AS beat FROM job WHERE job_type = ? AND state = 'running'"
            times = [datetime.fromisoformat(row["beat"]) for row in self.rows(query, kind) if row["beat"]]
            since = self.processes[name].started_at
            return any(time.replace(tzinfo=time.tzinfo or UTC).timestamp() >= since for time in times)

        def report() -> str:
            ends = [f"The end of {one.log}:\n{one.tail()}" for one in self.processes.values()]
            return "\n".join([f"Airflow 2 did not become healthy within {timeout:g} s.", *ends])

        self._wait(lambda: all(map(beats, self.shape.components)), timeout, report)

    def trigger_dag(
        self,
        dag_id: str,
        *,
        run_id: str | None = None,
        conf: Mapping[str, Any] | None = None,
        timeout: float = 180,
    ) -> str:
        """Start a DAG run, once the DAG has been parsed, and return its run id."""
        query = "SELECT dag_id FROM serialized_dag WHERE dag_id = ?"
        self._wait(
            lambda: bool(self.rows(query, dag_id)),
            timeout,
            lambda: f"Airflow found no DAG '{dag_id}': {self.rows('SELECT * FROM import_error')}",
        )
        run_id = run_id or f"manual__{uuid.uuid4()}"
        self._command("dags", "trigger", dag_id, "--run-id", run_id, "--conf", json.dumps(dict(conf or {})))
        return run_id

    def _command(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.env,
            cwd=self.home,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise LocalAirflowError(f"airflow {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def dag_run_state(self, dag_id: str, run_id: str) -> str:
        """Return a DAG run's state."""
        query = "SELECT state FROM dag_run WHERE dag_id = ? AND run_id = ?"
        (run,) = self.rows(query, dag_id, run_id)
        time.sleep(0.3)  # asked in a loop; its scheduler needs the database
        return str(run["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a DAG run, as the database has them."""
        return self.rows("SELECT * FROM task_instance WHERE dag_id = ? AND run_id = ?", dag_id, run_id)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return what a task pushed."""
        query = "SELECT value FROM xcom WHERE dag_id = ? AND run_id = ? AND task_id = ? AND key = ?"
        (row,) = self.rows(query, dag_id, run_id, task_id, key)
        return json.loads(row["value"])

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, *, map_index: int = -1
    ) -> str:
        """Return the log of one try of a task, the trigger's part of it at the end."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        return "\n".join(file.read_text() for file in sorted(folder.glob(f"attempt={try_number}.log*")))
