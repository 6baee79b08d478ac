"""Operators that Airflow makes of a mapped task, one for each map index."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, XComArg

from airflow_provider_cdf.fields import TextFields
from airflow_provider_cdf.operators.address import mistake_in_address
from airflow_provider_cdf.places import names_place

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


#: Stands for a value that is known when the task runs.
_LATER = "{{ }}"


def with_checks(partial: Any, check: Callable[[Mapping[str, Any]], None]) -> Any:
    """
    Return what ``partial()`` has made, which then checks what a DAG file itself has the task mapped over.

    :param check: takes the arguments of one map index, with a template where the file does not give the
        value; raises ValueError. The operator itself must not raise: see :func:`.fields.is_from_mapped`.
    """
    kind: Any = type(partial)
    partial.__class__ = _checking(kind, check)
    return partial


@cache
def _checking(kind: Any, check: Callable[[Mapping[str, Any]], None]) -> Any:
    class Checking(kind):  # type: ignore[misc]  # whichever Airflow has
        __slots__ = ()

        @names_place
        def expand(self, **mapped: Any) -> Any:
            given = {**self.kwargs, **dict.fromkeys(mapped, _LATER)}
            _refuse_gaps(self, {*self.kwargs, *mapped})
            check(given)
            for name, values in mapped.items():
                # The results of another task are not known, but whose they are is.
                known = [values] if isinstance(values, XComArg) else values
                for value in known if isinstance(known, list | tuple) else ():
                    check({**given, name: value})
            return super().expand(**mapped)

        @names_place
        def expand_kwargs(self, kwargs: Any, **more: Any) -> Any:
            for one in kwargs if isinstance(kwargs, list | tuple) else ():
                if isinstance(one, Mapping):
                    _refuse_gaps(self, {*self.kwargs, *one})
                    check({**self.kwargs, **one})
            return super().expand_kwargs(kwargs, **more)

    return Checking


def _refuse_gaps(partial: Any, given: set[str]) -> None:
    """
    Refuse a mapped task that is not given what it needs, which Airflow finds when it runs.

    :raises TypeError: while the file is parsed, as for a task that is not mapped.
    """
    kind = partial.operator_class
    if not _is_ours(kind):
        return  # which may itself give what one of ours needs
    parameters = [
        one
        for each in kind.__mro__
        if _is_ours(each)
        for one in inspect.signature(each.__init__).parameters.values()
    ]
    needed = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty}
    dag, group = partial.kwargs.get("dag"), partial.kwargs.get("task_group")
    defaults = {name for each in (dag, group) for name in getattr(each, "default_args", None) or ()}
    if missing := sorted(needed - given - defaults):
        raise TypeError(f"{' and '.join(missing)} must be given, in partial() or in expand().")


def _is_ours(kind: Any) -> bool:
    return str(kind.__module__).startswith("airflow_provider_cdf.")


def make_what_is_needed(mapped: Any, fields: Sequence[str], context: Context) -> Any:
    """
    Return, of a map index whose operator cannot be made, what a failure callback needs.

    :param fields: the template fields to render.
    """
    # A copy of the mapped task with a class that takes any arguments: so it is Airflow, of each version, that
    # finds out what belongs to this index.
    twin = copy.copy(mapped)
    twin.operator_class = _Arguments
    twin.template_fields = fields
    twin._disallow_kwargs_override = False  # an argument that is given twice may be what is wrong
    try:
        twin.render_template_fields(context)
        return context["task"]
    finally:
        # Callbacks of the user's are to find what Airflow has put there.
        context["task"] = context["ti"].task = mapped


class _Arguments(TextFields, BaseOperator):
    """The arguments of an operator of ours, unchecked, under the names that they have there."""

    text_fields: Sequence[str] = (
        *("execution_id", "task_external_id", "parent_task_external_id", "cdf_task_id"),
        *("workflow_external_id", "cdf_conn_id"),
    )

    # Where the operator gives no other value itself.
    execution_id: str | None = None
    task_external_id: str | None = None
    parent_task_external_id: str | None = None
    cdf_task_id: str | None = None
    cdf_conn_id = "cdf_default"
    failure_status = "FAILED_WITH_TERMINAL_ERROR"
    cancel_on_kill = True
    has_reported = False
    is_settled: bool | None = None
    is_left_running = False

    def __init__(self, *, task_id: str, dag: Any = None, **arguments: Any) -> None:
        super().__init__(task_id=task_id, dag=dag)
        of_ours = (*self.text_fields, "failure_status", "cancel_on_kill", "op_kwargs")
        for name in of_ours:
            if name in arguments:
                setattr(self, name, arguments[name])
        self.mistake = mistake_in_address(self.execution_id, self.task_external_id, self.cdf_task_id)
