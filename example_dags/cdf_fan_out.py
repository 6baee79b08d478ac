r"""
Airflow does the children of a CDF dynamic task, all or none.

How many there are is known when CDF has made them, so the sensor, the work and the report are mapped over
them. If the work for one of them fails, none is reported, and the teardown cancels the execution. Where CDF
has made none, there is nothing to report, and the execution goes on.

To try it in a checkout (docs/emulator.md, "The example DAGs"):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_fan_out
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowCancelOperator, CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor

with DAG(
    "cdf_fan_out",
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

    names = children(made.output["output"])
    of_child = {"execution_id": run.output, "parent_task_external_id": "inspect"}
    waits = CdfTaskSensor.partial(task_id="waits", poke_interval=1, deferrable=True, **of_child).expand(
        task_external_id=names
    )

    @task
    def judge(name: str, ti: Any = None) -> dict[str, Any]:
        """Stands for whatever Airflow is needed for; returns the arguments of the report."""
        task_input = ti.xcom_pull(task_ids="waits", key="input", map_indexes=ti.map_index)
        risk = round(task_input["function"]["data"]["vibration"] / 10, 2)
        return {"task_external_id": name, "output": {"risk": risk}}

    judged = judge.expand(name=names)
    report = CdfTaskUpdateOperator.partial(task_id="report", status="COMPLETED", **of_child).expand_kwargs(
        judged
    )

    @task(trigger_rule="none_failed")
    def reported() -> None:
        """Succeeds also where there was nothing to report: a task mapped over nothing is skipped."""

    stop = CdfWorkflowCancelOperator(
        task_id="stop",
        execution_id=run.output["execution_id"],  # is there also where the task "run" died after the start
        unless_succeeded=True,
    )
    ended = CdfWorkflowSensor(task_id="ended", execution_id=run.output, poke_interval=1, deferrable=True)

    waits >> judged
    report >> reported() >> stop >> ended
    stop.as_teardown()
    ended.as_teardown(on_failure_fail_dagrun=True)
