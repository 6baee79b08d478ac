"""
From the bytes of an answer to its model: as a whole, or as much of it as a poll needs.

Inputs and outputs may have 20 MB. An event loop cannot do anything else while they are made into objects; a
thread does not help, because it holds Python's lock meanwhile. A poll decides by ids, statuses, times and
reasons, so the rest is not made: pydantic makes all of the JSON before it leaves anything out, msgspec skips
what it is not asked for, and makes objects faster (docs/performance.md has the figures).

Most polls bring what the one before has brought. What has not changed keeps its model: a thousand new ones at
each poll would also have Python search all objects of the triggerer for garbage about once a minute, which
takes a tenth of a second.

One odd character in an output must not make an execution that has ended unreadable for ever. What msgspec
does not take is read once more by Python's own reader, with what is no text replaced, and the models say what
is wrong with it, if anything is. The models are the same in either way, and so is every reader of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ValidationError

from airflow_provider_cdf.cdf.models import (
    MOST_ITEMS,
    ExecutionPage,
    WorkflowExecution,
    WorkflowExecutionDetails,
)

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
#: The most commas of an answer that is read once more, by its own reader or the models: each value takes some
#: 200 bytes there. 20 MB of numbers have a million.
MOST_COMMAS = 2_000_000

if _HAS_MSGSPEC or TYPE_CHECKING:
    #: What the models accept or refuse by themselves.
    _Value = str | int | float | bool | None | UnsetType
    _ItemT = TypeVar("_ItemT")
    _Items = Annotated[list[_ItemT], msgspec.Meta(max_length=MOST_ITEMS)]

    class _Part(Struct, rename="camel", gc=False):
        """
        Named as in the models; the API writes ``externalId``. What has no default, the models need, too.

        Python's search for garbage passes over them: what came as JSON does not refer to itself.
        """

    class _ChildParameters(_Part):
        is_async_complete: _Value = UNSET

    class _Child(_Part):
        external_id: str
        parameters: _ChildParameters | _Value = UNSET

    class _Subworkflow(_Part):
        tasks: _Items[_Child] | _Value = UNSET
        workflow_external_id: _Value = UNSET
        version: _Value = UNSET

    class _Parameters(_Part):
        is_async_complete: _Value = UNSET
        subworkflow: _Subworkflow | _Value = UNSET

    class _DefinedTask(_Part):
        external_id: str
        type: str
        parameters: _Parameters | _Value = UNSET

    class _Definition(_Part):
        tasks: _Items[_DefinedTask] | _Value = UNSET

    class _Input(_Part):
        is_async_complete: _Value = UNSET
        async_complete: _Value = UNSET

    class _Output(_Part):
        dynamic_tasks: _Items[_Child] | _Value = UNSET

    class _Task(_Part):
        id: str
        external_id: str
        status: str
        task_type: _Value = UNSET
        parent_task_external_id: _Value = UNSET
        input: _Input | _Value = UNSET
        output: _Output | _Value = UNSET
        start_time: _Value = UNSET
        end_time: _Value = UNSET
        reason_for_incompletion: _Value = UNSET

    class _Listed(_Part):
        id: str
        workflow_external_id: str
        status: str
        version: _Value = UNSET
        created_time: _Value = UNSET
        start_time: _Value = UNSET
        end_time: _Value = UNSET
        reason_for_incompletion: _Value = UNSET

    class _Execution(_Listed):
        workflow_definition: _Definition | _Value = UNSET
        executed_tasks: _Items[_Task] | _Value = UNSET

    class _Page(_Part):
        items: _Items[_Listed]
        next_cursor: str | None = None


class UnreadableError(ValueError):
    """What came is no JSON, or more of it than can be looked at; says so in a few words."""


def whole(content: bytes, model: type[ModelT]) -> ModelT:
    """
    Read all of an answer.

    :raises UnreadableError: if it is no JSON.
    :raises pydantic.ValidationError: if it is not what the model needs.
    """
    made = _made(content, Any)
    return _mended_model(content, model) if made is None else model.model_validate(made)


class ExecutionPolls:
    """Reads what decides a wait for an execution or a task of it, poll by poll."""

    def __init__(self) -> None:
        self._before: _Execution | None = None
        self._model: WorkflowExecutionDetails | None = None

    def read(self, content: bytes) -> WorkflowExecutionDetails:
        """
        Read an answer; return the same model as before if nothing has changed.

        :raises UnreadableError: if it is no JSON, or has too much in it.
        :raises pydantic.ValidationError: if it is not what the model needs.
        """
        made = _made(content, _Execution) if _HAS_MSGSPEC else None
        if made is None:
            return _mended_model(content, WorkflowExecutionDetails)
        if self._model is None or made != self._before:
            self._model = WorkflowExecutionDetails.model_validate(msgspec.to_builtins(made))
            self._before = made
        return self._model


class ListPoll:
    """
    Reads the pages of a list, as far as they tell whether its executions go on.

    :param before: who has read the list at the poll before.
    """

    def __init__(self, before: ListPoll | None = None) -> None:
        self._before = before._models if before is not None else {}
        #: By id, with what they were made of.
        self._models: dict[str, tuple[_Listed, WorkflowExecution]] = {}

    def read(self, content: bytes) -> ExecutionPage:
        """
        Read a page; an execution that has not changed keeps its model.

        :raises UnreadableError: if it is no JSON, or has too much in it.
        :raises pydantic.ValidationError: if it is not what the model needs.
        """
        made = _made(content, _Page) if _HAS_MSGSPEC else None
        if made is None:
            return _mended_model(content, ExecutionPage)
        items = []
        for item in made.items:
            known = self._before.get(item.id)
            if known is None or known[0] != item:
                known = item, WorkflowExecution.model_validate(msgspec.to_builtins(item))
            self._models[item.id] = known
            items.append(known[1])
        return ExecutionPage.model_construct(items=items, next_cursor=made.next_cursor)


def _made(content: bytes, kept: Any) -> Any:
    """Return as much of an answer as is kept; ``None`` if msgspec is not there, or does not take it."""
    if not _HAS_MSGSPEC:
        return None
    try:
        return msgspec.json.decode(content, type=kept)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _mended_model(content: bytes, model: type[ModelT]) -> ModelT:
    """Read what msgspec does not take, or everything where it is not installed."""
    if not _HAS_MSGSPEC:
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            if error.errors(include_url=False, include_input=False)[0]["type"] != "json_invalid":
                raise
    if content.count(b",") > MOST_COMMAS:
        raise UnreadableError("it has too many values, and not all are what the API promises")
    try:
        said = _mended(content)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"it is no JSON ({type(error).__name__})") from None
    return model.model_validate(said)


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
