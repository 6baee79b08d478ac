"""
The API over HTTP: reads requests, asks the engine, writes answers. It knows no rule of workflows.

https://api-docs.cognite.com/20230101/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from airflow_provider_cdf.emulator.api import (
    answers,
    routes_executions,
    routes_resources,
    routes_sessions,
    routes_triggers,
    routes_workflows,
)
from airflow_provider_cdf.emulator.api.driver import Driver
from airflow_provider_cdf.emulator.api.errors import refusal
from airflow_provider_cdf.emulator.api.http import JsonAnswer, error_answer
from airflow_provider_cdf.emulator.api.parameters import authorize
from airflow_provider_cdf.emulator.api.resources import Resources
from airflow_provider_cdf.emulator.api.tokens import Tokens
from airflow_provider_cdf.emulator.rules.errors import CdfError, describe, plain_message


def create_app(
    driver: Driver,
    tokens: Tokens,
    resources: Resources,
    *,
    local_only: bool = True,
) -> FastAPI:
    """
    The API as an application, which others may add routes to.

    :param driver: drives the engine
    :param tokens: who may ask for what
    :param resources: what is there beside workflows
    :param local_only: whether it listens to this machine only
    """
    app = FastAPI(
        title="Emulator of CDF Data Workflows",
        description="Not CDF: a stand-in on this machine, for development and tests.",
        version="20230101",
        redirect_slashes=False,
        docs_url=None,  # FastAPI's page of the document loads its script from a CDN
        redoc_url=None,
        responses={status: {"model": answers.ErrorAnswer} for status in (400, 401, 403)},
    )
    app.state.driver = driver
    app.state.tokens = tokens
    app.state.resources = resources
    app.state.local_only = local_only

    project = APIRouter(prefix="/api/v1/projects/{project}", dependencies=[Depends(authorize)])
    # Fixed paths first: /workflows/triggers must not be taken for the workflow "triggers".
    for routes in (routes_sessions, routes_executions, routes_triggers, routes_workflows, routes_resources):
        project.include_router(routes.router)
    app.include_router(project)
    app.include_router(routes_sessions.identity_router)
    app.include_router(routes_resources.upload_router)

    app.openapi = _document_of(app)  # type: ignore[method-assign]
    app.add_exception_handler(CdfError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _failed)
    return app


def _document_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    make = app.openapi

    def document() -> dict[str, Any]:
        made = make()
        for methods in made["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)  # FastAPI's own, which the emulator never gives
        return made

    return document


async def _refused(request: Request, error: Exception) -> JsonAnswer:
    assert isinstance(error, CdfError)  # noqa: S101 - for the type checker
    return refusal(error)


async def _invalid(request: Request, error: Exception) -> JsonAnswer:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - for the type checker
    first = error.errors()[0]
    place, *steps = first["loc"]
    if place == "body":
        return error_answer(400, describe({**first, "loc": steps}, error.body))
    return error_answer(400, f"{steps[-1]}: {plain_message(first)}")


async def _no_route(request: Request, error: Exception) -> JsonAnswer:
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker
    if error.status_code == 400:  # FastAPI could not read the body
        return error_answer(400, f"The request body cannot be read: {error.detail}")
    what = f"{request.method} {request.url.path}"
    return error_answer(error.status_code, f"{error.detail}: {what} is not part of the emulated API.")


async def _failed(request: Request, error: Exception) -> JsonAnswer:
    # The error itself goes to the log of uvicorn.
    return error_answer(500, "The emulator failed at this request, which is a mistake in it; see its log.")
