"""Routes by which the emulator itself is operated. CDF has nothing of the kind, and they need no token."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from airflow_provider_cdf.emulator.api import views
from airflow_provider_cdf.emulator.api.http import JsonAnswer
from airflow_provider_cdf.emulator.api.parameters import (
    ExecutionId,
    TaskExternalId,
    TheDriver,
    TheTokens,
    TriggerExternalId,
    refuse_foreign_pages,
)
from airflow_provider_cdf.emulator.control.faults import Fault, Faults
from airflow_provider_cdf.emulator.control.journal import Journal
from airflow_provider_cdf.emulator.rules.errors import InvalidRequestError
from airflow_provider_cdf.emulator.rules.fields import Absent, Model

router = APIRouter(prefix="/emulator", include_in_schema=False, dependencies=[Depends(refuse_foreign_pages)])


async def _faults(request: Request) -> Faults:
    faults: Faults = request.app.state.faults
    return faults


async def _journal(request: Request) -> Journal:
    journal: Journal = request.app.state.journal
    return journal


TheFaults = Annotated[Faults, Depends(_faults)]
TheJournal = Annotated[Journal, Depends(_journal)]


#: In seconds: beyond that, times are no longer dates.
_CENTURY = 100 * 365 * 24 * 3600


class Advance(Model):
    seconds: Annotated[float, Field(ge=0, le=_CENTURY)] | Annotated[int, Field(ge=0, le=_CENTURY)]


class Hide(Model):
    seconds: Annotated[float, Field(gt=0, le=_CENTURY)] | Annotated[int, Field(gt=0, le=_CENTURY)]
    times: Annotated[int, Field(ge=1)] = 1
    by_id_too: bool = False


class DelayCancels(Model):
    seconds: Annotated[float, Field(gt=0, le=_CENTURY)] | Annotated[int, Field(gt=0, le=_CENTURY)]
    times: Annotated[int, Field(ge=1)] = 1


class Fire(Model):
    items: Absent[list[dict[str, Any]]] = None


@router.get("/faults")
async def list_faults(faults: TheFaults) -> JsonAnswer:
    return JsonAnswer({"items": [fault.model_dump(exclude_none=True) for fault in faults.waiting()]})


@router.post("/faults")
async def add_fault(body: Fault, faults: TheFaults) -> JsonAnswer:
    faults.add(**body.model_dump())
    return JsonAnswer({})


@router.delete("/faults")
async def clear_faults(faults: TheFaults) -> JsonAnswer:
    faults.clear()
    return JsonAnswer({})


@router.post("/hide-new-executions")
async def hide_new_executions(body: Hide, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        engine.hide_new_executions(body.seconds, body.times, by_id_too=body.by_id_too)
        return JsonAnswer({})


@router.post("/delay-cancels")
async def delay_cancels(body: DelayCancels, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        engine.delay_cancels(body.seconds, body.times)
        return JsonAnswer({})


@router.post("/expire-tokens")
async def expire_tokens(tokens: TheTokens) -> JsonAnswer:
    tokens.expire_all()
    return JsonAnswer({})


@router.get("/journal")
async def read_journal(journal: TheJournal, method: str = "*", path: str = "*") -> JsonAnswer:
    found = journal.requests(method, path)
    return JsonAnswer({"count": len(found), "items": [asdict(request) for request in found]})


@router.delete("/journal")
async def clear_journal(journal: TheJournal) -> JsonAnswer:
    journal.clear()
    return JsonAnswer({})


@router.post("/advance")
def advance(body: Advance, driver: TheDriver) -> JsonAnswer:
    # In a thread of its own, as handlers that it waits for may send requests.
    try:
        driver.advance(body.seconds)
    except TypeError as error:
        raise InvalidRequestError(str(error)) from None
    with driver.turn() as engine:
        return JsonAnswer({"now": engine.timeline.now()})


@router.post("/triggers/{triggerExternalId}/fire")
async def fire_trigger(
    trigger_external_id: TriggerExternalId, driver: TheDriver, body: Fire | None = None
) -> JsonAnswer:
    with driver.turn() as engine:
        engine.triggers.fire(trigger_external_id, body.items if body else None)
        return JsonAnswer(engine.triggers.get(trigger_external_id).history[0][1])


@router.post("/executions/{executionId}/tasks/{taskExternalId}/skip")
async def skip_task(
    execution_id: ExecutionId, task_external_id: TaskExternalId, driver: TheDriver
) -> JsonAnswer:
    with driver.turn() as engine:
        return JsonAnswer(views.task(engine.skip_task(execution_id, task_external_id)))
