"""A DAG that runs when executions of the workflow ``asks_the_inbox`` have ended."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_cdf.triggers.workflow import CdfWorkflowEventTrigger

told = Asset(
    "endings_told",
    watchers=[
        AssetWatcher(
            name="endings_told",
            trigger=CdfWorkflowEventTrigger(
                workflow_external_id="asks_the_inbox", statuses=["COMPLETED", "FAILED"], poll_interval=1
            ),
        )
    ],
)

with DAG("endings_told", schedule=[told]):

    @task
    def use(triggering_asset_events: Any = None) -> list[str]:
        """Returns the ids of the executions."""
        events = triggering_asset_events[told] if triggering_asset_events else []
        return [one["id"] for event in events for one in event.extra["payload"]["executions"]]

    use()
