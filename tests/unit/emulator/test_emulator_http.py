"""The API over real HTTP."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import jsonschema
import pytest
from emulator_helpers import function
from emulator_http import NO_OPENAPI, OPENAPI, Api, validate

from airflow_provider_cdf.emulator import CdfEmulator, ManualClock

CDF_TASK = {
    "externalId": "list",
    "type": "cdf",
    "parameters": {"cdfRequest": {"resourcePath": "/timeseries", "method": "GET"}},
}


def until(read: Callable[[], Any], done: Callable[[Any], bool]) -> Any:
    """Read until something has happened in the emulator's own time."""
    for _ in range(500):
        if done(found := read()):
            return found
        time.sleep(0.01)
    raise AssertionError(f"It has not happened: {found}")


def credentials(cdf: CdfEmulator, **changes: str) -> dict[str, str]:
    login = {"client_id": cdf.client_id, "client_secret": cdf.client_secret}
    return {"grant_type": "client_credentials", **login, **changes}


def test_answers_are_checked_against_cognites_schema() -> None:
    if not OPENAPI.exists():
        pytest.skip(NO_OPENAPI)
    schema = {"$ref": "#/components/schemas/WorkflowExecution"}
    with pytest.raises(jsonschema.ValidationError, match="required property"):
        validate({}, schema)


class TestTokens:
    def test_secret_in_the_form(self, cdf: CdfEmulator) -> None:
        answer = httpx.post(cdf.token_url, data=credentials(cdf))
        assert answer.status_code == 200
        assert answer.json()["expires_in"] == 3600

    def test_secret_in_basic_auth(self, cdf: CdfEmulator) -> None:
        form = {"grant_type": "client_credentials"}
        assert (
            httpx.post(cdf.token_url, data=form, auth=(cdf.client_id, cdf.client_secret)).status_code == 200
        )
        assert httpx.post(cdf.token_url, data=form, auth=(cdf.client_id, "guess")).status_code == 401

    @pytest.mark.parametrize("wrong", ["client_id", "client_secret"])
    def test_wrong_credentials(self, cdf: CdfEmulator, wrong: str) -> None:
        answer = httpx.post(cdf.token_url, data=credentials(cdf, **{wrong: "guess"}))
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")

    def test_signed_assertion_is_refused_for_what_it_is(self, cdf: CdfEmulator) -> None:
        form = {"grant_type": "client_credentials", "client_id": cdf.client_id, "client_assertion": "a.b.c"}
        answer = httpx.post(cdf.token_url, data=form)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        assert "takes client secrets only" in answer.json()["error_description"]

    def test_other_grants_are_refused(self, cdf: CdfEmulator) -> None:
        answer = httpx.post(cdf.token_url, data=credentials(cdf, grant_type="password"))
        assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")

    @pytest.mark.parametrize("header", [None, "Bearer nonsense", "Basic abc"])
    def test_no_good_token_is_401(self, cdf: CdfEmulator, header: str | None) -> None:
        headers = {"authorization": header} if header else {}
        for path in ("/api/v1/token/inspect", "/api/v1/projects/plant/workflows"):
            answer = httpx.get(cdf.url + path, headers=headers)
            assert answer.status_code == 401
            assert answer.json() == {"error": {"code": 401, "message": "Unauthorized"}}

    def test_expired_token_is_401(self) -> None:
        with (
            CdfEmulator(clock=ManualClock(), token_lifetime=60) as cdf,
            httpx.Client(base_url=cdf.url) as client,
        ):
            api = Api(cdf, client)
            assert api.get("/workflows").status_code == 200
            cdf.advance(60)
            assert api.get("/workflows").status_code == 401

    def test_other_project_is_403(self, api: Api) -> None:
        answer = api.client.get("/api/v1/projects/other/workflows")
        assert (answer.status_code, "'other'" in answer.json()["error"]["message"]) == (403, True)

    def test_inspect_names_the_project_and_the_capabilities(self, api: Api) -> None:
        answer = api.client.get("/api/v1/token/inspect").json()
        assert answer["projects"][0]["projectUrlName"] == "plant"
        assert {"workflowOrchestrationAcl", "sessionsAcl"} <= {
            key for acl in answer["capabilities"] for key in acl
        }


