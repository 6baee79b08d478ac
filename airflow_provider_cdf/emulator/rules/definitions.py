"""
Workflow definitions: what a task may look like, and which graphs of tasks CDF accepts.

https://api-docs.cognite.com/20230101/tag/Workflow-versions/operation/CreateOrUpdateWorkflowVersion
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from airflow_provider_cdf.emulator.rules.fields import (
    Absent,
    Description,
    ExternalId,
    JsonObject,
    Model,
    Reference,
    TaskExternalId,
    check_whole,
)

MAX_TASKS = 100


class CalledFunction(Model):
    external_id: Annotated[str, Field(max_length=255)]
    data: Absent[JsonObject | Reference] = None


class FunctionParameters(Model):
    function: CalledFunction
    is_async_complete: Absent[bool] = None


class TransformationRun(Model):
    external_id: Annotated[str, Field(max_length=255)]
    concurrency_policy: Absent[Literal["fail", "waitForCurrent", "restartAfterCurrent"]] = None
    use_transformation_credentials: Absent[bool] = None


class TransformationParameters(Model):
    transformation: TransformationRun


class CdfRequest(Model):
    resource_path: Annotated[str, Field(max_length=128)] | Reference
    # The API page knows three methods, the documentation's page DELETE as well.
    method: Literal["POST", "GET", "PUT", "DELETE"] | Reference
    query_parameters: Absent[
        Annotated[dict[str, Annotated[str, Field(max_length=50)]], Field(max_length=5)] | Reference
    ] = None
    body: Absent[JsonObject | Reference] = None
    request_timeout_in_millis: Absent[
        Annotated[int, Field(ge=100)] | Annotated[float, Field(ge=100)] | Reference
    ] = None
    cdf_version_header: Absent[Literal["alpha", "beta"]] = None


class CdfParameters(Model):
    cdf_request: CdfRequest


class DynamicTasks(Model):
    tasks: Reference


class DynamicParameters(Model):
    dynamic: DynamicTasks


class InlineSubworkflow(Model):
    tasks: Annotated[list[TaskDefinition], Field(min_length=1, max_length=MAX_TASKS)]


class SubworkflowReference(Model):
    workflow_external_id: ExternalId
    version: ExternalId


class SubworkflowParameters(Model):
    subworkflow: InlineSubworkflow | SubworkflowReference


class SimulationUnit(Model):
    name: Absent[str] = None


class SimulationInput(Model):
    reference_id: str
    value: (
        Annotated[str, Field(min_length=1, max_length=1024)]
        | int
        | float
        | Annotated[list[str], Field(min_length=1, max_length=200)]
        | Annotated[list[int | float], Field(min_length=1, max_length=200)]
    )
    unit: SimulationUnit | None = None


class SimulationRun(Model):
    routine_external_id: Annotated[str, Field(max_length=255)]
    run_time: int | None = None
    inputs: Absent[Annotated[list[SimulationInput], Field(max_length=200)]] = None


class SimulationParameters(Model):
    simulation: SimulationRun


class Dependency(Model):
    external_id: Annotated[str, Field(max_length=255)]


class _Task(Model):
    external_id: TaskExternalId
    name: Absent[Annotated[str, Field(max_length=255)]] = None
    description: Absent[Description] = None
    retries: (
        Annotated[int, Field(ge=0, le=10)] | Annotated[float, Field(ge=0, le=10), AfterValidator(check_whole)]
    ) = 3
    timeout: Annotated[int, Field(ge=100, le=43200)] | Annotated[float, Field(ge=100, le=43200)] = 3600
    on_failure: Literal["abortWorkflow", "skipTask"] = "abortWorkflow"
    depends_on: Annotated[list[Dependency], Field(max_length=100)] = []

    @property
    def dependencies(self) -> list[str]:
        return [dependency.external_id for dependency in self.depends_on]


class FunctionTask(_Task):
    type: Literal["function"]
    parameters: FunctionParameters


class TransformationTask(_Task):
    type: Literal["transformation"]
    parameters: TransformationParameters


class CdfTask(_Task):
    type: Literal["cdf"]
    parameters: CdfParameters


class DynamicTask(_Task):
    type: Literal["dynamic"]
    parameters: DynamicParameters


class SubworkflowTask(_Task):
    type: Literal["subworkflow"]
    parameters: SubworkflowParameters


class SimulationTask(_Task):
    type: Literal["simulation"]
    parameters: SimulationParameters


KNOWN_TYPES = ("function", "transformation", "cdf", "dynamic", "subworkflow", "simulation")


class UnknownTask(_Task):
    """A task of a type that CDF has, or will have, and the emulator has not: it is kept as it was given."""

    type: Annotated[str, Field(min_length=1, json_schema_extra={"not": {"enum": list(KNOWN_TYPES)}})]
    parameters: dict[str, Any] = {}


def _kind(value: Any) -> str | None:
    found = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if not isinstance(found, str):
        return None
    return found if found in KNOWN_TYPES else "unknown"


TaskDefinition = Annotated[
    Annotated[FunctionTask, Tag("function")]
    | Annotated[TransformationTask, Tag("transformation")]
    | Annotated[CdfTask, Tag("cdf")]
    | Annotated[DynamicTask, Tag("dynamic")]
    | Annotated[SubworkflowTask, Tag("subworkflow")]
    | Annotated[SimulationTask, Tag("simulation")]
    | Annotated[UnknownTask, Tag("unknown")],
    Discriminator(
        _kind,
        custom_error_type="task_type",
        custom_error_message=f"a task has a type: {', '.join(KNOWN_TYPES)}",
    ),
]
AnyTask = (
    FunctionTask | TransformationTask | CdfTask | DynamicTask | SubworkflowTask | SimulationTask | UnknownTask
)

InlineSubworkflow.model_rebuild()


class WorkflowDefinition(Model):
    """The tasks of a workflow version."""

    description: Absent[Description] = None
    tasks: Annotated[list[TaskDefinition], Field(max_length=MAX_TASKS)]


def unknown_tasks(definition: WorkflowDefinition) -> Iterator[tuple[tuple[int | str, ...], UnknownTask]]:
    """
    The tasks of types that the emulator does not have, with the way to each.

    :param definition: of a version
    """
    for index, task in enumerate(definition.tasks):
        location = ("workflowDefinition", "tasks", index)
        if isinstance(task, UnknownTask):
            yield location, task
        elif isinstance(task, SubworkflowTask) and isinstance(
            inline := task.parameters.subworkflow, InlineSubworkflow
        ):
            for number, nested in enumerate(inline.tasks):
                if isinstance(nested, UnknownTask):
                    yield (*location, "parameters", "subworkflow", "tasks", number), nested


def unknown_type_warning(task: UnknownTask) -> str:
    """
    What to tell about a task of a type that the emulator does not have.

    :param task: that it keeps
    """
    return (
        f"Task '{task.external_id}' has the type '{task.type}', which the emulator does not know: it is kept,"
        " and a run completes it after a moment without doing anything"
    )


#: What CDF fills in for a transformation task, by what the Toolkit takes off again before it compares.
_TRANSFORMATION_DEFAULTS = {"concurrencyPolicy": "fail", "useTransformationCredentials": False}


def to_json(model: Model) -> dict[str, Any]:
    """
    A definition as the API shows it: what was given, with the API's defaults filled in.

    :param model: a task or a whole definition
    """
    shown = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(model, _Task):
        shown |= {"retries": model.retries, "timeout": model.timeout, "onFailure": model.on_failure}
        shown["dependsOn"] = [{"externalId": dependency} for dependency in model.dependencies]
        if isinstance(model, SubworkflowTask) and isinstance(
            inline := model.parameters.subworkflow, InlineSubworkflow
        ):
            shown["parameters"]["subworkflow"]["tasks"] = [to_json(task) for task in inline.tasks]
        if isinstance(model, TransformationTask):
            given = shown["parameters"]["transformation"]
            shown["parameters"]["transformation"] = {**_TRANSFORMATION_DEFAULTS, **given}
    elif isinstance(model, WorkflowDefinition):
        shown["tasks"] = [to_json(task) for task in model.tasks]
    return shown


def definition_hash(shown: dict[str, Any]) -> str:
    """
    The hash that CDF gives a definition: opaque, 40 upper-case hexadecimal digits in a recorded execution.

    :param shown: the definition as the API shows it
    """
    canonical = json.dumps(shown, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha1(canonical, usedforsecurity=False).hexdigest().upper()
