"""
Many CDF tasks begin to wait at once: how long until Airflow works on each, and what it asks CDF meanwhile.

    pytest tests/system/test_inbox_crowd.py -m long -s                  # 200; half an hour
    INBOX_CROWD=20 pytest tests/system/test_inbox_crowd.py -m long -s

The same is measured of a plain DAG that asks every minute. What it prints is in docs/performance.md.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from inboxes import WORKFLOWS, Inboxes, inboxes

from airflow_provider_cdf.emulator import CdfEmulator

pytestmark = pytest.mark.long

CROWD = int(os.environ.get("INBOX_CROWD", "200"))
TITLE = f"{CROWD} CDF tasks begin to wait at once"
#: By the DAG that looks for them, the DAG whose task ``judge`` does the work.
WAYS = {"bell": "bell_work", "inbox": "inbox_work", "every_minute": "every_minute"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inboxes]:
    cdf = CdfEmulator(max_concurrent_executions=10_000)
    env = {"BELL_INTERVAL": "10", "INBOX_EVERY": "60", "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "64"}
    with inboxes(tmp_path_factory.mktemp("dags"), cdf=cdf, **env) as running:
        yield running


def starts(both: Inboxes, way: str) -> dict[str, float]:
    """Return when the work on each CDF task began for the first time, by the id of the task or execution."""
    begun: dict[str, float] = {}
    dag_id = WAYS[way]
    for one in both.airflow._pages(f"/dags/{dag_id}/dagRuns/~/taskInstances", "task_instances"):
        if one["task_id"] != "judge" or one["start_date"] is None:
            continue
        key = one["dag_run_id"] if dag_id.endswith("_work") else f"{one['dag_run_id']}/{one['map_index']}"
        began = datetime.fromisoformat(one["start_date"]).timestamp()
        begun[key] = min(began, begun.get(key, began))
    return begun


@pytest.mark.parametrize("way", WAYS)
def test_all_of_a_crowd_are_taken_up(
    both: Inboxes, way: str, record_property: Callable[[str, object], None]
) -> None:
    if way in WORKFLOWS:
        both.pause(WAYS[way], False)
    both.pause(way, False)
    # The first run, or the watcher's first look.
    if way == "bell":
        both.wait_until(lambda: both.cdf.journal.count("POST", "*/executions/list"))
    else:
        both.wait_until(lambda: any(run["state"] == "success" for run in both.runs(way)))
    both.cdf.journal.clear()
    began = time.monotonic()
    workflow = WORKFLOWS.get(way, "asks_every_minute")
    ids = {both.start(workflow, {"number": number}): number for number in range(CROWD)}
    both.wait_until(lambda: both.have_completed(ids), 3600)
    seconds = time.monotonic() - began
    both.pause(way, True)

    scores = [both.score(one) for one in ids]
    assert sorted(score.output["number"] for score in scores) == list(range(CROWD))
    begun = starts(both, way)
    if way in WORKFLOWS:
        assert begun.keys() == {f"cdf__{score.id}" for score in scores}
        delays = sorted(begun[f"cdf__{score.id}"] - score.start_time / 1000 for score in scores)
    else:
        # Which mapped task had which is of no interest: the first to begin had one of the first.
        waited = sorted(score.start_time / 1000 for score in scores)
        delays = sorted(one - since for one, since in zip(sorted(begun.values()), waited, strict=True))
    median, p95 = statistics.median(delays), delays[int(0.95 * (len(delays) - 1))]
    counts = {
        "lists": both.cdf.journal.count("POST", "*/executions/list"),
        "reads": both.cdf.journal.count("GET", "*/executions/*"),
        "reports": both.cdf.journal.count("POST", "*/update"),
    }
    line = (
        f"{way:12} delay: first {delays[0]:.0f} s, median {median:.0f} s, p95 {p95:.0f} s, last "
        f"{delays[-1]:.0f} s; all done after {seconds:.0f} s; {counts}; load {os.getloadavg()[0]:.0f}"
    )
    print(line, flush=True)
    record_property("summary", (TITLE, line))
    assert counts["reports"] >= CROWD


def test_what_nothing_to_do_costs(both: Inboxes, record_property: Callable[[str, object], None]) -> None:
    """A watcher asks once per interval, however many workflows it could be about."""
    both.pause("bell", False)
    both.wait_until(lambda: both.cdf.journal.count("POST", "*/executions/list"))
    both.cdf.journal.clear()
    both.wait_until(lambda: both.cdf.journal.count("POST", "*/executions/list") >= 4)
    requests: list[Any] = both.cdf.journal.requests("*", "*/workflows/*")
    lists = [one for one in requests if one.path.endswith("/executions/list")]
    pauses = [(b.time - a.time) / 1000 for a, b in itertools.pairwise(lists)]
    assert len(requests) == len(lists)
    assert min(pauses) >= 8.5  # 10 s, less 10 %, and what the emulator takes
    record_property("summary", (TITLE, f"nothing waits: a request every {statistics.mean(pauses):.0f} s"))
