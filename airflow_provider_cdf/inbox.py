"""An inbox: the DAG that starts a run of a working DAG for each CDF task that waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdf.arguments import seconds
from airflow_provider_cdf.cdf.errors import CdfInputError
from airflow_provider_cdf.operators.inbox import CdfStartOperator, CdfWaitingTasksOperator
from airflow_provider_cdf.places import names_place
from airflow_provider_cdf.versions import HAS_TASK_API

#: The schedule of an inbox that a watcher wakes. ``None`` is Airflow's: by hand only.
WATCHER = "watcher"


@names_place
def cdf_inbox(
    dag_id: str,
    *,
    trigger_dag_id: str,
    workflow_external_id: str,
    task_external_id: str,
    version: str | None = None,
    parent_task_external_id: str | None = None,
    schedule: Any = WATCHER,
    poll_interval: float = 10.0,
    cdf_conn_id: str = "cdf_default",
    **dag_arguments: Any,
) -> DAG:
    """
    Make a DAG that starts one run of a working DAG for each CDF task that waits, exactly once.

    ::

        inbox = cdf_inbox(
            "score_inbox",
            trigger_dag_id="score",
            workflow_external_id="pump_health",
            task_external_id="score",
            schedule=timedelta(minutes=1),
        )

    The run's id follows from the CDF task's, and Airflow has each run id once: over polls, restarts and two
    schedulers there is one run for each attempt at a CDF task. What waits already when the inbox is switched
    on is taken up, and so is what CDF retries. While the working DAG is paused, its runs queue.

    The run's conf has ``cdf_task_id``, ``execution_id``, ``task_external_id``, ``parent_task_external_id``,
    ``workflow_external_id``, ``version``, ``start_time`` and ``deadline`` (ISO 8601; ``None`` where it is not
    known, as for children of dynamic tasks). On Airflow 3 it has no logical date, and so no ``{{ ds }}``.

    All else that Airflow's ``DAG`` takes may be given, such as ``tags`` or ``on_failure_callback``, but for
    ``catchup`` and ``max_active_runs``. Unless ``default_args`` say otherwise, the inbox's tasks have two
    retries, ten seconds apart.

    :param dag_id: of the inbox.
    :param trigger_dag_id: the DAG that does the work.
    :param workflow_external_id: external id of the workflow.
    :param task_external_id: external id of the task.
    :param version: version of the workflow; all of them without it.
    :param parent_task_external_id: the dynamic task or subworkflow whose children are meant.
    :param schedule: how often CDF is looked at: one request, and one for each running execution. By default,
        a watcher in the triggerer wakes the inbox when a task begins to wait (Airflow 3). ``None`` is
        Airflow's: the inbox runs only by hand.
    :param poll_interval: seconds between the watcher's looks.
    :param cdf_conn_id: id of the Airflow connection.
    :raises ValueError: for a watcher on Airflow 2.
    :raises TypeError: for an argument that ``DAG`` does not have.
    :raises CdfInputError: if an external id is empty, if the inbox would start itself, or for an argument
        that an inbox decides itself.
    """
    for name, given in (
        ("workflow_external_id", workflow_external_id),
        ("task_external_id", task_external_id),
    ):
        if not str(given or "").strip():
            raise CdfInputError(f"{name} is empty: the inbox {dag_id!r} would never find a task.")
    if trigger_dag_id == dag_id:
        raise CdfInputError(f"The inbox {dag_id!r} would start itself: trigger_dag_id is its own dag_id.")
    for name in ("catchup", "max_active_runs"):
        if name in dag_arguments:
            raise CdfInputError(f"The inbox {dag_id!r} was given {name}, which an inbox decides itself.")
    if schedule == WATCHER:
        schedule = [
            _bell(
                dag_id,
                cdf_conn_id=cdf_conn_id,
                workflow_external_id=workflow_external_id,
                task_external_id=task_external_id,
                version=version,
                parent_task_external_id=parent_task_external_id,
                poll_interval=seconds(poll_interval, "poll_interval"),
            )
        ]
    chosen = {
        "start_date": datetime(2025, 1, 1, tzinfo=UTC),
        "doc_md": f"Starts a run of `{trigger_dag_id}` for each CDF task `{task_external_id}` that waits.",
        "tags": ["cdf"],
        **dag_arguments,
        "default_args": {
            "retries": 2,
            "retry_delay": timedelta(seconds=10),
            **(dag_arguments.get("default_args") or {}),
        },
    }
    with DAG(dag_id, schedule=schedule, catchup=False, max_active_runs=1, **chosen) as dag:
        waiting = CdfWaitingTasksOperator(
            task_id="waiting",
            trigger_dag_id=trigger_dag_id,
            workflow_external_id=workflow_external_id,
            task_external_id=task_external_id,
            version=version,
            parent_task_external_id=parent_task_external_id,
            cdf_conn_id=cdf_conn_id,
        )
        CdfStartOperator.partial(task_id="start", trigger_dag_id=trigger_dag_id).expand_kwargs(waiting.output)
    return dag


def _bell(dag_id: str, **watched: Any) -> Any:
    """Return the asset whose watcher rings while CDF tasks wait."""
    if not HAS_TASK_API:
        raise ValueError(
            "cdf_inbox needs a schedule on Airflow 2, such as timedelta(minutes=1): it has no watchers."
        )
    from airflow.sdk import Asset, AssetWatcher

    from airflow_provider_cdf.triggers.task import CdfTaskEventTrigger

    name = f"cdf_tasks_wait_for_{dag_id}"
    return Asset(name=name, watchers=[AssetWatcher(name=name, trigger=CdfTaskEventTrigger(**watched))])
