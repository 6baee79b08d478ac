"""A request that is refused has no effect, and what is looked up is what was asked for."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from emulator_helpers import World, function, only, statuses, task
from emulator_http import Api

from airflow_provider_cdf.emulator.rules.errors import InvalidRequestError, NotFoundError

RULE = {"triggerType": "schedule", "cronExpression": "0 3 * * *"}


def triggers(api: Api) -> list[str]:
    return [item["externalId"] for item in api.get("/workflows/triggers", limit=1000).json()["items"]]


def upsert_trigger(api: Api, workflow: str, nonce: str, **keys: Any) -> httpx.Response:
    item = {
        "externalId": "refused",
        "triggerRule": RULE,
        "workflowExternalId": workflow,
        "workflowVersion": "1",
        "authentication": {"nonce": nonce},
        **keys,
    }
    return api.client.post(f"{api.project}/workflows/triggers", json={"items": [item]})


def test_retry_with_a_used_nonce_is_refused_and_changes_nothing(api: Api) -> None:
    execution = api.run(function("a", is_async=True))
    path = f"/workflows/executions/{execution['id']}"
    api.post(f"{path}/cancel")
    before = api.execution(execution["id"])
    nonce = api.nonce()
    name = api.define(function("b"))
    authentication = {"authentication": {"nonce": nonce}}
    assert api.post(f"/workflows/{name}/versions/1/run", authentication).status_code == 202
    refused = api.client.post(api.project + path + "/retry", json=authentication)
    assert (refused.status_code, "nonce" in refused.json()["error"]["message"]) == (400, True)
    assert api.execution(execution["id"]) == before
    retried = {"authentication": {"nonce": api.nonce()}}
    assert api.post(f"{path}/retry", retried).json()["status"] == "RUNNING"
    # The retry has used its nonce up.
    assert api.client.post(f"{api.project}/workflows/{name}/versions/1/run", json=retried).status_code == 400


def test_refused_trigger_is_not_stored(api: Api) -> None:
    name = api.define(function("a"))
    used = api.nonce()
    assert (
        api.post(f"/workflows/{name}/versions/1/run", {"authentication": {"nonce": used}}).status_code == 202
    )
    never = {"triggerType": "schedule", "cronExpression": "0 0 31 2 *"}
    nonce = api.nonce()
    for status, answer in (
        (400, upsert_trigger(api, name, "made-up")),
        (400, upsert_trigger(api, name, used)),
        (404, upsert_trigger(api, name, nonce, workflowVersion="2")),
        (404, upsert_trigger(api, "nobody", nonce)),
        (400, upsert_trigger(api, name, api.nonce(), triggerRule=never)),
    ):
        assert answer.status_code == status, answer.text
        assert triggers(api) == []
    # An unknown version is noticed before the nonce is used up.
    assert upsert_trigger(api, name, nonce).status_code == 200
    assert triggers(api) == ["refused"]
    # A refused change leaves the trigger as it was.
    shown = api.get("/workflows/triggers").json()["items"]
    assert upsert_trigger(api, name, api.nonce(), triggerRule=never).status_code == 400
    assert api.get("/workflows/triggers").json()["items"] == shown
    api.post("/workflows/triggers/delete", {"items": [{"externalId": "refused"}]})


def test_trigger_of_an_unknown_version_is_refused_by_the_rules_themselves() -> None:
    world = World()
    world.define(function("a"))
    for workflow, version in (("wf", "2"), ("nobody", "1")):
        with pytest.raises(
            NotFoundError, match=f"Version '{version}' of workflow '{workflow}' was not found"
        ):
            world.engine.triggers.upsert("t", RULE, workflow, version)
    with pytest.raises(InvalidRequestError, match="will never fire"):
        world.engine.triggers.upsert("t", {**RULE, "cronExpression": "0 0 31 2 *"}, "wf", "1")
    assert world.engine.triggers.all() == []
    world.advance(48 * 3600)
    assert not world.engine.store.executions


def test_journal_is_cleared(api: Api) -> None:
    api.get("/workflows")
    assert api.cdf.journal.count() > 0
    assert httpx.delete(f"{api.cdf.url}/emulator/journal").status_code == 200
    assert api.cdf.journal.count() == 0
    assert httpx.get(f"{api.cdf.url}/emulator/journal").json() == {"count": 0, "items": []}


@pytest.mark.parametrize("kind", ["functions", "files", "datasets"])
def test_resources_are_looked_up_by_id_and_by_external_id(api: Api, kind: str) -> None:
    given = {"name": "n", "externalId": f"{kind}-1"}
    if kind == "functions":
        (made,) = api.client.post(
            f"{api.project}/functions", json={"items": [{**given, "fileId": 1}]}
        ).json()["items"]
        another = {**given, "externalId": "functions-2", "fileId": 1}
        api.client.post(f"{api.project}/functions", json={"items": [another]})
    elif kind == "files":
        made = api.client.post(f"{api.project}/files", json=given).json()
        api.client.post(f"{api.project}/files", json={**given, "externalId": "files-2"})
    else:
        (made,) = api.client.post(f"{api.project}/datasets/list", json={}).json()["items"]
        assert made["name"] == "Emulator"
    path = f"{api.project}/{kind}/byids"
    for identifier in ({"id": made["id"]}, {"externalId": made["externalId"]}):
        (found,) = api.client.post(path, json={"items": [identifier]}).json()["items"]
        assert (found["id"], found["externalId"]) == (made["id"], made["externalId"])
    for identifier in ({"id": made["id"] + 999}, {"externalId": "nobody"}):
        ((key, value),) = identifier.items()
        items = [{"id": made["id"]}, identifier]
        refused = api.client.post(path, json={"items": items})
        assert refused.status_code == 400
        assert refused.json()["error"]["missing"] == [{key: str(value)}]
        ignoring = api.client.post(path, json={"items": items, "ignoreUnknownIds": True}).json()
        assert [item["id"] for item in ignoring["items"]] == [made["id"]]
    for identifier in ({}, {"id": made["id"], "externalId": made["externalId"]}):
        assert api.client.post(path, json={"items": [identifier]}).status_code == 400


def test_references_in_an_inline_subworkflow() -> None:
    """Its tasks see each other first, then those outside; its own input shows them as they are written."""
    world = World(functions={"outer": {"x": "outer"}, "inner": {"x": "inner"}})
    data = {
        "sibling": "${same.output.response.x}",
        "outside": "${only_outside.output.response.x}",
        "input": "${workflow.input.site}",
    }
    inner = [function("same", calls="inner"), function("last", "same", data=data)]
    execution = world.run(
        function("same", calls="outer"),
        function("only_outside", calls="outer"),
        task("sub", "subworkflow", {"subworkflow": {"tasks": inner}}, "same", "only_outside"),
        function("after", "sub", data={"nested": "${last.input.function.data.sibling}"}),
        input={"site": "north"},
    )
    world.advance(10)
    assert execution.status == "COMPLETED", statuses(execution)
    shown = only(execution, "sub").input["subworkflow"]["tasks"][1]["parameters"]["function"]["data"]
    assert shown == data
    resolved = {"sibling": "inner", "outside": "outer", "input": "north"}
    assert only(execution, "last").input["function"]["data"] == resolved
    assert only(execution, "after").input["function"]["data"] == {"nested": "inner"}
