"""What goes wrong around the emulator: broken requests, many at once, programs that are stopped or killed."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from emulator_helpers import World, function
from emulator_http import Api

from airflow_provider_cdf.emulator import CdfEmulator, RunningClock
from airflow_provider_cdf.emulator.__main__ import main
from airflow_provider_cdf.emulator.api import http
from airflow_provider_cdf.emulator.functions import from_text
from airflow_provider_cdf.emulator.toolkit import ToolkitError, load

JSON = {"content-type": "application/json"}


@contextmanager
def program(*arguments: str, cwd: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The emulator as a program of its own, and what it printed at start."""
    command = [sys.executable, "-m", "airflow_provider_cdf.emulator", "--client-secret", "s3cret", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd) as running:
        assert running.stdout is not None
        printed = ""
        while "Stop with Ctrl-C" not in printed:
            line = running.stdout.readline()
            assert line, f"The program ended early: {printed}"
            printed += line
        try:
            yield running, printed
        finally:
            running.kill()


def url_in(printed: str) -> str:
    return printed.split("base URL")[1].split()[0]


class Program:
    """As much of :class:`CdfEmulator` as the helpers need, for one that runs in another process."""

    project, client_id, client_secret = "emulator", "emulator-client", "s3cret"

    def __init__(self, printed: str) -> None:
        self.url = url_in(printed)
        self.token_url = f"{self.url}/oauth2/token"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "media_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/x+json"],
)
def test_number_that_is_no_json_is_refused_whatever_the_body_is_called(
    api: Api, number: str, media_type: str
) -> None:
    name = api.define(function("a"))
    body = f'{{"authentication": {{"nonce": "{api.nonce()}"}}, "input": {{"x": {number}}}}}'
    path = f"{api.project}/workflows/{name}/versions/1/run"
    answer = api.client.post(path, content=body, headers={"content-type": media_type})
    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["error"]["message"]
    query = {"filter": {"workflowFilters": [{"externalId": name}]}}
    assert api.post("/workflows/executions/list", query).json()["items"] == []


def test_body_that_does_not_say_that_it_is_json_gets_no_number_in_that_is_none(api: Api) -> None:
    body = b'{"items": [{"externalId": "nan", "dataSetId": NaN}]}'
    assert api.client.post(f"{api.project}/workflows", content=body).status_code == 400


def test_gzip_without_its_end_is_refused(api: Api) -> None:
    packed = gzip.compress(json.dumps({"items": [{"externalId": "half-packed"}]}).encode())
    headers = {**JSON, "content-encoding": "gzip"}
    answer = api.client.post(f"{api.project}/workflows", content=packed[:-4], headers=headers)
    assert answer.status_code == 400
    assert "its end is missing" in answer.json()["error"]["message"]
    assert api.get("/workflows/half-packed").status_code == 404


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_body_that_is_too_large_is_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(http, "_MAX_BODY_BYTES", 1000)
    body = json.dumps({"items": [{"externalId": "too-large", "description": "x" * 1000}]}).encode()
    answer = api.client.post(
        f"{api.project}/workflows",
        content=gzip.compress(body) if encoding == "gzip" else body,
        headers={**JSON, "content-encoding": encoding},
    )
    assert answer.status_code == 400
    assert "larger than 1000 bytes" in answer.json()["error"]["message"]
    assert api.get("/workflows/too-large").status_code == 404


def test_half_a_request_does_nothing(api: Api) -> None:
    """The body arrives, but not as much of it as was announced: JSON that is complete all the same."""
    body = b'{"items": [{"externalId": "half-sent"}]}'
    head = (
        f"POST {api.project}/workflows HTTP/1.1\r\nHost: {api.client.base_url.host}\r\n"
        f"Authorization: {api.client.headers['authorization']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body) + 5}\r\n\r\n"
    )
    host, port = api.client.base_url.host, api.client.base_url.port
    with socket.create_connection((host, port)) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert api.get("/workflows/half-sent").status_code == 404


