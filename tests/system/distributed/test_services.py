"""Postgres and Redis of one's own: what they have taken survives a kill, and nothing is left of them."""

from __future__ import annotations

import os
import pwd
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_cdf.demo.local_airflow import LocalAirflowError
from airflow_provider_cdf.demo.processes import MARK, Process, end_all, marked
from airflow_provider_cdf.demo.services import Postgres, Redis, Service, missing_programs

psycopg2 = pytest.importorskip("psycopg2")
redis = pytest.importorskip("redis")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {', '.join(missing_programs())}"),
]


@pytest.fixture
def mark() -> Iterator[str]:
    mark = secrets.token_hex(8)
    yield mark
    end_all(mark)


@pytest.fixture(params=[Postgres, Redis])
def service(request: pytest.FixtureRequest, mark: str, tmp_path_factory: pytest.TempPathFactory) -> Service:
    home = tmp_path_factory.mktemp("home")
    for folder in (home, *home.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)  # for the user postgres, where this one is root
    made: Service = request.param(home, {**os.environ, MARK: mark})
    return made


def started(service: Service) -> Process:
    process = service.start()
    deadline = time.monotonic() + 60
    while not service.is_ready():
        assert process.ending is None, process.tail()
        assert time.monotonic() < deadline, process.tail()
        time.sleep(0.05)
    return process


def write(service: Service) -> None:
    if isinstance(service, Redis):
        redis.Redis(port=service.port).rpush("queue", "message")
        return
    with psycopg2.connect(host="127.0.0.1", port=service.port, user="postgres", dbname="postgres") as db:
        db.cursor().execute("CREATE TABLE kept AS SELECT 'message' AS text")
    db.close()


def read(service: Service) -> str:
    if isinstance(service, Redis):
        return str(redis.Redis(port=service.port).lindex("queue", 0).decode())
    db = psycopg2.connect(host="127.0.0.1", port=service.port, user="postgres", dbname="postgres")
    with db, db.cursor() as cursor:
        cursor.execute("SELECT text FROM kept")
        text = str(cursor.fetchone()[0])
    db.close()
    return text


def test_what_it_has_taken_survives_a_kill(service: Service) -> None:
    process = started(service)
    write(service)
    process.signal(signal.SIGKILL)
    process.popen.wait()
    started(service)
    assert read(service) == "message"


def test_root_without_the_user_postgres_is_told_so(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", nobody)
    with pytest.raises(LocalAirflowError, match="no user 'postgres' here"):
        Postgres(tmp_path, {**os.environ, MARK: mark}).start()


def test_it_is_known_by_its_mark_and_ends_with_the_cluster(service: Service, mark: str) -> None:
    process = started(service)
    assert process.pid in {each.pid for each in marked(mark)}
    end_all(mark)
    assert process.ending is not None
    assert not service.is_ready()
