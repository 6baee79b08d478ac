r"""
Airflow does one task of a CDF workflow with several tasks of its own.

The group waits for the CDF task first and reports last. The report is a teardown: it is also made where the
short circuit skips everything else, and where a person marks the DAG run failed.

To try it in a checkout (docs/emulator.md, "The example DAGs"):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_task_group
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor
from airflow_provider_cdf.task_group import CdfTaskGroup

with DAG(
    "cdf_task_group",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    doc_md=__doc__,
    tags=["cdf"],
) as dag:
    run = CdfWorkflowRunOperator(
        task_id="run",
        workflow_external_id="pump_health",
        version="1",
        input={"pump": "P-101"},
        wait_for_completion=False,
    )

    with CdfTaskGroup(
        "score", execution_id=run.output, task_external_id="score", poll_interval=1, deferrable=True
    ) as cdf:

        @task.short_circuit
        def is_measured(task_input: dict[str, Any]) -> bool:
            """Judges nothing where there is no reading."""
            return task_input["function"]["data"]["vibration"] is not None

        @task
        def judge(task_input: dict[str, Any]) -> dict[str, Any]:
            """Stands for whatever Airflow is needed for."""
            return {"risk": round(task_input["function"]["data"]["vibration"] / 10, 2)}

        cdf.output = judge(cdf.input)
        is_measured(cdf.input) >> cdf.output

    ended = CdfWorkflowSensor(task_id="ended", execution_id=run.output, poke_interval=1, deferrable=True)

    cdf >> ended
