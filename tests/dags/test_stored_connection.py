"""``dag.test()`` with a connection that is kept in Airflow's database, and a task that is deferred."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support import Project, function_task

from airflow_provider_cdf.emulator import CdfEmulator


def report_in_the_end(project: Project, workflow: str) -> None:
    """Report the task that CDF waits with, once somebody has started the workflow."""
    for _ in range(600):
        if executions := project.executions(workflow):
            task = project.task(executions[0]["id"], "read")
            time.sleep(2)  # or the operator's first look would see the end, and not defer
            project.update(task["id"], "COMPLETED")
            return
        time.sleep(0.2)  # until the other process has started the workflow


DAG = """
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator

with DAG("stored_connection") as dag:
    CdfWorkflowRunOperator(
        task_id="run",
        cdf_conn_id="cdf_stored",
        workflow_external_id="{workflow}",
        version="1",
        deferrable=True,
        poll_interval=0.1,
    )

if __name__ == "__main__":
    print("The run is", dag.test().state)
"""


@pytest.mark.slow
def test_dag_test_finds_a_stored_connection_after_a_deferral(
    airflow_db: None, cdf: CdfEmulator, project: Project, tmp_path: Path
) -> None:
    """The event loop of dag.test() on 3.3.2 leaves out Airflow's database."""
    # dag.test() finds a DAG only in Airflow's own folder.
    more = {"AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path), "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO"}
    env = {**os.environ, **more}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            env=env,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return done.stdout.decode()

    uri = cdf.airflow_connection_uri()
    run("-m", "airflow", "connections", "add", "cdf_stored", "--conn-uri", uri)
    workflow = project.define(function_task("read", waits=True))
    file = tmp_path / "stored_connection.py"
    file.write_text(DAG.format(workflow=workflow))
    reporting = threading.Thread(target=report_in_the_end, args=[project, workflow])
    reporting.start()

    output = run(str(file))

    reporting.join()
    assert "The run is success" in output, output
    (execution,) = project.executions(workflow)
    assert execution["status"] == "COMPLETED"
    assert "Deferred: the triggerer looks" in output, output
