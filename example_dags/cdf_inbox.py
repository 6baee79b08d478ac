r"""
An inbox: each CDF task that waits gets a run of the DAG ``cdf_inbox_work``, however its workflow was started.

CDF starts its workflow itself, by a schedule or a data trigger. Airflow, which may sit behind a firewall that
lets nothing in, looks every minute which tasks wait.

To try it in a checkout (docs/emulator.md, "The example DAGs"):

    python -m airflow_provider_cdf.emulator --workflows example_dags/workflows \
      --functions airflow_provider_cdf.demo:FUNCTIONS
    airflow dags test cdf_inbox
"""

from __future__ import annotations

from datetime import timedelta

from airflow_provider_cdf.inbox import cdf_inbox

dag = cdf_inbox(
    "cdf_inbox",
    trigger_dag_id="cdf_inbox_work",
    workflow_external_id="pump_health",
    task_external_id="score",
    schedule=timedelta(minutes=1),
)
