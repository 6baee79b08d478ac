"""One task that runs the workflow pump_health and waits for it, which takes until somebody reports."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator

for mode, deferrable in (("deferred", True), ("poking", False)):
    with DAG(f"waits_{mode}", schedule=None):
        CdfWorkflowRunOperator(
            task_id="run",
            workflow_external_id="pump_health",
            version="1",
            input={"pump": "P-101"},
            poll_interval=1,
            deferrable=deferrable,
            retries=1,
            retry_delay=timedelta(seconds=1),
        )
