"""How a connection is looked up, on every version of Airflow."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException, Connection
from support import Project, function_task

from airflow_provider_cdf.cdf.errors import CdfConnectionUnreadError
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.hooks import lookup
from airflow_provider_cdf.hooks.cdf import CdfHook
from airflow_provider_cdf.versions import HAS_ASYNC_CONNECTIONS

needs_async_connections = pytest.mark.skipif(
    not HAS_ASYNC_CONNECTIONS, reason="Airflow below 3.3.2 is asked in a thread only"
)
EXECUTION = "059edaa4-a17a-4102-910e-2c3591500cce"


def not_found(*_: Any, **__: Any) -> Any:
    raise AirflowNotFoundException("The conn_id `cdf_default` isn't defined")


async def anot_found(*_: Any, **__: Any) -> Any:
    not_found()


@needs_async_connections
def test_what_one_way_does_not_find_is_looked_up_the_other_way(
    cdf_default: CdfEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CdfHook, "aget_connection", anot_found)

    async def ask() -> tuple[bool, str]:
        hook = CdfHook()
        try:
            return await hook.atest_connection()
        finally:
            await hook.aclose()

    is_good, message = asyncio.run(ask())
    assert is_good, message


@needs_async_connections
def test_what_is_found_at_once_is_not_looked_up_again(
    cdf_default: CdfEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CdfHook, "get_connection", not_found)
    assert asyncio.run(lookup.find(CdfHook(), "cdf_default")).host == cdf_default.url


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_no_way_finds_may_be_found_later(is_async: bool) -> None:
    """Airflow takes a secrets backend that fails for one that has no such connection."""
    hook = CdfHook("cdf_nowhere")

    def ask() -> None:
        if is_async:
            asyncio.run(hook.aget_execution(EXECUTION))
        else:
            hook.get_execution(EXECUTION)

    with pytest.raises(
        CdfConnectionUnreadError, match=r"Airflow found no connection 'cdf_nowhere'\."
    ) as caught:
        ask()
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.__context__ is None
    assert "AIRFLOW_CONN_CDF_NOWHERE" in str(caught.value)
    assert "add one of type 'cdf'" in str(caught.value)


def test_a_lookup_that_waits_for_airflow_leaves_the_event_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    loop_goes_on = threading.Event()

    def slow(*_: Any, **__: Any) -> Connection:
        assert loop_goes_on.wait(60), "the event loop stands still"
        return Connection(conn_id="cdf_default", conn_type="cdf", host="westeurope-1")

    monkeypatch.setattr(CdfHook, "get_connection", slow)
    if HAS_ASYNC_CONNECTIONS:
        monkeypatch.setattr(CdfHook, "aget_connection", anot_found)

    async def ask() -> Connection:
        looking = asyncio.create_task(lookup.find(CdfHook(), "cdf_default"))
        await asyncio.sleep(0)
        loop_goes_on.set()
        return await looking

    assert asyncio.run(ask()).host == "westeurope-1"


def report_in_the_end(project: Project, workflow: str) -> None:
    """Report the task that CDF waits with, once somebody has started the workflow."""
    for _ in range(600):
        if executions := project.executions(workflow):
            task = project.task(executions[0]["id"], "read")
            time.sleep(2)  # or the operator's first look would see the end, and not defer
            project.update(task["id"], "COMPLETED")
            return
        time.sleep(0.2)


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
