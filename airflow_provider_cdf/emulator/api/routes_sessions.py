"""
Routes of identity: the token endpoint of an identity provider, token inspection and sessions.

https://api-docs.cognite.com/20230101/tag/Token and https://api-docs.cognite.com/20230101/tag/Sessions
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, unquote_plus

from fastapi import APIRouter, Query, Request

from airflow_provider_cdf.emulator.api import answers, schemas, views
from airflow_provider_cdf.emulator.api.http import JsonAnswer
from airflow_provider_cdf.emulator.api.paging import page
from airflow_provider_cdf.emulator.api.parameters import Cursor, TheDriver, TheTokens
from airflow_provider_cdf.emulator.rules.errors import InvalidRequestError

router = APIRouter(prefix="/sessions", tags=["Sessions"])
identity_router = APIRouter(tags=["Identity"])

_CAPABILITIES = {
    "workflowOrchestrationAcl": ["READ", "WRITE"],
    "sessionsAcl": ["LIST", "CREATE", "DELETE"],
    "functionsAcl": ["READ", "WRITE", "RUN"],
    "timeSeriesAcl": ["READ", "WRITE"],
    "datasetsAcl": ["READ"],
    "filesAcl": ["READ", "WRITE"],
}


@identity_router.post("/oauth2/token", include_in_schema=False)
async def token(request: Request, tokens: TheTokens) -> JsonAnswer:
    """The client credentials grant of RFC 6749, with the secret in the form or in basic auth."""
    form = {
        key: values[0] for key, values in parse_qs((await request.body()).decode("utf-8", "replace")).items()
    }
    client_id, client_secret = form.get("client_id", ""), form.get("client_secret", "")
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        client_id, client_secret = _basic(encoded)
    if form.get("grant_type") != "client_credentials":
        return _refuse_token(400, "unsupported_grant_type", "The emulator knows client_credentials only.")
    if "client_assertion" in form:
        return _refuse_token(
            401, "invalid_client", "The emulator takes client secrets only, and no private_key_jwt."
        )
    if not tokens.knows(client_id, client_secret):
        return _refuse_token(401, "invalid_client", "The client id or the client secret is wrong.")
    answer = {"access_token": tokens.issue(), "token_type": "Bearer", "expires_in": tokens.lifetime}
    return JsonAnswer(answer, headers={"cache-control": "no-store"})


def _refuse_token(status: int, error: str, description: str) -> JsonAnswer:
    # RFC 6749, section 5.2: not CDF's envelope.
    return JsonAnswer({"error": error, "error_description": description}, status_code=status)


def _basic(encoded: str) -> tuple[str, str]:
    try:
        client_id, _, client_secret = base64.b64decode(encoded).decode().partition(":")
    except ValueError:
        return "", ""
    return unquote_plus(client_id), unquote_plus(client_secret)


@identity_router.get("/api/v1/token/inspect", response_model=answers.Inspection)
async def inspect_token(request: Request, tokens: TheTokens) -> JsonAnswer:
    found = tokens.check(request.headers.get("authorization"))
    scope = {"projects": [tokens.project]}
    capabilities = [
        {acl: {"version": 1, "actions": actions, "scope": {"all": {}}}, "projectScope": scope}
        for acl, actions in _CAPABILITIES.items()
    ]
    projects = [{"projectUrlName": tokens.project, "groups": [1]}]
    return JsonAnswer({"subject": found.subject, "projects": projects, "capabilities": capabilities})


@router.post("", response_model=answers.NewSessions)
async def create_session(body: schemas.SessionsCreate, driver: TheDriver, tokens: TheTokens) -> JsonAnswer:
    item = body.items[0]
    if isinstance(item, schemas.ClientCredentials) and not tokens.knows(item.client_id, item.client_secret):
        raise InvalidRequestError(
            "items[0]: the identity provider refused the client id or the client secret."
        )
    with driver.turn() as engine:
        sessions = engine.sessions
        match item:
            case schemas.ClientCredentials():
                record = sessions.create("CLIENT_CREDENTIALS", item.client_id)
            case schemas.TokenExchange():
                record = sessions.create("TOKEN_EXCHANGE")
            case schemas.OneshotTokenExchange():
                record = sessions.create("ONESHOT_TOKEN_EXCHANGE")
        return JsonAnswer({"items": [views.new_session(sessions, record)]})


@router.get("", response_model=answers.Sessions)
async def list_sessions(
    driver: TheDriver,
    status: Annotated[
        Literal["ready", "active", "cancelled", "revoked", "access_lost"] | None, Query()
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 25,
    cursor: Cursor = None,
) -> JsonAnswer:
    with driver.turn() as engine:
        sessions = engine.sessions

        def show(record: Any) -> dict[str, Any]:
            return views.session(sessions, record)

        found = (
            (record.id, record)
            for record in sessions.all()
            if status is None or sessions.status(record) == status.upper()
        )
        return JsonAnswer(page(found, limit, cursor, show))


@router.post("/byids", response_model=answers.Sessions)
async def get_sessions(body: schemas.SessionsByIds, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        found = engine.sessions.by_ids(item.id for item in body.items)
        return JsonAnswer({"items": [views.session(engine.sessions, record) for record in found]})


@router.post("/revoke", response_model=answers.Sessions)
async def revoke_sessions(body: schemas.SessionsRevoke, driver: TheDriver) -> JsonAnswer:
    with driver.turn() as engine:
        found = engine.sessions.revoke(item.id for item in body.items)
        return JsonAnswer({"items": [views.session(engine.sessions, record) for record in found]})
