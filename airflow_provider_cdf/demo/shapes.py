"""What a local Airflow consists of: its processes, its database, its executor."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from airflow_provider_cdf.demo.airflow_api import LocalAirflowError
from airflow_provider_cdf.demo.airflow_home import SQLITE_PATIENCE, never_reuse_trigger_ids, write_patience
from airflow_provider_cdf.demo.services import Postgres, Redis, Service, missing_programs

# None serves its logs: the api-server reads them from the home, and the log servers' ports could be taken.
_SCHEDULER = ["scheduler", "--skip-serve-logs"]
_TRIGGERER = ["triggerer", "--skip-serve-logs"]

#: The module in Airflow's ``config`` that tells the hosts of the triggerers.
HOSTS = "triggerer_hosts"


class Shape:
    """
    Airflow's four processes with SQLite and the LocalExecutor: the smallest that is real.

    :cvar restarts: whether a process that has ended is started again, as systemd would
    """

    restarts = False

    #: The arguments of ``airflow`` for each process, by the name that it has here.
    components: Mapping[str, Sequence[str]] = {
        "api-server": ["api-server"],
        "scheduler": _SCHEDULER,
        "dag-processor": ["dag-processor"],
        "triggerer": _TRIGGERER,
    }

    def services(self, home: Path, env: Mapping[str, str]) -> list[Service]:
        """Return the servers that have to run before Airflow does."""
        return []

    def settings(self, home: Path) -> dict[str, str]:
        """Return the environment variables that make Airflow this shape."""
        return {
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": SQLITE_PATIENCE,
        }

    def settings_of(self, component: str) -> dict[str, str]:
        """Return the environment variables of one of the processes, beside those of all."""
        return {}

    def triggerer_on(self, host: str) -> str | None:
        """Return which of several triggerers it is that Airflow knows by a host."""
        return None

    def before_migration(self, home: Path) -> None:
        """Prepare the home."""
        write_patience(home)

    def after_migration(self, home: Path) -> None:
        """Prepare the database."""
        if (home / "airflow.db").exists():  # not if the caller's environment names another database
            never_reuse_trigger_ids(home / "airflow.db")


class Distributed(Shape):
    """
    CeleryExecutor on Redis and Postgres, each component a process of its own.

    :param schedulers: how many; they are named ``scheduler-1`` and so on
    :param triggerers: how many
    :param workers: how many
    :param slots: tasks that one worker runs at a time
    :raises LocalAirflowError: something that it needs is not installed; the message says how to install it
    """

    restarts = True

    def __init__(self, *, schedulers: int = 2, triggerers: int = 2, workers: int = 2, slots: int = 4) -> None:
        packages = missing_programs()
        lacking = [f"    apt-get install {' '.join(packages)}"] if packages else []
        if not all(map(_is_installed, ("apache-airflow-providers-celery", "redis", "psycopg2", "asyncpg"))):
            lacking.append(
                "    pip install 'airflow-provider-cdf[distributed]'   # in a checkout: '.[distributed]'"
            )
        if lacking:
            raise LocalAirflowError(
                "\n".join(["A distributed Airflow needs what is not installed here:", *lacking])
            )
        celery = ["celery", "worker", "--skip-serve-logs", "--concurrency", str(slots), "--celery-hostname"]
        self._hosts = {name: f"127.0.0.{2 + n}" for n, name in enumerate(_numbered("triggerer", triggerers))}
        self.components = {
            "api-server": ["api-server"],
            "dag-processor": ["dag-processor"],
            **dict.fromkeys(_numbered("scheduler", schedulers), _SCHEDULER),
            **dict.fromkeys(_numbered("triggerer", triggerers), _TRIGGERER),
            **{name: [*celery, f"{name}@local"] for name in _numbered("worker", workers)},
        }

    def services(self, home: Path, env: Mapping[str, str]) -> list[Service]:
        """Return the servers that have to run before Airflow does."""
        return [Postgres(home, env), Redis(home, env)]

    def settings(self, home: Path) -> dict[str, str]:
        """Return the environment variables that make Airflow this shape."""
        return {"AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", "AIRFLOW__CORE__PARALLELISM": "32"}

    def settings_of(self, component: str) -> dict[str, str]:
        """Return the environment variables of one of the processes, beside those of all."""
        if component not in self._hosts:
            return {}
        return {"AIRFLOW__CORE__HOSTNAME_CALLABLE": f"{HOSTS}.{component.replace('-', '_')}"}

    def triggerer_on(self, host: str) -> str | None:
        """
        Return which triggerer it is that Airflow knows by a host.

        Airflow notes of a triggerer's job its host and no more, so each has an address of its own: Airflow
        looks for logs there, too, and must not have to ask a name server.
        """
        return next((name for name, one in self._hosts.items() if one == host), None)

    def before_migration(self, home: Path) -> None:
        """Prepare the home."""
        (home / "config").mkdir(exist_ok=True)
        lines = (f'{name.replace("-", "_")} = "{host}".format\n' for name, host in self._hosts.items())
        (home / "config" / f"{HOSTS}.py").write_text("".join(lines))

    def after_migration(self, home: Path) -> None:
        """Prepare the database."""


def _is_installed(name: str) -> bool:
    # Not by a look for the module airflow.providers.celery, which would import airflow and make ~/airflow.
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(name))
    return importlib.util.find_spec(name) is not None  # psycopg2 comes in several packages


def _numbered(name: str, number: int) -> list[str]:
    return [f"{name}-{each}" for each in range(1, number + 1)]