@pytest.mark.parametrize("name", ["client_secret", "ClientSecret", "access_token", "Nonce", "password"])
def test_journal_hides_a_secret_however_its_key_is_written(api: Api, name: str) -> None:
    api.cdf.journal.clear()
    api.client.post(f"{api.project}/workflows", json={"items": [{"externalId": "x", name: "hidden-value"}]})
    assert api.cdf.journal.requests("POST")[0].body == {"items": [{"externalId": "x", name: "***"}]}
    assert "hidden-value" not in httpx.get(f"{api.cdf.url}/emulator/journal").text


def test_journal_survives_a_body_that_is_no_json(api: Api) -> None:
    api.cdf.journal.clear()
    api.client.post(f"{api.project}/workflows", content=b"\xff{", headers={"content-type": "text/plain"})
    (request,) = httpx.get(f"{api.cdf.url}/emulator/journal").json()["items"]
    assert (request["body"], request["status"]) == (None, 400)


@pytest.mark.parametrize(
    "odd",
    [
        "a/b",
        "a%2Fb",
        "100%",
        "a b",
        "a+b",
        "Größe µ",
        "☃",
        "?x=1&y#z",
        "a\\b",
        '"quoted"',
        "<b>",
        "..",
        "a;b",
    ],
)
def test_odd_external_id_is_the_same_in_body_path_and_list(api: Api, odd: str) -> None:
    name = api.define(function(odd, is_async=True), name=f"odd {odd}")
    assert api.get(f"/workflows/{quote(name, safe='')}").json()["externalId"] == name
    path = f"/workflows/{quote(name, safe='')}/versions"
    version = {"workflowExternalId": name, "version": odd}
    definition = {"tasks": [function(odd, is_async=True)]}
    api.post("/workflows/versions", {"items": [{**version, "workflowDefinition": definition}]})
    # "..", alone between two slashes, is taken out of a URL by every client that follows RFC 3986.
    wanted = quote(odd, safe="") if odd != ".." else "1"
    assert api.get(f"{path}/{wanted}").json()["workflowExternalId"] == name
    started = api.post(f"{path}/{wanted}/run", {"authentication": {"nonce": api.nonce()}}).json()
    query = {"filter": {"workflowFilters": [{"externalId": name}]}}
    assert [item["id"] for item in api.post("/workflows/executions/list", query).json()["items"]] == [
        started["id"]
    ]
    (task,) = api.execution(started["id"])["executedTasks"]
    assert task["externalId"] == odd
    rule = {"triggerType": "schedule", "cronExpression": "0 0 1 1 *"}
    target = {"workflowExternalId": name, "workflowVersion": "1", "authentication": {"nonce": api.nonce()}}
    api.post("/workflows/triggers", {"items": [{"externalId": name, "triggerRule": rule, **target}]})
    assert api.post(f"/workflows/triggers/{quote(name, safe='')}/pause").status_code == 200
    api.post("/workflows/triggers/delete", {"items": [{"externalId": name}]})


def test_cursor_of_triggers_stays_good_when_a_trigger_is_deleted(api: Api) -> None:
    workflow = api.define(function("a"))
    rule = {"triggerType": "schedule", "cronExpression": "0 0 1 1 *"}
    names = [f"page-{letter}" for letter in "abcd"]
    for name in names:
        target = {"workflowExternalId": workflow, "workflowVersion": "1"}
        item = {"externalId": name, "triggerRule": rule, "authentication": {"nonce": api.nonce()}, **target}
        assert api.post("/workflows/triggers", {"items": [item]}).status_code == 200
    first = api.get("/workflows/triggers", limit=2).json()
    api.post("/workflows/triggers/delete", {"items": [{"externalId": names[0]}]})
    second = api.get("/workflows/triggers", limit=2, cursor=first["nextCursor"]).json()
    assert [trigger["externalId"] for trigger in second["items"]] == names[2:]
    assert api.get("/workflows", cursor=first["nextCursor"]).status_code == 400, "a cursor of another list"


