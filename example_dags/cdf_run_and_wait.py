r"""
Airflow runs a CDF workflow, waits for its end without holding a worker slot, and uses a task's output.

To try it in a checkout (docs/emulator.md, "The example DAGs"):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_run_and_wait
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator

with DAG(
    "cdf_run_and_wait",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    doc_md=__doc__,
    tags=["cdf"],
) as dag:
    run = CdfWorkflowRunOperator(
        task_id="run",
        workflow_external_id="tank_balance",
        version="1",
        input={"site": "north"},
        task_outputs=["balance"],
        poll_interval=1,
        timeout=3600,
        deferrable=True,
    )

    @task
    def use(task_outputs: dict[str, Any]) -> dict[str, Any]:
        """Uses what the CDF function returned."""
        return task_outputs["balance"]["response"]

    use(run.output["task_outputs"])
