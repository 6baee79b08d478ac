"""One task that runs the workflow pump_health and waits for it, which takes until somebody reports."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator

RETRY_DELAY = timedelta(seconds=1)

for name, deferrable, retries in (("deferred", True, 1), ("poking", False, 1), ("without_retry", False, 0)):
    with DAG(f"waits_{name}", schedule=None):
        CdfWorkflowRunOperator(
            task_id="run",
            workflow_external_id="pump_health",
            version="1",
            input={"pump": "P-101"},
            poll_interval=1,
            deferrable=deferrable,
            retries=retries,
            retry_delay=RETRY_DELAY,
        )
