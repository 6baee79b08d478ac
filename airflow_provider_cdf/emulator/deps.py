"""What the routes have in common: how they reach the engine, and how they read what is not in the body."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, Path, Query, Request
from pydantic import AfterValidator

from airflow_provider_cdf.emulator import answers
from airflow_provider_cdf.emulator.driver import Driver
from airflow_provider_cdf.emulator.resources import Resources
from airflow_provider_cdf.emulator.tokens import Tokens


async def _driver(request: Request) -> Driver:
    driver: Driver = request.app.state.driver
    return driver


async def _tokens(request: Request) -> Tokens:
    tokens: Tokens = request.app.state.tokens
    return tokens


async def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


TheDriver = Annotated[Driver, Depends(_driver)]
TheTokens = Annotated[Tokens, Depends(_tokens)]
TheResources = Annotated[Resources, Depends(_resources)]

#: For the OpenAPI document of an operation on something that may not exist.
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": answers.ErrorAnswer}}

#: A path parameter, whose slashes the router has left encoded.
PathId = Annotated[str, AfterValidator(unquote)]
Project = Annotated[PathId, Path()]
WorkflowExternalId = Annotated[PathId, Path(alias="workflowExternalId")]
Version = Annotated[PathId, Path()]
ExecutionId = Annotated[PathId, Path(alias="executionId")]
TaskId = Annotated[PathId, Path(alias="taskId")]
TriggerExternalId = Annotated[PathId, Path(alias="triggerExternalId")]
TaskExternalId = Annotated[PathId, Path(alias="taskExternalId")]
PageLimit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query()]
IgnoreUnknownIds = Annotated[bool, Query(alias="ignoreUnknownIds")]


async def authorize(project: Project, request: Request, tokens: TheTokens) -> None:
    """Let a request pass if its token is good for the project of its path."""
    tokens.check_project(request.headers.get("authorization"), project)
