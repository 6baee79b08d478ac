"""Short ways to write workflows and to watch them in tests of the emulator."""

from __future__ import annotations

from typing import Any

from airflow_provider_cdf.emulator import ManualClock, Pace
from airflow_provider_cdf.emulator.rules.definitions import WorkflowDefinition
from airflow_provider_cdf.emulator.rules.engine import Engine
from airflow_provider_cdf.emulator.rules.functions import Functions
from airflow_provider_cdf.emulator.rules.store import Execution, TaskExecution


def function(external_id: str, *after: str, is_async: bool = False, **keys: Any) -> dict[str, Any]:
    """A function task, which calls the function of the same name, that depends on others."""
    call = {"externalId": keys.pop("calls", external_id), "data": keys.pop("data", {})}
    return {
        "externalId": external_id,
        "type": "function",
        "parameters": {"function": call, "isAsyncComplete": is_async},
        "dependsOn": [{"externalId": other} for other in after],
        **keys,
    }


def task(
    external_id: str, task_type: str, parameters: dict[str, Any], *after: str, **keys: Any
) -> dict[str, Any]:
    """A task of any type that depends on others."""
    depends_on = [{"externalId": other} for other in after]
    return {
        "externalId": external_id,
        "type": task_type,
        "parameters": parameters,
        "dependsOn": depends_on,
        **keys,
    }


class World:
    """An engine with a clock that stands still."""

    def __init__(self, functions: dict[str, Any] | None = None, **options: Any) -> None:
        self.clock = ManualClock()
        self.pace = Pace()
        self.engine = Engine(
            self.clock,
            Functions(functions),
            Functions(options.pop("cdf_requests", None)),
            pace=self.pace,
            **options,
        )

    def define(self, *tasks: dict[str, Any], workflow: str = "wf", version: str = "1") -> None:
        definition = WorkflowDefinition.model_validate({"tasks": list(tasks)})
        self.engine.catalog.upsert_version(workflow, version, definition)

    def run(self, *tasks: dict[str, Any], **keys: Any) -> Execution:
        """Start a workflow of these tasks, or the one that was defined before."""
        if tasks:
            self.define(*tasks)
        return self.engine.run("wf", "1", **keys)

    def advance(self, seconds: float = 0) -> None:
        self.clock.advance(seconds)
        self.engine.advance()


def attempts(execution: Execution, external_id: str) -> list[TaskExecution]:
    return [attempt for attempt in execution.tasks() if attempt.external_id == external_id]


def statuses(execution: Execution) -> dict[str, str]:
    """External id -> status of its latest attempt."""
    return {attempt.external_id: attempt.status for attempt in execution.tasks()}


def only(execution: Execution, external_id: str) -> TaskExecution:
    (attempt,) = attempts(execution, external_id)
    return attempt
