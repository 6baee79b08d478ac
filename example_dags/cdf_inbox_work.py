r"""
Does the work of one CDF task, which the DAG ``cdf_inbox`` names in the run's conf.

To try it in a checkout (docs/emulator.md, "The example DAGs", has ``conf.py``):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_inbox_work --conf "$(python conf.py)"
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

with DAG(
    "cdf_inbox_work",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    doc_md=__doc__,
    tags=["cdf"],
) as dag:

    @task.cdf_task(
        execution_id="{{ dag_run.conf['execution_id'] }}",
        # This very attempt: one that CDF retries gets a DAG run of its own.
        cdf_task_id="{{ dag_run.conf['cdf_task_id'] }}",
    )
    def judge(cdf_task: Any) -> dict[str, Any]:
        """Stands for whatever Airflow is needed for."""
        return {"risk": round(cdf_task.data["vibration"] / 10, 2)}

    judge()
