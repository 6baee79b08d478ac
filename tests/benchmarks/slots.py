"""
What waiting costs in worker slots: 20 workflow runs of 30 s each, on a real Airflow with two slots.

    python tests/benchmarks/slots.py [--short]

Deferred by this package, in its poke mode, and a ``PythonOperator`` with ``cognite-sdk`` as people write it:
all three at once, each in a pool of two slots, which is what they are limited by.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from airflow_provider_cdf.demo import examples_folder
from airflow_provider_cdf.demo.local_airflow import LocalAirflow
from airflow_provider_cdf.emulator import CdfEmulator

DAGS = """
import os, time
from airflow.sdk import DAG, task
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator

NUMBERS = [{"pump": f"P-{number}"} for number in range(int(os.environ["RUNS"]))]
WORKFLOW = {"workflow_external_id": "pump_health", "version": "1", "poll_interval": 5}

with DAG("slots_deferred", schedule=None, max_active_tasks=64, default_args={"pool": "deferred"}):
    CdfWorkflowRunOperator.partial(task_id="run", deferrable=True, **WORKFLOW).expand(input=NUMBERS)

with DAG("slots_poke", schedule=None, max_active_tasks=64, default_args={"pool": "poke"}):
    CdfWorkflowRunOperator.partial(task_id="run", deferrable=False, **WORKFLOW).expand(input=NUMBERS)

@task(task_id="run")
def with_the_sdk(input):
    from cognite.client import ClientConfig, CogniteClient
    from cognite.client.credentials import OAuthClientCredentials

    login = OAuthClientCredentials(
        os.environ["CDF_TOKEN_URL"], os.environ["CDF_CLIENT_ID"], os.environ["CDF_CLIENT_SECRET"], ["s"]
    )
    project, url = os.environ["CDF_PROJECT"], os.environ["CDF_URL"]
    config = ClientConfig(client_name="slots", project=project, credentials=login, base_url=url)
    client = CogniteClient(config)
    run = client.workflows.executions.run("pump_health", "1", input=input)
    while client.workflows.executions.retrieve_detailed(run.id).status == "running":
        time.sleep(5)

with DAG("slots_sdk", schedule=None, max_active_tasks=64, default_args={"pool": "sdk"}):
    with_the_sdk.expand(input=NUMBERS)
"""
NAMES = {
    "slots_deferred": "CdfWorkflowRunOperator, deferrable",
    "slots_poke": "CdfWorkflowRunOperator, not deferrable",
    "slots_sdk": "PythonOperator with cognite-sdk",
}


def text(is_short: bool = False) -> Iterator[str]:
    runs, seconds = (4, 10.0) if is_short else (20, 30.0)
    yield f"{runs} workflow runs of {seconds:g} s, two worker slots{'':<14}{'slot-seconds':>14}{'wall s':>9}"
    for dag_id, (slot_seconds, wall) in measure(runs, seconds).items():
        yield f"  {NAMES[dag_id]:<54}{slot_seconds:>14.0f}{wall:>9.0f}"


def measure(runs: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Slot-seconds and wall time, by DAG."""
    with (
        tempfile.TemporaryDirectory() as folder,
        CdfEmulator(workflows=[examples_folder() / "workflows"], max_concurrent_executions=1000) as cdf,
    ):
        (Path(folder) / "slots.py").write_text(DAGS)
        env = {
            "AIRFLOW_CONN_CDF_DEFAULT": cdf.airflow_connection_uri(),
            "AIRFLOW__CORE__PARALLELISM": str(2 * len(NAMES)),
            "RUNS": str(runs),
            "CDF_URL": cdf.url,
            "CDF_TOKEN_URL": cdf.token_url,
            "CDF_PROJECT": cdf.project,
            "CDF_CLIENT_ID": cdf.client_id,
            "CDF_CLIENT_SECRET": cdf.client_secret,
        }
        over = threading.Event()
        reporting = threading.Thread(target=_report, args=(cdf, seconds, over))
        with LocalAirflow(Path(folder), env=env) as airflow:
            airflow.wait_until_healthy()
            for dag_id in NAMES:
                pool = {"name": dag_id.removeprefix("slots_"), "slots": 2, "include_deferred": False}
                airflow.api("POST", "/pools", json=pool)
            reporting.start()
            try:
                return _watch(airflow)
            finally:
                over.set()
                reporting.join()


def _watch(airflow: LocalAirflow) -> dict[str, tuple[float, float]]:
    began = looked = time.monotonic()
    going_on = {dag_id: airflow.trigger_dag(dag_id) for dag_id in NAMES}
    used = dict.fromkeys(NAMES, 0.0)
    found = {}
    while going_on:
        time.sleep(0.5)
        now = time.monotonic()
        for dag_id, run_id in list(going_on.items()):
            states = [one["state"] for one in airflow.task_instances(dag_id, run_id)]
            used[dag_id] += states.count("running") * (now - looked)
            if (state := airflow.dag_run_state(dag_id, run_id)) == "failed":
                raise RuntimeError(f"{dag_id} has failed")
            if state == "success":
                found[dag_id] = used[dag_id], now - began
                del going_on[dag_id]
        looked = now
    return {dag_id: found[dag_id] for dag_id in NAMES}


def _report(cdf: CdfEmulator, seconds: float, over: threading.Event) -> None:
    """Report the task that each execution waits with, so many seconds after its start."""
    while not over.wait(0.2):
        with cdf.turn() as engine:
            now = time.time() * 1000
            for execution in list(engine.store.executions.values()):
                for task in execution.tasks():
                    due = task.start_time is not None and now - task.start_time >= seconds * 1000
                    if task.external_id == "score" and task.status == "IN_PROGRESS" and due:
                        engine.update_task(task.id, "COMPLETED", {"risk": 0.1})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    print("\n".join(text(parser.parse_args().short)))
