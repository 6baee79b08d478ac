"""
Which graphs of tasks CDF accepts.

https://api-docs.cognite.com/20230101/tag/Workflow-versions/operation/CreateOrUpdateWorkflowVersion
"""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import TypeAdapter, ValidationError

from airflow_provider_cdf.emulator.rules.definitions import (
    MAX_TASKS,
    AnyTask,
    DynamicTask,
    InlineSubworkflow,
    SubworkflowTask,
    TaskDefinition,
    WorkflowDefinition,
)
from airflow_provider_cdf.emulator.rules.errors import InvalidRequestError, describe

#: Keys and indices that lead to a part of a request.
Location = tuple[int | str, ...]
_TASK_LIST = TypeAdapter(list[TaskDefinition])


def check_definition(definition: WorkflowDefinition) -> None:
    """
    Refuse a definition that no engine could run.

    :param definition: a definition whose fields are valid
    :raises InvalidRequestError: naming the task at fault
    """
    check_graph(definition.tasks, "workflowDefinition.tasks", ("workflowDefinition", "tasks"))
    for index, task in enumerate(definition.tasks):
        if isinstance(task, SubworkflowTask) and isinstance(
            inline := task.parameters.subworkflow, InlineSubworkflow
        ):
            where = f"workflowDefinition.tasks[{index}].parameters.subworkflow.tasks"
            location = ("workflowDefinition", "tasks", index, "parameters", "subworkflow", "tasks")
            check_graph(inline.tasks, where, location)
            check_not_nested(inline.tasks, f"subworkflow task '{task.external_id}'", location)


def check_graph(tasks: Iterable[AnyTask], where: str, location: Location = ()) -> None:
    """
    Refuse tasks with the same external id, unknown dependencies and cycles.

    :param tasks: tasks that may depend on each other and on no others
    :param where: their place in the request, for the message
    :param location: the way to them in the request
    :raises InvalidRequestError: naming the task at fault
    """
    graph: dict[str, list[str]] = {}
    for index, task in enumerate(tasks):
        if task.external_id in graph:
            raise InvalidRequestError(
                f"{where}: there are two tasks with the externalId '{task.external_id}'",
                location=(*location, index),
            )
        graph[task.external_id] = task.dependencies
    for index, (external_id, dependencies) in enumerate(graph.items()):
        for dependency in dependencies:
            if dependency not in graph:
                raise InvalidRequestError(
                    f"{where}: task '{external_id}' dependsOn '{dependency}', which does not exist",
                    location=(*location, index, "dependsOn"),
                )
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = error.args[1]
        raise InvalidRequestError(
            f"{where}: dependsOn has a cycle: {' -> '.join(reversed(cycle))}",
            location=(*location, list(graph).index(cycle[-1]), "dependsOn"),
        ) from None


def check_not_nested(tasks: Iterable[AnyTask], inside: str, location: Location = ()) -> None:
    """
    Refuse dynamic tasks and subworkflows inside another one: CDF nests one level deep.

    :param tasks: the tasks of a dynamic task or subworkflow
    :param inside: which one, for the message
    :param location: the way to these tasks in the request
    :raises InvalidRequestError: naming the task at fault
    """
    for index, task in enumerate(tasks):
        if isinstance(task, DynamicTask | SubworkflowTask):
            raise InvalidRequestError(
                f"The {inside} contains the {task.type} task '{task.external_id}':"
                " dynamic tasks and subworkflows cannot be nested",
                location=(*location, index),
            )


def parse_dynamic_tasks(value: Any, parent: str) -> list[AnyTask]:
    """
    The tasks that a dynamic task's reference resolved to.

    :param value: what it resolved to
    :param parent: external id of the dynamic task, for the message
    :raises InvalidRequestError: saying why they cannot be run
    """
    try:
        tasks = _TASK_LIST.validate_python(value)
    except ValidationError as error:
        raise InvalidRequestError(
            f"dynamic.tasks of '{parent}': {describe(error.errors()[0], value)}"
        ) from None
    if len(tasks) > MAX_TASKS:
        raise InvalidRequestError(
            f"dynamic.tasks of '{parent}' has {len(tasks)} tasks; the limit is {MAX_TASKS}"
        )
    check_graph(tasks, f"dynamic.tasks of '{parent}'")
    check_not_nested(tasks, f"dynamic task '{parent}'")
    return tasks
