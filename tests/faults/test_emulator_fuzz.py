"""
Every operation gets requests that nobody would send: no 5xx, no answer outside the schema.

The requests follow the emulator's own OpenAPI document, and Cognite's where that lies beside the checkout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from emulator_helpers import function
from emulator_http import NO_OPENAPI, OPENAPI, Api, official
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks

from airflow_provider_cdf.emulator import CdfEmulator

#: Requests per operation.
EXAMPLES = 10


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Api]:
    """An emulator of its own, which the requests may fill with whatever they like."""
    with (
        CdfEmulator(project="fuzzed", max_concurrent_executions=100_000) as cdf,
        httpx.Client(base_url=cdf.url, timeout=60) as client,
    ):
        yield Api(cdf, client)


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["Cognite's", "the emulator's own"])
def test_no_request_makes_the_emulator_fail(fuzzed: Api, whose: str) -> None:
    if whose == "Cognite's" and not OPENAPI.exists():
        pytest.skip(NO_OPENAPI)
    own = fuzzed.client.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(official() if whose == "Cognite's" else own)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 25
    for operation in operations:
        try:
            fuzz(operation, fuzzed)
        except Exception as error:
            error.add_note(f"at {operation.label}")
            raise


def fuzz(operation: Any, api: Api) -> None:
    any_of = st.booleans()
    modes = [operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode]

    @hypothesis.given(case=st.one_of(modes), known=any_of, ended=any_of)
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def ask(case: Any, known: bool, ended: bool) -> None:
        case.path_parameters.update({"project": api.cdf.project} if "project" in case.path_parameters else {})
        if known:
            aim(case, api, ended=ended)
        response = case.call(base_url=api.cdf.url, headers=dict(api.client.headers))
        case.validate_response(
            response,
            checks=[schemathesis.checks.not_a_server_error, checks.response_schema_conformance],
        )
        assert "x-request-id" in response.headers

    ask()


def aim(case: Any, api: Api, *, ended: bool) -> None:
    """Let a request get past the door: things that exist, and a nonce that works."""
    execution = api.run(function("a", is_async=True), function("b", "a"))
    known = {
        "workflowExternalId": execution["workflowExternalId"],
        "version": "1",
        "workflowVersion": "1",
        "executionId": execution["id"],
        "taskId": api.execution(execution["id"])["executedTasks"][0]["id"],
        "authentication": {"nonce": api.nonce()},
    }
    if ended:
        api.post(f"/workflows/executions/{execution['id']}/cancel")
    use(case.path_parameters, known)
    use(case.body, known)
    items = case.body.get("items") if isinstance(case.body, dict) else None
    for item in items if isinstance(items, list) else []:
        use(item, known)


def use(values: Any, known: dict[str, Any]) -> None:
    if isinstance(values, dict):
        values.update({name: known[name] for name in known if name in values})
