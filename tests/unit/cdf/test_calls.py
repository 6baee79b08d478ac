"""What each call sends, and what it refuses to send."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import httpx
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from cdf_support import (
    EXECUTION,
    EXECUTION_ID,
    SECRET,
    SESSION,
    TASK,
    TASK_ID,
    Network,
    Sender,
    shared_file,
    started,
)

from airflow_provider_cdf.cdf import calls, checks
from airflow_provider_cdf.cdf.calls import Repeat
from airflow_provider_cdf.cdf.errors import CdfInputError
from airflow_provider_cdf.cdf.models import TaskStatus

#: Both clients send the same requests (test_client.py).
ONE_CLIENT = Sender(is_async=False)


def run(**changes: Any) -> calls.Call[Any]:
    return calls.run(**{"project": "p", "workflow_external_id": "w", "version": "1", "nonce": "n", **changes})


def update(output: Any = None, status: str = "COMPLETED", task_id: str = TASK_ID) -> calls.Call[Any]:
    return calls.update_task("p", task_id, status, output)


def body(call: calls.Call[Any]) -> Any:
    assert call.content is not None
    return json.loads(call.content)


# -- paths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("external_id", "segment"),
    [
        ("pump", "pump"),
        ("a/b", "a%2Fb"),
        ("a b", "a%20b"),
        ("50%", "50%25"),
        ("%2F", "%252F"),
        ("Kühlung", "K%C3%BChlung"),
        ("../x", "..%2Fx"),
        ("a?b#c", "a%3Fb%23c"),
        ("a;b:c@d&e=f+g", "a%3Bb%3Ac%40d%26e%3Df%2Bg"),
        ("温度", "%E6%B8%A9%E5%BA%A6"),
        ("...", "..."),
    ],
)
def test_external_ids_are_percent_encoded_on_the_wire(external_id: str, segment: str) -> None:
    network = Network(started)
    ONE_CLIENT.send(network, run(project=external_id, workflow_external_id=external_id, version=external_id))
    expected = f"/api/v1/projects/{segment}/workflows/{segment}/versions/{segment}/run"
    assert network.paths == [expected]


@pytest.mark.parametrize("value", [".", "..", "", " ", None, 5, "\ud800"])
def test_a_value_that_cannot_be_part_of_a_path_is_refused(value: Any) -> None:
    with pytest.raises(CdfInputError, match="version"):
        run(version=value)


@pytest.mark.parametrize("name", ["project", "workflow_external_id", "version"])
def test_each_part_of_a_path_is_checked(name: str) -> None:
    with pytest.raises(CdfInputError, match=name):
        run(**{name: ".."})


def test_each_call_goes_to_its_own_path_with_its_own_method() -> None:
    base = "/api/v1/projects/p"
    assert {
        (call.method, call.path)
        for call in (
            calls.inspect_token(),
            calls.create_session("p", client_id="c", client_secret="s", what_for="run workflow 'w'"),
            run(),
            calls.get_execution("p", EXECUTION_ID),
            calls.list_executions("p"),
            calls.cancel("p", EXECUTION_ID),
            calls.retry("p", EXECUTION_ID, nonce="n"),
            update(),
        )
    } == {
        ("GET", "/api/v1/token/inspect"),
        ("POST", f"{base}/sessions"),
        ("POST", f"{base}/workflows/w/versions/1/run"),
        ("GET", f"{base}/workflows/executions/{EXECUTION_ID}"),
        ("POST", f"{base}/workflows/executions/list"),
        ("POST", f"{base}/workflows/executions/{EXECUTION_ID}/cancel"),
        ("POST", f"{base}/workflows/executions/{EXECUTION_ID}/retry"),
        ("POST", f"{base}/workflows/tasks/{TASK_ID}/update"),
    }


def test_each_call_says_whether_it_may_be_repeated() -> None:
    session = calls.create_session("p", client_id="c", client_secret="s", what_for="run it")
    for harmless in (calls.get_execution("p", EXECUTION_ID), calls.list_executions("p"), session):
        assert harmless.repeat is Repeat.ALWAYS
    for write in (update(), calls.cancel("p", EXECUTION_ID)):
        assert write.repeat is Repeat.IF_NOT_EXECUTED
    for with_nonce in (run(), calls.retry("p", EXECUTION_ID, nonce="n")):
        assert with_nonce.repeat is Repeat.NEVER


def test_a_person_who_tests_a_connection_is_answered_at_once() -> None:
    assert calls.inspect_token().repeat is Repeat.NEVER


# -- ids --------------------------------------------------------------------------------------------------

WITH_AN_ID: dict[str, Callable[[Any], Any]] = {
    "get": lambda value: calls.get_execution("p", value),
    "cancel": lambda value: calls.cancel("p", value),
    "retry": lambda value: calls.retry("p", value, nonce="n"),
    "update": lambda value: update(task_id=value),
}


with_an_id = pytest.mark.parametrize("make", WITH_AN_ID.values(), ids=WITH_AN_ID.keys())


@pytest.mark.parametrize(
    "value",
    [
        "",
        "None",
        None,
        5,
        "not-a-uuid",
        EXECUTION_ID[:-1],
        EXECUTION_ID + "0",
        EXECUTION_ID + "\n",
        f" {EXECUTION_ID}",
        EXECUTION_ID.replace("-", ""),
        EXECUTION_ID.replace("0", "g"),
        f"../{EXECUTION_ID}",
        UUID(EXECUTION_ID),
        "٠59edaa4-a17a-4102-910e-2c3591500cce",  # noqa: RUF001 - an Arabic digit
    ],
)
def test_an_id_that_is_no_uuid_is_refused(value: Any) -> None:
    with pytest.raises(CdfInputError, match="must be a UUID") as caught:
        calls.get_execution("p", value)
    assert repr(value) in str(caught.value)
    assert "Nothing was sent" in str(caught.value)


@with_an_id
def test_each_call_checks_its_id(make: Callable[[Any], Any]) -> None:
    with pytest.raises(CdfInputError, match="must be a UUID"):
        make(f"../{EXECUTION_ID}")


@with_an_id
def test_a_uuid_is_taken_as_it_is(make: Callable[[Any], Any]) -> None:
    assert f"/{EXECUTION_ID.upper()}" in make(EXECUTION_ID.upper()).path


def test_an_id_that_another_task_did_not_provide_is_named_as_that() -> None:
    with pytest.raises(CdfInputError, match="left no value"):
        calls.get_execution("p", "None")


def test_the_message_about_an_id_says_which_one() -> None:
    with pytest.raises(CdfInputError, match="execution_id"):
        calls.get_execution("p", "x")
    with pytest.raises(CdfInputError, match="task_id"):
        update(task_id="x")


def test_refused_input_is_not_worth_a_retry() -> None:
    with pytest.raises(AirflowFailException):
        calls.get_execution("p", "x")


# -- input and output -------------------------------------------------------------------------------------

WITH_AN_OBJECT: dict[str, Callable[[Any], Any]] = {"input": lambda value: run(input=value), "output": update}
takes_an_object = pytest.mark.parametrize(("name", "make"), WITH_AN_OBJECT.items(), ids=WITH_AN_OBJECT.keys())


def object_of(size: int, sign: str) -> dict[str, str]:
    """An object of that many bytes of JSON, most of them in one kind of sign."""
    frame = len('{"k":""}')
    signs, rest = divmod(size - frame, len(json.dumps(sign, ensure_ascii=False).encode()) - 2)
    return {"k": sign * signs + "x" * rest}


@pytest.mark.parametrize("sign", ["x", "ü", "🦀", '"'])
def test_exactly_100_000_bytes_of_json_are_sent(sign: str) -> None:
    call = run(input=object_of(100_000, sign))
    assert call.content is not None
    sent = json.dumps(body(call)["input"], ensure_ascii=False, separators=(",", ":")).encode()
    assert len(sent) == 100_000
    assert sent in call.content


@pytest.mark.parametrize("sign", ["x", "ü", "🦀", '"'])
def test_one_byte_more_is_refused_with_size_and_limit(sign: str) -> None:
    with pytest.raises(CdfInputError, match=r"input.* 100001 bytes .*100000") as caught:
        run(input=object_of(100_001, sign))
    assert "Nothing was sent" in str(caught.value)
    assert len(str(caught.value)) < 500


def circular() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def deep() -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": {1, 2}},
        {"a": b"bytes"},
        {"a": object()},
        {"a": "\ud800"},
        {"\udfff": 1},
        {("a", "b"): 1},
        circular(),
        deep(),
    ],
    ids=["nan", "inf", "set", "bytes", "object", "surrogate", "key", "tuple", "circular", "deep"],
)
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(CdfInputError, match=r"input.* is not JSON") as caught:
        run(input=value)
    assert "Nothing was sent" in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("value", "kind"), [("text", "text"), (["a"], "list"), (5, "int"), ([("a", 1)], "list")]
)
def test_what_is_json_but_no_object_is_refused(value: Any, kind: str) -> None:
    with pytest.raises(CdfInputError, match=rf"^The input must be a JSON object .*, not {kind}\."):
        run(input=value)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object_of(100_001, "x"), "100001 bytes"),
        ({"a": float("nan")}, "is not JSON"),
        (["a"], "must be a JSON object"),
    ],
    ids=["size", "not JSON", "no object"],
)
def test_an_output_is_checked_as_an_input_is(value: Any, what: str) -> None:
    with pytest.raises(CdfInputError, match=f"output.* {what}"):
        update(value)


@takes_an_object
def test_nothing_is_not_sent_and_an_empty_object_is(name: str, make: Any) -> None:
    assert name not in body(make(None))
    assert body(make({}))[name] == {}


@takes_an_object
def test_an_object_arrives_as_it_was(name: str, make: Any) -> None:
    value = {"pump": "P-101", "Temperatur °C": [1, 2.5, None, True], "nested": {"a": {}}}
    assert body(make(value))[name] == value


def test_an_output_can_be_checked_before_there_is_a_task() -> None:
    checks.check_output(object_of(100_000, "x"), "output")
    with pytest.raises(CdfInputError, match="100001"):
        checks.check_output(object_of(100_001, "x"), "output")
    with pytest.raises(CdfInputError, match="JSON object"):
        checks.check_output([], "output")


# -- metadata ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {f"key{i}": "v" for i in range(10)},
        {"k" * 32: "v" * 255},
        {"ü" * 32: "温" * 255},
        {"k": ""},
    ],
)
def test_metadata_up_to_the_limits_is_sent(metadata: dict[str, str]) -> None:
    assert body(run(metadata=metadata))["metadata"] == metadata


@pytest.mark.parametrize(
    ("metadata", "numbers"),
    [
        ({f"key{i}": "v" for i in range(11)}, "11.*10"),
        ({"k" * 33: "v"}, "33.*32"),
        ({"k": "v" * 256}, "256.*255"),
        ({"k": 5}, "'k'.*int"),
        ({"k": None}, "'k'.*NoneType"),
        ({5: "v"}, "strings; the key is int"),
        ({"k": "\ud800"}, "not JSON"),
    ],
)
def test_metadata_beyond_the_limits_is_refused(metadata: Any, numbers: str) -> None:
    with pytest.raises(CdfInputError, match=numbers) as caught:
        run(metadata=metadata)
    assert "'w'" in str(caught.value)
    assert "  " not in str(caught.value)


@pytest.mark.parametrize("metadata", ["{'rendered': 'template'}", ["a"], 5])
def test_metadata_that_is_no_mapping_is_refused(metadata: Any) -> None:
    with pytest.raises(CdfInputError, match=type(metadata).__name__):
        run(metadata=metadata)


# -- statuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status", ["COMPLETED", "completed", "Completed", " completed ", TaskStatus.COMPLETED]
)
def test_a_status_is_taken_in_any_case_and_sent_in_upper_case(status: str) -> None:
    assert body(update(status=status)) == {"status": "COMPLETED"}


@pytest.mark.parametrize("status", ["FAILED", "failed_with_terminal_error"])
def test_a_failure_can_be_reported(status: str) -> None:
    assert body(update(status=status)) == {"status": status.upper()}


@pytest.mark.parametrize(
    "status",
    [
        *("IN_PROGRESS", "SCHEDULED", "CANCELED", "TIMED_OUT", "SKIPPED", "COMPLETED_WITH_ERRORS"),
        *("", "success", None, ["COMPLETED"]),
    ],
)
def test_no_other_status_can_be_reported(status: Any) -> None:
    with pytest.raises(CdfInputError, match="COMPLETED, FAILED, FAILED_WITH_TERMINAL_ERROR") as caught:
        update(status=status)
    assert repr(status) in str(caught.value)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("in_progress", ["IN_PROGRESS"]),
        (["completed", "SKIPPED"], ["COMPLETED", "SKIPPED"]),
        (("In_Progress",), ["IN_PROGRESS"]),
    ],
)
def test_one_or_several_task_statuses_can_be_waited_for(given: Any, wanted: list[str]) -> None:
    assert checks.check_task_statuses(given) == wanted


@pytest.mark.parametrize("given", [[], "", "RUNNING", ["COMPLETED", "done"], [None]])
def test_a_task_status_that_cdf_does_not_have_cannot_be_waited_for(given: Any) -> None:
    with pytest.raises(CdfInputError):
        checks.check_task_statuses(given)


# -- lists ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, None),
        ({"workflow_external_id": "w"}, {"workflowFilters": [{"externalId": "w"}]}),
        (
            {"workflow_external_id": "w", "version": "1"},
            {"workflowFilters": [{"externalId": "w", "version": "1"}]},
        ),
        ({"status": "running"}, {"status": ["RUNNING"]}),
        ({"status": ["completed", "Timed_Out"]}, {"status": ["COMPLETED", "TIMED_OUT"]}),
        ({"created_after": datetime(2026, 1, 1, tzinfo=UTC)}, {"createdTimeStart": 1_767_225_600_000}),
        (
            {"created_after": datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))},
            {"createdTimeStart": 1_767_225_600_000},
        ),
        (
            {"created_after": datetime(2026, 1, 1, microsecond=1999, tzinfo=UTC)},
            {"createdTimeStart": 1_767_225_600_001},
        ),
    ],
)
def test_lists_are_filtered(filters: dict[str, Any], expected: Any) -> None:
    sent = body(calls.list_executions("p", **filters))
    assert sent.get("filter") == expected
    assert "cursor" not in sent
    assert 1 <= sent["limit"] <= 1000


def test_a_status_that_is_given_twice_is_sent_once() -> None:
    sent = body(calls.list_executions("p", status=["RUNNING", "running"]))
    assert sent["filter"]["status"] == ["RUNNING"]


def test_a_list_goes_on_at_a_cursor() -> None:
    sent = body(calls.list_executions("p", status="running", cursor="c"))
    assert (sent["cursor"], sent["filter"]) == ("c", {"status": ["RUNNING"]})


@pytest.mark.parametrize("filters", [{"version": "1"}, {"status": "SCHEDULED"}, {"status": ["RUNNING", ""]}])
def test_a_filter_that_cdf_would_refuse_is_refused(filters: dict[str, Any]) -> None:
    with pytest.raises(CdfInputError):
        calls.list_executions("p", **filters)


# -- secrets and reasons ----------------------------------------------------------------------------------


def test_no_secret_is_in_a_repr() -> None:
    session = calls.create_session("p", client_id="c", client_secret=SECRET, what_for="run workflow 'w'")
    assert body(session) == {"items": [{"clientId": "c", "clientSecret": SECRET}]}
    shown = repr(session) + repr(run(nonce="n0nce")) + repr(calls.retry("p", EXECUTION_ID, nonce="n0nce"))
    assert SECRET not in shown
    assert "n0nce" not in shown


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        (None, {}),
        ("", {}),
        ("why", {"reason": "why"}),
        ("x" * 500, {"reason": "x" * 500}),
        ("x" * 499 + "yz", {"reason": "x" * 499 + "y"}),
        ("ü" * 501, {"reason": "ü" * 500}),
    ],
)
def test_a_reason_for_cancelling_is_cut_at_500_characters(reason: str | None, sent: Any) -> None:
    assert body(calls.cancel("p", EXECUTION_ID, reason)) == sent


def test_a_run_is_sent_under_its_nonce() -> None:
    assert body(run(nonce="n")) == {"authentication": {"nonce": "n"}}
    assert body(calls.retry("p", EXECUTION_ID, nonce="n")) == {"authentication": {"nonce": "n"}}


# -- Cognite's own specification --------------------------------------------------------------------------

#: Each call as a user would make it, and what CDF could answer.
SPECIFIED: dict[str, tuple[calls.Call[Any], Any]] = {
    "inspect": (calls.inspect_token(), {"subject": "s", "projects": [], "capabilities": []}),
    "session": (
        calls.create_session("p", client_id="c", client_secret="s", what_for="run workflow 'w'"),
        SESSION,
    ),
    "run": (run(), started),
    "run with all": (
        run(workflow_external_id="a/b ü", input={"a": {"b": [1]}}, metadata={"k" * 32: "v" * 255, "a": "b"}),
        started,
    ),
    "get": (calls.get_execution("p", EXECUTION_ID), EXECUTION),
    "list": (calls.list_executions("p"), {"items": []}),
    "list with all": (
        calls.list_executions(
            "p",
            workflow_external_id="w",
            version="1",
            status=["running", "RUNNING", "failed"],
            created_after=datetime(2026, 1, 1, tzinfo=UTC),
            cursor="c",
        ),
        {"items": []},
    ),
    "cancel": (calls.cancel("p", EXECUTION_ID), EXECUTION),
    "cancel with reason": (calls.cancel("p", EXECUTION_ID, "x" * 1000), EXECUTION),
    "retry": (calls.retry("p", EXECUTION_ID, nonce="n"), EXECUTION),
    "update": (update(), {**TASK, "status": "COMPLETED"}),
    "update with output": (update({"a": [1, None]}, "failed"), {**TASK, "status": "FAILED"}),
}


@pytest.mark.parametrize("name", SPECIFIED)
def test_requests_are_what_cognite_specifies(name: str) -> None:
    api = shared_file("openapi-workflows.json")
    call, answer = SPECIFIED[name]
    network = Network(answer if callable(answer) else httpx.Response(200, json=answer))
    ONE_CLIENT.send(network, call)
    request, path = network.requests[0], network.paths[0]

    def matches(template: str) -> bool:
        return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) is not None

    # /workflows/executions/list would also be an execution with the id "list".
    template = min(filter(matches, api["paths"]), key=lambda one: one.count("{"))
    operation = api["paths"][template][request.method.lower()]
    if "requestBody" not in operation:
        assert not request.content
        return
    assert request.headers["Content-Type"] == "application/json"
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    sent = json.loads(request.content)
    jsonschema.Draft202012Validator({**schema, "components": api["components"]}).validate(sent)
    # The specification allows any other key, CDF does not promise what it does with one.
    reference = schema.get("$ref", "").rpartition("/")[2]
    assert (
        sent.keys() <= (api["components"]["schemas"][reference] if reference else schema)["properties"].keys()
    )
