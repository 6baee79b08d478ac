"""
A DAG that tells CDF how it has ended, by its callbacks.

The least to write, and the least promise: see docs/patterns.md. Mostly CDF starts the workflow, and the DAG
run is given the execution in its conf; here it starts one itself.

To try it, trigger it in the Airflow that this starts in a checkout:

    cdf-demo --keep

Under ``airflow dags test`` of Airflow 3.3.2 a DAG's callback cannot read XComs: it fails, the DAG run is
green all the same, and CDF goes on waiting.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdf.notifications.task import CdfTaskNotifier
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor

of_score = {"execution_id": "{{ ti.xcom_pull(task_ids='run') }}", "task_external_id": "score"}

with DAG(
    "cdf_notifier",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    on_success_callback=CdfTaskNotifier(
        status="COMPLETED", output={"risk": "{{ ti.xcom_pull(task_ids='judge') }}"}, **of_score
    ),
    on_failure_callback=CdfTaskNotifier(status="FAILED_WITH_TERMINAL_ERROR", **of_score),
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
    score_waits = CdfTaskSensor(
        task_id="score_waits",
        execution_id=run.output,
        task_external_id="score",
        poke_interval=1,
        deferrable=True,
    )

    @task
    def judge(task_input: dict[str, Any]) -> float:
        """Stands for whatever Airflow is needed for."""
        return round(task_input["function"]["data"]["vibration"] / 10, 2)

    judge(score_waits.output["input"])