def test_a_thousand_requests_at_once_are_all_answered(api: Api) -> None:
    async def some(numbers: range) -> list[int]:
        # Several clients, because a pool of connections is slow when hundreds of requests wait for it.
        headers = {"authorization": api.client.headers["authorization"]}
        # As many connections at once as file descriptors allow where there are 1024 of them.
        limits = httpx.Limits(max_connections=3)
        async with httpx.AsyncClient(
            base_url=api.cdf.url, headers=headers, timeout=None, limits=limits
        ) as client:
            items = [{"items": [{"externalId": f"crowd-{number}"}]} for number in numbers]
            path = f"{api.project}/workflows"
            answers = await asyncio.gather(*(client.post(path, json=item) for item in items))
        return [answer.status_code for answer in answers]

    async def ask() -> list[int]:
        batches = await asyncio.gather(*(some(range(at, at + 10)) for at in range(0, 1000, 10)))
        return [status for batch in batches for status in batch]

    assert asyncio.run(ask()) == [200] * 1000
    listed = api.get("/workflows", limit=1000).json()
    while "nextCursor" in listed:
        more = api.get("/workflows", limit=1000, cursor=listed.pop("nextCursor")).json()
        listed = {**more, "items": listed["items"] + more["items"]}
    assert len([item for item in listed["items"] if item["externalId"].startswith("crowd-")]) == 1000


def test_more_than_16_handlers_run_at_once() -> None:
    """Each waits until all of them have been called."""
    together = threading.Barrier(30, timeout=60)

    with (
        CdfEmulator(functions={"meet": lambda: together.wait() >= 0}) as cdf,
        httpx.Client(base_url=cdf.url) as client,
    ):
        api = Api(cdf, client)
        started = api.run(*(function(f"t{number}", calls="meet") for number in range(30)))
        while (details := api.execution(started["id"]))["status"] == "RUNNING":
            pass
        assert details["status"] == "COMPLETED"


def test_queued_executions_start_in_the_order_in_which_they_were_asked_for() -> None:
    """Whatever workflow they are of: a busy one does not keep another one waiting for ever."""
    world = World(max_concurrent_executions=1)
    for workflow in ("x", "y"):
        world.define(function("a", is_async=True), workflow=workflow)
    waiting = [world.engine.run(workflow, "1") for workflow in ("x", "x", "y", "x")]
    for execution in waiting:
        world.advance(1)
        assert [other.id for other in waiting if other.status == "RUNNING" and not other.queued] == [
            execution.id
        ]
        world.engine.update_task(next(execution.tasks()).id, "COMPLETED")


