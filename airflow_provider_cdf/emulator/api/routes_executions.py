"""
Routes of executions and tasks: https://api-docs.cognite.com/20230101/tag/Workflow-executions
and https://api-docs.cognite.com/20230101/tag/Tasks
"""

from __future__ import annotations

from fastapi import APIRouter

from airflow_provider_cdf.emulator.api import answers, schemas, views
from airflow_provider_cdf.emulator.api.http import JsonAnswer
from airflow_provider_cdf.emulator.api.paging import page
from airflow_provider_cdf.emulator.api.parameters import (
    NOT_FOUND,
    ExecutionId,
    TaskId,
    TheDriver,
    Version,
    WorkflowExternalId,
)

router = APIRouter(prefix="/workflows", tags=["Workflow executions"])


@router.post(
    "/{workflowExternalId}/versions/{version}/run",
    status_code=202,
    response_model=answers.ExecutionView,
    responses=NOT_FOUND,
)
async def run(
    workflow_external_id: WorkflowExternalId, version: Version, body: schemas.Run, driver: TheDriver
) -> JsonAnswer:
    with driver.turn() as engine:
        record = engine.run(
            workflow_external_id,
            version,
            nonce=body.authentication.nonce,
            input=body.input,
            metadata=body.metadata,
        )
        return JsonAnswer(views.execution(record), status_code=202)


@router.post("/executions/list", response_model=answers.Executions)
async def list_executions(body: schemas.ExecutionsQuery, driver: TheDriver) -> JsonAnswer:
    wanted = body.filter or schemas.ExecutionsFilter()
    with driver.turn() as engine:
        found = engine.executions(
            workflows=[(item.external_id, item.version) for item in wanted.workflow_filters or []],
            created_time_start=wanted.created_time_start,
            created_time_end=wanted.created_time_end,
            statuses=wanted.status or [],
        )
        return JsonAnswer(page(found, body.limit, body.cursor, views.execution))


@router.get("/executions/{executionId}", response_model=answers.ExecutionDetails, responses=NOT_FOUND)
async def get_execution(execution_id: ExecutionId, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        return JsonAnswer(views.execution_details(engine.visible_execution(execution_id)))


@router.post("/executions/{executionId}/cancel", response_model=answers.ExecutionView, responses=NOT_FOUND)
async def cancel_execution(
    execution_id: ExecutionId, driver: TheDriver, body: schemas.Cancel | None = None
) -> JsonAnswer:
    with driver.turn() as engine:
        return JsonAnswer(views.execution(engine.cancel(execution_id, (body or schemas.Cancel()).reason)))


@router.post("/executions/{executionId}/retry", response_model=answers.ExecutionView, responses=NOT_FOUND)
async def retry_execution(execution_id: ExecutionId, body: schemas.Retry, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        return JsonAnswer(views.execution(engine.retry(execution_id, nonce=body.authentication.nonce)))


@router.post("/tasks/{taskId}/update", response_model=answers.TaskView, responses=NOT_FOUND)
async def update_task(task_id: TaskId, body: schemas.TaskUpdate, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        return JsonAnswer(views.task(engine.update_task(task_id, body.status, body.output)))
