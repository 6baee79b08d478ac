"""What one writes without an inbox: a DAG that asks CDF every minute, and does the work that it finds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdf.hooks.cdf import CdfHook

with DAG(
    "every_minute", schedule=timedelta(minutes=1), catchup=False, max_active_runs=1, max_active_tasks=64
):

    @task
    def waiting() -> list[dict[str, Any]]:
        """Looks at all executions that run."""
        hook = CdfHook()
        running = hook.list_executions(workflow_external_id="asks_every_minute", status="RUNNING")
        return [
            {"id": one.id, "number": one.input["function"]["data"]["number"]}
            for execution in running
            for one in hook.get_execution(execution.id).executed_tasks
            if one.external_id == "score" and one.status == "IN_PROGRESS"
        ]

    @task(retries=3)
    def judge(found: dict[str, Any]) -> None:
        """Does the work, and reports it."""
        CdfHook().update_task(found["id"], "COMPLETED", {"number": found["number"]})

    judge.expand(found=waiting())
