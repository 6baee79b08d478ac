"""An identity provider and a CDF that answer what a test tells them, and both clients to ask them with."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import httpx
import pytest

from airflow_provider_cdf.cdf.client import AsyncCdfClient, CdfClient
from airflow_provider_cdf.cdf.logins.clients import ClientCredentials
from airflow_provider_cdf.cdf.settings import Settings

#: Cognite's own descriptions of its API. They are not ours to ship.
SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "cdf"

BASE_URL = "https://westeurope-1.cognitedata.com"
TOKEN_URL = "https://idp.example.com/oauth2/token"
#: Signs that a form or a URL would encode.
SECRET = "s3cr3t/with+signs&more"
EXECUTION_ID = "059edaa4-a17a-4102-910e-2c3591500cce"
TASK_ID = "7ca14a56-c807-4bd6-b287-64936078ef26"

EXECUTION = {
    "id": EXECUTION_ID,
    "workflowExternalId": "pump",
    "version": "1",
    "status": "RUNNING",
    "engineExecutionId": "4afb51bd-2015-4630-b567-fd3b46523e84",
    "createdTime": 1_700_000_000_000,
    "metadata": {},
}
TASK = {
    "id": TASK_ID,
    "externalId": "score",
    "status": "IN_PROGRESS",
    "taskType": "function",
    "input": {"isAsyncComplete": True},
    "output": {},
}
SESSION = {"items": [{"id": 1, "type": "CLIENT_CREDENTIALS", "status": "READY", "nonce": "the-nonce"}]}


def started(request: httpx.Request) -> httpx.Response:
    """Answer a run as CDF does: with the workflow and the metadata that it was asked for."""
    segments = request.url.raw_path.decode().split("/")
    about = {"workflowExternalId": unquote(segments[-4]), "version": unquote(segments[-2])}
    metadata = json.loads(request.content).get("metadata", {})
    return httpx.Response(202, json={**EXECUTION, **about, "metadata": metadata})


def shared_file(name: str) -> Any:
    """Read one of Cognite's own files, or skip the test where there is none."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} does not lie in {SHARED}; it is Cognite's and not part of this project")
    return json.loads(path.read_text())


def settings(base_url: str = BASE_URL, token_url: str = TOKEN_URL, **more: Any) -> Settings:
    return Settings(
        base_url=base_url,
        project="my project",
        credentials=ClientCredentials(token_url, "the-client", SECRET, scope="a b"),
        label="Airflow connection 'cdf_default'",
        # In most tests time moves only when told, by minutes within one answer.
        **{"retry_for": 0, "request_timeout": 400, **more},
    )


class FakeTime:
    """
    A clock that goes on only while somebody sleeps, or when it is told to.

    :param pauses: how long each sleep was.
    """

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.pauses: list[float] = []

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.pauses.append(seconds)
        self.seconds += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


ClientT = TypeVar("ClientT", CdfClient, AsyncCdfClient)
Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class Network:
    """
    A transport's handler: the identity provider at one URL, CDF at all the others.

    :param answers: what CDF answers, one request after the other.
    :param login: what the identity provider answers instead of a new token, every time.
    :param inspection: what the token may do: CDF's answer to the question after a refusal. By default it
        gives none, so why it was refused remains unknown.
    """

    def __init__(
        self, *answers: Answer, login: Answer | None = None, inspection: Answer | None = None
    ) -> None:
        self.answers = list(answers)
        self.login = login
        self.inspection = inspection or httpx.Response(403)
        self.token_requests: list[httpx.Request] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        # A copy, because the client sends the same request again after a 401, with another token.
        request = httpx.Request(
            request.method,
            request.url,
            headers=request.headers.copy(),
            content=request.content,
            extensions=request.extensions,
        )
        if request.url.host == httpx.URL(TOKEN_URL).host:
            self.token_requests.append(request)
            return self._give(self.login or self._new_token(), request)
        is_inspection = request.url.path.endswith("/token/inspect")
        if is_inspection and self.requests and not self.requests[-1].url.path.endswith("/token/inspect"):
            return self._give(self.inspection, request)
        self.requests.append(request)
        assert self.answers, f"nothing more should have been sent, but was: {request.method} {request.url}"
        return self._give(self.answers.pop(0), request)

    def _new_token(self) -> httpx.Response:
        return httpx.Response(
            200, json={"access_token": f"token-{len(self.token_requests)}", "expires_in": 3600}
        )

    @staticmethod
    def _give(answer: Answer, request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            # A response can be read once, and either in a thread or in an event loop.
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
        return answer(request)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) if request.content else None for request in self.requests]

    @property
    def paths(self) -> list[str]:
        return [request.url.raw_path.decode() for request in self.requests]


def wired(client: ClientT, transport: Any) -> ClientT:
    """Have a client send by a transport of the test, if there is one, instead of the network."""
    if transport is not None:
        vars(client)["_transport"] = lambda: transport
    return client


class Sender:
    """
    One of the two clients, used in the same way.

    :param is_async: which of them.
    """

    def __init__(self, is_async: bool) -> None:
        self.is_async = is_async

    def use(self, network: Network | None, method: str, argument: Any, config: Settings | None = None) -> Any:
        transport = httpx.MockTransport(network) if network else None
        config = config or settings()
        if self.is_async:
            return asyncio.run(self._use_async(transport, method, argument, config))
        with wired(CdfClient(config), transport) as client:
            result = getattr(client, method)(argument)
            return list(result) if method == "executions" else result

    @staticmethod
    async def _use_async(
        transport: httpx.AsyncBaseTransport | None, method: str, argument: Any, config: Settings
    ) -> Any:
        async with wired(AsyncCdfClient(config), transport) as client:
            if method == "executions":
                return [execution async for execution in client.executions(argument)]
            return await getattr(client, method)(argument)

    def send(self, network: Network | None, call: Any, config: Settings | None = None) -> Any:
        return self.use(network, "send", call, config)

    def perform(self, network: Network | None, conversation: Any, config: Settings | None = None) -> Any:
        return self.use(network, "perform", conversation, config)


class Answering(BaseHTTPRequestHandler):
    """One request to a :func:`loopback_server`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each answer takes 40 ms
    answer: Callable[[Answering], None]

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).answer(self)

    def do_POST(self) -> None:
        self.do_GET()

    def reply(self, body: Any, *, status: int = 200, promised_bytes: int | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(promised_bytes or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def loopback_server(answer: Callable[[Answering], None], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A real HTTP server in threads of this process; yields its URL."""
    handler = type("Handler", (Answering,), {"answer": staticmethod(answer)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"{'https://localhost' if tls else 'http://127.0.0.1'}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
