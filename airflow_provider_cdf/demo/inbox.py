"""``cdf-demo --inbox``: CDF starts the workflow, and Airflow, which nothing calls, takes up its task."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.demo import (
    RUN_TIMEOUT,
    WORKFLOW,
    DemoError,
    RoundTrip,
    client_of,
    judge,
    why_failed,
)

if TYPE_CHECKING:
    from airflow_provider_cdf.demo.local_airflow import LocalAirflow
    from airflow_provider_cdf.demo.screen import Screen
    from airflow_provider_cdf.emulator import CdfEmulator

#: The example that the triggerer wakes, and the one that does the work.
INBOX, WORK = "cdf_inbox_watched", "cdf_inbox_work"
#: Seconds for all of it: more steps than in the other direction, and each waits for a loop of Airflow's.
PATIENCE = 3 * RUN_TIMEOUT


def taken_up(cdf: CdfEmulator, airflow: LocalAirflow, screen: Screen) -> RoundTrip:
    """
    Let CDF start an execution, and watch Airflow do its task; then ask CDF what has become of it.

    :raises DemoError: unless the execution is COMPLETED and what Airflow reported has arrived.
    """
    for dag_id in (WORK, INBOX):
        airflow.switch_on(dag_id)
    with cdf.turn() as engine:
        # As a schedule or a data trigger of CDF's would.
        execution_id = engine.run(WORKFLOW, "1", input={"pump": "P-101"}).id
    deadline = time.monotonic() + PATIENCE
    with client_of(cdf, airflow) as client, screen.watching():
        from airflow_provider_cdf.cdf import calls  # only now: it imports Airflow, which makes itself a home

        while True:
            airflow.check()
            execution = client.send(calls.get_execution(cdf.project, execution_id))
            tasks = [task for dag_id in (INBOX, WORK) for task in _tasks(airflow, dag_id)]
            screen.show(tasks, execution)
            if execution.has_ended:
                break
            if time.monotonic() > deadline:
                raise DemoError(
                    f"The execution has not ended within {PATIENCE:.0f} s; it is {execution.status}."
                )
            time.sleep(0.3)  # as often as the screen is drawn anew
    score = next((task for task in execution.executed_tasks if task.external_id == "score"), None)
    if score is None:
        return judge(execution, None)
    run_id = f"cdf__{score.id}"
    if airflow.wait_for_dag_run(WORK, run_id) == "failed":
        raise DemoError(why_failed(airflow, WORK, run_id))
    return judge(execution, airflow.xcom(WORK, run_id, "judge"))


def _tasks(airflow: LocalAirflow, dag_id: str) -> list[dict[str, Any]]:
    """Return the tasks of a DAG's newest run, named as the demo shows them."""
    newest = airflow.api("GET", f"/dags/{dag_id}/dagRuns", params={"order_by": "-run_after", "limit": 1})
    tasks = [task for run in newest["dag_runs"] for task in airflow.task_instances(dag_id, run["dag_run_id"])]
    return [
        task | {"task_id": f"{dag_id}: {task['task_id']}", "component": airflow.component_of(task)}
        for task in tasks
    ]
