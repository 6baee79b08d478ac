"""Faults on demand, the journal, and how else tests operate the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from emulator_helpers import function, task
from emulator_http import Api

from airflow_provider_cdf.emulator import CdfEmulator, ManualClock, Webhook
from airflow_provider_cdf.emulator.functions import from_text


@pytest.fixture(autouse=True)
def _nothing_left_over(cdf: CdfEmulator) -> Iterator[None]:
    yield
    cdf.faults.clear()
    cdf.journal.clear()


def count_executions(api: Api, name: str) -> int:
    query = {"filter": {"workflowFilters": [{"externalId": name}]}}
    return len(api.post("/workflows/executions/list", query).json()["items"])


def run(api: Api, name: str) -> httpx.Response:
    path = f"{api.project}/workflows/{name}/versions/1/run"
    return api.client.post(path, json={"authentication": {"nonce": api.nonce()}})


@pytest.mark.parametrize("status", [401, 429, 500, 502, 503])
def test_status_instead_of_the_work_for_the_next_n_requests_that_match(api: Api, status: int) -> None:
    name = api.define(function("a"))
    api.cdf.faults.add("POST", "*/run", status=status, times=2)
    answers = [run(api, name) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 202]
    assert answers[0].json()["error"]["code"] == status
    assert "x-request-id" in answers[0].headers
    assert "retry-after" not in answers[0].headers
    assert count_executions(api, name) == 1


def test_retry_after(api: Api) -> None:
    api.cdf.faults.add(path="*/workflows", status=429, retry_after=1.5)
    assert api.client.get(f"{api.project}/workflows").headers["retry-after"] == "2"


@pytest.mark.parametrize(("drop", "executions"), [("before", 0), ("after", 1)])
def test_connection_dropped_before_and_after_the_work(api: Api, drop: str, executions: int) -> None:
    name = api.define(function("a"))
    api.cdf.faults.add("POST", "*/run", drop=drop)
    with pytest.raises(httpx.TransportError):
        run(api, name)
    assert count_executions(api, name) == executions
    assert api.cdf.journal.requests("POST", "*/run")[-1].status is None


def test_truncated_answer(api: Api) -> None:
    name = api.define(function("a"))
    api.cdf.faults.add("POST", "*/run", spoil="truncate")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        run(api, name)
    assert count_executions(api, name) == 1


def test_answer_that_is_no_json(api: Api) -> None:
    name = api.define(function("a"))
    api.cdf.faults.add("POST", "*/run", spoil="not-json")
    answer = run(api, name)
    assert (answer.status_code, answer.headers["content-type"][:9]) == (200, "text/html")
    assert count_executions(api, name) == 1


@pytest.mark.parametrize(("answer", "status"), [("first", 202), ("second", 400)])
def test_gateway_that_sends_a_request_twice(api: Api, answer: str, status: int) -> None:
    name = api.define(function("a"))
    api.cdf.faults.add("POST", "*/run", twice=answer)
    got = run(api, name)
    assert got.status_code == status
    assert status == 202 or "nonce" in got.json()["error"]["message"]
    assert count_executions(api, name) == 1  # the nonce works once
    # Where nothing keeps it from being done twice, it is done twice.
    api.cdf.faults.add("POST", "*/sessions", twice=answer)
    before = len(api.get("/sessions", limit=1000).json()["items"])
    api.nonce()
    assert len(api.get("/sessions", limit=1000).json()["items"]) == before + 2


def test_second_copy_refused_with_any_code_and_wording(api: Api) -> None:
    name = api.define(function("a"))
    headers = {"cdf-is-auto-retryable": "true"}
    api.cdf.faults.add(
        "POST", "*/run", twice="second", status=422, message="Token already used", headers=headers
    )
    got = run(api, name)
    assert (got.status_code, got.json()["error"]) == (422, {"code": 422, "message": "Token already used"})
    assert got.headers["cdf-is-auto-retryable"] == "true"
    assert count_executions(api, name) == 1


def test_both_copies_done_and_no_answer(api: Api) -> None:
    name = api.define(function("a"))
    api.cdf.faults.add("POST", "*/run", twice="first", drop="after")
    with pytest.raises(httpx.TransportError):
        run(api, name)
    assert count_executions(api, name) == 1


def test_no_more_sessions(api: Api) -> None:
    message = "There can be only 10000 sessions"
    api.cdf.faults.add("POST", "*/sessions", status=400, message=message)
    got = api.client.post(f"{api.project}/sessions", json={"items": [{"tokenExchange": True}]})
    assert (got.status_code, got.json()["error"]["message"]) == (400, message)


def test_delay(api: Api) -> None:
    api.cdf.faults.add(path="*/workflows", delay=0.3)
    with pytest.raises(httpx.ReadTimeout):
        api.client.get(f"{api.project}/workflows", timeout=0.1)
    assert api.client.get(f"{api.project}/workflows", timeout=0.1 * 50).status_code == 200


def test_faults_over_http(api: Api) -> None:
    control = f"{api.cdf.url}/emulator/faults"
    fault = {"method": "GET", "path": "*/workflows", "status": 503, "times": 2}
    assert httpx.post(control, json=fault).status_code == 200
    assert api.client.get(f"{api.project}/workflows").status_code == 503
    assert httpx.get(control).json()["items"] == [{**fault, "times": 1, "delay": 0.0}]
    httpx.delete(control)
    assert api.client.get(f"{api.project}/workflows").status_code == 200


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"status": 503, "drop": "after"},
        {"status": 200},
        {"statsu": 503},
        {"delay": 1, "message": "no status to go with"},
        {"twice": "first", "drop": "before"},
    ],
)
def test_fault_that_makes_no_sense_is_refused(api: Api, fault: dict[str, Any]) -> None:
    assert httpx.post(f"{api.cdf.url}/emulator/faults", json=fault).status_code == 400
    with pytest.raises(ValueError, match="Fault"):
        api.cdf.faults.add(**fault)


def test_tokens_that_expire_early(api: Api) -> None:
    httpx.post(f"{api.cdf.url}/emulator/expire-tokens")
    assert api.client.get("/api/v1/token/inspect").status_code == 401
    api.client.headers["authorization"] = f"Bearer {api.token()}"
    assert api.client.get("/api/v1/token/inspect").status_code == 200


def test_new_execution_hidden_from_lists_for_some_seconds() -> None:
    with CdfEmulator(clock=ManualClock()) as cdf, httpx.Client(base_url=cdf.url) as client:
        api = Api(cdf, client)
        name = api.define(function("a"))
        httpx.post(f"{cdf.url}/emulator/hide-new-executions", json={"seconds": 5})
        first, _second = run(api, name).json(), run(api, name)
        assert count_executions(api, name) == 1
        assert api.execution(first["id"])["id"] == first["id"]
        assert httpx.post(f"{cdf.url}/emulator/advance", json={"seconds": 5}).status_code == 200
        assert count_executions(api, name) == 2


def test_new_execution_that_a_read_by_id_does_not_find_either() -> None:
    with CdfEmulator(clock=ManualClock()) as cdf, httpx.Client(base_url=cdf.url) as client:
        api = Api(cdf, client)
        name = api.define(function("a"))
        body = {"seconds": 5, "byIdToo": True}
        httpx.post(f"{cdf.url}/emulator/hide-new-executions", json=body)
        execution_id = run(api, name).json()["id"]
        path = f"{api.project}/workflows/executions/{execution_id}"
        assert client.get(path).status_code == 404
        assert count_executions(api, name) == 0
        cdf.advance(5)
        assert client.get(path).json()["status"] == "COMPLETED"
        assert count_executions(api, name) == 1


@pytest.mark.parametrize(("seconds", "end"), [(0.1, "TERMINATED"), (60, "COMPLETED")])
def test_cancel_that_is_answered_with_running_and_takes_effect_later(seconds: float, end: str) -> None:
    with CdfEmulator(clock=ManualClock()) as cdf, httpx.Client(base_url=cdf.url) as client:
        api = Api(cdf, client)
        execution = api.run(function("a"))
        httpx.post(f"{cdf.url}/emulator/delay-cancels", json={"seconds": seconds})
        answer = api.post(f"/workflows/executions/{execution['id']}/cancel", {"reason": "enough"})
        assert (answer.status_code, answer.json()["status"]) == (200, "RUNNING")
        cdf.advance(60)
        assert api.execution(execution["id"])["status"] == end
        # The next cancel is an ordinary one.
        execution = api.run(function("a"))
        answer = api.post(f"/workflows/executions/{execution['id']}/cancel", {"reason": "enough"})
        assert answer.json()["status"] == "TERMINATED"


def test_one_subworkflow_used_twice_has_children_of_the_same_name() -> None:
    with CdfEmulator(clock=ManualClock()) as cdf, httpx.Client(base_url=cdf.url) as client:
        api = Api(cdf, client)
        site = api.define(function("approve", is_async=True))
        reference = {"subworkflow": {"workflowExternalId": site, "version": "1"}}
        execution = api.run(*(task(name, "subworkflow", reference) for name in ("north", "south")))
        cdf.advance(1)
        children = [
            (one["parentTaskExternalId"], one["id"])
            for one in api.execution(execution["id"])["executedTasks"]
            if one["externalId"] == "approve"
        ]
        assert [parent for parent, _ in children] == ["north", "south"]
        for parent, task_id in children:
            body = {"status": "COMPLETED", "output": {"site": parent}}
            assert api.post(f"/workflows/tasks/{task_id}/update", body).status_code == 200
        done = api.execution(execution["id"])
        outputs = {t.get("parentTaskExternalId"): t["output"] for t in done["executedTasks"]}
        assert (done["status"], outputs["north"]["site"], outputs["south"]["site"]) == (
            "COMPLETED",
            "north",
            "south",
        )


def test_journal_says_how_often_what_was_called_and_with_what(api: Api) -> None:
    api.cdf.journal.clear()
    name = api.define(function("a"))
    answer = run(api, name)
    api.get("/workflows", limit=3)
    journal = api.cdf.journal
    assert [journal.count("POST"), journal.count(path="*/run"), journal.count("DELETE")] == [3, 1, 0]
    (request,) = journal.requests("POST", "*/run")
    assert (request.status, request.request_id) == (202, answer.headers["x-request-id"])
    assert request.body == {"authentication": {"nonce": "***"}}
    assert journal.requests("GET")[0].query == "limit=3"
    over_http = httpx.get(f"{api.cdf.url}/emulator/journal", params={"path": "*/run"}).json()
    assert over_http["count"] == 1
    assert over_http["items"][0]["path"] == request.path


def test_journal_has_requests_that_could_not_be_read(api: Api) -> None:
    api.cdf.journal.clear()
    for content, encoding in ((b"{nonsense", "identity"), (b"no gzip", "gzip")):
        headers = {"content-type": "application/json", "content-encoding": encoding}
        answer = api.client.post(f"{api.project}/workflows", content=content, headers=headers)
        request = api.cdf.journal.requests()[-1]
        assert (request.status, request.body) == (answer.status_code, None) == (400, None)
        assert request.request_id == answer.headers["x-request-id"]


def test_web_page_from_elsewhere_cannot_operate_the_emulator(api: Api) -> None:
    """A page may send such requests from a browser on this machine, without being able to read the answer."""
    fault = {"status": 503, "path": "*"}
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"host": "evil.example"},
        {"host": "[nonsense"},
    ):
        answer = httpx.post(f"{api.cdf.url}/emulator/faults", json=fault, headers=headers)
        assert answer.status_code == 403
        assert "emulator" in answer.json()["error"]["message"]
    for path in ("/", "/emulator/journal", "/emulator/executions"):
        assert httpx.get(f"{api.cdf.url}{path}", headers={"host": "evil.example"}).status_code == 403
    assert api.cdf.faults.waiting() == []
    own = {"origin": api.cdf.url}
    assert httpx.post(f"{api.cdf.url}/emulator/expire-tokens", headers=own).status_code == 200
    port = api.cdf.url.rpartition(":")[2]
    for host in (f"localhost:{port}", f"[::1]:{port}", "127.0.0.1"):
        assert httpx.get(f"{api.cdf.url}/emulator/faults", headers={"host": host}).status_code == 200
    api.client.headers["authorization"] = f"Bearer {api.token()}"


def test_emulator_that_others_may_reach_goes_by_any_name() -> None:
    with CdfEmulator(host="0.0.0.0") as cdf:
        assert httpx.get(cdf.url, headers={"host": "cdf.compose.example:8200"}).status_code == 200


def test_journal_holds_no_secret(api: Api) -> None:
    api.cdf.journal.clear()
    login = {"clientId": api.cdf.client_id, "clientSecret": api.cdf.client_secret}
    nonce = api.post("/sessions", {"items": [login]}).json()["items"][0]["nonce"]
    name = api.define(function("a"))
    api.post(f"/workflows/{name}/versions/1/run", {"authentication": {"nonce": nonce}})
    token = api.token()
    written = httpx.get(f"{api.cdf.url}/emulator/journal").text
    assert api.cdf.client_id in written
    for secret in (api.cdf.client_secret, nonce, token):
        assert secret not in written


def test_task_can_be_skipped_and_a_trigger_fired_over_http(api: Api) -> None:
    execution = api.run(function("a", is_async=True), function("b/1", "a"))
    path = f"{api.cdf.url}/emulator/executions/{execution['id']}/tasks/b%2F1/skip"
    assert httpx.post(path).json()["status"] == "SKIPPED"
    rule = {"triggerType": "schedule", "cronExpression": "0 0 1 1 *"}
    target = {"workflowExternalId": execution["workflowExternalId"], "workflowVersion": "1"}
    trigger = {
        "externalId": "fire-me",
        "triggerRule": rule,
        "authentication": {"nonce": api.nonce()},
        **target,
    }
    api.post("/workflows/triggers", {"items": [trigger]})
    fired = httpx.post(f"{api.cdf.url}/emulator/triggers/fire-me/fire", json={"items": [{"x": 1}]}).json()
    assert api.execution(fired["workflowExecutionId"])["input"]["items"] == [{"x": 1}]


def test_clock_that_runs_cannot_be_moved(api: Api) -> None:
    assert httpx.post(f"{api.cdf.url}/emulator/advance", json={"seconds": 1}).status_code == 400


class Receiver(BaseHTTPRequestHandler):
    """Answers a webhook with what it was sent, or with an error."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_function_can_be_a_webhook(api: Api) -> None:
    with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        Thread(target=receiver.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{receiver.server_port}"
        api.cdf.engine.functions.set("hook", Webhook(url))
        api.cdf.engine.functions.set("broken-hook", Webhook(f"{url}/broken"))
        started = api.run(
            function("hook", data={"x": 1}, is_async=True), function("broken-hook", "hook", retries=0)
        )
        while not (tasks := api.execution(started["id"])["executedTasks"])[0]["output"]:
            pass
        assert tasks[0]["output"]["response"] == {"x": 1, "cogniteOrchestrationTaskId": tasks[0]["id"]}
        api.post(f"/workflows/tasks/{tasks[0]['id']}/update", {"status": "COMPLETED"})
        while (details := api.execution(started["id"]))["status"] == "RUNNING":
            pass
        assert "The webhook answered with status 500" in details["executedTasks"][1]["reasonForIncompletion"]
        receiver.shutdown()


def test_what_functions_do_from_the_command_line() -> None:
    assert from_text('{"a": 1}') == {"a": 1}
    assert from_text("http://127.0.0.1/x") == Webhook("http://127.0.0.1/x")
    assert from_text("json:dumps")({}) == "{}"
    for text, message in (
        ("nonsense", "neither the URL"),
        ("nobody.knows:this", "No module named"),
        ("json:nothing", "no attribute"),
        ("json:__name__", "is not a function"),
    ):
        with pytest.raises(ValueError, match=message):
            from_text(text)
