"""One task for each mistake that people make first; each must end with one clear sentence."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_cdf.operators.task import CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor

# Not all at once: a busy machine takes longer to start nine processes than Airflow waits for heartbeats.
with DAG("mistakes", schedule=None, max_active_tasks=3):
    for mistake in ("wrong_secret", "unknown_project", "unreachable_host", "incomplete"):
        CdfWorkflowRunOperator(
            task_id=mistake, workflow_external_id="pump_health", version="1", cdf_conn_id=f"cdf_{mistake}"
        )
    CdfWorkflowRunOperator(task_id="unknown_workflow", workflow_external_id="pump_helth", version="1")
    CdfWorkflowRunOperator(task_id="unknown_version", workflow_external_id="pump_health", version="99")
    # Rendered from a template, which cannot be judged when the file is read.
    CdfTaskUpdateOperator(
        task_id="unknown_status",
        status="{{ 'SUCCESS' }}",
        execution_id="11111111-2222-4333-8444-555555555555",
        task_external_id="score",
    )
    for mode, deferrable in (("poked", False), ("deferred", True)):
        CdfWorkflowSensor(
            task_id=f"unknown_execution_{mode}",
            execution_id="11111111-2222-4333-8444-555555555555",
            deferrable=deferrable,
        )
