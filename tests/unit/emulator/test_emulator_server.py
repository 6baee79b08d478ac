"""How the emulator is started, what it starts with, and how Airflow gets to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import Connection
from emulator_helpers import function, task
from emulator_http import Api

from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.emulator.toolkit import ToolkitError

VERSION = """\
- workflowExternalId: outer
  version: 1
  workflowDefinition:
    tasks:
      - externalId: inner
        type: subworkflow
        parameters:
          subworkflow: {workflowExternalId: inner, version: v1}
- workflowExternalId: inner
  version: v1
  workflowDefinition:
    tasks:
      - externalId: score
        type: function
        parameters: {function: {externalId: score}, isAsyncComplete: true}
"""


def test_airflow_reads_the_connection_back() -> None:
    with CdfEmulator(project="a/b&c", client_id="id:@/", client_secret="s%3A/:@?&") as cdf:
        connection = Connection.from_uri(cdf.airflow_connection_uri(), "cdf")
        assert connection.conn_type == "cdf"
        assert (connection.host, connection.port) == (cdf.url, None)
        assert (connection.login, connection.password) == ("id:@/", "s%3A/:@?&")
        assert connection.extra_dejson == {"project": "a/b&c", "login_url": cdf.token_url}
        again = Connection.from_uri(connection.get_uri(), "cdf")
        assert (again.host, again.password) == (connection.host, connection.password)


def test_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"Port {port} of 127.0.0.1 is taken by another program"):
            CdfEmulator(port=port).start()


def test_two_emulators_run_side_by_side_and_free_their_ports() -> None:
    with CdfEmulator() as one, CdfEmulator() as two:
        assert one.url != two.url
        port = int(one.url.rpartition(":")[2])
    with CdfEmulator(port=port) as again:
        assert again.url == one.url


def test_workflows_come_from_toolkit_files(tmp_path: Path) -> None:
    directory = tmp_path / "my_module" / "workflows"
    directory.mkdir(parents=True)
    (directory / "a.Workflow.yaml").write_text("externalId: outer\ndescription: from a file\n")
    (directory / "a.WorkflowVersion.yaml").write_text(VERSION)
    (directory / "unrelated.Function.yaml").write_text("{{ not yaml")
    with CdfEmulator([tmp_path]) as cdf, httpx.Client(base_url=cdf.url) as client:
        api = Api(cdf, client)
        assert api.get("/workflows/outer").json()["description"] == "from a file"
        assert api.get("/workflows/outer/versions/1").status_code == 200
        assert api.get("/workflows/inner/versions/v1").status_code == 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("externalId: [", "x.Workflow.yaml:1: "),
        ("description: no id", "x.Workflow.yaml:1: externalId: Field required"),
        ("- externalId: ok\n- externalId: 5", "x.Workflow.yaml:2: externalId: "),
    ],
)
def test_bad_toolkit_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.Workflow.yaml").write_text(content)
    with pytest.raises(ToolkitError, match=message):
        CdfEmulator([tmp_path])


def test_missing_toolkit_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="there is no such file"):
        CdfEmulator([tmp_path / "nowhere"])


def test_handlers_run_beside_the_server_and_may_call_it() -> None:
    """A handler that reports its own task's end over HTTP, while the request that made it run still waits."""

    def handle(client: Any, data: dict[str, Any]) -> dict[str, Any]:
        client.workflows.tasks.update(data["cogniteOrchestrationTaskId"], "completed", {"by": "handler"})
        return {"too": "late"}

    def broken(data: dict[str, Any]) -> None:
        raise ValueError("no wind")

    with (
        CdfEmulator(functions={"a": handle, "broken": broken}) as cdf,
        httpx.Client(base_url=cdf.url) as client,
    ):
        api = Api(cdf, client)
        started = api.run(function("a", is_async=True), function("broken", "a", retries=0))
        while (details := api.execution(started["id"]))["status"] == "RUNNING":
            pass
        first, second = details["executedTasks"]
        assert (first["status"], first["output"]) == ("COMPLETED", {"by": "handler"})
        assert second["reasonForIncompletion"] == "The function call failed: ValueError: no wind"


