"""DAGs that do the work of a CDF task, by a function and by a group, while CDF cancels its execution."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdf.task_group import CdfTaskGroup

of_score: dict[str, Any] = {
    "execution_id": "{{ dag_run.conf['execution_id'] }}",
    "task_external_id": "score",
    "poll_interval": 1,
    "deferrable": True,
}
# Airflow 3.3 now and then fails a task that it resumes soon after its deferral: hence the retries.
retries: dict[str, Any] = {"retries": 3, "retry_delay": timedelta(seconds=1)}


def hold_on(conf: dict[str, Any]) -> None:
    """Say that the work has begun, and hold on until a file is there."""
    Path(conf["began"]).touch()
    while not Path(conf["let_go"]).exists():
        time.sleep(0.2)


with DAG("cancelled_function", schedule=None, default_args=retries):

    @task.cdf_task(**of_score)
    def judge(dag_run: Any = None) -> dict[str, Any]:
        """Asks nothing while it works."""
        hold_on(dag_run.conf)
        return {"risk": 0.5}

    judge()

with DAG("cancelled_asking_function", schedule=None, default_args=retries):

    @task.cdf_task(**of_score)
    def asks(cdf_task: Any, dag_run: Any = None) -> dict[str, Any]:
        """Asks CDF while it works."""
        Path(dag_run.conf["began"]).touch()
        while cdf_task.is_waiting():
            time.sleep(0.2)
        return {"risk": 0.5}

    asks()

with DAG("cancelled_group", schedule=None, default_args=retries), CdfTaskGroup("score", **of_score) as cdf:

    @task
    def work(dag_run: Any = None) -> dict[str, Any]:
        """Knows nothing of CDF."""
        hold_on(dag_run.conf)
        return {"risk": 0.5}

    cdf.output = work()
