"""Routes of triggers: https://api-docs.cognite.com/20230101/tag/Workflow-triggers"""

from __future__ import annotations

from fastapi import APIRouter

from airflow_provider_cdf.emulator import schemas, views
from airflow_provider_cdf.emulator.deps import Cursor, PageLimit, PathId, TheDriver
from airflow_provider_cdf.emulator.http import JsonAnswer
from airflow_provider_cdf.emulator.paging import page

router = APIRouter(prefix="/workflows/triggers", tags=["Workflow triggers"])


@router.get("")
async def list_triggers(driver: TheDriver, limit: PageLimit = 100, cursor: Cursor = None) -> JsonAnswer:
    with driver.turn() as engine:
        return JsonAnswer(page(engine.triggers.all(), limit, cursor, views.trigger))


@router.post("")
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


@router.post("/delete")
async def delete_trigger(body: schemas.TriggerDelete, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        engine.triggers.delete(body.items[0].external_id)
        return JsonAnswer({})


@router.get("/{trigger_external_id}/history")
async def trigger_history(
    trigger_external_id: PathId, driver: TheDriver, limit: PageLimit = 100, cursor: Cursor = None
) -> JsonAnswer:
    with driver.turn() as engine:
        trigger = engine.triggers.get(trigger_external_id, "Workflow trigger not found.")
        return JsonAnswer(page(trigger.history, limit, cursor, dict))


@router.post("/{trigger_external_id}/pause")
async def pause_trigger(trigger_external_id: PathId, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        engine.triggers.pause(trigger_external_id)
        return JsonAnswer({})


@router.post("/{trigger_external_id}/resume")
async def resume_trigger(trigger_external_id: PathId, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        engine.triggers.resume(trigger_external_id)
        return JsonAnswer({})