class TestSessions:
    @pytest.mark.parametrize("kind", ["tokenExchange", "oneshotTokenExchange"])
    def test_session_becomes_active_when_its_nonce_is_used(self, api: Api, kind: str) -> None:
        created = api.post("/sessions", {"items": [{kind: True}]}).json()["items"][0]
        assert created["status"] == "READY"
        name = api.define(function("a"))
        body = {"authentication": {"nonce": created["nonce"]}}
        assert api.post(f"/workflows/{name}/versions/1/run", body).status_code == 202
        (read,) = api.post("/sessions/byids", {"items": [{"id": created["id"]}]}).json()["items"]
        assert (read["status"], "nonce" in read) == ("ACTIVE", False)
        listed = api.get("/sessions", status="active", limit=1000).json()["items"]
        assert created["id"] in [session["id"] for session in listed]
        revoked = api.post("/sessions/revoke", {"items": [{"id": created["id"]}]}).json()["items"]
        assert [session["status"] for session in revoked] == ["REVOKED"]

    def test_client_credentials_are_checked(self, api: Api) -> None:
        login = {"clientId": api.cdf.client_id, "clientSecret": api.cdf.client_secret}
        (created,) = api.post("/sessions", {"items": [login]}).json()["items"]
        assert (created["type"], created["clientId"]) == ("CLIENT_CREDENTIALS", api.cdf.client_id)
        refused = api.post("/sessions", {"items": [{**login, "clientSecret": "guess"}]})
        assert refused.status_code == 400
        assert "guess" not in refused.text

    def test_nonce_works_once(self, api: Api) -> None:
        name = api.define(function("a"))
        body = {"authentication": {"nonce": api.nonce()}}
        answers = [api.post(f"/workflows/{name}/versions/1/run", body) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 400]
        assert "nonce" in answers[1].json()["error"]["message"]

    @pytest.mark.parametrize(("seconds", "status"), [(60, 202), (61, 400)])
    def test_nonce_lives_for_a_minute(self, seconds: int, status: int) -> None:
        with CdfEmulator(clock=ManualClock()) as cdf, httpx.Client(base_url=cdf.url) as client:
            api = Api(cdf, client)
            name, nonce = api.define(function("a")), api.nonce()
            cdf.advance(seconds)
            answer = api.post(f"/workflows/{name}/versions/1/run", {"authentication": {"nonce": nonce}})
            assert answer.status_code == status

    def test_unknown_sessions_are_named(self, api: Api) -> None:
        answer = api.post("/sessions/byids", {"items": [{"id": 7}]})
        assert (answer.status_code, "7" in answer.json()["error"]["message"]) == (400, True)


