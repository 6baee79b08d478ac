"""What the tests use of Airflow that older versions keep elsewhere."""

from __future__ import annotations

from typing import Any

from airflow_provider_cdf.versions import AIRFLOW_VERSION, HAS_TASK_API

if AIRFLOW_VERSION >= (3, 2):
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import serde
    from airflow.sdk.exceptions import AirflowRescheduleException
else:
    from airflow.exceptions import AirflowRescheduleException
    from airflow.models.dagbag import DagBag
    from airflow.serialization import serde

if AIRFLOW_VERSION >= (3, 2):
    from airflow.sdk.exceptions import DownstreamTasksSkipped
elif HAS_TASK_API:
    from airflow.exceptions import DownstreamTasksSkipped
else:
    DownstreamTasksSkipped = None

#: A DAG that ends at its first failure.
FAIL_FAST = {"fail_fast" if HAS_TASK_API else "fail_stop": True}

if HAS_TASK_API:
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
else:
    from airflow.operators.empty import EmptyOperator
    from airflow.operators.trigger_dagrun import TriggerDagRunOperator

try:
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:  # below 3.2 or so
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization

if AIRFLOW_VERSION >= (3, 1):
    from airflow._shared.secrets_masker import should_hide_value_for_key
elif HAS_TASK_API:
    from airflow.sdk.execution_time.secrets_masker import should_hide_value_for_key
else:
    from airflow.utils.log.secrets_masker import should_hide_value_for_key


def check_cycle(dag: Any) -> None:
    """Refuse a DAG that has one."""
    if hasattr(dag, "check_cycle"):
        dag.check_cycle()
    else:
        from airflow.utils import dag_cycle_tester

        dag_cycle_tester.check_cycle(dag)


__all__ = [
    "FAIL_FAST",
    "AirflowRescheduleException",
    "DagBag",
    "DagSerialization",
    "DownstreamTasksSkipped",
    "EmptyOperator",
    "TriggerDagRunOperator",
    "check_cycle",
    "serde",
    "should_hide_value_for_key",
]
