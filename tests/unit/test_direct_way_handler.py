"""The CDF function of docs/patterns.md that starts a DAG run, as it stands there: with a scripted Airflow."""

from __future__ import annotations

import ast
import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "patterns.md"
TASK_ID = "11111111-2222-4333-8444-555555555555"
RUN_ID = f"cdf__{TASK_ID}"
PASSWORD = "a-password-that-no-log-may-have"
#: What Airflow answers with: a status, and an answer in JSON, or a text.
TOKEN = (201, {"access_token": "a-token"})
STARTED = (200, {"dag_run_id": RUN_ID})


def snippet() -> str:
    (found,) = (
        one for one in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "def handle" in one
    )
    return str(found)


class Airflow:
    """
    Answers each request with the next of its answers, and remembers the requests.

    An answer that is ``None`` is none: the connection is closed.
    """

    def __init__(self, *answers: Any) -> None:
        self.url = ""
        self.answers = list(answers)
        self.requests: list[tuple[str, str, Any]] = []

    def __call__(self, path: str, authorization: str, body: Any) -> Any:
        self.requests.append((path, authorization, body))
        return self.answers.pop(0)


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    airflow = Airflow()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = airflow(self.path, self.headers["Authorization"], body)
            if answer is None:
                self.close_connection = True
                return
            status, says = answer
            content = (says if isinstance(says, str) else json.dumps(says)).encode()
            self.send_response(status)
            self.send_header("Location", f"{airflow.url}/login")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    airflow.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield airflow
    server.shutdown()
    thread.join()
    server.server_close()


def call(url: Any) -> Any:
    names: dict[str, Any] = {}
    exec(compile(snippet(), "the handler of patterns.md", "exec"), names)
    names["PAUSES"] = (0, 0, 0)
    secrets = {"airflow-url": url, "airflow-user": "cdf", "airflow-pass": PASSWORD}
    return names["handle"](data={"cogniteOrchestrationTaskId": TASK_ID, "vibration": 7.2}, secrets=secrets)


def test_is_short_and_needs_nothing_but_python() -> None:
    tree = ast.parse(snippet())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert len(snippet().splitlines()) < 40
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_logs_in_and_starts_a_run_whose_id_follows_from_the_task(airflow: Any) -> None:
    airflow.answers = [TOKEN, STARTED]
    assert call(airflow.url) == {"dag_run_id": RUN_ID}
    (login_path, _, login), (path, authorization, run) = airflow.requests
    assert (login_path, login) == ("/auth/token", {"username": "cdf", "password": PASSWORD})
    assert (path, authorization) == ("/api/v2/dags/cdf_called/dagRuns", "Bearer a-token")
    assert run == {
        "dag_run_id": RUN_ID,
        "logical_date": None,
        "conf": {"cogniteOrchestrationTaskId": TASK_ID, "vibration": 7.2},
    }


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([TOKEN, (409, {"detail": "exists"})], id="the run is there already"),
        pytest.param([TOKEN, None, TOKEN, (409, {"detail": "exists"})], id="the answer was lost"),
        pytest.param([(503, "starting"), (502, "<html>"), TOKEN, STARTED], id="it was down for a moment"),
        pytest.param([TOKEN, (429, ""), TOKEN, (500, "{}"), TOKEN, STARTED], id="it was busy"),
        pytest.param([(201, "no json"), (201, {}), (201, [1]), TOKEN, STARTED], id="others answered"),
    ],
)
def test_is_done_where_the_run_is_there(airflow: Any, answers: list[Any]) -> None:
    airflow.answers = answers
    assert call(airflow.url) == {"dag_run_id": RUN_ID}
    assert not airflow.answers


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        pytest.param([(401, {"detail": PASSWORD})], "401 is the answer to /auth/token", id="password"),
        pytest.param([TOKEN, (401, {})], "401 is the answer to /api/v2/dags/", id="token"),
        pytest.param([TOKEN, (403, {})], "403 is the answer to /api/v2/dags/", id="right"),
        pytest.param([TOKEN, (404, {})], "404 is the answer to /api/v2/dags/cdf_called/dagRuns", id="DAG"),
        pytest.param([TOKEN, (400, {})], "400 is", id="import error"),
        pytest.param([TOKEN, (302, "")], "302 is", id="redirect"),
        pytest.param([(307, "")], "307 is the answer to /auth/token", id="redirect of the login"),
        pytest.param([TOKEN, None] * 4, "RemoteDisconnected", id="no answer"),
        pytest.param([TOKEN, (503, "")] * 4, "503 is", id="down"),
        pytest.param([(200, "<html>")] * 4, "JSONDecodeError", id="another page"),
        pytest.param([TOKEN, (200, {"dag_run_id": "other"})] * 4, "200 is", id="another run"),
        pytest.param([TOKEN, (200, {"dag_runs": []})] * 4, "KeyError", id="a list"),
    ],
)
def test_fails_so_that_cdf_knows_where_it_is_not(airflow: Any, answers: list[Any], says: str) -> None:
    airflow.answers = answers
    with pytest.raises(RuntimeError, match="Airflow has not started cdf_called: ") as failed:
        call(airflow.url)
    assert says in str(failed.value)
    assert PASSWORD not in str(failed.value)
    assert not airflow.answers  # what is refused is not asked for again, and the rest four times


def test_fails_where_nothing_listens() -> None:
    with pytest.raises(RuntimeError, match=r"Airflow has not started cdf_called: ConnectionRefused"):
        call("http://127.0.0.1:9")
