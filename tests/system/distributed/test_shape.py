"""What is said where a distributed Airflow cannot be started."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdf.demo import main, services
from airflow_provider_cdf.demo.local_airflow import Distributed, LocalAirflowError


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have only some programs, and not some Python modules."""

    def hide(*modules: str, programs: tuple[str, ...] = ("initdb", "redis-server")) -> None:
        find_spec = importlib.util.find_spec

        def found(name: str, *arguments: Any) -> Any:
            return None if name in modules else find_spec(name, *arguments)

        monkeypatch.setattr(importlib.util, "find_spec", found)
        monkeypatch.setattr(services, "_found", lambda name: name if name in programs else None)

    return hide


@pytest.mark.parametrize(
    ("programs", "line"),
    [
        ((), "apt-get install postgresql redis-server"),
        (("initdb",), "apt-get install redis-server"),
        (("redis-server",), "apt-get install postgresql"),
    ],
)
def test_programs_that_are_missing_are_named_with_the_line_that_installs_them(
    hide: Callable[..., None], programs: tuple[str, ...], line: str
) -> None:
    hide(programs=programs)
    with pytest.raises(LocalAirflowError) as error:
        Distributed()
    assert str(error.value).splitlines()[1].strip() == line


@pytest.mark.parametrize("module", ["airflow.providers.celery", "redis", "psycopg2", "asyncpg"])
def test_a_python_package_that_is_missing_is_named_with_the_extra(
    hide: Callable[..., None], module: str
) -> None:
    hide(module)
    with pytest.raises(LocalAirflowError, match=r"pip install 'airflow-provider-cdf\[distributed\]'"):
        Distributed()


def test_all_that_is_missing_is_said_at_once_before_anything_starts(
    hide: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hide("redis", programs=())
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its own handlers
    assert main(["--distributed"]) == 1
    said = capsys.readouterr().out
    assert "apt-get install postgresql redis-server" in said
    assert "pip install" in said
    assert "Starting" not in said
