"""
Workflow definitions: what a task may look like, and which graphs of tasks CDF accepts.

https://api-docs.cognite.com/20230101/tag/Workflow-versions/operation/CreateOrUpdateWorkflowVersion
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from airflow_provider_cdf.emulator.rules.references import is_reference

#: The API's metric for "100 KB" is not stated; its other fields of that size have ``maxLength: 100000``.
MAX_JSON_BYTES = 100_000
MAX_TASKS = 100


class Model(BaseModel):
    """A JSON object of the API: camelCase, no value converted to another type, unknown keys dropped."""

    model_config = ConfigDict(alias_generator=to_camel, strict=True, extra="ignore")


class _NotNull:
    """Makes an optional field refuse null: for the API, absent is not the same as null."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return schema["schema"] if schema["type"] == "nullable" else schema


_T = TypeVar("_T")
#: A key that may be absent. Python sees None then; a null in the request is refused.
Absent = Annotated[_T | None, _NotNull()]


def _check_external_id(value: str) -> str:
    if value != value.strip() or "\0" in value:
        raise ValueError("must have no leading or trailing whitespace and no null characters")
    return value


def _check_task_external_id(value: str) -> str:
    if value == "workflow" or value.startswith("__"):
        raise ValueError("must not be 'workflow' nor start with '__', which are reserved")
    return _check_external_id(value)


def _check_size(value: Any) -> Any:
    size = len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace"))
    if size > MAX_JSON_BYTES:
        raise ValueError(f"is {size} bytes of JSON, and the limit is {MAX_JSON_BYTES}")
    return value


def _check_whole(value: float) -> float:
    if not value.is_integer():
        raise ValueError("must be a whole number")
    return value


def _check_reference(value: str) -> str:
    if not is_reference(value):
        raise ValueError("must be a reference such as ${task.output.response.tasks}")
    return value


ExternalId = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_external_id)]
TaskExternalId = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_task_external_id)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_check_size)]
Reference = Annotated[str, AfterValidator(_check_reference)]
Description = Annotated[str, Field(max_length=500)]


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
        Annotated[int, Field(ge=0, le=10)]
        | Annotated[float, Field(ge=0, le=10), AfterValidator(_check_whole)]
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


TaskDefinition = Annotated[
    FunctionTask | TransformationTask | CdfTask | DynamicTask | SubworkflowTask | SimulationTask,
    Field(discriminator="type"),
]
AnyTask = FunctionTask | TransformationTask | CdfTask | DynamicTask | SubworkflowTask | SimulationTask

InlineSubworkflow.model_rebuild()


class WorkflowDefinition(Model):
    """The tasks of a workflow version."""

    description: Absent[Description] = None
    tasks: Annotated[list[TaskDefinition], Field(max_length=MAX_TASKS)]


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
