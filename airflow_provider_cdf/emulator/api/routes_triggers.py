"""Routes of triggers: https://api-docs.cognite.com/20230101/tag/Workflow-triggers"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter

from airflow_provider_cdf.emulator.api import answers, schemas, views
from airflow_provider_cdf.emulator.api.http import JsonAnswer
from airflow_provider_cdf.emulator.api.paging import page
from airflow_provider_cdf.emulator.api.parameters import (
    NOT_FOUND,
    Cursor,
    PageLimit,
    TheDriver,
    TriggerExternalId,
)
from airflow_provider_cdf.emulator.rules.errors import NotFoundError

router = APIRouter(prefix="/workflows/triggers", tags=["Workflow triggers"])


@router.get("", response_model=answers.Triggers)
async def list_triggers(driver: TheDriver, limit: PageLimit = 100, cursor: Cursor = None) -> JsonAnswer:
    with driver.turn() as engine:
        return JsonAnswer(page(engine.triggers.all(), limit, cursor, views.trigger))


@router.post("", response_model=answers.Triggers, responses=NOT_FOUND)
async def upsert_trigger(body: schemas.TriggerUpsert, driver: TheDriver) -> JsonAnswer:
    item = body.items[0]
    with driver.turn() as engine:
        engine.catalog.version(item.workflow_external_id, item.workflow_version)
        engine.sessions.use(item.authentication.nonce)
        record = engine.triggers.upsert(
            item.external_id,
            item.trigger_rule.model_dump(mode="json", by_alias=True, exclude_unset=True),
            item.workflow_external_id,
            item.workflow_version,
            input=item.input,
            metadata=item.metadata,
        )
        return JsonAnswer({"items": [views.trigger(record)]})


@router.post("/delete", response_model=answers.Empty, responses=NOT_FOUND)
async def delete_trigger(body: schemas.TriggerDelete, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        engine.triggers.delete(body.items[0].external_id)
        return JsonAnswer({})


@router.get("/{triggerExternalId}/history", response_model=answers.TriggerHistory, responses=NOT_FOUND)
async def trigger_history(
    trigger_external_id: TriggerExternalId, driver: TheDriver, limit: PageLimit = 100, cursor: Cursor = None
) -> JsonAnswer:
    with driver.turn() as engine:
        trigger = engine.triggers.get(trigger_external_id, "Workflow trigger not found.")
        return JsonAnswer(page(trigger.history, limit, cursor, dict))


@router.post("/{triggerExternalId}/pause", response_model=answers.Empty, responses=NOT_FOUND)
async def pause_trigger(trigger_external_id: TriggerExternalId, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        return _answer(engine.triggers.pause, trigger_external_id)


@router.post("/{triggerExternalId}/resume", response_model=answers.Empty, responses=NOT_FOUND)
async def resume_trigger(trigger_external_id: TriggerExternalId, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        return _answer(engine.triggers.resume, trigger_external_id)


def _answer(do: Callable[[str], None], trigger_external_id: str) -> JsonAnswer:
    try:
        do(trigger_external_id)
    except NotFoundError as error:
        # For these two operations, Cognite's document shows the error without its envelope, while its SDK
        # reads the envelope. This answer fits both.
        bare = {"code": 404, "message": error.message}
        return JsonAnswer({**bare, "error": bare}, status_code=404)
    return JsonAnswer({})