class TestWorkflows:
    def test_upsert_get_and_list_agree(self, api: Api) -> None:
        item = {"externalId": "agree", "description": "d", "dataSetId": 5, "maxConcurrentExecutions": 2}
        (upserted,) = api.post("/workflows", {"items": [item]}).json()["items"]
        assert item.items() <= upserted.items()
        assert api.get("/workflows/agree").json() == upserted
        assert upserted in api.get("/workflows", limit=1000).json()["items"]

    def test_every_upsert_is_an_update_and_clears_what_is_not_given(self, api: Api) -> None:
        first, second = (
            api.post("/workflows", {"items": [item]}).json()["items"][0]
            for item in ({"externalId": "upd", "description": "d"}, {"externalId": "upd"})
        )
        assert second["lastUpdatedTime"] > first["lastUpdatedTime"]
        assert second["createdTime"] == first["createdTime"]
        assert "description" not in second

    def test_a_key_without_a_value_is_a_key_that_is_not_there(self, api: Api) -> None:
        """Cognite's document says otherwise, but its Toolkit sends them."""
        path = f"{api.project}/workflows"
        item = {"externalId": "n", "description": None, "maxConcurrentExecutions": None}
        upserted = api.client.post(path, json={"items": [item]}).json()["items"][0]
        assert upserted.keys() == {"externalId", "createdTime", "lastUpdatedTime"}
        refused = api.client.post(path, json={"items": [{"externalId": None}]})
        assert refused.json()["error"]["message"] == "items[0].externalId: Field required"
        task = function("a", data={"kept": None})
        bare = {
            **task,
            **dict.fromkeys(("retries", "timeout", "onFailure", "dependsOn", "name", "description")),
        }
        item = {"workflowExternalId": "n", "version": "1", "workflowDefinition": {"tasks": [bare]}}
        answer = api.client.post(f"{path}/versions", json={"items": [item]}).json()
        (shown,) = answer["items"][0]["workflowDefinition"]["tasks"]
        defaults = {"retries": 3, "timeout": 3600, "onFailure": "abortWorkflow", "dependsOn": []}
        assert shown == {**task, **defaults}

    def test_data_domain_is_kept(self, api: Api) -> None:
        item = {"externalId": "domain", "dataDomainExternalId": "pumps"}
        api.post("/workflows", {"items": [item]})
        assert api.get("/workflows/domain").json()["dataDomainExternalId"] == "pumps"

    def test_external_id_with_a_slash(self, api: Api) -> None:
        for name in ("a/b", "50%", "%2F", "ø æ"):
            api.define(function("x"), name=name)
            path = f"/workflows/{quote(name, safe='')}"
            assert api.get(path).json()["externalId"] == name
            assert api.get(f"{path}/versions/1").json()["workflowExternalId"] == name

    def test_unknown_workflow_and_version_are_404(self, api: Api) -> None:
        name = api.define(function("a"))
        for path in ("/workflows/nobody", f"/workflows/{name}/versions/2"):
            assert api.get(path).status_code == 404
        answer = api.post(f"/workflows/{name}/versions/2/run", {"authentication": {"nonce": api.nonce()}})
        assert (answer.status_code, name in answer.json()["error"]["message"]) == (404, True)

    def test_delete_of_an_unknown_workflow_deletes_nothing(self, api: Api) -> None:
        name = api.define(function("a"))
        body = {"items": [{"externalId": name}, {"externalId": "nobody"}]}
        refused = api.post("/workflows/delete", body, ignoreUnknownIds="false")
        assert (refused.status_code, refused.json()["error"]["missing"]) == (404, [{"externalId": "nobody"}])
        assert "workflows were not found" in refused.json()["error"]["message"]
        assert api.get(f"/workflows/{name}").status_code == 200
        assert api.post("/workflows/delete", body).json() == {}
        assert api.get(f"/workflows/{name}/versions/1").status_code == 404

    def test_delete_is_refused_while_executions_run(self, api: Api) -> None:
        execution = api.run(function("a", is_async=True))
        body = {"items": [{"externalId": execution["workflowExternalId"]}]}
        refused = api.post("/workflows/delete", body)
        assert (refused.status_code, "running executions" in refused.text) == (400, True)
        api.post(f"/workflows/executions/{execution['id']}/cancel")
        assert api.post("/workflows/delete", body).status_code == 200


