"""CDF cancels an execution while its DAG run goes on: function and group notice, end, and say why."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inboxes import Inboxes, inboxes

from airflow_provider_cdf.demo.local_airflow import LocalAirflowError
from airflow_provider_cdf.emulator import Reply
from airflow_provider_cdf.emulator.rules.definitions import WorkflowDefinition

pytestmark = pytest.mark.long

REASON = "shift change"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inboxes]:
    def function(name: str, does: str, **more: Any) -> dict[str, Any]:
        parameters = {"function": {"externalId": does}, "isAsyncComplete": name == "score"}
        return {"externalId": name, "type": "function", "parameters": parameters, "retries": 0, **more}

    workflows = {
        "waits_at_once": [function("score", "ask_airflow")],
        "reads_for_hours": [
            function("read", "reads_for_hours", timeout=7200),
            function("score", "ask_airflow", dependsOn=[{"externalId": "read"}]),
        ],
    }
    with inboxes(tmp_path_factory.mktemp("dags")) as running:
        running.cdf.set_function("reads_for_hours", Reply(seconds=3600))
        for workflow, tasks in workflows.items():
            with running.cdf.turn() as engine:
                definition = WorkflowDefinition.model_validate({"tasks": tasks})
                engine.catalog.upsert_version(workflow, "1", definition)
        yield running


class Work:
    """A DAG run that works, or waits, for an execution."""

    def __init__(self, both: Inboxes, folder: Path, dag_id: str, workflow: str) -> None:
        self.both, self.dag_id = both, dag_id
        self.execution_id = both.start(workflow, {})
        self.began, self.let_go = folder / "began", folder / "let_go"
        conf = {
            "execution_id": self.execution_id,
            "began": str(self.began),
            "let_go": str(self.let_go),
        }
        self.run_id = both.airflow.trigger_dag(dag_id, conf=conf, timeout=300)

    def task(self, task_id: str) -> dict[str, Any]:
        tasks = self.both.airflow.task_instances(self.dag_id, self.run_id)
        return next(one for one in tasks if one["task_id"] == task_id)

    def log(self, task_id: str) -> str:
        logs = []
        for number in range(1, self.task(task_id)["try_number"] + 1):
            # On a busy machine, Airflow counts tries that did not even start, and has no log of them.
            with contextlib.suppress(LocalAirflowError):
                logs.append(self.both.airflow.task_log(self.dag_id, self.run_id, task_id, number))
        return "\n".join(logs)

    def looks(self) -> int:
        return self.both.cdf.journal.count("GET", f"*/executions/{self.execution_id}")

    def cancel(self) -> None:
        self.both.cancel(self.execution_id, REASON)

    def wait_for_end(self) -> str:
        return str(self.both.airflow.wait_for_dag_run(self.dag_id, self.run_id, timeout=600))


@pytest.mark.parametrize(
    ("dag_id", "task_id"),
    [("cancelled_function", "judge"), ("cancelled_group", "score.waits")],
    ids=["function", "group"],
)
def test_where_it_waits_it_is_noticed_by_the_next_poll(
    both: Inboxes, tmp_path: Path, dag_id: str, task_id: str
) -> None:
    work = Work(both, tmp_path, dag_id, "reads_for_hours")
    both.wait_until(lambda: work.task(task_id)["state"] == "deferred")
    # Its triggerer polls.
    looks = work.looks()
    both.wait_until(lambda: work.looks() > looks + 1)
    work.cancel()
    looks = work.looks()

    assert work.wait_for_end() == "failed"
    task = work.task(task_id)
    assert (task["state"], work.began.exists()) == ("failed", False)
    assert REASON in work.log(task_id)
    # The poll, the worker's look, and what the report or the callback of the failure asks: none waits.
    assert work.looks() - looks <= 6
    assert str(both.execution(work.execution_id).status) == "TERMINATED"


def test_a_function_that_asks_ends_by_itself(both: Inboxes, tmp_path: Path) -> None:
    work = Work(both, tmp_path, "cancelled_asking_function", "waits_at_once")
    both.wait_until(work.began.exists)
    work.cancel()

    assert work.wait_for_end() == "failed"
    says = work.log("asks")
    assert "already ended CANCELED" in says
    assert REASON in says


@pytest.mark.parametrize(
    ("dag_id", "task_id"),
    [("cancelled_function", "judge"), ("cancelled_group", "score.report")],
    ids=["function", "group"],
)
def test_where_it_works_the_report_notices(both: Inboxes, tmp_path: Path, dag_id: str, task_id: str) -> None:
    work = Work(both, tmp_path, dag_id, "waits_at_once")
    both.wait_until(work.began.exists)
    work.cancel()
    work.let_go.touch()

    assert work.wait_for_end() == "failed"
    assert work.task(task_id)["state"] == "failed"
    says = work.log(task_id)
    assert "already ended CANCELED" in says
    assert REASON in says
    # What Airflow has worked out reaches no task of CDF that has ended.
    assert "risk" not in both.score(work.execution_id).output
    assert str(both.execution(work.execution_id).status) == "TERMINATED"
