"""Many runs at once: for a rolling restart, and for a full house."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator


class PollsOnceResumed(CdfWorkflowRunOperator):
    """Goes on to wait on its worker, so that the task is running and its trigger gone."""

    def execute_complete(self, *arguments: Any, **kwargs: Any) -> Any:
        self.deferrable = False
        return super().execute_complete(*arguments, **kwargs)


# A restart of everything costs a task several tries: on each worker, and while the api-server is away.
RETRIES = {"retries": 10, "retry_delay": timedelta(seconds=1)}

for name, kind, deferrable in (
    ("deferred", CdfWorkflowRunOperator, True),
    ("resumed", PollsOnceResumed, True),
    ("poking", CdfWorkflowRunOperator, False),
):
    with DAG(f"many_{name}", schedule=None, default_args=RETRIES):
        kind(
            task_id="run",
            workflow_external_id="pump_health",
            version="1",
            input={"pump": "P-101"},
            poll_interval=2,
            deferrable=deferrable,
        )

with DAG("full_house", schedule=None, default_args=RETRIES):
    CdfWorkflowRunOperator.partial(
        task_id="run", workflow_external_id="tank_balance", version="1", poll_interval=5, deferrable=True
    ).expand(input=[{"site": f"S-{number}"} for number in range(200)])
