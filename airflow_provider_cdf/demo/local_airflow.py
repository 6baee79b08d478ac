"""A real Airflow on this machine: its four processes, on SQLite, in a home of its own."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import httpx

from airflow_provider_cdf.demo.airflow_api import AirflowApi, LocalAirflowError
from airflow_provider_cdf.demo.airflow_home import (
    SQLITE_PATIENCE,
    never_reuse_trigger_ids,
    write_patience,
    write_secrets,
)
from airflow_provider_cdf.demo.processes import MARK, Guard, Process, end_all

__all__ = ["LocalAirflow", "LocalAirflowError"]

HOST = "127.0.0.1"

#: The processes of a cluster, and how ``airflow`` starts each. None serves its logs: the api-server reads
#: them from the home, and the log servers' ports could be taken.
COMMANDS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}


class LocalAirflow(AirflowApi):
    """
    A cluster of Airflow's scheduler, dag processor, triggerer and api-server on a loopback port.

    As a context manager it starts on entry and leaves no process on exit, even if this process is killed.
    Any number of them run side by side. Nothing is read from or written to the user's own Airflow.

    :param dags_folder: directory of the DAG files
    :param env: environment variables for Airflow's processes, such as ``AIRFLOW_CONN_CDF_DEFAULT`` or
        ``AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC``; they win over the ones set here
    :param port: the api-server's port; 0 takes a free one
    :param home: ``AIRFLOW_HOME``; by default a temporary directory, removed when the cluster stops, unless
        that is because of an exception, which then says where it is
    :param keep: do not remove the temporary directory
    :raises LocalAirflowError: the port is taken
    """

    #: As :data:`COMMANDS`.
    commands: ClassVar[Mapping[str, list[str]]] = COMMANDS

    def __init__(
        self,
        dags_folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        port: int = 0,
        home: Path | None = None,
        keep: bool = False,
    ) -> None:
        self.port = _usable_port(port)
        super().__init__(f"http://{HOST}:{self.port}", dags_folder.resolve())
        self.processes: dict[str, Process] = {}
        self._own_env = dict(env or {})
        self._given_home = home
        self._home: Path | None = None
        self._keep = keep
        self._mark = secrets.token_hex(16)
        self._guard: Guard | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_after(error)

    @property
    def home(self) -> Path:
        """``AIRFLOW_HOME``."""
        if self._home is None:
            raise LocalAirflowError("The local Airflow has not been started.")
        return self._home

    @property
    def env(self) -> dict[str, str]:
        """The environment of Airflow's processes."""
        env = {
            name: value
            for name, value in os.environ.items()
            # Without byte code everything starts at half the speed.
            if not name.startswith(("AIRFLOW_", "_AIRFLOW_")) and name != "PYTHONDONTWRITEBYTECODE"
        }
        # Airflow talks to itself on loopback, where a company's proxy cannot reach it.
        proxied = env.get("no_proxy") or env.get("NO_PROXY")
        no_proxy = ",".join(filter(None, [proxied, HOST, "localhost"]))
        # Another database, which the caller may name, knows nothing of SQLite's arguments.
        if "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in self._own_env:
            env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS"] = SQLITE_PATIENCE
        return {
            **env,
            "no_proxy": no_proxy,
            "NO_PROXY": no_proxy,
            MARK: self._mark,
            # Else setproctitle writes titles over the environment that other processes see, the mark too.
            "SPT_NOENV": "1",
            # The last words of a process that is killed are the ones that matter.
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "8",
            # The default asks the name server, which on a laptop may take seconds.
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": HOST,
            "AIRFLOW__API__PORT": str(self.port),
            # The migration has its own report, and the api-server starts next to it.
            "AIRFLOW__DATABASE__CHECK_MIGRATIONS": "False",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            **self._own_env,
        }

    def start(self, name: str | None = None) -> None:
        """
        Start the cluster, or one of its processes anew. Does not wait until it is healthy.

        :param name: a key of :attr:`commands`, for a process that has ended
        :raises LocalAirflowError: the database could not be made, or the process still runs
        """
        if name is not None:
            if name in self.processes and self.processes[name].ending is None:
                raise LocalAirflowError(f"Airflow's {name} is still running.")
            self.processes[name] = self._start_process(name, self.commands[name])
            return
        if self._guard:
            raise LocalAirflowError("The local Airflow has been started already.")
        try:
            self._home = self._given_home or Path(tempfile.mkdtemp(prefix="cdf-airflow-"))
            self._home = self._home.resolve()
            self._home.mkdir(parents=True, exist_ok=True)
            self._guard = Guard(self._mark, None if self._keep or self._given_home else self._home)
            write_secrets(self._home / "airflow.cfg")
            write_patience(self._home)
            # It imports for longer than the migration takes, and asks the database nothing meanwhile.
            if "api-server" in self.commands:
                self.start("api-server")
            migration = self._start_process("db-migrate", ["db", "migrate"])
            if migration.popen.wait() != 0:
                raise LocalAirflowError(
                    f"Airflow's database could not be made ({migration.ending}):\n{migration.tail()}"
                )
            if (self._home / "airflow.db").exists():  # not if the caller's environment names a Postgres
                never_reuse_trigger_ids(self._home / "airflow.db")
            for each in self.commands:
                if each not in self.processes:
                    self.start(each)
        except BaseException as error:
            self._stop_after(error)
            raise

    def _start_process(self, name: str, arguments: list[str]) -> Process:
        # In the home: Python would import what lies in the working directory, such as a folder "airflow".
        return Process.start(
            name,
            [sys.executable, "-m", "airflow", *arguments],
            env=self.env,
            cwd=self.home,
            log=self.home / f"{name}.log",
        )

    def stop(self, *, keep: bool = False) -> None:
        """
        End every process of the cluster and remove its temporary home. Calling it again does nothing.

        :param keep: keep the home
        """
        if self._guard is None:
            return
        keep = keep or self._keep or self._given_home is not None
        if keep:
            self._guard.keep_home()
        end_all(self._mark)
        for process in self.processes.values():
            if process.ending is None:  # its environment cannot be seen, say for lack of permission
                process.signal(signal.SIGKILL)
            process.popen.wait()
        self._http.close()
        self._guard.dismiss()  # which also removes the home
        self._guard = None

    def _stop_after(self, error: BaseException | None) -> None:
        # Ctrl-C and sys.exit() are how people and programs end a cluster: nothing to look at afterwards.
        failed = isinstance(error, Exception)
        if error is not None and failed and self._guard:
            error.add_note(f"Airflow's logs are in {self.home}")
        self.stop(keep=failed)

    def kill(self, name: str, *, tree: bool = True) -> None:
        """
        Kill one process with SIGKILL, as a failing machine would.

        :param name: a key of :attr:`processes`
        :param tree: its descendants too; False may leave orphans that go on working
        """
        self.processes[name].signal(signal.SIGKILL, tree=tree)
        self.processes[name].popen.wait()

    def check(self) -> None:
        """
        Raise if a process of the cluster has ended.

        :raises LocalAirflowError: which, how, and the end of its log
        """
        dead = [process for process in self.processes.values() if process.ending]
        if dead:
            raise LocalAirflowError(
                "\n".join(
                    f"Airflow's {process.name} has died ({process.ending}). The end of {process.log}:\n"
                    f"{process.tail()}"
                    for process in dead
                )
            )

    def wait_until_healthy(self, timeout: float = 90) -> None:
        """
        Wait until all four processes report that they are healthy, and do so themselves, not predecessors.

        :param timeout: seconds
        :raises LocalAirflowError: a process has died, or time is up
        """
        waiting_for: list[str] = []

        def healthy() -> bool:
            waiting_for[:] = self._unhealthy()
            return not waiting_for

        def report() -> str:
            logs = (self.processes[name] for name in waiting_for)
            return (
                f"Airflow's {', '.join(waiting_for)} did not become healthy within {timeout:g} s.\n"
                + "\n".join(f"The end of {process.log}:\n{process.tail()}" for process in logs)
            )

        self._wait(healthy, timeout, report)

    def _unhealthy(self) -> list[str]:
        try:
            response = self._http.get("/api/v2/monitor/health", timeout=5)
        except httpx.TransportError:
            return ["api-server"]
        if response.status_code != 200:
            return ["api-server"]
        health = response.json()
        unhealthy = []
        for name in ("scheduler", "dag-processor", "triggerer"):
            key = name.replace("-", "_")
            beat = health[key][f"latest_{key}_heartbeat"]
            # After kill -9 the last heartbeat counts as healthy for half a minute.
            fresh = beat and datetime.fromisoformat(beat).timestamp() >= self.processes[name].started_at
            if health[key]["status"] != "healthy" or not fresh:
                unhealthy.append(name)
        return unhealthy


def _usable_port(port: int) -> int:
    with socket.socket() as probe:
        # As the api-server does: connections of an earlier one that linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            reason = (
                "is taken by another program"
                if error.errno == errno.EADDRINUSE
                else f"cannot be used: {error}"
            )
            raise LocalAirflowError(
                f"Port {port} on {HOST} {reason}. Choose another, or 0 for any free one."
            ) from None
        return int(probe.getsockname()[1])
