"""Routes of workflows and their versions: https://api-docs.cognite.com/20230101/tag/Workflows"""

from __future__ import annotations

from fastapi import APIRouter

from airflow_provider_cdf.emulator.api import answers, schemas, views
from airflow_provider_cdf.emulator.api.http import JsonAnswer
from airflow_provider_cdf.emulator.api.paging import page
from airflow_provider_cdf.emulator.api.parameters import (
    NOT_FOUND,
    Cursor,
    IgnoreUnknownIds,
    PageLimit,
    TheDriver,
    Version,
    WorkflowExternalId,
)
from airflow_provider_cdf.emulator.rules.definitions import unknown_tasks, unknown_type_warning

router = APIRouter(prefix="/workflows", tags=["Workflows"])


@router.post("", response_model=answers.Workflows)
async def upsert_workflow(body: schemas.WorkflowUpsert, driver: TheDriver) -> JsonAnswer:
    item = body.items[0]
    with driver.turn() as engine:
        record = engine.catalog.upsert_workflow(
            item.external_id,
            description=item.description,
            data_set_id=item.data_set_id,
            data_domain_external_id=item.data_domain_external_id,
            max_concurrent_executions=item.max_concurrent_executions,
        )
        return JsonAnswer({"items": [views.workflow(record)]})


@router.get("", response_model=answers.Workflows)
async def list_workflows(driver: TheDriver, limit: PageLimit = 100, cursor: Cursor = None) -> JsonAnswer:
    with driver.turn() as engine:
        return JsonAnswer(page(engine.store.workflows.numbered(), limit, cursor, views.workflow))


@router.post("/delete", response_model=answers.Empty, responses=NOT_FOUND)
async def delete_workflows(
    body: schemas.WorkflowDelete, driver: TheDriver, ignore_unknown_ids: IgnoreUnknownIds = True
) -> JsonAnswer:
    with driver.turn() as engine:
        ids = [item.external_id for item in body.items]
        engine.catalog.delete_workflows(ids, ignore_unknown=ignore_unknown_ids)
        return JsonAnswer({})


@router.post("/versions", response_model=answers.UpsertedVersion)
async def upsert_version(body: schemas.VersionUpsert, driver: TheDriver) -> JsonAnswer:
    item = body.items[0]
    with driver.turn() as engine:
        record = engine.catalog.upsert_version(
            item.workflow_external_id, item.version, item.workflow_definition
        )
        warnings = [unknown_type_warning(task) for _, task in unknown_tasks(record.definition)]
        return JsonAnswer({"items": [views.version(record) | ({"warnings": warnings} if warnings else {})]})


@router.post("/versions/list", response_model=answers.Versions)
async def list_versions(body: schemas.VersionsQuery, driver: TheDriver) -> JsonAnswer:
    filters = (body.filter and body.filter.workflow_filters) or []
    wanted = {(item.external_id, item.version) for item in filters}
    with driver.turn() as engine:
        found = (
            (number, record)
            for number, record in engine.store.versions.numbered()
            if not wanted or not wanted.isdisjoint(_names_of(record.workflow_external_id, record.version))
        )
        return JsonAnswer(page(found, body.limit, body.cursor, views.version))


@router.post("/versions/delete", response_model=answers.Empty, responses=NOT_FOUND)
async def delete_versions(
    body: schemas.VersionDelete, driver: TheDriver, ignore_unknown_ids: IgnoreUnknownIds = True
) -> JsonAnswer:
    with driver.turn() as engine:
        ids = [(item.workflow_external_id, item.version) for item in body.items]
        engine.catalog.delete_versions(ids, ignore_unknown=ignore_unknown_ids)
        return JsonAnswer({})


@router.get(
    "/{workflowExternalId}/versions/{version}",
    response_model=answers.VersionView,
    responses=NOT_FOUND,
)
async def get_version(
    workflow_external_id: WorkflowExternalId, version: Version, driver: TheDriver
) -> JsonAnswer:
    with driver.turn() as engine:
        return JsonAnswer(views.version(engine.catalog.version(workflow_external_id, version)))


@router.get("/{workflowExternalId}", response_model=answers.WorkflowView, responses=NOT_FOUND)
async def get_workflow(workflow_external_id: WorkflowExternalId, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        return JsonAnswer(views.workflow(engine.catalog.workflow(workflow_external_id)))


def _names_of(workflow_external_id: str, version: str) -> set[tuple[str, str | None]]:
    return {(workflow_external_id, version), (workflow_external_id, None)}
