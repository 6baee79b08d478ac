"""
Fixtures of all tests but those of a real Airflow: the emulator, as the Airflow connection ``cdf_default``.

The conftest.py of each of their folders imports them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from support import FakeTaskInstance, Project
from wording import assert_well_said, is_ours

from airflow_provider_cdf.cdf.errors import CdfConnectionError, CdfError, CdfLoginError
from airflow_provider_cdf.cdf.logins import base
from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.operators import deadline
from airflow_provider_cdf.versions import HAS_TASK_API

if not HAS_TASK_API:
    from airflow.models.baseoperator import ExecutorSafeguard

    # Airflow 2 lets only the main thread call execute(). Here other threads do, to be interrupted.
    ExecutorSafeguard._sentinel = SimpleNamespace(callers={})


@pytest.fixture(autouse=not HAS_TASK_API, scope="session")
def _database_at_hand(airflow_db: None) -> None:
    """In Airflow 2, tasks ask the database themselves."""


@pytest.fixture(autouse=not HAS_TASK_API)
def _no_session_left_behind() -> Iterator[None]:
    """
    Airflow 2 remembers a database session for a process's only task, and refuses to run another one with it.

    Rendering outside of a task makes one, too, and then ``dag.test()`` tries for ever.
    """
    yield
    from airflow.utils import task_instance_session

    vars(task_instance_session)["__current_task_instance_session"] = None


@pytest.fixture(autouse=True)
def _well_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever error of this package a test expects, its message reads as all of them are to read."""
    raises = pytest.raises

    @contextmanager
    def raises_well_said(*expected: Any, **how: Any) -> Iterator[pytest.ExceptionInfo[BaseException]]:
        with raises(*expected, **how) as error:
            yield error
        # How a login is told of is a table of its own, in the tests of logins and connections.
        is_login = isinstance(error.value, CdfLoginError | CdfConnectionError)
        if not is_login and (isinstance(error.value, CdfError) or is_ours(error.value)):
            assert_well_said(str(error.value))

    monkeypatch.setattr(pytest, "raises", raises_well_said)


@pytest.fixture(autouse=True)
def _first_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a process, for the time that its callbacks have."""
    monkeypatch.setattr(deadline, "_first_callback", None)


@pytest.fixture(autouse=True)
def _first_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a process whose first tokens are masked."""
    monkeypatch.setattr(base, "_masked", 0)


@pytest.fixture(scope="session")
def cdf() -> Iterator[CdfEmulator]:
    """An emulator for the session; tests define workflows of their own, and may leave them running."""
    with CdfEmulator(max_concurrent_executions=10_000) as emulator:
        yield emulator


@pytest.fixture
def cdf_default(cdf: CdfEmulator, monkeypatch: pytest.MonkeyPatch) -> CdfEmulator:
    """The emulator as Airflow connection ``cdf_default``."""
    monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cdf.airflow_connection_uri())
    return cdf


@pytest.fixture
def connect(cdf: CdfEmulator, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Connect ``cdf_default`` to the emulator, but for what a test wants to be wrong."""

    def connect(extra: dict[str, Any] | None = None, **fields: Any) -> None:
        connection = {
            "conn_type": "cdf",
            "host": cdf.url,
            "login": cdf.client_id,
            "password": cdf.client_secret,
            **fields,
            "extra": {"project": cdf.project, "token_url": cdf.token_url, **(extra or {})},
        }
        monkeypatch.setenv("AIRFLOW_CONN_CDF_DEFAULT", json.dumps(connection))

    return connect


@pytest.fixture(scope="session")
def project(cdf: CdfEmulator) -> Project:
    return Project(cdf)


@pytest.fixture
def ti() -> FakeTaskInstance:
    return FakeTaskInstance()
