r"""
Airflow does one task of a CDF workflow, reports in a teardown, and cancels if it could not report.

The way that leaves the least behind: CDF is told of every end that Airflow lets a task see, and where nothing
could be reported, as CDF's task had not begun yet, the execution is cancelled.

To try it in a checkout (docs/emulator.md, "The example DAGs"):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_report_and_cancel
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
    "cdf_report_and_cancel",
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
    of_score = {"execution_id": run.output, "task_external_id": "score"}
    score_waits = CdfTaskSensor(task_id="score_waits", poke_interval=1, deferrable=True, **of_score)

    @task
    def judge(task_input: dict[str, Any]) -> dict[str, Any]:
        """Stands for whatever Airflow is needed for."""
        return {"risk": round(task_input["function"]["data"]["vibration"] / 10, 2)}

    report = CdfTaskUpdateOperator(task_id="report", output=judge(score_waits.output["input"]), **of_score)
    ended = CdfWorkflowSensor(task_id="ended", execution_id=run.output, poke_interval=1, deferrable=True)

    stop = CdfWorkflowCancelOperator(
        task_id="stop",
        execution_id=run.output["execution_id"],  # is there also where the task "run" died after the start
        unless_succeeded=True,
    )

    report >> stop >> ended
    report.as_teardown(setups=run)
    stop.as_teardown(setups=run)
    ended.as_teardown(setups=run, on_failure_fail_dagrun=True)
