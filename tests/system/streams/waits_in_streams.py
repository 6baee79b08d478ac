"""Deferred sensors for the executions that a DAG run is given."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG, task
from slow_reader import StuckTrigger

from airflow_provider_cdf.sensors.workflow import CdfWorkflowSensor

INTERVAL = float(os.environ["STREAMS_INTERVAL"])


class StuckSensor(CdfWorkflowSensor):
    def trigger(self, **kwargs: Any) -> StuckTrigger:
        return StuckTrigger(**kwargs)


@task
def ids(which: str, dag_run: Any = None) -> list[str]:
    return list(dag_run.conf[which])


with DAG("waits_in_streams", schedule=None, max_active_tasks=32):
    for name, kind, timeout in (
        ("wait", CdfWorkflowSensor, 3600),
        ("wait_briefly", CdfWorkflowSensor, float(os.environ["STREAMS_TIMEOUT"])),
        ("wait_stuck", StuckSensor, 3600),
    ):
        kind.partial(
            task_id=name, deferrable=True, poke_interval=INTERVAL, timeout=timeout, retries=0
        ).expand(execution_id=ids.override(task_id=f"ids_of_{name}")(name))
