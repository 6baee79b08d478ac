r"""
Airflow does one task of a CDF workflow with one Python function.

The shortest way: the function waits for the CDF task, gets it as ``cdf_task``, and what it returns becomes
the task's output. Should it fail, CDF is told so after the last try.

To try it in a checkout (docs/emulator.md, "The example DAGs"):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_task_decorator
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor

with DAG(
    "cdf_task_decorator",
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

    @task.cdf_task(execution_id=run.output, task_external_id="score", poll_interval=1, deferrable=True)
    def judge(limit: float, cdf_task: Any) -> dict[str, Any]:
        """Stands for whatever Airflow is needed for."""
        return {"risk": round(min(cdf_task.data["vibration"] / limit, 1.0), 2)}

    ended = CdfWorkflowSensor(task_id="ended", execution_id=run.output, poke_interval=1, deferrable=True)

    judge(limit=10.0) >> ended