def test_importing_the_package_loads_no_server_no_airflow_and_no_client_of_ours() -> None:
    script = (
        "import sys; import airflow_provider_cdf.emulator as e; early = set(sys.modules); e.CdfEmulator;"
        "print([m for m in ('fastapi', 'uvicorn', 'yaml') if m in early]);"
        "print([m for m in sys.modules if m == 'airflow' or m.startswith('airflow_provider_cdf.cdf')])"
    )
    command = [sys.executable, "-c", script]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.split("\n")[:2] == ["[]", "[]"]


def test_program_prints_how_to_connect_and_stops_when_told(tmp_path: Path) -> None:
    (tmp_path / "a.WorkflowVersion.yaml").write_text(VERSION)
    module = "airflow_provider_cdf.emulator"
    command = [sys.executable, "-m", module, "--port", "0", "--workflows", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        printed = ""
        while "Stop with Ctrl-C" not in printed:
            line = program.stdout.readline()
            assert line, f"The program ended early: {printed}"
            printed += line
        assert "NOT CDF" in printed
        assert "inner (v1), outer (1)" in printed
        uri = printed.split("AIRFLOW_CONN_CDF_DEFAULT='")[1].split("'")[0]
        connection = Connection.from_uri(uri, "cdf_default")
        login = {"client_id": connection.login, "client_secret": connection.password}
        form = {"grant_type": "client_credentials", **login}
        assert httpx.post(connection.extra_dejson["login_url"], data=form).status_code == 200
        os.kill(program.pid, signal.SIGINT)
        assert program.wait() == 0


@pytest.mark.parametrize("module", ["fastapi", "uvicorn", "yaml", "croniter"])
def test_missing_extra_is_named_with_the_line_to_install_it(module: str) -> None:
    hide = f"import sys; sys.modules['{module}'] = None; "
    for script, code in (
        ("from airflow_provider_cdf.emulator.__main__ import main; sys.exit(main([]))", 2),
        ("from airflow_provider_cdf.emulator import CdfEmulator", 1),
    ):
        done = subprocess.run([sys.executable, "-c", hide + script], capture_output=True, text=True)
        before, found, after = done.stderr.rpartition(
            f"The CDF emulator needs '{module}', which is not installed. It belongs to the extra 'emulator'."
        )
        assert (found != "", done.returncode) == (True, code), done.stderr
        assert code == 1 or before == ""  # the program shows no stack trace
        for needed in ("fastapi", "uvicorn", "pyyaml", "croniter"):
            assert needed in after.partition("    pip install ")[2]


def test_time_goes_on_while_nobody_asks() -> None:
    called = threading.Event()

    def handle() -> None:
        called.set()

    with CdfEmulator(functions={"a": handle}) as cdf, httpx.Client(base_url=cdf.url) as client:
        Api(cdf, client).run(function("a"))
        assert called.wait(30)


def test_page_shows_executions_and_loads_nothing_from_elsewhere(api: Api) -> None:
    inner = [function("x"), function("y", "x")]
    sub = task("sub", "subworkflow", {"subworkflow": {"tasks": inner}}, "first")
    name = api.run(function("first", is_async=True), sub)["workflowExternalId"]
    page = httpx.get(f"{api.cdf.url}/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    script = httpx.get(f"{api.cdf.url}/emulator/page.js")
    assert script.headers["content-type"].startswith("text/javascript")
    for text in (page.text, script.text):
        assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), "the name of SVG, not a place"
    missed = httpx.get(f"{api.cdf.url}/emulator/executions", params={"search": "nothing has this"}).json()
    assert (missed["items"], missed["total"] > 0) == ([], True)
    newest = httpx.get(f"{api.cdf.url}/emulator/executions", params={"limit": 1}).json()["items"][0]
    assert newest["workflowExternalId"] == name
    plan = httpx.get(f"{api.cdf.url}/emulator/executions/{newest['id']}").json()["plan"]
    first, second = plan
    assert (first["key"], len(first["attempts"]), first["dependsOn"]) == ("/first", 1, [])
    assert (second["key"], second["attempts"], second["dependsOn"]) == ("/sub", [], ["first"])
