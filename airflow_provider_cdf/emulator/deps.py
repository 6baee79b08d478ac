"""What the routes have in common: how they reach the engine, and how they read what is not in the body."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Path, Query, Request
from pydantic import AfterValidator

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

#: A path parameter, whose slashes the router has left encoded.
PathId = Annotated[str, AfterValidator(unquote), Path(max_length=765)]
PageLimit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query()]
IgnoreUnknownIds = Annotated[bool, Query(alias="ignoreUnknownIds")]


async def authorize(project: PathId, request: Request, tokens: TheTokens) -> None:
    """Let a request pass if its token is good for the project of its path."""
    tokens.check_project(request.headers.get("authorization"), project)