class TestVersions:
    def test_upsert_get_and_list_agree_and_show_defaults(self, api: Api) -> None:
        tasks = [{**function("a"), "name": "A"}, CDF_TASK]
        del tasks[0]["dependsOn"]
        name = api.define(*tasks)
        read = api.get(f"/workflows/{name}/versions/1").json()
        shown = read["workflowDefinition"]["tasks"][0]
        assert shown["name"] == "A"
        assert shown["parameters"] == tasks[0]["parameters"]
        defaults = {"retries": 3, "timeout": 3600, "onFailure": "abortWorkflow", "dependsOn": []}
        assert defaults.items() <= shown.items()
        query = {"filter": {"workflowFilters": [{"externalId": name, "version": "1"}]}}
        assert api.post("/workflows/versions/list", query).json()["items"] == [read]
        again = api.post(
            "/workflows/versions",
            {"items": [{"workflowExternalId": name, "version": "1", "workflowDefinition": {"tasks": tasks}}]},
        ).json()["items"][0]
        assert again["workflowDefinition"] == read["workflowDefinition"]
        assert again["lastUpdatedTime"] > read["lastUpdatedTime"]

    def test_delete_of_an_unknown_version_deletes_nothing(self, api: Api) -> None:
        name = api.define(function("a"))
        body = {"items": [{"workflowExternalId": name, "version": v} for v in ("1", "2")]}
        refused = api.post("/workflows/versions/delete", body, ignoreUnknownIds="false")
        assert (refused.status_code, "not found" in refused.text) == (404, True)
        assert api.get(f"/workflows/{name}/versions/1").status_code == 200
        assert api.post("/workflows/versions/delete", body).status_code == 200
        assert api.get(f"/workflows/{name}/versions/1").status_code == 404

    @pytest.mark.parametrize(
        ("task", "field"),
        [
            ({**CDF_TASK, "retries": 11}, "retries"),
            ({**CDF_TASK, "timeout": 99}, "timeout"),
            ({**CDF_TASK, "timeout": 43201}, "timeout"),
            ({**CDF_TASK, "timeout": "100"}, "timeout"),
            ({**CDF_TASK, "onFailure": "explode"}, "onFailure"),
            ({**CDF_TASK, "externalId": "workflow"}, "externalId"),
            ({**CDF_TASK, "externalId": "__x"}, "externalId"),
            ({**CDF_TASK, "externalId": " x"}, "externalId"),
            ({**CDF_TASK, "externalId": "x" * 256}, "externalId"),
            ({**CDF_TASK, "type": 5}, "tasks[0]"),
            ({**CDF_TASK, "type": ""}, "type"),
            ({"externalId": "x", "parameters": {}}, "tasks[0]"),
            ({**CDF_TASK, "dependsOn": ["x"]}, "dependsOn[0]"),
            ({"externalId": "x", "type": "cdf"}, "parameters"),
            (
                {**CDF_TASK, "parameters": {"cdfRequest": {"method": "GET"}}},
                "parameters.cdfRequest.resourcePath",
            ),
            (function("f", data=5), "parameters.function.data"),
            (function("f", data={"x": "y" * 100_000}), "parameters.function.data"),
        ],
    )
    def test_bad_field_is_named(self, api: Api, task: dict[str, Any], field: str) -> None:
        item = {"workflowExternalId": "bad", "version": "1", "workflowDefinition": {"tasks": [task]}}
        answer = api.post("/workflows/versions", {"items": [item]})
        assert answer.status_code == 400
        prefix = "items[0].workflowDefinition.tasks[0]"
        wanted = prefix if field == "tasks[0]" else f"{prefix}.{field}"
        assert answer.json()["error"]["message"].startswith(f"{wanted}: ")

    @pytest.mark.parametrize("kind", ["jsonMapping", "functionApp", "magic"])
    def test_task_of_an_unknown_type_is_kept_with_a_warning(self, api: Api, kind: str) -> None:
        task = {"externalId": "x", "type": kind, "parameters": {"any": [None, {"thing": 1}]}}
        item = {"workflowExternalId": kind, "version": "1", "workflowDefinition": {"tasks": [task]}}
        path = f"{api.project}/workflows/versions"
        (upserted,) = api.client.post(path, json={"items": [item]}).json()["items"]
        (warning,) = upserted.pop("warnings")
        assert warning.startswith(f"Task 'x' has the type '{kind}', which the emulator does not know")
        read = api.client.get(f"{api.project}/workflows/{kind}/versions/1").json()
        assert read == upserted
        assert task.items() <= read["workflowDefinition"]["tasks"][0].items()

    def test_what_cdf_fills_in_for_a_transformation_is_shown(self, api: Api) -> None:
        given = {"externalId": "t", "concurrencyPolicy": "waitForCurrent"}
        for name, transformation in (("given", given), ("bare", {"externalId": "t"})):
            task = {"externalId": name, "type": "transformation"}
            workflow = api.define({**task, "parameters": {"transformation": transformation}})
            version = api.get(f"/workflows/{workflow}/versions/1").json()
            shown = version["workflowDefinition"]["tasks"][0]["parameters"]["transformation"]
            defaults = {"concurrencyPolicy": "fail", "useTransformationCredentials": False}
            assert shown == {**defaults, **transformation}

    def test_definition_with_101_tasks_is_refused(self, api: Api) -> None:
        tasks = [function(f"t{n}") for n in range(101)]
        item = {"workflowExternalId": "bad", "version": "1", "workflowDefinition": {"tasks": tasks}}
        answer = api.post("/workflows/versions", {"items": [item]})
        assert answer.json()["error"]["message"].startswith("items[0].workflowDefinition.tasks: ")


