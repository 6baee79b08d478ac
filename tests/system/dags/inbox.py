"""Inboxes, one with a schedule and one with a watcher, and the DAGs that do the work of their tasks."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdf.inbox import cdf_inbox

scheduled = cdf_inbox(
    "inbox",
    trigger_dag_id="inbox_work",
    workflow_external_id="asks_the_inbox",
    task_external_id="score",
    schedule=timedelta(seconds=float(os.environ.get("INBOX_EVERY", "5"))),
)
woken = cdf_inbox(
    "bell",
    trigger_dag_id="bell_work",
    workflow_external_id="rings_the_bell",
    task_external_id="score",
    poll_interval=float(os.environ.get("BELL_INTERVAL", "2")),
)

for dag_id in ("inbox_work", "bell_work"):
    with DAG(dag_id, schedule=None, max_active_runs=300, max_active_tasks=64):

        @task.cdf_task(
            retries=3,
            retry_delay=timedelta(seconds=1),
            execution_id="{{ dag_run.conf['execution_id'] }}",
            cdf_task_id="{{ dag_run.conf['cdf_task_id'] }}",
        )
        def judge(cdf_task: Any) -> dict[str, Any]:
            """Returns what tells the executions apart; refuses what is negative."""
            number = cdf_task.data["number"]
            if number < 0:
                raise ValueError(f"{number} is no reading")
            return {"number": number}

        judge()
