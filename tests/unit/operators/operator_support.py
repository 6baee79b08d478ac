"""What the tests of the run operator share: what Airflow hands to a task, and a stopped clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import DAG
from support import FakeTaskInstance, Project

from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.operators.identity import Try
from airflow_provider_cdf.operators.workflow import CdfWorkflowRunOperator


class Store(dict[str, Any]):
    """Airflow's store of task states, as far as it is used; it refuses to keep anything for an orphan."""

    is_of_an_orphan = False

    def set(self, key: str, value: Any) -> None:
        if self.is_of_an_orphan:
            raise RuntimeError("There is no such task instance.")
        self[key] = value


def context(
    ti: FakeTaskInstance, operator: Any = None, *, store: Store | None = None, clears: int = 0, **more: Any
) -> Any:
    """
    Return what Airflow hands to a task, as far as it is used.

    :param store: of task states; without one it is an Airflow below 3.3, or a callback.
    :param clears: how often tasks of the DAG run have been cleared.
    """
    dag_run = SimpleNamespace(
        run_after=ti.run_began, start_date=ti.run_began, conf={}, clear_number=clears, run_id=ti.run_id
    )
    context = {
        "ti": ti,
        "task": operator,
        "dag": operator.get_dag() if operator is not None else None,
        "dag_run": dag_run,
        "run_id": ti.run_id,
        **more,
    }
    return context if store is None else {**context, "task_state_store": store}


def make(workflow: str, ti: FakeTaskInstance, **arguments: Any) -> CdfWorkflowRunOperator:
    """Make a run operator that waits for nothing, unless told to."""
    arguments = {"version": "1", "wait_for_completion": False, "poll_interval": 0.05, **arguments}
    with DAG(ti.dag_id):
        return CdfWorkflowRunOperator(task_id=ti.task_id, workflow_external_id=workflow, **arguments)


def run(
    workflow: str, ti: FakeTaskInstance, *, store: Store | None = None, clears: int = 0, **arguments: Any
) -> Any:
    """Let one try start its execution, or find it."""
    operator = make(workflow, ti, **arguments)
    return operator.execute(context(ti, operator, store=store, clears=clears))


def key(ti: FakeTaskInstance, airflow_name: str | None = None) -> str:
    """Return the key of a logical run."""
    return str(Try.of(context(ti), airflow_name).key)


def statuses(project: Project, workflow: str) -> list[str]:
    """Return the statuses of all executions of a workflow, sorted."""
    return sorted(execution["status"] for execution in project.executions(workflow))


def end_badly(project: Project, execution_id: str) -> None:
    """Let the only task of an execution, ``approve``, fail, and with it the execution."""
    end(project, execution_id, "FAILED")


def end(project: Project, execution_id: str, status: str = "COMPLETED") -> None:
    """Report the end of the only task of an execution, ``approve``, and with it that of the execution."""
    project.update(project.task(execution_id, "approve")["id"], status)
    wait_until(lambda: project.execution(execution_id)["status"] == status)


def wait_until(happened: Callable[[], Any]) -> Any:
    """Wait, in real time, until something is true, and return it."""
    for _ in range(500):
        if result := happened():
            return result
        time.sleep(0.02)
    raise AssertionError("It did not happen")


class Time:
    """
    A clock that only pauses move; the emulator's goes with it.

    :param cdf: an emulator with a stopped clock.
    """

    def __init__(self, cdf: CdfEmulator) -> None:
        self.cdf = cdf
        self.began = self.seconds = 1000.0
        self._plans: list[tuple[float, Callable[[], Any]]] = []

    @property
    def passed(self) -> float:
        """Seconds since the test began."""
        return self.seconds - self.began

    def after(self, seconds: float, what: Callable[[], Any]) -> None:
        """Plan what is to happen in a pause, some seconds from now."""
        self._plans.append((self.seconds + seconds, what))

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        until = self.seconds + seconds
        while due := sorted((plan for plan in self._plans if plan[0] <= until), key=lambda plan: plan[0]):
            at, what = due[0]
            self._plans.remove(due[0])
            self._move_to(at)
            what()
        self._move_to(until)

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)

    def _move_to(self, seconds: float) -> None:
        if seconds > self.seconds:
            self.cdf.advance(seconds - self.seconds)
            self.seconds = seconds


def when_sending(
    operator: CdfWorkflowRunOperator,
    ending: str,
    what: Callable[[], Any],
    *,
    after: bool = False,
    polling: bool = False,
) -> None:
    """
    Let something happen when an operator sends its next request to a path with some ending.

    :param after: whether the answer has come by then.
    :param polling: whether it is a look at an execution that the operator waits for.
    """
    client = (operator._poll_hook if polling else operator.hook).client
    send = client.send
    plans = [what]

    def sending(call: Any, **options: Any) -> Any:
        is_it = call.path.endswith(ending) and plans
        if is_it and not after:
            plans.pop()()
        answer = send(call, **options)
        if is_it and after:
            plans.pop()()
        return answer

    client.send = sending  # type: ignore[method-assign]