class TestExecutions:
    def test_first_get_after_run_lists_the_first_task(self, api: Api) -> None:
        started = api.run(function("a", is_async=True), input={"x": 1}, metadata={"k": "v"})
        details = api.execution(started["id"])
        assert {**started}.items() <= details.items()
        assert details["executedTasks"][0]["externalId"] == "a"
        assert details["executedTasks"][0]["input"]["isAsyncComplete"] is True
        assert (details["input"], details["metadata"]) == ({"x": 1, "version": "1"}, {"k": "v"})

    def test_async_task_is_updated_and_the_workflow_goes_on(self, api: Api) -> None:
        started = api.run(function("a", is_async=True), function("b", "a", data={"k": "${a.output.k}"}))
        task_id = api.execution(started["id"])["executedTasks"][0]["id"]
        updated = api.post(f"/workflows/tasks/{task_id}/update", {"status": "COMPLETED", "output": {"k": 1}})
        assert (updated.status_code, updated.json()["status"], updated.json()["output"]) == (
            200,
            "COMPLETED",
            {"k": 1},
        )
        done = until(lambda: api.execution(started["id"]), lambda found: found["status"] != "RUNNING")
        assert done["status"] == "COMPLETED"
        assert done["executedTasks"][1]["input"]["function"]["data"] == {"k": 1}
        late = api.post(f"/workflows/tasks/{task_id}/update", {"status": "COMPLETED"})
        assert (late.status_code, "already in a terminal state" in late.text) == (400, True)

    @pytest.mark.parametrize("status", ["completed", "CANCELED", None])
    def test_update_to_any_other_status_is_400(self, api: Api, status: str | None) -> None:
        started = api.run(function("a", is_async=True))
        task_id = api.execution(started["id"])["executedTasks"][0]["id"]
        answer = api.post(f"/workflows/tasks/{task_id}/update", {"status": status})
        assert (answer.status_code, answer.json()["error"]["message"][:7]) == (400, "status:")

    def test_cancel_right_after_run(self, api: Api) -> None:
        started = api.run(CDF_TASK)
        cancelled = api.post(f"/workflows/executions/{started['id']}/cancel", {"reason": "why not"})
        assert (cancelled.json()["status"], cancelled.json()["reasonForIncompletion"]) == (
            "TERMINATED",
            "why not",
        )
        retried = api.post(
            f"/workflows/executions/{started['id']}/retry", {"authentication": {"nonce": api.nonce()}}
        )
        assert (retried.status_code, retried.json()["status"]) == (200, "RUNNING")
        assert retried.json()["id"] == started["id"]

    def test_cancel_without_a_body(self, api: Api) -> None:
        started = api.run(CDF_TASK)
        answer = api.client.post(f"{api.project}/workflows/executions/{started['id']}/cancel")
        assert answer.json()["reasonForIncompletion"] == "cancelled"

    def test_id_that_is_no_uuid_is_400_and_an_unknown_one_404(self, api: Api) -> None:
        unknown = "059edaa4-a17a-4102-910e-2c3591500cce"
        assert api.get("/workflows/executions/not-a-uuid").status_code == 400
        assert api.get(f"/workflows/executions/{unknown}").status_code == 404
        for path in (f"/workflows/executions/{unknown}/cancel", f"/workflows/tasks/{unknown}/update"):
            assert api.post(path, {"status": "COMPLETED"}).status_code == 404

    def test_list_filters(self, api: Api) -> None:
        running = api.run(function("a", is_async=True), metadata={"which": "running"})
        ended = api.run(function("a", is_async=True))
        api.post(f"/workflows/executions/{ended['id']}/cancel")

        def found(**wanted: Any) -> list[str]:
            items = api.post("/workflows/executions/list", {"filter": wanted, "limit": 1000}).json()["items"]
            return [item["id"] for item in items if item["id"] in (running["id"], ended["id"])]

        assert found() == [running["id"], ended["id"]]
        assert found(status=["RUNNING"]) == [running["id"]]
        assert found(status=["TERMINATED", "FAILED"]) == [ended["id"]]
        one = {"externalId": running["workflowExternalId"]}
        assert found(workflowFilters=[one]) == [running["id"]]
        assert found(workflowFilters=[{**one, "version": "2"}]) == []
        assert found(createdTimeStart=ended["createdTime"] + 1) == []
        assert running["id"] in found(createdTimeEnd=running["createdTime"])

    def test_pages(self, api: Api) -> None:
        name = api.define(function("a"))
        ids = []
        for _ in range(5):
            body = {"authentication": {"nonce": api.nonce()}}
            ids.append(api.post(f"/workflows/{name}/versions/1/run", body).json()["id"])
        query: dict[str, Any] = {"filter": {"workflowFilters": [{"externalId": name}]}, "limit": 2}
        seen, pages = [], 0
        while True:
            page = api.post("/workflows/executions/list", query).json()
            seen += [item["id"] for item in page["items"]]
            pages += 1
            if "nextCursor" not in page:
                break
            query["cursor"] = page["nextCursor"]
        assert (seen, pages) == (ids, 3)

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ({"limit": 0}, "limit"),
            ({"limit": 1001}, "limit"),
            ({"cursor": "nonsense"}, "cursor"),
            ({"filter": {"status": ["RUNNING", "RUNNING"]}}, "filter.status"),
            ({"filter": {"workflowFilters": []}}, "filter.workflowFilters"),
            ({"filter": {"createdTimeStart": -1}}, "filter.createdTimeStart"),
        ],
    )
    def test_bad_query_is_400(self, api: Api, query: dict[str, Any], field: str) -> None:
        answer = api.post("/workflows/executions/list", query)
        assert (answer.status_code, answer.json()["error"]["message"].split(":")[0]) == (400, field)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"metadata": {str(n): "" for n in range(11)}}, "metadata"),
            ({"metadata": {"k": "v" * 256}}, "metadata.k"),
            ({"metadata": {"k": 1}}, "metadata.k"),
            ({"input": {"x": "y" * 100_000}}, "input"),
            ({"input": []}, "input"),
        ],
    )
    def test_bad_run_is_400_and_leaves_the_nonce_good(self, api: Api, body: Any, field: str) -> None:
        name, nonce = api.define(function("a")), api.nonce()
        path = f"/workflows/{name}/versions/1/run"
        answer = api.post(path, {"authentication": {"nonce": nonce}, **body})
        assert (answer.status_code, answer.json()["error"]["message"].split(":")[0]) == (400, field)
        assert api.post(path, {"authentication": {"nonce": nonce}}).status_code == 202


