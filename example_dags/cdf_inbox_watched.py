r"""
An inbox that CDF wakes: the triggerer notices within seconds that a task waits (Airflow 3).

It starts a run of the DAG ``cdf_inbox_work`` for each, as ``cdf_inbox`` does, which looks every minute.

To try it in a checkout (docs/emulator.md, "The example DAGs"):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_inbox_watched
"""

from __future__ import annotations

from airflow_provider_cdf.inbox import cdf_inbox

dag = cdf_inbox(
    "cdf_inbox_watched",
    trigger_dag_id="cdf_inbox_work",
    workflow_external_id="pump_health",
    task_external_id="score",
    poll_interval=5,
)
