"""
What a poll reads of an answer: ids, statuses, times and reasons, and not the inputs and outputs.

Those may have 20 MB, and an event loop cannot do anything else while they are made into objects: a thread
does not help, because it holds Python's lock meanwhile. So they are not made. pydantic makes all of the JSON
before it leaves anything out; msgspec skips what it is not asked for (docs/performance.md has the figures).

What is kept becomes the same models as ever, so that every reader of them is the same. What is not as the API
promises, and msgspec therefore refuses, is read as a whole by the models, which know what may be wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_cdf.cdf.models import ExecutionPage, WorkflowExecutionDetails

try:
    import msgspec
    from msgspec import UNSET, Struct, UnsetType
except ImportError:  # Airflow 3 brings it
    _HAS_MSGSPEC = False
else:
    _HAS_MSGSPEC = True

if TYPE_CHECKING:
    ModelT = TypeVar("ModelT", ExecutionPage, WorkflowExecutionDetails)

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


def execution(content: bytes) -> WorkflowExecutionDetails:
    """Read what decides a wait for an execution or a task of it."""
    return _read(content, WorkflowExecutionDetails, "_Execution")


def page(content: bytes) -> ExecutionPage:
    """Read what decides whether the executions of a list go on."""
    return _read(content, ExecutionPage, "_Page")


def _read(content: bytes, model: type[ModelT], kept: str) -> ModelT:
    if _HAS_MSGSPEC:
        try:
            shape: Any = msgspec.json.decode(content, type=globals()[kept])
        except msgspec.MsgspecError:
            pass
        else:
            return model.model_validate(msgspec.to_builtins(shape))
    return model.model_validate_json(content)