class TestConventions:
    @pytest.mark.parametrize("path", ["/api/v1/token/inspect", "/api/v1/projects/plant/workflows"])
    def test_gzip_of_nothing(self, api: Api, path: str) -> None:
        """The Toolkit says so on each request, also on a GET, which has no body."""
        assert api.client.get(path, headers={"content-encoding": "gzip"}).status_code == 200

    def test_gzip_bodies(self, api: Api) -> None:
        body = gzip.compress(json.dumps({"items": [{"externalId": "zipped"}]}).encode())
        headers = {"content-encoding": "gzip", "content-type": "application/json"}
        answer = api.client.post(f"{api.project}/workflows", content=body, headers=headers)
        assert answer.json()["items"][0]["externalId"] == "zipped"

    @pytest.mark.parametrize(
        ("content", "headers"),
        [
            (b"{", {}),
            (b'{"items": [{"externalId": NaN}]}', {}),
            (b'{"items": [{"externalId": 1e999}]}', {}),
            (b"[" * 100_000, {}),
            (b"\xff", {}),
            (b"no gzip", {"content-encoding": "gzip"}),
            (b"{}", {"content-encoding": "br"}),
        ],
    )
    def test_body_that_is_no_json_is_400(self, api: Api, content: bytes, headers: dict[str, str]) -> None:
        headers = {"content-type": "application/json", **headers}
        answer = api.client.post(f"{api.project}/workflows", content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)

    def test_message_says_what_is_wrong_and_not_how_it_was_found(self, api: Api) -> None:
        refused = [
            api.post("/workflows", {"items": []}),
            api.post("/workflows", {"items": [{"externalId": " x"}]}),
            api.post("/workflows/executions/list", {"filter": {"status": ["FAILED", "FAILED"]}}),
        ]
        assert [answer.json()["error"]["message"] for answer in refused] == [
            "items: List should have at least 1 item, not 0",
            "items[0].externalId: must have no leading or trailing whitespace and no null characters",
            "filter.status: must have no value twice",
        ]

    @pytest.mark.parametrize(("retries", "status"), [(1.5, 400), (2.0, 200), (2, 200), (11, 400)])
    def test_retries_are_a_whole_number(self, api: Api, retries: float, status: int) -> None:
        definition = {"tasks": [function("a", retries=retries)]}
        item = {"workflowExternalId": "retries", "version": "1", "workflowDefinition": definition}
        answer = api.post("/workflows/versions", {"items": [item]})
        assert answer.status_code == status
        assert status == 200 or "items[0].workflowDefinition.tasks[0].retries" in answer.text

    def test_unknown_path_has_the_envelope(self, api: Api) -> None:
        answer = api.get("/nothing/here")
        assert (answer.status_code, "x-request-id" in answer.headers) == (404, True)

    def test_unusual_text_survives(self, api: Api) -> None:
        text = "\ud800 \u2028 ø"
        started = api.run(function("a", is_async=True))
        task_id = api.execution(started["id"])["executedTasks"][0]["id"]
        body = json.dumps({"status": "COMPLETED", "output": {"text": text}})
        headers = {"content-type": "application/json"}
        path = f"{api.project}/workflows/tasks/{task_id}/update"
        answer = api.client.post(path, content=body, headers=headers)
        assert answer.json()["output"]["text"] == text


def test_basic_auth_header_is_not_a_token(cdf: CdfEmulator) -> None:
    encoded = base64.b64encode(f"{cdf.client_id}:{cdf.client_secret}".encode()).decode()
    answer = httpx.get(f"{cdf.url}/api/v1/token/inspect", headers={"authorization": f"Basic {encoded}"})
    assert answer.status_code == 401
