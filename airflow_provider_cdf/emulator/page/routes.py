"""The page at ``/``, which shows executions and their task graphs, and the data that it asks for."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import FileResponse

from airflow_provider_cdf.emulator.api import views
from airflow_provider_cdf.emulator.api.http import JsonAnswer
from airflow_provider_cdf.emulator.api.parameters import ExecutionId, TheDriver, refuse_foreign_pages
from airflow_provider_cdf.emulator.rules.store import Execution

router = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_foreign_pages)])

_FILES = Path(__file__).parent
# The page loads nothing from anywhere else, and cannot be made to.
_POLICY = {"content-security-policy": "default-src 'self'; style-src 'unsafe-inline'; img-src data:"}


@router.get("/")
async def page() -> FileResponse:
    return FileResponse(_FILES / "index.html", headers=_POLICY)


@router.get("/emulator/page.js")
async def script() -> FileResponse:
    return FileResponse(_FILES / "page.js", media_type="text/javascript")


@router.get("/emulator/executions")
async def newest_executions(
    driver: TheDriver, limit: Annotated[int, Query(ge=1, le=1000)] = 100, search: str = ""
) -> JsonAnswer:
    words = search.lower().split()
    with driver.turn() as engine:
        store = engine.store
        found = (record for record in reversed(store.executions.values()) if _has(record, words))
        newest = islice(found, limit)
        return JsonAnswer(
            {
                "items": [views.execution(record) for record in newest],
                "total": len(store.executions),
                "running": len(store.running),
                "now": engine.timeline.now() if store.running else _last_change(store.ended),
            }
        )


@router.get("/emulator/executions/{executionId}")
async def execution_with_plan(execution_id: ExecutionId, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        record = engine.execution(execution_id)
        return JsonAnswer({**views.execution(record), "input": record.input, "plan": _plan(record)})


def _has(record: Execution, words: list[str]) -> bool:
    """Whether each word is part of an execution's ids, status, reason, metadata or tasks' names."""
    if not words:
        return True
    about = [
        record.id,
        record.workflow_external_id,
        record.version.version,
        record.status,
        record.reason or "",
    ]
    tasks = (key[1] for key in record.plan)
    text = "\n".join([*about, *record.metadata, *record.metadata.values(), *tasks]).lower()
    return all(word in text for word in words)


def _last_change(ended: dict[str, Execution]) -> int:
    """Time stands still on the page while nothing runs, so that it need not be drawn again."""
    return next((record.end_time or 0 for record in reversed(ended.values())), 0)


def _plan(record: Execution) -> list[dict[str, Any]]:
    return [
        {
            "key": f"{planned.parent or ''}/{planned.definition.external_id}",
            "externalId": planned.definition.external_id,
            "parent": planned.parent,
            "type": planned.definition.type,
            "dependsOn": planned.definition.dependencies,
            "attempts": [views.task(attempt) for attempt in planned.attempts],
        }
        for planned in record.plan.values()
    ]
