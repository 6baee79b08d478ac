"""What is said where a distributed Airflow cannot be started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_cdf.demo import main, services, shapes
from airflow_provider_cdf.demo.local_airflow import Distributed, LocalAirflowError


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have only some programs, and not some Python packages."""

    def hide(*packages: str, programs: tuple[str, ...] = ("initdb", "redis-server")) -> None:
        is_installed = shapes._is_installed
        monkeypatch.setattr(shapes, "_is_installed", lambda name: name not in packages and is_installed(name))
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


@pytest.mark.parametrize("package", ["apache-airflow-providers-celery", "redis", "psycopg2", "asyncpg"])
def test_a_python_package_that_is_missing_is_named_with_the_extra(
    hide: Callable[..., None], package: str
) -> None:
    hide(package)
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


def test_the_look_for_what_is_missing_makes_no_airflow_home(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    look = "from airflow_provider_cdf.demo.shapes import Distributed; Distributed()"
    subprocess.run([sys.executable, "-c", look], env={**env, "HOME": str(tmp_path)}, check=False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_installed_is_noticed() -> None:
    assert shapes._is_installed("psycopg2")
    assert not shapes._is_installed("apache-airflow-providers-of-nothing")


def test_each_triggerer_is_known_to_airflow_by_a_host_of_its_own(
    hide: Callable[..., None], tmp_path: Path
) -> None:
    hide()
    shape = Distributed(triggerers=2)
    shape.before_migration(tmp_path)
    hosts = {}
    for name in ("triggerer-1", "triggerer-2", "scheduler-1"):
        env = {**os.environ, **shape.settings_of(name), "AIRFLOW_HOME": str(tmp_path)}
        ask = "import airflow; from airflow.utils.net import get_hostname; print(get_hostname())"
        answer = subprocess.run([sys.executable, "-c", ask], env=env, capture_output=True, text=True)
        hosts[name] = answer.stdout.splitlines()[-1]
    assert {name: shape.triggerer_on(host) for name, host in hosts.items()} == {
        "triggerer-1": "triggerer-1",
        "triggerer-2": "triggerer-2",
        "scheduler-1": None,
    }
