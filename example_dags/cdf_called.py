r"""
Does the work of one CDF task, whose CDF function has started the DAG run: docs/patterns.md has the function.

The run's conf is what CDF called the function with, and has the task's id. The execution is not known here,
so the input is taken from the conf.

To try it in a checkout (docs/emulator.md, "The example DAGs", has ``conf.py``):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_called --conf "$(python conf.py)"
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

with DAG(
    "cdf_called",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    doc_md=__doc__,
    tags=["cdf"],
) as dag:

    @task.cdf_task(cdf_task_id="{{ dag_run.conf['cogniteOrchestrationTaskId'] }}")
    def judge(dag_run: Any = None) -> dict[str, Any]:
        """Stands for whatever Airflow is needed for."""
        return {"risk": round(dag_run.conf["vibration"] / 10, 2)}

    judge()
