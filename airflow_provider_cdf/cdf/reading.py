"""
From the bytes of an answer to its model: as a whole, or as much of it as a poll needs.

Inputs and outputs may have 20 MB. An event loop cannot do anything else while they are made into objects; a
thread does not help, because it holds Python's lock meanwhile. A poll decides by ids, statuses, times and
reasons, so the rest is not made: pydantic makes all of the JSON before it leaves anything out, msgspec skips
what it is not asked for, and makes objects faster (docs/performance.md has the figures).

The models are the same in either way, and so is every reader of them. What msgspec refuses, such as an array
where the API promises an object, the models read by themselves: they know what may be wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from airflow_provider_cdf.cdf.models import ExecutionPage, WorkflowExecutionDetails

try:
    import msgspec
    from msgspec import UNSET, Struct, UnsetType
except ImportError:  # Airflow 3 brings it
    _HAS_MSGSPEC = False
else:
    _HAS_MSGSPEC = True

ModelT = TypeVar("ModelT", bound=BaseModel)

if _HAS_MSGSPEC or TYPE_CHECKING:
    #: What the models accept or refuse by themselves.
    _Value = str | int | float | bool | None | UnsetType

    class _ChildParameters(Struct):
        isAsyncComplete: _Value = UNSET  # noqa: N815 - here and below the API's names

    class _Child(Struct):
        externalId: _Value = UNSET  # noqa: N815
        parameters: _ChildParameters | _Value = UNSET

    class _Subworkflow(Struct):
        tasks: list[_Child] | _Value = UNSET
        workflowExternalId: _Value = UNSET  # noqa: N815
        version: _Value = UNSET

    class _Parameters(Struct):
        isAsyncComplete: _Value = UNSET  # noqa: N815
        subworkflow: _Subworkflow | _Value = UNSET

    class _DefinedTask(Struct):
        externalId: _Value = UNSET  # noqa: N815
        type: _Value = UNSET
        parameters: _Parameters | _Value = UNSET

    class _Definition(Struct):
        tasks: list[_DefinedTask] | _Value = UNSET

    class _Input(Struct):
        isAsyncComplete: _Value = UNSET  # noqa: N815
        asyncComplete: _Value = UNSET  # noqa: N815

    class _Output(Struct):
        dynamicTasks: list[_Child] | _Value = UNSET  # noqa: N815

    class _Task(Struct):
        id: _Value = UNSET
        externalId: _Value = UNSET  # noqa: N815
        status: _Value = UNSET
        taskType: _Value = UNSET  # noqa: N815
        parentTaskExternalId: _Value = UNSET  # noqa: N815
        input: _Input | _Value = UNSET
        output: _Output | _Value = UNSET
        startTime: _Value = UNSET  # noqa: N815
        endTime: _Value = UNSET  # noqa: N815
        reasonForIncompletion: _Value = UNSET  # noqa: N815

    class _Listed(Struct):
        id: _Value = UNSET
        workflowExternalId: _Value = UNSET  # noqa: N815
        version: _Value = UNSET
        status: _Value = UNSET
        createdTime: _Value = UNSET  # noqa: N815
        startTime: _Value = UNSET  # noqa: N815
        endTime: _Value = UNSET  # noqa: N815
        reasonForIncompletion: _Value = UNSET  # noqa: N815

    class _Execution(_Listed):
        workflowDefinition: _Definition | _Value = UNSET  # noqa: N815
        executedTasks: list[_Task] | _Value = UNSET  # noqa: N815

    class _Page(Struct):
        items: list[_Listed] | _Value = UNSET
        nextCursor: _Value = UNSET  # noqa: N815


def whole(content: bytes, model: type[ModelT]) -> ModelT:
    """
    Read all of an answer.

    :raises pydantic.ValidationError: if it is not what the model needs.
    """
    return _read(content, model, Any)


def execution(content: bytes) -> WorkflowExecutionDetails:
    """Read what decides a wait for an execution or a task of it."""
    return _read(content, WorkflowExecutionDetails, _Execution if _HAS_MSGSPEC else Any)


def page(content: bytes) -> ExecutionPage:
    """Read what tells whether the executions of a list go on."""
    return _read(content, ExecutionPage, _Page if _HAS_MSGSPEC else Any)


def _read(content: bytes, model: type[ModelT], kept: Any) -> ModelT:
    if _HAS_MSGSPEC:
        try:
            made = msgspec.json.decode(content, type=kept)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        else:
            return model.model_validate(made if kept is Any else msgspec.to_builtins(made))
    return model.model_validate_json(content)
