r"""
A DAG that runs when a CDF workflow has completed: one that CDF's own schedule has started, mostly.

Needs Airflow 3. The event names the executions that have ended.

To try it in a checkout (docs/emulator.md, "The example DAGs"):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_after_workflow
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_cdf.triggers.workflow import CdfWorkflowEventTrigger

balanced = Asset(
    "tank_balance",
    watchers=[
        AssetWatcher(
            name="tank_balance_completed",
            trigger=CdfWorkflowEventTrigger(workflow_external_id="tank_balance", statuses=["COMPLETED"]),
        )
    ],
)

with DAG("cdf_after_workflow", schedule=[balanced], catchup=False, doc_md=__doc__, tags=["cdf"]) as dag:

    @task
    def use(triggering_asset_events: Any = None) -> list[str]:
        """Names the executions; a DAG run may get several events."""
        events = triggering_asset_events[balanced] if triggering_asset_events else []
        return [one["id"] for event in events for one in event.extra["payload"]["executions"]]

    use()
