"""
From the bytes of an answer to its model: as a whole, or as much of it as a poll needs.

Inputs and outputs may have 20 MB. An event loop cannot do anything else while they are made into objects; a
thread does not help, because it holds Python's lock meanwhile. A poll decides by ids, statuses, times and
reasons, so the rest is not made: pydantic makes all of the JSON before it leaves anything out, msgspec skips
what it is not asked for, and makes objects faster (docs/performance.md has the figures).

One odd character in an output must not make an execution that has ended unreadable for ever. What neither of
them takes for JSON is read once more by Python's own reader, with what is no text replaced.

The models are the same in either way, and so is every reader of them. What msgspec refuses, such as an array
where the API promises an object, the models read by themselves: they know what may be wrong.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from airflow_provider_cdf.cdf.models import ExecutionPage, WorkflowExecutionDetails

try:
    import msgspec
    from msgspec import UNSET, Struct, UnsetType
except ImportError:  # Airflow 3 brings it
    _HAS_MSGSPEC = False
else:
    _HAS_MSGSPEC = True

ModelT = TypeVar("ModelT", bound=BaseModel)
#: Python refuses to make numbers of more than 4300 digits, unless it is told to.
MOST_DIGITS = 600

if _HAS_MSGSPEC or TYPE_CHECKING:
    #: What the models accept or refuse by themselves.
    _Value = str | int | float | bool | None | UnsetType

    class _Part(Struct, rename="camel"):
        """Named as in the models; the API writes ``externalId``."""

    class _ChildParameters(_Part):
        is_async_complete: _Value = UNSET

    class _Child(_Part):
        external_id: _Value = UNSET
        parameters: _ChildParameters | _Value = UNSET

    class _Subworkflow(_Part):
        tasks: list[_Child] | _Value = UNSET
        workflow_external_id: _Value = UNSET
        version: _Value = UNSET

    class _Parameters(_Part):
        is_async_complete: _Value = UNSET
        subworkflow: _Subworkflow | _Value = UNSET

    class _DefinedTask(_Part):
        external_id: _Value = UNSET
        type: _Value = UNSET
        parameters: _Parameters | _Value = UNSET

    class _Definition(_Part):
        tasks: list[_DefinedTask] | _Value = UNSET

    class _Input(_Part):
        is_async_complete: _Value = UNSET
        async_complete: _Value = UNSET

    class _Output(_Part):
        dynamic_tasks: list[_Child] | _Value = UNSET

    class _Task(_Part):
        id: _Value = UNSET
        external_id: _Value = UNSET
        status: _Value = UNSET
        task_type: _Value = UNSET
        parent_task_external_id: _Value = UNSET
        input: _Input | _Value = UNSET
        output: _Output | _Value = UNSET
        start_time: _Value = UNSET
        end_time: _Value = UNSET
        reason_for_incompletion: _Value = UNSET

    class _Listed(_Part):
        id: _Value = UNSET
        workflow_external_id: _Value = UNSET
        version: _Value = UNSET
        status: _Value = UNSET
        created_time: _Value = UNSET
        start_time: _Value = UNSET
        end_time: _Value = UNSET
        reason_for_incompletion: _Value = UNSET

    class _Execution(_Listed):
        workflow_definition: _Definition | _Value = UNSET
        executed_tasks: list[_Task] | _Value = UNSET

    class _Page(_Part):
        items: list[_Listed] | _Value = UNSET
        next_cursor: _Value = UNSET


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
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] != "json_invalid":
            raise
        try:
            mended = _mended(content)
        except (ValueError, RecursionError):
            raise error from None
    return model.model_validate(mended)


def _mended(content: bytes) -> Any:
    """
    Read JSON that is not quite JSON.

    It has half an emoji, a byte that is no UTF-8, a byte order mark, a line break in a text, a number of
    thousands of digits (which is read as text), or more levels than pydantic takes.

    :raises ValueError: if it is none, such as one that ends too early.
    """
    said = json.loads(content.decode("utf-8-sig", errors="replace"), strict=False, parse_int=_number)
    if rb"\ud" not in content and rb"\uD" not in content:
        return said
    # Half a pair of surrogates is no text: nothing could send or keep it.
    text = json.dumps(said, ensure_ascii=False).encode(errors="replace").decode()
    return json.loads(text, parse_int=_number)


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) <= MOST_DIGITS else digits
