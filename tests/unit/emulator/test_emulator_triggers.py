"""Triggers, on a clock that is moved by hand, and over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from emulator_helpers import World, function
from emulator_http import Api

from airflow_provider_cdf.emulator import CdfEmulator, ManualClock
from airflow_provider_cdf.emulator.rules.errors import InvalidRequestError

MINUTE = 60_000
NOT_FOUND = {"code": 404, "missing": [{"externalId": "nobody"}]}
QUARTERS = {"triggerType": "schedule", "cronExpression": "*/15 * * * *"}


def world_with_trigger(rule: dict[str, Any] = QUARTERS, **keys: Any) -> World:
    world = World()
    world.define(function("a", is_async=True))
    world.engine.triggers.upsert("t", rule, "wf", "1", **keys)
    return world


def test_schedule_fires_at_its_times_with_the_static_input() -> None:
    world = world_with_trigger(input={"x": 1}, metadata={"k": "v"})
    world.advance(3600)
    executions = list(world.engine.store.executions.values())
    assert [execution.created_time % (15 * MINUTE) for execution in executions] == [0] * 4
    assert executions[0].input == {"x": 1, "version": "1"}
    assert executions[0].metadata == {"k": "v"}
    (_, newest), *_, (_, oldest) = world.engine.triggers.get("t").history
    assert (newest["workflowExecutionId"], newest["status"]) == (executions[-1].id, "success")
    assert oldest["fireTime"] == executions[0].created_time


def test_schedule_goes_by_its_time_zone() -> None:
    rule = {"triggerType": "schedule", "cronExpression": "0 6 * * *", "timezone": "Asia/Kolkata"}
    world = world_with_trigger(rule)
    world.advance(24 * 3600)
    (execution,) = world.engine.store.executions.values()
    assert execution.created_time % (24 * 60 * MINUTE) == 30 * MINUTE, "06:00 there is 00:30 UTC"


def test_paused_trigger_does_not_fire_and_makes_up_for_nothing() -> None:
    world = world_with_trigger()
    for _ in range(2):
        world.engine.triggers.pause("t")
    world.advance(3600)
    assert not world.engine.store.executions
    for _ in range(2):
        world.engine.triggers.resume("t")
    world.advance(900)
    assert len(world.engine.store.executions) == 1


def test_upsert_replaces_the_schedule_and_keeps_history_and_pause() -> None:
    world = world_with_trigger()
    world.advance(900)
    world.engine.triggers.pause("t")
    first = world.engine.triggers.get("t")
    second = world.engine.triggers.upsert("t", {**QUARTERS, "cronExpression": "0 0 1 1 *"}, "wf", "1")
    assert (second.is_paused, len(second.history), second.created_time) == (True, 1, first.created_time)
    assert second.last_updated_time > first.last_updated_time


def test_run_that_cannot_be_started_is_in_the_history_with_its_reason() -> None:
    world = world_with_trigger()
    world.engine.catalog.delete_versions([("wf", "1")], ignore_unknown=False)
    world.advance(900)
    ((_, run),) = world.engine.triggers.get("t").history
    assert (run["status"], run["workflowExecutionId"]) == ("failed", None)
    assert "was not found" in run["reasonForFailure"]


def test_trigger_on_data_fires_when_told_and_adds_the_items() -> None:
    world = world_with_trigger({"triggerType": "dataModeling"}, input={"x": 1})
    world.advance(24 * 3600)
    execution = world.engine.triggers.fire("t", [{"externalId": "i"}])
    assert execution is not None
    assert execution.input == {"x": 1, "items": [{"externalId": "i"}], "version": "1"}


def test_deleted_trigger_fires_no_more() -> None:
    world = world_with_trigger()
    world.engine.triggers.delete("t")
    world.advance(3600)
    assert not world.engine.store.executions


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"cronExpression": "0 0 31 2 *"},
            r"Invalid cron expression: the provided schedule \[0 0 31 2 \*\] will never fire\.",
        ),
        ({"cronExpression": "* * * * * *"}, "must have 5 fields"),
        ({"cronExpression": "a b c d e"}, "cannot be read"),
        ({"cronExpression": "61 * * * *"}, "cannot be read"),
        ({"cronExpression": "0 0 L * *"}, "'L' is not valid in UNIX cron"),
        ({"cronExpression": "35 1 * * ?"}, "'\\?' is not valid in UNIX cron"),
        ({"cronExpression": "0 0 * * 5#3"}, "'5#3' is not valid in UNIX cron"),
        ({"cronExpression": "0 0 1W * *"}, "'1W' is not valid in UNIX cron"),
        ({"cronExpression": "0 0 * * L5"}, "'L5' is not valid in UNIX cron"),
        ({"cronExpression": "0 0 * mon *"}, "'mon' is not valid in UNIX cron"),
        ({"cronExpression": "* * * * *", "timezone": "Mars/Olympus"}, "'Mars/Olympus' is not the name"),
        ({"cronExpression": "* * * * *", "timezone": "../etc"}, "is not the name"),
        ({"cronExpression": "* * * * *", "timezone": ""}, "is not the name"),
    ],
)
def test_schedule_that_cannot_work_is_refused(rule: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        world_with_trigger({"triggerType": "schedule", **rule})


def test_triggers_over_http() -> None:
    with CdfEmulator(clock=ManualClock()) as cdf, httpx.Client(base_url=cdf.url) as client:
        api = Api(cdf, client)
        name = api.define(function("a"))

        def item(external_id: str, **keys: Any) -> dict[str, Any]:
            target = {"workflowExternalId": name, "workflowVersion": "1", "triggerRule": QUARTERS}
            return {"externalId": external_id, "authentication": {"nonce": api.nonce()}, **target, **keys}

        (second,) = api.post("/workflows/triggers", {"items": [item("b/2", input={"x": 1})]}).json()["items"]
        (first,) = api.post("/workflows/triggers", {"items": [item("a", metadata={"k": "v"})]}).json()[
            "items"
        ]
        assert (second["triggerRule"], second["isPaused"], "authentication" in second) == (
            QUARTERS,
            False,
            False,
        )
        assert api.get("/workflows/triggers").json() == {"items": [first, second]}
        page = api.get("/workflows/triggers", limit=1).json()
        assert api.get("/workflows/triggers", cursor=page["nextCursor"]).json() == {"items": [second]}

        cdf.advance(1800)
        history = "/workflows/triggers/b%2F2/history"
        newest, oldest = api.get(history).json()["items"]
        assert newest["fireTime"] > oldest["fireTime"]
        page = api.get(history, limit=1).json()
        assert page["items"] == [newest]
        assert api.get(history, cursor=page["nextCursor"]).json() == {"items": [oldest]}
        assert api.execution(newest["workflowExecutionId"])["input"] == {"x": 1, "version": "1"}

        assert api.post("/workflows/triggers/a/pause").json() == {}
        assert api.get("/workflows/triggers").json()["items"][0]["isPaused"] is True
        assert api.post("/workflows/triggers/a/resume").json() == {}
        assert api.post("/workflows/triggers/delete", {"items": [{"externalId": "a"}]}).json() == {}
        assert len(api.get("/workflows/triggers").json()["items"]) == 1

        unknown = api.get("/workflows/triggers/nobody/history")
        assert (unknown.status_code, unknown.json()["error"]["message"]) == (
            404,
            "Workflow trigger not found.",
        )
        for action in ("pause", "resume"):
            unknown = api.post(f"/workflows/triggers/nobody/{action}")
            assert unknown.json()["error"] == {"code": 404, "message": "Trigger not found."}
        never = {**QUARTERS, "cronExpression": "0 0 31 2 *"}
        refused = api.post("/workflows/triggers", {"items": [item("c", triggerRule=never)]})
        assert (refused.status_code, "will never fire" in refused.text) == (400, True)


@pytest.mark.parametrize(
    "expression",
    ["*/15 * * * *", "0 6,18 1-7 */2 MON-FRI", "5 4 * jan,Jul sun", "0-59/5 0 * * 7", "1,2,3-10/2 * * * 0"],
)
def test_what_unix_cron_allows(expression: str) -> None:
    world = World()
    world.define(function("a"))
    rule = {"triggerType": "schedule", "cronExpression": expression}
    assert world.engine.triggers.upsert("t", rule, "wf", "1").timer is not None


def test_rule_of_an_unknown_kind_is_kept_and_fires_when_told(api: Api) -> None:
    name = api.define(function("a"))
    rule = {"triggerType": "recordStream", "streamExternalId": "s", "filter": None}
    item = {
        "externalId": "stream",
        "triggerRule": rule,
        "workflowExternalId": name,
        "workflowVersion": "1",
        "authentication": {"nonce": api.nonce()},
    }
    path = f"{api.project}/workflows/triggers"
    assert api.client.post(path, json={"items": [item]}).json()["items"][0]["triggerRule"] == rule
    fired = api.client.post("/emulator/triggers/stream/fire", json={"items": [{"x": 1}]}).json()
    assert fired["status"] == "success"
    api.post("/workflows/triggers/delete", {"items": [{"externalId": "stream"}]})


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"triggerType": 5}, "items[0].triggerRule"),
        ({"cronExpression": "0 0 * * *"}, "items[0].triggerRule"),
        ({"triggerType": "schedule"}, "items[0].triggerRule.cronExpression"),
        ({"triggerType": "dataModeling", "batchSize": 0}, "items[0].triggerRule.dataModelingQuery"),
        (
            {
                "triggerType": "dataModeling",
                "dataModelingQuery": {"with": {"x": {"limit": 9}}, "select": {"x": {}}},
                "batchSize": 10,
                "batchTimeout": 10,
            },
            "items[0].triggerRule",
        ),
    ],
)
def test_bad_rule_is_named(api: Api, rule: dict[str, Any], field: str) -> None:
    target = {"workflowExternalId": "w", "workflowVersion": "1", "authentication": {"nonce": "x"}}
    item = {"externalId": "t", "triggerRule": rule, **target}
    answer = api.post("/workflows/triggers", {"items": [item]})
    assert (answer.status_code, answer.json()["error"]["message"].split(":")[0]) == (400, field)
