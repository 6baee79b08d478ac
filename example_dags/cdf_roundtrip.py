r"""
Airflow does one task of a CDF workflow.

CDF reads a pump's sensors, leaves the judgement to Airflow (task ``score``, ``isAsyncComplete``), and
publishes what Airflow reports. Should anything fail on the way, CDF is told so instead of waiting for hours.

To try it in a checkout (docs/emulator.md, "The example DAGs"):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_roundtrip
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor

with DAG(
    "cdf_roundtrip",
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
    score_waits = CdfTaskSensor(
        task_id="score_waits",
        execution_id=run.output,
        task_external_id="score",
        poke_interval=1,
        deferrable=True,
    )

    @task
    def judge(task_input: dict[str, Any]) -> dict[str, Any]:
        """Stands for whatever Airflow is needed for: a model, a licensed tool, a plant's own network."""
        vibration = task_input["function"]["data"]["vibration"]
        return {"risk": round(min(vibration / 10, 1.0), 2)}

    report = CdfTaskUpdateOperator(
        task_id="report",
        execution_id=run.output,
        task_external_id="score",
        output=judge(score_waits.output["input"]),
    )
    ended = CdfWorkflowSensor(task_id="ended", execution_id=run.output, poke_interval=1, deferrable=True)

    report >> ended
