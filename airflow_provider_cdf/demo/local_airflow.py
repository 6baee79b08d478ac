"""A real Airflow on this machine, in a home of its own: small, or distributed (:mod:`.shapes`)."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil  # type: ignore[import-untyped]

from airflow_provider_cdf.demo.airflow_api import AirflowApi, LocalAirflowError
from airflow_provider_cdf.demo.airflow_home import write_secrets
from airflow_provider_cdf.demo.processes import MARK, Guard, Process, end_all
from airflow_provider_cdf.demo.services import HOST, Service
from airflow_provider_cdf.demo.shapes import Distributed, Shape

__all__ = ["Distributed", "LocalAirflow", "LocalAirflowError"]

#: What Airflow calls the jobs of its processes.
_JOB_TYPES = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}
#: Seconds between the death of a process and the start of its successor, where the shape has that.
RESTART_AFTER = 1.0


class LocalAirflow(AirflowApi):
    """
    A cluster of Airflow's processes, with its api-server on a loopback port.

    As a context manager it starts on entry and leaves no process on exit, even if this process is killed.
    Any number of them run side by side. Nothing is read from or written to the user's own Airflow.

    :param dags_folder: directory of the DAG files
    :param shape: what it consists of; by default SQLite, the LocalExecutor and four processes
    :param env: environment variables for Airflow's processes, such as ``AIRFLOW_CONN_CDF_DEFAULT`` or
        ``AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC``; they win over the ones set here
    :param port: the api-server's port; 0 takes a free one
    :param home: ``AIRFLOW_HOME``; by default a temporary directory, removed when the cluster stops, unless
        that is because of an exception, which then says where it is
    :param keep: do not remove the temporary directory
    :raises LocalAirflowError: the port is taken
    """

    def __init__(
        self,
        dags_folder: Path,
        *,
        shape: Shape | None = None,
        env: Mapping[str, str] | None = None,
        port: int = 0,
        home: Path | None = None,
        keep: bool = False,
    ) -> None:
        self.port = _usable_port(port)
        super().__init__(f"http://{HOST}:{self.port}", dags_folder.resolve())
        self.shape = shape or Shape()
        self.processes: dict[str, Process] = {}
        self._services: dict[str, Service] = {}
        #: Held while processes are started and ended, so that none starts in a cluster that stops.
        self._starting = threading.RLock()
        self._own_env = dict(env or {})
        self._given_home = home
        self._home: Path | None = None
        self._keep = keep
        #: By which its processes are found, see :func:`.processes.marked`.
        self.mark = secrets.token_hex(16)
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
        settings = self.shape.settings(self.home)
        if "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" in self._own_env:
            # Another database, which the caller names, knows nothing of SQLite's arguments.
            settings.pop("AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS", None)
        return {
            **env,
            "no_proxy": no_proxy,
            "NO_PROXY": no_proxy,
            MARK: self.mark,
            # Else setproctitle writes titles over the environment that other processes see, the mark too.
            "SPT_NOENV": "1",
            # The last words of a process that is killed are the ones that matter.
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
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
            **settings,
            **{name: value for each in self._services.values() for name, value in each.settings.items()},
            **self._own_env,
        }

    def start(self, name: str | None = None) -> None:
        """
        Start the cluster, or one of its processes anew. Does not wait until it is healthy.

        :param name: a key of :attr:`processes`, for a process that has ended
        :raises LocalAirflowError: the database could not be made, or the process still runs
        """
        if name is not None:
            with self._starting:
                self._start_one(name)
            return
        if self._guard:
            raise LocalAirflowError("The local Airflow has been started already.")
        try:
            self._home = self._given_home or Path(tempfile.mkdtemp(prefix="cdf-airflow-"))
            self._home = self._home.resolve()
            self._home.mkdir(parents=True, exist_ok=True)
            self._guard = Guard(self.mark, None if self._keep or self._given_home else self._home)
            write_secrets(self._home / "airflow.cfg")
            self.shape.before_migration(self._home)
            self._services = {each.name: each for each in self.shape.services(self._home, self.env)}
            for each in self._services:
                self.start(each)
            self._wait(
                lambda: all(service.is_ready() for service in self._services.values()),
                60,
                lambda: f"{', '.join(self._services)}: not ready within 60 s.",
            )
            # It imports for longer than the migration takes, and asks the database nothing meanwhile.
            if "api-server" in self.shape.components:  # not in Airflow 2
                self.start("api-server")
            migration = self._start_process("db-migrate", ["db", "migrate"])
            if migration.popen.wait() != 0:
                raise LocalAirflowError(
                    f"Airflow's database could not be made ({migration.ending}):\n{migration.tail()}"
                )
            self.shape.after_migration(self._home)
            for each in self.shape.components:
                if each not in self.processes:
                    self.start(each)
        except BaseException as error:
            self._stop_after(error)
            raise
        if self.shape.restarts:
            threading.Thread(target=self._keep_alive, args=[self._guard], daemon=True).start()

    def _start_one(self, name: str) -> None:
        if name in self.processes and self.processes[name].ending is None:
            raise LocalAirflowError(f"Airflow's {name} is still running.")
        if name in self._services:
            self.processes[name] = self._services[name].start()
        else:
            self.processes[name] = self._start_process(name, self.shape.components[name])

    def _start_process(self, name: str, arguments: Sequence[str]) -> Process:
        # In the home: Python would import what lies in the working directory, such as a folder "airflow".
        return Process.start(
            name,
            [sys.executable, "-m", "airflow", *arguments],
            env=self.env | self.shape.settings_of(name),
            cwd=self.home,
            log=self.home / f"{name}.log",
        )

    def _keep_alive(self, guard: Guard) -> None:
        while True:
            time.sleep(RESTART_AFTER)
            with self._starting:
                if self._guard is not guard:  # the cluster has been stopped
                    return
                for name in [name for name, process in self.processes.items() if process.ending]:
                    self._start_one(name)

    def stop(self, *, keep: bool = False) -> None:
        """
        End every process of the cluster and remove its temporary home. Calling it again does nothing.

        :param keep: keep the home
        """
        if self._guard is None:
            return
        keep = keep or self._keep or self._given_home is not None
        with self._starting:
            guard, self._guard = self._guard, None
        if keep:
            guard.keep_home()
        end_all(self.mark)
        for process in self.processes.values():
            if process.ending is None:  # its environment cannot be seen, say for lack of permission
                process.signal(signal.SIGKILL)
            process.popen.wait()
        self._http.close()
        guard.dismiss()  # which also removes the home

    def _stop_after(self, error: BaseException | None) -> None:
        # Ctrl-C and sys.exit() are how people and programs end a cluster: nothing to look at afterwards.
        failed = isinstance(error, Exception)
        if error is not None and failed and self._guard:
            error.add_note(f"Airflow's logs are in {self.home}")
        self.stop(keep=failed)

    def kill(self, name: str, *, tree: bool = True) -> None:
        """
        Kill one process with SIGKILL, as a failing machine would. In a distributed cluster it starts again.

        :param name: a key of :attr:`processes`
        :param tree: its descendants too; False may leave orphans that go on working
        """
        process = self.processes[name]
        process.signal(signal.SIGKILL, tree=tree)
        process.popen.wait()

    def component_of(self, task: Mapping[str, Any]) -> str | None:
        """
        Return which of several workers or triggerers has a task now; ``None`` if nobody has, or there is one.

        :param task: as :meth:`task_instances` returns it
        """
        if task["state"] == "running" and len(self._named("worker")) > 1:
            with contextlib.suppress(psutil.NoSuchProcess):
                above = {process.pid for process in psutil.Process(task["pid"] or 0).parents()}
                return next(
                    (each for each in self._named("worker") if self.processes[each].pid in above), None
                )
        elif task["state"] == "deferred" and task["triggerer_job"]:
            return self.shape.triggerer_on(task["triggerer_job"]["hostname"])
        return None

    def sql(self, statement: str, **values: object) -> int:
        """
        Change Airflow's database behind its back, and return how many rows have changed.

        :param statement: with placeholders such as ``:dag_id``
        :param values: for them
        """
        from sqlalchemy import create_engine, text

        engine = create_engine(self.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
        try:
            with engine.begin() as connection:
                return int(connection.execute(text(statement), values).rowcount)
        finally:
            engine.dispose()

    def check(self) -> None:
        """
        Raise if a process of the cluster has ended and nothing starts it again.

        :raises LocalAirflowError: which, how, and the end of its log
        """
        if self.shape.restarts:
            return
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
        Wait until all processes report that they are healthy, and do so themselves, not predecessors.

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
            health = self._http.get("/api/v2/monitor/health", timeout=5)
            if health.status_code != 200:
                return ["api-server"]
            return [
                name for kind, job_type in _JOB_TYPES.items() for name in self._without_a_job(kind, job_type)
            ] + [name for name in self._named("worker") if not self.processes[name].has_said(" ready.")]
        except httpx.TransportError:
            return ["api-server"]

    def _without_a_job(self, kind: str, job_type: str) -> list[str]:
        """Return which have not signed on. A job says since when it runs, not whose it is."""
        jobs = self.api("GET", "/jobs", params={"job_type": job_type, "job_state": "running"})["jobs"]
        begun = sorted((datetime.fromisoformat(job["start_date"]).timestamp() for job in jobs), reverse=True)
        lacking = []
        for name in sorted(self._named(kind), key=lambda name: self.processes[name].started_at, reverse=True):
            if begun and begun[0] >= self.processes[name].started_at:
                begun.pop(0)
            else:
                lacking.append(name)
        return lacking

    def _named(self, kind: str) -> list[str]:
        return [name for name in self.shape.components if name.startswith(kind)]


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
