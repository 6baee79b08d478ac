"""
Failure callbacks of several DAG runs in one process.

Airflow hands them to one DAG processor process, where all of them get the operators of one parsed DAG.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from operator_support import run
from support import FakeTaskInstance, Project, function_task

from airflow_provider_cdf.operators.task import CdfTaskOperator, CdfTaskUpdateOperator
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator
from airflow_provider_cdf.versions import HAS_ON_KILL

pytestmark = [
    pytest.mark.usefixtures("cdf_default"),
    pytest.mark.skipif(not HAS_ON_KILL, reason="These are the insides of Airflow 3.3's DAG processor."),
    # The ids of the tests' task instances are no UUIDs.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]


@pytest.fixture
def execution_ids(project: Project) -> list[str]:
    """Two executions whose task ``score`` waits."""
    workflow = project.define(function_task("score", waits=True))
    found = [project.run(workflow) for _ in range(2)]
    for execution_id in found:
        project.task(execution_id, "score")
    return found


def of_score() -> dict[str, str]:
    return {"execution_id": "{{ dag_run.conf['execution_id'] }}", "task_external_id": "score"}


def call_back(dag: Any, died: FakeTaskInstance, **conf: Any) -> None:
    """Let Airflow run the callbacks of a task that has died."""
    from airflow.api_fastapi.execution_api.datamodels.taskinstance import DagRun, TaskInstance, TIRunContext
    from airflow.callbacks.callback_requests import TaskCallbackRequest
    from airflow.dag_processing.processor import _execute_task_callbacks

    dag_run = DagRun.model_construct(
        dag_id=died.dag_id,
        run_id=died.run_id,
        logical_date=None,
        run_after=died.run_began,
        start_date=died.run_began,
        clear_number=0,
        run_type="manual",
        state="running",
        conf=conf,
        consumed_asset_events=[],
        partition_key=None,
    )
    ti: Any = TaskInstance.model_construct(
        id=died.id,  # type: ignore[arg-type]  # a UUID, for Airflow
        task_id=died.task_id,
        dag_id=died.dag_id,
        run_id=died.run_id,
        try_number=died.try_number,
        map_index=died.map_index,
    )
    request = TaskCallbackRequest.model_construct(
        ti=ti,
        context_from_server=TIRunContext.model_construct(
            dag_run=dag_run, max_tries=0, task_reschedule_count=0, variables=[], connections=[]
        ),
    )
    bag: Any = SimpleNamespace(dags={dag.dag_id: dag})
    log: Any = logging.getLogger("dag processor")
    _execute_task_callbacks(bag, request, log)


def assert_each_is_reported(project: Project, dag: Any, execution_ids: list[str], **more: Any) -> None:
    for execution_id in execution_ids:
        call_back(dag, FakeTaskInstance(task_id="report", **more), execution_id=execution_id)
    for execution_id in execution_ids:
        assert project.task(execution_id, "score", "FAILED_WITH_TERMINAL_ERROR")


def test_each_report_that_died_becomes_a_failure(project: Project, execution_ids: list[str]) -> None:
    with DAG("plant") as dag:
        CdfTaskUpdateOperator(task_id="report", **of_score())
    assert_each_is_reported(project, dag, execution_ids)


def test_each_function_that_died_becomes_a_failure(project: Project, execution_ids: list[str]) -> None:
    with DAG("plant") as dag:
        CdfTaskOperator(task_id="report", python_callable=print, **of_score())
    assert_each_is_reported(project, dag, execution_ids)


def test_each_of_a_mapped_task_becomes_a_failure(project: Project, execution_ids: list[str]) -> None:
    address = {"execution_id": "{{ dag_run.conf['execution_id'] }}"}
    with DAG("plant") as dag:
        CdfTaskUpdateOperator.partial(task_id="report", **address).expand(task_external_id=["score"])
    assert_each_is_reported(project, dag, execution_ids, map_index=0)


def test_an_execution_is_cancelled_by_the_connection_of_its_own_run(project: Project) -> None:
    workflow = project.define(function_task("approve", waits=True))
    execution_id = run(workflow, ti := FakeTaskInstance(task_id="run"))
    with DAG("plant") as dag:
        CdfWorkflowRunOperator(
            task_id="run",
            workflow_external_id=workflow,
            version="1",
            cdf_conn_id="{{ dag_run.conf['connection'] }}",
        )
    call_back(dag, FakeTaskInstance(task_id="run"), connection="not_there")
    call_back(dag, ti, connection="cdf_default")
    assert project.execution(execution_id)["status"] == "TERMINATED"
