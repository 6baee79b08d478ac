"""The emulator as a server in a thread of this process."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from secrets import token_urlsafe
from types import MappingProxyType, TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import uvicorn
from starlette.types import ASGIApp

from airflow_provider_cdf.emulator.api.app import create_app
from airflow_provider_cdf.emulator.api.driver import Driver
from airflow_provider_cdf.emulator.api.http import ConventionMiddleware, RefusalMiddleware
from airflow_provider_cdf.emulator.api.resources import Resources
from airflow_provider_cdf.emulator.api.tokens import Tokens
from airflow_provider_cdf.emulator.control.faults import FaultMiddleware, Faults
from airflow_provider_cdf.emulator.control.journal import Journal, JournalMiddleware
from airflow_provider_cdf.emulator.control.routes import router as control_router
from airflow_provider_cdf.emulator.page.routes import router as page_router
from airflow_provider_cdf.emulator.rules.clock import Clock, RunningClock
from airflow_provider_cdf.emulator.rules.engine import Engine
from airflow_provider_cdf.emulator.rules.functions import Functions
from airflow_provider_cdf.emulator.rules.pace import Pace
from airflow_provider_cdf.emulator.toolkit import load
from airflow_provider_cdf.hosts import is_loopback


class CdfEmulator:
    """
    A stand-in for CDF's Data Workflows on this machine, for development and tests. It is no CDF: state is in
    memory, and functions do what you tell them.

    ::

        with CdfEmulator(workflows=["workflows/"]) as cdf:
            os.environ["AIRFLOW_CONN_CDF_DEFAULT"] = cdf.airflow_connection_uri()

    :param workflows: files and directories with workflows in the Cognite Toolkit's YAML format
    :param variables: for the ``{{ variables }}`` in these files, as under ``variables:`` in a Toolkit config
        file
    :param functions: by external id what a function does: a JSON value that it answers, a
        :class:`~airflow_provider_cdf.emulator.Reply`, or a callable ``handle(client, data, ...)``.
        Others answer ``{}``.
    :param secrets: what every callable gets as ``secrets``
    :param cdf_requests: by ``"GET /timeseries"`` what cdf tasks get as answer; ``{"items": []}`` otherwise
    :param port: 0 for any free one
    :param host: the address to listen at; anything but loopback lets others in
    :param project: the CDF project
    :param client_id: the client that may ask for tokens
    :param client_secret: its secret; made up if not given
    :param token_lifetime: of access tokens, in seconds
    :param clock: a :class:`~airflow_provider_cdf.emulator.ManualClock` stops the time; see
        :meth:`advance`
    :param pace: how long things take
    :param max_concurrent_executions: in the project; more than that queue
    :param retain: how many ended executions to remember; None for all
    """

    def __init__(
        self,
        workflows: Iterable[str | os.PathLike[str]] = (),
        *,
        variables: Mapping[str, Any] | None = None,
        functions: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] = MappingProxyType({}),
        cdf_requests: Mapping[str, Any] | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        project: str = "emulator",
        client_id: str = "emulator-client",
        client_secret: str | None = None,
        token_lifetime: int = 3600,
        clock: Clock | None = None,
        pace: Pace | None = None,
        max_concurrent_executions: int = 200,
        retain: int | None = None,
    ) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"A port is a number up to 65535, not {port}")
        if retain is not None and retain < 0:
            raise ValueError(f"The number of ended executions to remember cannot be {retain}")
        self.project = project
        self.client_id = client_id
        self.client_secret = client_secret or token_urlsafe(24)
        self._secrets = dict(secrets)
        self._clock = clock or RunningClock()
        #: What workflows do. While the emulator runs it belongs to its threads: see :meth:`turn`.
        self.engine = Engine(
            self._clock,
            Functions(functions),
            Functions(cdf_requests),
            pace=pace,
            max_concurrent_executions=max_concurrent_executions,
            retain=retain,
        )
        load(workflows, self.engine, variables)
        self.tokens = Tokens(client_id, self.client_secret, project, token_lifetime, self._clock.client_now)
        #: What goes wrong: ``cdf.faults.add("POST", "*/run", drop="after")``.
        self.faults = Faults()
        #: The requests so far: ``cdf.journal.count("POST", "*/run")``.
        self.journal = Journal(self._clock.client_now)
        self.host = host
        self._port = port
        self._driver: Driver | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL, as ``https://westeurope-1.cognitedata.com`` is that of a CDF cluster."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    @property
    def local_only(self) -> bool:
        """Whether it listens to this machine only."""
        return is_loopback(self.host)

    @property
    def token_url(self) -> str:
        """Where access tokens are issued."""
        return f"{self.url}/oauth2/token"

    def turn(self) -> AbstractContextManager[Engine]:
        """
        The engine for this thread alone, up to date: ``with cdf.turn() as engine: ...``

        All others wait meanwhile, the HTTP server too: a request to the emulator, or a DAG that is run,
        inside of it would wait for ever.
        """
        return self._running().turn()

    def airflow_connection_uri(self) -> str:
        """What ``AIRFLOW_CONN_CDF_DEFAULT`` can be set to."""
        # The host is quoted whole, or Airflow would take scheme and port out of it.
        login, password, host = (
            quote(part, safe="") for part in (self.client_id, self.client_secret, self.url)
        )
        extra = urlencode({"project": self.project, "login_url": self.token_url})
        return f"cdf://{login}:{password}@{host}/?{extra}"

    def load(self, *workflows: str | os.PathLike[str], variables: Mapping[str, Any] | None = None) -> None:
        """
        Create workflows from files, as the parameter ``workflows`` does.

        :param workflows: files and directories
        :param variables: for the ``{{ variables }}`` in them
        """
        with self.turn() as engine:
            load(workflows, engine, variables)

    def set_function(self, external_id: str, behaviour: Any) -> None:
        """
        Choose what a function does from now on.

        :param external_id: of the function
        :param behaviour: as in the parameter ``functions``
        """
        with self.turn() as engine:
            engine.functions.set(external_id, behaviour)

    def advance(self, seconds: float) -> None:
        """
        Move a stopped clock forward, and let everything happen that was to happen meanwhile, each at its own
        time. Handlers and webhooks are waited for where they are called, each up to five real seconds.

        :param seconds: how far
        """
        self._running().advance(seconds)

    def start(self) -> None:
        """
        Start to listen.

        :raises OSError: if the port is taken
        """
        listening = self._listen()
        self._port = listening.getsockname()[1]
        self._driver = Driver(self.engine, self._clock, self._make_client, self._secrets)
        config = uvicorn.Config(
            self._application(self._driver),
            log_level="warning",
            log_config=None,  # logging belongs to the program that the emulator is part of
            access_log=False,
            lifespan="off",
            # Clients keep an idle connection for 5 s, and with uvicorn's own 5 s it could end as they use it.
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="cdf-emulator", daemon=True
        )
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                self.stop()
                raise RuntimeError("The CDF emulator's server did not start; see the log")
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop listening and stop the time. What is in memory is still there to look at."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        if self._driver is not None:
            self._driver.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> Driver:
        if self._driver is None:
            raise RuntimeError("The CDF emulator is not running; use it as `with CdfEmulator() as cdf:`")
        return self._driver

    def _application(self, driver: Driver) -> ASGIApp:
        """The API, what operates the emulator, and the page; faults happen between them and the client."""
        resources = Resources(self.engine.functions, self.engine.timeline.now)
        app = create_app(driver, self.tokens, resources, local_only=self.local_only)
        app.state.faults, app.state.journal = self.faults, self.journal
        app.include_router(control_router)
        app.include_router(page_router)
        return ConventionMiddleware(
            JournalMiddleware(FaultMiddleware(RefusalMiddleware(app), self.faults), self.journal)
        )

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self.host, self._port))
            listening.listen(128)
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRINUSE:
                raise OSError(
                    error.errno,
                    f"Port {self._port} of {self.host} is taken by another program, so the CDF emulator"
                    " cannot listen there; choose another port, or 0 for any free one",
                ) from None
            raise
        return listening

    def _make_client(self) -> Any:
        """What a handler gets as ``client``: the official SDK, logged in here, if it is installed."""
        try:
            from cognite.client import ClientConfig, CogniteClient, global_config
            from cognite.client.credentials import OAuthClientCredentials
        except ImportError:
            return None
        global_config.disable_pypi_version_check = True
        credentials = OAuthClientCredentials(
            token_url=self.token_url, client_id=self.client_id, client_secret=self.client_secret, scopes=[]
        )
        return CogniteClient(
            ClientConfig(
                client_name="function", project=self.project, base_url=self.url, credentials=credentials
            )
        )
