"""Endings of executions are told at least once, wherever a kill -9 of the triggerer strikes."""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from inboxes import WORKFLOWS, Inboxes, inboxes

pytestmark = pytest.mark.long

DAG_ID = ASSET = "endings_told"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inboxes]:
    with inboxes(tmp_path_factory.mktemp("dags")) as running:
        running.pause(DAG_ID, False)
        # What ends before the watcher has looked for the first time is not told.
        running.wait_until(lambda: cursor(running) is not None)
        yield running


def cursor(both: Inboxes) -> dict[str, Any] | None:
    """Return how far the watcher has got, as Airflow has it stored."""
    with contextlib.closing(sqlite3.connect(both.airflow.home / "airflow.db", timeout=60)) as db:
        query = "SELECT value FROM asset_state_store WHERE key = 'cdf_endings'"
        row = db.execute(query).fetchone()
    found: dict[str, Any] | None = None if row is None else json.loads(row[0])
    return found


def told(both: Inboxes) -> list[tuple[str, int]]:
    """Return the endings that the events name, as (id, end time), the oldest event first."""
    events = list(both.airflow._pages("/assets/events", "asset_events", order_by="timestamp"))
    return [
        (one["id"], one["end_time"])
        for event in events
        if "executions" in (event["extra"].get("payload") or {})
        for one in event["extra"]["payload"]["executions"]
    ]


def end_some(both: Inboxes, number: int) -> set[str]:
    """Let executions start and end, in CDF alone; return their ids."""
    ids = {both.start(WORKFLOWS["inbox"], {"number": each}) for each in range(number)}
    both.wait_until(
        lambda: all((score := both.score(one)) and score.status == "IN_PROGRESS" for one in ids),
        is_whole=False,
    )
    for one in ids:
        with both.cdf.turn() as engine:
            engine.update_task(both.score(one).id, "COMPLETED", {})
    both.wait_until(lambda: both.have_completed(ids), is_whole=False)
    return ids


def soon(happened: Callable[[], Any], seconds: float = 600) -> None:
    """Wait closely for a moment that does not last."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)  # the moment lasts some tenths of a second


def test_fifty_endings_are_told_at_least_once_and_repeats_are_equal(
    both: Inboxes, record_property: Callable[[str, object], None]
) -> None:
    def named(ids: set[str]) -> bool:
        return ids <= {one for one, _ in told(both)}

    def noted(ids: set[str]) -> bool:
        return ids <= (cursor(both) or {"told": {}})["told"].keys()

    all_of_them: set[str] = set()
    between = 0
    for strike in ("after the event", "before the event", "after the cursor", "while it is down", "not"):
        if strike == "while it is down":
            both.airflow.kill("triggerer-1")
        ids = end_some(both, 10)
        all_of_them |= ids
        if strike == "after the event":
            soon(functools.partial(named, ids))
        elif strike == "after the cursor":
            both.wait_until(lambda ids=ids: noted(ids))
        if strike not in ("while it is down", "not"):
            both.airflow.kill("triggerer-1")
        if strike == "after the event":
            between += not noted(ids)
        if strike != "not":
            both.airflow.start("triggerer-1")
        both.wait_until(lambda ids=ids: noted(ids))
    # On a busy machine, the kill may come when the cursor has moved already: strike again.
    while not between:
        ids = end_some(both, 1)
        all_of_them |= ids
        soon(functools.partial(named, ids))
        both.airflow.kill("triggerer-1")
        between += not noted(ids)
        both.airflow.start("triggerer-1")
        both.wait_until(lambda ids=ids: noted(ids))

    endings = told(both)
    expected = {(one, both.execution(one).end_time) for one in all_of_them}
    assert len(expected) >= 50
    assert set(endings) == expected
    # A kill between the event and the cursor repeats it, and nothing else does.
    repeats = len(endings) - len(expected)
    record_property("summary", ("endings", f"{len(expected)} endings, {repeats} told twice"))
    assert repeats > 0

    def used() -> set[str]:
        runs = [run for run in both.runs(DAG_ID) if run["state"] == "success"]
        return {one for run in runs for one in both.airflow.xcom(DAG_ID, run["dag_run_id"], "use")}

    both.wait_until(lambda: used() == all_of_them)
