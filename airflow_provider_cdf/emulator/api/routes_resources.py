"""Routes of what the official SDK needs around workflows: functions, files, data sets, time series."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ConfigDict, Field, model_validator

from airflow_provider_cdf.emulator.api.http import JsonAnswer
from airflow_provider_cdf.emulator.api.parameters import TheResources
from airflow_provider_cdf.emulator.api.resources import find
from airflow_provider_cdf.emulator.rules.fields import Absent, ExternalId, Model

router = APIRouter(tags=["Around workflows"])
upload_router = APIRouter(include_in_schema=False)

Limit = Annotated[int, Field(ge=1, le=1000)]


class Identifier(Model):
    id: Absent[int] = None
    external_id: Absent[ExternalId] = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Identifier:
        if (self.id is None) == (self.external_id is None):
            raise ValueError("must have either id or externalId")
        return self


class ByIds(Model):
    items: Annotated[list[Identifier], Field(min_length=1, max_length=1000)]
    ignore_unknown_ids: bool = False

    def wanted(self) -> list[dict[str, Any]]:
        return [item.model_dump(by_alias=True, exclude_none=True) for item in self.items]


class ListQuery(Model):
    limit: Limit = 100


class FunctionItem(Model):
    model_config = ConfigDict(extra="allow")

    name: str
    file_id: int
    external_id: Absent[ExternalId] = None


class FunctionsCreate(Model):
    items: Annotated[list[FunctionItem], Field(min_length=1, max_length=1)]


class FileItem(Model):
    model_config = ConfigDict(extra="allow")

    name: str


@router.post("/functions", status_code=201)
async def create_function(body: FunctionsCreate, resources: TheResources) -> JsonAnswer:
    given = body.items[0].model_dump(by_alias=True, exclude_none=True)
    given.pop("secrets", None)
    return JsonAnswer({"items": [resources.create_function(given)]}, status_code=201)


@router.post("/functions/byids")
async def get_functions(body: ByIds, resources: TheResources) -> JsonAnswer:
    found = find(resources.functions(), body.wanted(), ignore_unknown=body.ignore_unknown_ids)
    return JsonAnswer({"items": found})


@router.post("/functions/list")
async def list_functions(body: ListQuery, resources: TheResources) -> JsonAnswer:
    return JsonAnswer({"items": resources.functions()[: body.limit]})


@router.post("/functions/delete")
async def delete_functions(body: ByIds, resources: TheResources) -> JsonAnswer:
    resources.delete_functions(body.wanted(), ignore_unknown=body.ignore_unknown_ids)
    return JsonAnswer({})


@router.api_route("/functions/status", methods=["GET", "POST"], include_in_schema=False)
async def functions_status() -> JsonAnswer:
    return JsonAnswer({"status": "activated"})


@router.get("/functions/{function_id}")
async def get_function(function_id: Annotated[int, Path()], resources: TheResources) -> JsonAnswer:
    (found,) = find(resources.functions(), [{"id": function_id}], ignore_unknown=False)
    return JsonAnswer(found)


@router.post("/files")
async def create_file(
    body: FileItem, request: Request, resources: TheResources, overwrite: Annotated[bool, Query()] = False
) -> JsonAnswer:
    base = str(request.base_url).rstrip("/")
    given = body.model_dump(by_alias=True, exclude_none=True)
    return JsonAnswer(resources.create_file(given, lambda file_id: f"{base}/emulator/uploads/{file_id}"))


@router.post("/files/byids")
async def get_files(body: ByIds, resources: TheResources) -> JsonAnswer:
    found = find(resources.files(), body.wanted(), ignore_unknown=body.ignore_unknown_ids)
    return JsonAnswer({"items": found})


@upload_router.put("/emulator/uploads/{file_id}")
async def upload(file_id: int) -> Response:
    return Response(status_code=200)  # nobody reads what is in a function's file


@router.post("/datasets/list")
async def list_data_sets(body: ListQuery, resources: TheResources) -> JsonAnswer:
    return JsonAnswer({"items": resources.data_sets[: body.limit]})


@router.post("/datasets/byids")
async def get_data_sets(body: ByIds, resources: TheResources) -> JsonAnswer:
    found = find(resources.data_sets, body.wanted(), ignore_unknown=body.ignore_unknown_ids)
    return JsonAnswer({"items": found})


@router.get("/timeseries")
async def list_time_series() -> JsonAnswer:
    return JsonAnswer({"items": []})


@router.post("/timeseries/list")
async def filter_time_series(body: ListQuery) -> JsonAnswer:
    return JsonAnswer({"items": []})
