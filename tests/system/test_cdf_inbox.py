"""CDF drives Airflow: executions that CDF starts, and an inbox that takes up their tasks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Cluster

from airflow_provider_cdf.emulator.rules.definitions import WorkflowDefinition
from airflow_provider_cdf.hooks.cdf import CdfHook

pytestmark = pytest.mark.long

#: The workflow that each inbox looks at.
WORKFLOWS = {"inbox": "asks_the_inbox", "bell": "rings_the_bell"}


@pytest.fixture(scope="module")
def hook(cluster: Cluster) -> Any:
    """CDF itself, as far as these tests are: it starts the executions."""
    patch = pytest.MonkeyPatch()
    patch.setenv("AIRFLOW_CONN_CDF_DEFAULT", cluster.cdf.airflow_connection_uri())
    hook = CdfHook()
    task = {
        "externalId": "score",
        "type": "function",
        "parameters": {
            "function": {"externalId": "ask_airflow", "data": {"number": "${workflow.input.number}"}},
            "isAsyncComplete": True,
        },
        "retries": 0,
    }
    with cluster.cdf.turn() as engine:
        for workflow in WORKFLOWS.values():
            engine.catalog.upsert_version(workflow, "1", WorkflowDefinition.model_validate({"tasks": [task]}))
    yield hook
    patch.undo()


def pause(cluster: Cluster, dag_id: str, is_paused: bool) -> None:
    wait_until(cluster, lambda: cluster.airflow._is_parsed(dag_id))
    cluster.airflow.api("PATCH", f"/dags/{dag_id}", json={"is_paused": is_paused})


def wait_until(cluster: Cluster, happened: Callable[[], Any], seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := happened()):
        cluster.airflow.check()
        assert time.monotonic() < deadline, [
            (run["dag_run_id"], run["state"]) for run in runs(cluster) if run["state"] != "success"
        ]
        time.sleep(0.5)
    return result


def begin(hook: CdfHook, inbox: str, numbers: range) -> dict[str, int]:
    """Start executions; return their numbers by id."""
    workflow = WORKFLOWS[inbox]
    return {hook.run_workflow(workflow, "1", input={"number": number}).id: number for number in numbers}


def statuses(hook: CdfHook, ids: Any) -> set[str]:
    return {str(one.status) for one in hook.list_executions() if one.id in ids}


def runs(cluster: Cluster, inbox: str) -> list[dict[str, Any]]:
    return list(cluster.airflow._pages(f"/dags/{inbox}_work/dagRuns", "dag_runs"))


def of(cluster: Cluster, inbox: str, ids: Any) -> list[dict[str, Any]]:
    return [run for run in runs(cluster, inbox) if run["conf"]["execution_id"] in ids]


def switch(cluster: Cluster, inbox: str, *, is_on: bool = True, works: bool = True) -> None:
    pause(cluster, f"{inbox}_work", not works)
    pause(cluster, inbox, not is_on)


@pytest.fixture(params=list(WORKFLOWS))
def inbox(request: pytest.FixtureRequest) -> str:
    """The inbox with a schedule, and the one with a watcher."""
    return str(request.param)


def test_thirty_executions_give_thirty_runs_and_all_complete(
    cluster: Cluster, hook: CdfHook, inbox: str
) -> None:
    switch(cluster, inbox)
    ids = begin(hook, inbox, range(10))

    def some_have_begun() -> bool:
        return len(of(cluster, inbox, ids)) > 5

    for tens in (1, 2):
        if inbox == "bell":
            # Whatever the triggerer was about to tell is lost with it.
            cluster.airflow.kill("triggerer")
            cluster.airflow.start("triggerer")
        ids.update(begin(hook, inbox, range(10 * tens, 10 * tens + 10)))
        wait_until(cluster, some_have_begun)
    wait_until(cluster, lambda: statuses(hook, ids) == {"COMPLETED"}, 900)

    assert len(of(cluster, inbox, ids)) == 30
    assert {run["logical_date"] for run in of(cluster, inbox, ids)} == {None}
    for execution_id, number in ids.items():
        (score,) = hook.get_execution(execution_id).executed_tasks
        assert score.output["number"] == number
    # The inbox goes on looking, and finds nothing more.
    time.sleep(15)
    assert len(of(cluster, inbox, ids)) == 30


def test_what_waits_while_the_inbox_is_paused_is_taken_up(
    cluster: Cluster, hook: CdfHook, inbox: str
) -> None:
    switch(cluster, inbox, is_on=False)
    ids = begin(hook, inbox, range(3))
    wait_until(
        cluster,
        lambda: all(
            [str(task.status) for task in hook.get_execution(one).executed_tasks] == ["IN_PROGRESS"]
            for one in ids
        ),
    )
    switch(cluster, inbox)
    wait_until(cluster, lambda: statuses(hook, ids) == {"COMPLETED"}, 600)
    assert len(of(cluster, inbox, ids)) == 3


def test_runs_of_a_paused_dag_queue_until_it_is_not(cluster: Cluster, hook: CdfHook, inbox: str) -> None:
    switch(cluster, inbox, works=False)
    ids = begin(hook, inbox, range(3))
    wait_until(cluster, lambda: [run["state"] for run in of(cluster, inbox, ids)] == ["queued"] * 3)
    assert statuses(hook, ids) == {"RUNNING"}
    switch(cluster, inbox)
    wait_until(cluster, lambda: statuses(hook, ids) == {"COMPLETED"}, 600)
    assert len(of(cluster, inbox, ids)) == 3


def test_endings_are_told_at_least_once_over_kills_of_the_triggerer(cluster: Cluster, hook: CdfHook) -> None:
    pause(cluster, "cdf_after_workflow", False)
    # What ends before the watcher has looked once is not told.
    time.sleep(30)
    ids: set[str] = set()

    def have_ended() -> bool:
        return statuses(hook, ids) == {"COMPLETED"}

    for _ in range(3):
        ids.update(hook.run_workflow("tank_balance", "1", input={"site": "north"}).id for _ in range(3))
        wait_until(cluster, have_ended)
        cluster.airflow.kill("triggerer")
        cluster.airflow.start("triggerer")

    def told() -> list[str]:
        found = []
        for run in cluster.airflow._pages("/dags/cdf_after_workflow/dagRuns", "dag_runs"):
            if run["state"] == "success":
                found += cluster.airflow.xcom("cdf_after_workflow", run["dag_run_id"], "use")
        return found

    wait_until(cluster, lambda: ids <= set(told()), 600)
