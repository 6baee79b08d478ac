"""Requests to the emulator over real HTTP, each answer checked against Cognite's own schema."""

from __future__ import annotations

import itertools
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jsonschema

from airflow_provider_cdf.emulator import CdfEmulator

OPENAPI = Path(__file__).parents[4] / "shared/cdf/openapi-workflows.json"
NO_OPENAPI = (
    "Cognite's OpenAPI document lies beside the checkout of its authors only (it is not ours to ship)"
)

_names = itertools.count(1)


class Api:
    """The API as a client sees it that has logged in."""

    def __init__(self, cdf: CdfEmulator, client: httpx.Client) -> None:
        self.cdf = cdf
        self.client = client
        self.project = f"/api/v1/projects/{cdf.project}"
        client.headers["authorization"] = f"Bearer {self.token()}"

    def token(self) -> str:
        form = {
            "grant_type": "client_credentials",
            "client_id": self.cdf.client_id,
            "client_secret": self.cdf.client_secret,
        }
        return str(self.client.post(self.cdf.token_url, data=form).json()["access_token"])

    def get(self, path: str, **params: Any) -> httpx.Response:
        return check(self.client.get(self.project + path, params=params))

    def post(self, path: str, body: Any = None, **params: Any) -> httpx.Response:
        return check(self.client.post(self.project + path, json=body, params=params))

    def nonce(self) -> str:
        answer = self.post("/sessions", {"items": [{"tokenExchange": True}]})
        return str(answer.json()["items"][0]["nonce"])

    def define(self, *tasks: dict[str, Any], name: str | None = None) -> str:
        """A new workflow with version "1" of these tasks; returns its external id."""
        name = name or f"wf-{next(_names)}"
        item = {"workflowExternalId": name, "version": "1", "workflowDefinition": {"tasks": list(tasks)}}
        assert self.post("/workflows/versions", {"items": [item]}).status_code == 200
        return name

    def run(self, *tasks: dict[str, Any], **keys: Any) -> dict[str, Any]:
        name = self.define(*tasks)
        answer = self.post(
            f"/workflows/{name}/versions/1/run", {"authentication": {"nonce": self.nonce()}, **keys}
        )
        assert answer.status_code == 202
        return dict(answer.json())

    def execution(self, execution_id: str) -> dict[str, Any]:
        return dict(self.get(f"/workflows/executions/{execution_id}").json())


def check(response: httpx.Response) -> httpx.Response:
    """Check an answer against Cognite's schema, where that lies beside the checkout."""
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
    if response.status_code >= 400:
        error = response.json()["error"]
        assert error["code"] == response.status_code
        assert error["message"]
    if not OPENAPI.exists():
        return response
    if response.request.method == "POST" and response.status_code < 300:
        validate(json.loads(response.request.content or b"{}"), _request_schema(response))
    if (schema := _response_schema(response)) is not None:
        validate(response.json(), schema)
    return response


def validate(value: Any, schema: dict[str, Any]) -> None:
    document = official()
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


@cache
def official() -> dict[str, Any]:
    """
    Cognite's document, with ``oneOf`` read as ``anyOf``.

    Its alternatives overlap: nothing forbids extra properties and few are required, so that an object such as
    ``{"callId": 1, "functionId": 1, "response": {}}`` is a valid output of every type of task at once.
    """
    return dict(_any_of(json.loads(OPENAPI.read_text())))


def _any_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {("anyOf" if key == "oneOf" else key): _any_of(item) for key, item in value.items()}
    return [_any_of(item) for item in value] if isinstance(value, list) else value


def operation(response: httpx.Response) -> dict[str, Any] | None:
    path = response.request.url.raw_path.decode().partition("?")[0]
    for template, methods in sorted(official()["paths"].items(), key=lambda entry: entry[0].count("{")):
        pattern = "[^/]+".join(map(re.escape, re.split(r"\{\w+\}", template)))
        if re.fullmatch(pattern, path):
            return methods.get(response.request.method.lower())
    return None


def _request_schema(response: httpx.Response) -> dict[str, Any]:
    found = operation(response)
    body = (found or {}).get("requestBody", {})
    return dict(body.get("content", {}).get("application/json", {}).get("schema", {}))


def _response_schema(response: httpx.Response) -> dict[str, Any] | None:
    found = operation(response)
    if found is None:
        return None
    described = found["responses"].get(str(response.status_code))
    if described is None:
        assert response.status_code >= 400, f"{response.status_code} is not documented for {response.url}"
        return None
    if "$ref" in described:
        described = official()["components"]["responses"][described["$ref"].rpartition("/")[2]]
    return dict(described["content"]["application/json"]["schema"])
