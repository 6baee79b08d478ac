"""A CDF that answers what a test tells it to, for answers that the emulator does not give."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What no event, message or log may hold.
SECRET = "s3cr3t-of-the-client"
TOKEN = "t0ken-that-was-issued"

HANG_UP = "hang up"
NOT_JSON = "not json"


def task(external_id: str, status: str, **more: Any) -> dict[str, Any]:
    """One attempt at a task as the API shows it."""
    return {
        "id": str(uuid.uuid4()),
        "externalId": external_id,
        "status": status,
        "taskType": "function",
        "input": {"function": {"externalId": external_id, "data": {"pump": "P-101"}}},
        "output": {},
        **more,
    }


def execution(status: str = "RUNNING", *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An execution as the API shows it; the server fills in the id that was asked for."""
    return {
        "workflowExternalId": "pumps",
        "version": "1",
        "status": status,
        "engineExecutionId": str(uuid.uuid4()),
        "createdTime": 1_700_000_000_000,
        "metadata": {},
        "executedTasks": list(tasks),
        **more,
    }


@dataclass
class ScriptedCdf:
    """
    Answers one GET of an execution after the other from :attr:`looks`; the last answer stays.

    A look is a dict (200), a number (that HTTP status), ``HANG_UP`` or ``NOT_JSON``.
    """

    looks: list[Any] = field(default_factory=list)
    #: Called before any answer, in a thread of the server.
    before_answer: Callable[[], object] = lambda: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    #: Connections that a client keeps open.
    open: int = 0
    looked: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        self.lock = threading.Lock()

    def next_look(self) -> Any:
        with self.lock:
            look = self.looks[min(self.looked, len(self.looks) - 1)]
            self.looked += 1
            return look

    def airflow_connection(self) -> str:
        return json.dumps(
            {
                "conn_type": "cdf",
                "host": self.url,
                "login": "client",
                "password": SECRET,
                "extra": {"project": "plant", "token_url": f"{self.url}/oauth2/token"},
            }
        )


@contextmanager
def scripted_cdf() -> Iterator[ScriptedCdf]:
    """Serve a :class:`ScriptedCdf` on a free loopback port."""
    cdf = ScriptedCdf()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet, or the client's delayed ACK costs 40 ms

        def setup(self) -> None:
            super().setup()
            with cdf.lock:
                cdf.open += 1

        def finish(self) -> None:
            super().finish()
            with cdf.lock:
                cdf.open -= 1

        def answer(self, status: int, body: Any) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.send_header("x-request-id", "request-1")
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            cdf.requests.append(("POST", self.path))
            cdf.before_answer()
            if self.path.endswith("/oauth2/token"):
                self.answer(200, {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600})
            else:
                self.answer(404, {"error": {"code": 404, "message": "No such path"}})

        def do_GET(self) -> None:
            cdf.requests.append(("GET", self.path))
            cdf.before_answer()
            if self.path.endswith("/token/inspect"):  # the question after a refusal
                self.answer(403, {})
                return
            look = cdf.next_look()
            if look == HANG_UP:
                self.close_connection = True
            elif look == NOT_JSON:
                self.answer(200, b"<html>Under maintenance</html>")
            elif isinstance(look, int):
                self.answer(look, {"error": {"code": look, "message": f"Scripted answer {look}"}})
            else:
                self.answer(200, {"id": self.path.rsplit("/", 1)[-1], **look})

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    cdf.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield cdf
    finally:
        server.shutdown()
        server.server_close()
