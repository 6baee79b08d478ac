r"""
Airflow does one task of a CDF workflow with one Python function, without TaskFlow.

The same as ``cdf_task_decorator``, as a class: for DAGs that are made of operators.

To try it in a checkout (docs/emulator.md, "The example DAGs"):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_task_operator
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdf.operators.task import CdfTaskOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor


def judge(limit: float, cdf_task: Any) -> dict[str, Any]:
    """Stands for whatever Airflow is needed for."""
    return {"risk": round(min(cdf_task.data["vibration"] / limit, 1.0), 2)}


with DAG(
    "cdf_task_operator",
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
    work = CdfTaskOperator(
        task_id="judge",
        python_callable=judge,
        op_kwargs={"limit": 10.0},
        execution_id=run.output,
        task_external_id="score",
        poll_interval=1,
        deferrable=True,
    )
    ended = CdfWorkflowSensor(task_id="ended", execution_id=run.output, poke_interval=1, deferrable=True)

    work >> ended
