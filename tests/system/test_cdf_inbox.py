"""CDF drives Airflow: executions that CDF starts, and an inbox that takes up their tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from inboxes import WORKFLOWS, Inboxes, inboxes

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inboxes]:
    with inboxes(tmp_path_factory.mktemp("dags")) as running:
        yield running


@pytest.fixture(params=list(WORKFLOWS))
def inbox(request: pytest.FixtureRequest) -> str:
    """The inbox with a schedule, and the one with a watcher."""
    return str(request.param)


def thirty(both: Inboxes, inbox: str, triggerers: list[str]) -> None:
    """Start thirty executions, lose triggerers on the way, and see one DAG run for each."""
    both.switch(inbox)
    ids = both.begin(inbox, range(10))
    for tens in (1, 2):
        both.wait_until(lambda: len(both.runs(f"{inbox}_work", ids)) > 5)
        # Whatever it was about to tell is lost with it.
        for name in triggerers:
            both.airflow.kill(name)
        ids.update(both.begin(inbox, range(10 * tens, 10 * tens + 10)))
        for name in triggerers:
            both.airflow.start(name)
    both.wait_until(lambda: both.have_completed(ids))

    # The inbox goes on looking, and finds nothing more.
    looks = len(both.runs(inbox))
    if inbox == "inbox":
        both.wait_until(lambda: len(both.runs(inbox)) > looks + 1)
    else:
        time.sleep(15)  # more than a poll of the watcher, which would start a second run of something
    runs = both.runs(f"{inbox}_work", ids)
    assert sorted(run["conf"]["execution_id"] for run in runs) == sorted(ids)
    assert {run["logical_date"] for run in runs} == {None}
    for execution_id, number in ids.items():
        assert both.score(execution_id).output["number"] == number
    requests = both.cdf.journal.requests("POST", "*/tasks/*/update")
    assert len([one for one in requests if one.status == 200]) >= 30


# First, while the other Airflow does not run yet.
def test_thirty_executions_give_thirty_runs_with_two_triggerers(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with inboxes(tmp_path_factory.mktemp("dags"), triggerers=2) as both:
        # Each in turn; the other one takes over what it watched.
        both.switch("bell")
        ids = both.begin("bell", range(10))
        for tens, name in ((1, "triggerer-1"), (2, "triggerer-2")):
            both.wait_until(lambda: len(both.runs("bell_work", ids)) > 5)
            both.airflow.kill(name)
            ids.update(both.begin("bell", range(10 * tens, 10 * tens + 10)))
            both.airflow.start(name)
        both.wait_until(lambda: both.have_completed(ids))
        time.sleep(15)  # more than a poll of the watcher, which would start a second run of something
        runs = both.runs("bell_work", ids)
        assert sorted(run["conf"]["execution_id"] for run in runs) == sorted(ids)
        # And with none left that knew anything.
        thirty(both, "bell", ["triggerer-1", "triggerer-2"])


def test_thirty_executions_give_thirty_runs_and_all_complete(both: Inboxes, inbox: str) -> None:
    thirty(both, inbox, ["triggerer-1"] if inbox == "bell" else [])


def test_what_waits_while_the_inbox_is_paused_is_taken_up(both: Inboxes, inbox: str) -> None:
    both.switch(inbox, is_on=False)
    ids = both.begin(inbox, range(3))
    both.wait_until(lambda: all((score := both.score(one)) and score.status == "IN_PROGRESS" for one in ids))
    assert both.runs(f"{inbox}_work", ids) == []
    both.switch(inbox)
    both.wait_until(lambda: both.have_completed(ids))
    assert len(both.runs(f"{inbox}_work", ids)) == 3


def test_runs_of_a_paused_dag_queue_until_it_is_not(both: Inboxes, inbox: str) -> None:
    both.switch(inbox, works=False)
    ids = both.begin(inbox, range(3))
    both.wait_until(lambda: [run["state"] for run in both.runs(f"{inbox}_work", ids)] == ["queued"] * 3)
    assert both.statuses(ids) == {"RUNNING"}
    both.switch(inbox)
    both.wait_until(lambda: both.have_completed(ids))
    assert len(both.runs(f"{inbox}_work", ids)) == 3


def test_a_failing_function_fails_the_execution_and_says_why_with_a_link(both: Inboxes, inbox: str) -> None:
    both.switch(inbox)
    (execution_id,) = both.begin(inbox, [-1])
    both.wait_until(lambda: both.statuses([execution_id]) == {"FAILED"})

    score = both.score(execution_id)
    told = score.output["airflow"]
    assert score.status == "FAILED_WITH_TERMINAL_ERROR"
    assert told["error"] == {"type": "ValueError", "message": "-1 is no reading"}
    assert told["run_id"] == f"cdf__{score.id}"
    (run,) = both.runs(f"{inbox}_work", {execution_id})
    assert both.airflow.wait_for_dag_run(f"{inbox}_work", run["dag_run_id"]) == "failed"
    # The link leads to the DAG run, and that of the failed task to its log.
    assert told["url"] == f"{both.airflow.url}/dags/{inbox}_work/runs/{run['dag_run_id']}"
    assert told["failed_tasks"][0]["url"] == f"{told['url']}/tasks/judge"


def test_the_example_with_a_watcher_does_the_work(both: Inboxes) -> None:
    both.pause("cdf_inbox_work", False)
    both.pause("cdf_inbox_watched", False)
    execution_id = both.start("pump_health", {"pump": "P-101"})
    both.wait_until(lambda: both.have_completed([execution_id]))
    assert both.score(execution_id).output["risk"] == 0.72
