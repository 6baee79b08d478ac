r"""
Airflow does the children of a CDF dynamic task, each by itself.

One mapped task waits for its child, does the work and reports. What happens to one of them is no matter to
the others.

To try it in a checkout (docs/emulator.md, "The example DAGs"):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_fan_out_each
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor

with DAG(
    "cdf_fan_out_each",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    doc_md=__doc__,
    tags=["cdf"],
) as dag:
    run = CdfWorkflowRunOperator(
        task_id="run", workflow_external_id="fleet_check", version="1", wait_for_completion=False
    )
    # CDF ends a dynamic task as soon as it has made its children.
    made = CdfTaskSensor(
        task_id="made",
        execution_id=run.output,
        task_external_id="inspect",
        target_status="COMPLETED",
        poke_interval=1,
        deferrable=True,
    )

    @task
    def children(output: dict[str, Any]) -> list[str]:
        """Names the tasks that CDF has made."""
        return [child["externalId"] for child in output["dynamicTasks"]]

    @task.cdf_task(
        execution_id=run.output,
        task_external_id="{{ task.op_kwargs['name'] }}",
        parent_task_external_id="inspect",
        poll_interval=1,
        deferrable=True,
    )
    def judge(name: str, cdf_task: Any) -> dict[str, Any]:
        """Stands for whatever Airflow is needed for."""
        return {"risk": round(cdf_task.data["vibration"] / 10, 2)}

    ended = CdfWorkflowSensor(task_id="ended", execution_id=run.output, poke_interval=1, deferrable=True)

    judge.expand(name=children(made.output["output"])) >> ended
