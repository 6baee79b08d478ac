"""What the routes have in common: how they reach the engine, and how they read what is not in the body."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from fastapi import Depends, Path, Query, Request
from pydantic import AfterValidator

from airflow_provider_cdf.emulator.api import answers
from airflow_provider_cdf.emulator.api.driver import Driver
from airflow_provider_cdf.emulator.api.errors import ForbiddenError
from airflow_provider_cdf.emulator.api.resources import Resources
from airflow_provider_cdf.emulator.api.tokens import Tokens
from airflow_provider_cdf.hosts import is_loopback


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


async def refuse_foreign_pages(request: Request) -> None:
    """
    Refuse what a web page from elsewhere asks of the emulator itself, which needs no token.

    Such a page names itself as Origin, or has made its own host name lead to this machine.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        raise ForbiddenError(f"A web page of {origin} may not operate the emulator.")
    if request.app.state.local_only and not _names_this_machine(host):
        raise ForbiddenError(
            f"The emulator listens to this machine only, so it is not operated as '{host}': use 127.0.0.1."
        )


def _names_this_machine(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "localhost")
    except ValueError:
        return False
