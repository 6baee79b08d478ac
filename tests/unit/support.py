"""What the unit tests do to the emulator and to operators, without this package's client."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from traceback import format_exception
from types import SimpleNamespace
from typing import Any

import httpx
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.operators.airflow_urls import task_url


def function_task(external_id: str, *, waits: bool = False, **more: Any) -> dict[str, Any]:
    """Define a function task; one that waits stays IN_PROGRESS until somebody reports its end."""
    return {
        "externalId": external_id,
        "type": "function",
        "parameters": {
            "function": {"externalId": external_id, "data": {"pump": "${workflow.input.pump}"}},
            "isAsyncComplete": waits,
        },
        "retries": 0,
        **more,
    }


class Project:
    """
    The emulator's project, asked over HTTP and without this package's client.

    :param cdf: the emulator.
    """

    def __init__(self, cdf: CdfEmulator) -> None:
        form = {
            "grant_type": "client_credentials",
            "client_id": cdf.client_id,
            "client_secret": cdf.client_secret,
        }
        token = httpx.post(cdf.token_url, data=form, timeout=60).raise_for_status().json()["access_token"]
        self._http = httpx.Client(
            base_url=f"{cdf.url}/api/v1/projects/{cdf.project}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,  # however busy this machine is
        )
        self._cdf = cdf

    def post(self, path: str, body: Any) -> Any:
        return self._http.post(path, json=body).raise_for_status().json()

    def define(self, *tasks: dict[str, Any], version: str = "1") -> str:
        """Make a workflow of these tasks and return its external id, new each time."""
        external_id = f"workflow-{uuid.uuid4().hex[:8]}"
        item = {"workflowExternalId": external_id, "version": version, "workflowDefinition": {"tasks": tasks}}
        self.post("/workflows/versions", {"items": [item]})
        return external_id

    def nonce(self) -> str:
        """Open a session."""
        credentials = {"clientId": self._cdf.client_id, "clientSecret": self._cdf.client_secret}
        nonce = self.post("/sessions", {"items": [credentials]})["items"][0]["nonce"]
        assert isinstance(nonce, str)
        return nonce

    def run(self, workflow: str, version: str = "1", **body: Any) -> str:
        """Start an execution and return its id."""
        body = {"authentication": {"nonce": self.nonce()}, "input": {"pump": "P-101"}, **body}
        return self.post(f"/workflows/{workflow}/versions/{version}/run", body)["id"]

    def execution(self, execution_id: str) -> dict[str, Any]:
        return self._http.get(f"/workflows/executions/{execution_id}").raise_for_status().json()

    def executions(self, workflow: str) -> list[dict[str, Any]]:
        body = {"filter": {"workflowFilters": [{"externalId": workflow}]}}
        return self.post("/workflows/executions/list", body)["items"]

    def task(self, execution_id: str, external_id: str, status: str = "IN_PROGRESS") -> dict[str, Any]:
        """Return a task of an execution, as soon as it is in a status."""
        for _ in range(200):
            tasks = self.execution(execution_id)["executedTasks"]
            for task in tasks:
                if task["externalId"] == external_id and task["status"] == status:
                    return task
            time.sleep(0.02)
        raise AssertionError(f"{external_id} is not {status}: {tasks}")

    def update(self, task_id: str, status: str, output: dict[str, Any] | None = None) -> None:
        self.post(f"/workflows/tasks/{task_id}/update", {"status": status, "output": output or {}})

    def cancel(self, execution_id: str, reason: str = "cancelled") -> None:
        self.post(f"/workflows/executions/{execution_id}/cancel", {"reason": reason})


@dataclass
class FakeTaskInstance:
    """What operators use of a task instance, outside of a running Airflow."""

    dag_id: str = "plant"
    # Of each one's own: executions are found by it, and the tests share a project.
    run_id: str = field(default_factory=lambda: f"manual__{uuid.uuid4()}")
    task_id: str = "task"
    map_index: int = -1
    max_tries: int = 0
    try_number: int = 1
    hostname: str = ""
    start_date: datetime = field(default_factory=lambda: datetime.now(UTC))
    states: dict[str, dict[str, str]] = field(default_factory=dict)
    xcoms: dict[str, Any] = field(default_factory=dict)
    #: When its DAG run began, which tells it from one of the same name.
    run_began: datetime = field(default_factory=lambda: datetime.now(UTC))
    #: That of the first try: each try has an id of its own.
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def id(self) -> str:
        return f"{self.uuid}-{self.try_number}"

    @property
    def dag_run(self) -> Any:
        """What Airflow 2 is asked instead of :meth:`get_task_states`."""
        found = [
            SimpleNamespace(
                task_id=task_id,
                map_index=index,
                state=state,
                try_number=None,
                log_url=task_url(self, task_id, index),
            )
            for (task_id, index), state in self.by_task_and_index().items()
        ]
        return SimpleNamespace(get_task_instances=lambda: found)

    def by_task_and_index(self) -> dict[tuple[str, int], str]:
        """Return the states of the DAG run's task instances."""
        return {
            (task_id, -1 if key == task_id else int(key.removeprefix(f"{task_id}_"))): state
            for task_id, states in self.states.items()
            for key, state in states.items()
        }

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key)

    def get_first_reschedule_date(self, context: Any) -> datetime | None:
        return None

    def get_task_states(
        self, *, dag_id: str, run_ids: list[str], task_ids: list[str] | None = None
    ) -> dict[str, Any]:
        wanted = self.states if task_ids is None else {each: self.states.get(each, {}) for each in task_ids}
        return {self.run_id: {key: state for states in wanted.values() for key, state in states.items()}}


def run_to_end(operator: Any, context: dict[str, Any]) -> Any:
    """Execute an operator as Airflow does: when it defers, run its trigger and resume it with the event."""
    try:
        return operator.execute(context)
    except TaskDeferred as deferred:
        while True:
            event = asyncio.run(first_event(deferred.trigger))
            next_kwargs = {**(deferred.kwargs or {}), "event": event}
            try:
                return operator.resume_execution(deferred.method_name, next_kwargs, context)
            except TaskDeferred as again:
                deferred = again


def broken(error: Exception) -> tuple[str, dict[str, Any]]:
    """Return what Airflow resumes a task with whose trigger has raised an error."""
    try:
        raise error
    except type(error):
        return "__fail__", {"error": "Trigger failure", "traceback": format_exception(error)}


async def first_event(trigger: Any) -> Any:
    """Run a trigger and return the payload of its one event."""
    events = [event.payload async for event in trigger.run()]
    assert len(events) == 1, events
    return events[0]


def call(notifier: Any, context: Any) -> None:
    """
    Call a notifier as Airflow does, and raise what it raises.

    Airflow 2.11 logs that, and goes on.
    """
    notify, raised = notifier.notify, []

    def noting(context: Any) -> None:
        try:
            notify(context)
        except Exception as error:
            raised.append(error)
            raise

    notifier.notify = noting
    notifier(context)
    if raised:
        raise raised[0]
