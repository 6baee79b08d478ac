"""Failure callbacks of our own, added to the user's: for tasks that die without running code of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def with_callback(given: Any, own: Any) -> list[Any]:
    """Return a task's callbacks with one of ours added to the user's, unless it is among them already."""
    callbacks = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    return callbacks if own in callbacks else [*callbacks, own]


def partial_with_callback(partial: Any, own: Any) -> Any:
    """Return what ``partial()`` has made with one of our callbacks added."""
    # Airflow has merged in those of default_args. The DAG processor takes the callbacks of a mapped task from
    # here, without ever making an instance.
    partial.kwargs["on_failure_callback"] = with_callback(partial.kwargs.get("on_failure_callback"), own)
    return partial


def operator_of(context: Context, *fields: str) -> Any:
    """
    Return the operator that a callback is about, of a mapped task that of its map index.

    :param fields: the template fields that the callback needs. Rendered here, because no code of the operator
        may have run; and no others, because an input that cannot be rendered must not be in the way.
    """
    operator: Any = context["task"]
    if operator.is_mapped:
        # The DAG processor has the task as it was mapped. Rendering it puts its instance into the context.
        operator.render_template_fields(context)
        return context["task"]
    for field in fields:
        setattr(operator, field, operator.render_template(getattr(operator, field), context))
    return operator
