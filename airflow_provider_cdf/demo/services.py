"""A Postgres and a Redis of one's own, on loopback, for a distributed Airflow."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from airflow_provider_cdf.demo.airflow_api import LocalAirflowError
from airflow_provider_cdf.demo.processes import Process

HOST = "127.0.0.1"


class Service(ABC):
    """
    A server that Airflow needs, with its data in the cluster's home.

    :param home: the cluster's ``AIRFLOW_HOME``
    :param env: the environment of its process
    """

    name: str

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        self._home = home
        self._env = env
        self.port = free_port()

    @property
    @abstractmethod
    def settings(self) -> dict[str, str]:
        """Airflow's environment variables that lead to it."""

    @abstractmethod
    def start(self) -> Process:
        """Start it, or start it anew with the data that it had."""

    def is_ready(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
            return True
        return False

    def _process(self, command: Sequence[str], user: str | None = None) -> Process:
        log = self._home / f"{self.name}.log"
        return Process.start(self.name, command, env=self._env, cwd=self._home, log=log, user=user)


class Postgres(Service):
    """Airflow's database. Postgres refuses to run as root: there it runs as the user ``postgres``."""

    name = "postgres"

    @property
    def settings(self) -> dict[str, str]:
        """Airflow's environment variables that lead to it."""
        url = f"postgresql+psycopg2://postgres@{HOST}:{self.port}/postgres"
        return {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}

    def start(self) -> Process:
        """Start it, or start it anew with the data that it had."""
        user = _user() if os.getuid() == 0 else None
        data = self._home / "postgres"
        if not data.exists():
            data.mkdir(mode=0o700)
            if user:
                self._home.chmod(0o711)
                shutil.chown(data, user, user)
            made = subprocess.run(  # noqa: S603 - our own command
                [_program("initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "-E", "UTF8"],
                cwd="/",
                user=user,
                group=user,
                extra_groups=[] if user else None,
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode != 0:
                raise LocalAirflowError(f"Postgres could not make a database in {data}:\n{made.stderr}")
        options = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "max_connections": "200",
            # A test's database is not worth the disk's time. It survives a kill of Postgres all the same.
            "fsync": "off",
            # A title is written over the environment, by which a process is known for ours.
            "update_process_title": "off",
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return self._process([_program("postgres"), "-D", str(data), "-p", str(self.port), *arguments], user)

    def is_ready(self) -> bool:
        """Whether it takes connections, which it does not yet while it recovers."""
        asked = [_program("pg_isready"), "-q", "-h", HOST, "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0  # noqa: S603 - our own command


class Redis(Service):
    """Celery's broker, with an append-only file, so that a restart loses no message."""

    name = "redis"

    @property
    def settings(self) -> dict[str, str]:
        """Airflow's environment variables that lead to it."""
        return {"AIRFLOW__CELERY__BROKER_URL": f"redis://{HOST}:{self.port}/0"}

    def start(self) -> Process:
        """Start it, or start it anew with the data that it had."""
        data = self._home / "redis"
        data.mkdir(exist_ok=True)
        options = {
            "port": str(self.port),
            "bind": HOST,
            "dir": str(data),
            "appendonly": "yes",
            "appendfsync": "always",
            "set-proc-title": "no",  # as with Postgres
            "save": "",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        return self._process([_program("redis-server"), *arguments])


def free_port() -> int:
    """Return a port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def missing_programs() -> list[str]:
    """Return the Debian packages that a distributed Airflow needs and that are not installed."""
    packages = {"initdb": "postgresql", "redis-server": "redis-server"}
    return [package for program, package in packages.items() if _found(program) is None]


def _user() -> str:
    name = "postgres"
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise LocalAirflowError(
            f"Postgres refuses to run as root, and there is no user '{name}' here. Start as another user."
        ) from None
    return name


def _program(name: str) -> str:
    found = _found(name)
    if found is None:
        raise LocalAirflowError(
            f"{name} is not installed. A distributed Airflow needs Postgres and Redis: "
            "apt-get install postgresql redis-server"
        )
    return found


def _found(name: str) -> str | None:
    # Debian keeps Postgres' programs off the PATH.
    debian = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return shutil.which(name) or (debian[-1] if debian else None)
