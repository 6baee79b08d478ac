"""DAGs that do the work of a CDF task with one function, which behaves as the DAG run's conf says."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator

for dag_id, retries in (("works_for_cdf", 1), ("works_for_cdf_once", 0)):
    with DAG(dag_id, schedule=None):
        run = CdfWorkflowRunOperator(
            task_id="run",
            workflow_external_id="pump_health",
            version="1",
            input={"pump": "P-101"},
            wait_for_completion=False,
        )

        @task.cdf_task(
            execution_id=run.output,
            task_external_id="score",
            poll_interval=1,
            # A busy Airflow 3.3 may fail a task that is resumed at once: here with its only try.
            deferrable=retries > 0,
            retries=retries,
            retry_delay=timedelta(seconds=1),
        )
        def judge(cdf_task: Any, dag_run: Any = None, ti: Any = None) -> dict[str, Any]:
            """Fails always, or the first time; or holds on until a file is there, or CDF waits no more."""
            how = dag_run.conf["how"]
            if how == "fails" or (how == "fails once" and ti.try_number == 1):
                raise RuntimeError(f"the historian is down, try {ti.try_number}")
            Path(dag_run.conf["began"]).touch()
            while how == "holds on" and not Path(dag_run.conf["let_go"]).exists():
                time.sleep(0.2)
            while how == "asks" and cdf_task.is_waiting():
                time.sleep(0.2)
            return {"risk": cdf_task.data["vibration"] / 10, "attempt": cdf_task.id}

        judge()