def test_ctrl_c_ends_the_program_while_a_handler_runs(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(
        "import pathlib, threading\ndef handle():\n"
        "    pathlib.Path('called').touch()\n    threading.Event().wait()\n"
    )
    arguments = ["--port", "0", "--function", "f=endless:handle"]
    with program(*arguments, cwd=tmp_path) as (running, printed):
        cdf: Any = Program(printed)
        with httpx.Client(base_url=cdf.url) as client:
            Api(cdf, client).run(*(function(f"t{number}", calls="f") for number in range(20)))
        while not (tmp_path / "called").exists():
            pass
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0


def test_port_is_free_again_at_once_after_kill_9() -> None:
    with program("--port", "0") as (running, printed), httpx.Client(base_url=url_in(printed)) as client:
        assert client.get("/").status_code == 200  # a connection that is open when the program dies
        running.kill()
        running.wait()
        port = url_in(printed).rpartition(":")[2]
        with program("--port", port) as (_, again):
            assert client.get("/").status_code == 200
            assert url_in(again) == url_in(printed)


@pytest.mark.parametrize(
    ("host", "url"),
    [("::1", "http://[::1]:8200"), ("::", "http://[::1]:8200"), ("0.0.0.0", "http://127.0.0.1:8200")],
)
def test_url_of_an_address_that_is_no_name(host: str, url: str) -> None:
    assert CdfEmulator(host=host, port=8200).url == url


def test_mistake_in_a_toolkit_file_is_not_blamed_on_the_file_that_waits_for_it(tmp_path: Path) -> None:
    outer = (
        "workflowExternalId: outer\nversion: v1\nworkflowDefinition:\n  tasks:\n    - externalId: sub\n"
        "      type: subworkflow\n      parameters: {subworkflow: {workflowExternalId: in, version: v1}}\n"
    )
    inner = (
        "workflowExternalId: in\nversion: v1\nworkflowDefinition:\n  tasks:\n    - externalId: f\n"
        "      type: function\n      parameters: {function: {}}\n"
    )
    (tmp_path / "a.WorkflowVersion.yaml").write_text(outer)
    (tmp_path / "b.WorkflowVersion.yaml").write_text(inner)
    with pytest.raises(ToolkitError, match=r"b\.WorkflowVersion\.yaml:7: .*externalId: Field required"):
        load([tmp_path], World().engine)
    (tmp_path / "b.WorkflowVersion.yaml").unlink()
    with pytest.raises(ToolkitError, match=r"a\.WorkflowVersion\.yaml:\d+: .* which does not exist"):
        load([tmp_path], World().engine)
    (tmp_path / "a.WorkflowVersion.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ToolkitError, match=r"a\.WorkflowVersion\.yaml: 'utf-8' codec"):
        load([tmp_path], World().engine)


def test_what_was_read_is_said_at_the_start_and_what_to_do_where_nothing_was(tmp_path: Path) -> None:
    with program("--port", "0") as (_, printed):
        assert "none yet: upload some, or give --workflows\n" in printed
    (tmp_path / "pump_health.yaml").write_text("workflowExternalId: pump_health")
    with program("--port", "0", "--workflows", str(tmp_path)) as (_, printed):
        assert "none yet, as --workflows has none: upload some\n" in printed


def test_functions_of_a_module_and_secrets_come_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def ask(secrets):\n    return secrets\n\n"
        "FUNCTIONS = {'a': ask, 'b': {'of': 'the module'}, 'c': {'of': 'the module'}}\n"
    )
    options = ["--functions", "mine:FUNCTIONS", "--function", 'c={"of": "the line"}']
    options += ["--secret", "user=cdf", "--secret", "url=http://x/?a=b"]
    with program("--port", "0", *options, cwd=tmp_path) as (_, printed):
        with httpx.Client(base_url=url_in(printed)) as client:
            api = Api(Program(printed), client)  # type: ignore[arg-type]
            execution = api.run(function("a"), function("b"), function("c"))
            deadline = time.monotonic() + 60
            while (ended := api.execution(execution["id"]))["status"] == "RUNNING":
                assert time.monotonic() < deadline
                time.sleep(0.05)
        said = {one["externalId"]: one["output"]["response"] for one in ended["executedTasks"]}
        assert said["a"] == {"user": "cdf", "url": "http://x/?a=b"}
        assert (said["b"], said["c"]) == ({"of": "the module"}, {"of": "the line"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "'nothing' is not of the form MODULE:NAME"),
        ("json:nothing", "'json:nothing' cannot be loaded: AttributeError"),
        ("json:dumps", "'json:dumps' is not a dict of functions"),
    ],
)
def test_functions_that_are_none_are_refused(
    text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--functions", text])
    assert message in capsys.readouterr().err


def test_module_that_fails_while_it_is_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fails_at_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="'fails_at_import:handle' cannot be loaded: ZeroDivisionError"):
        from_text("fails_at_import:handle")


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="up to 65535, not 70000"):
        CdfEmulator(port=70_000)
    with pytest.raises(ValueError, match="cannot be -1"):
        CdfEmulator(retain=-1)
    with pytest.raises(ValueError, match="finite, not inf"):
        RunningClock(float("inf"))


def test_fault_finds_its_requests_however_the_method_is_written(api: Api) -> None:
    api.cdf.faults.add("get", "*/workflows", status=503)
    assert api.client.get(f"{api.project}/workflows").status_code == 503
    with pytest.raises(ValueError, match="retry_after go with a status"):
        api.cdf.faults.add(drop="after", retry_after=1)


@pytest.mark.parametrize("seconds", ["1e300", "-1", "NaN", '"1"'])
def test_clock_and_lists_cannot_be_moved_beyond_all_dates(api: Api, seconds: str) -> None:
    for what in ("advance", "hide-new-executions", "delay-cancels"):
        answer = api.client.post(f"/emulator/{what}", content=f'{{"seconds": {seconds}}}', headers=JSON)
        assert answer.status_code == 400
    assert api.client.get("/emulator/executions").status_code == 200
