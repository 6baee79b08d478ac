"""How the operators that work on one CDF task are told which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.cdf.messages import ids
from airflow_provider_cdf.fields import refuse_operators, refuse_wrong_ids

if TYPE_CHECKING:
    from airflow_provider_cdf.operators.reporting import Target

#: Template fields by which the CDF task is found; they are all that a callback needs.
ADDRESS = ("execution_id", "task_external_id", "parent_task_external_id", "cdf_task_id", "cdf_conn_id")


def check_address(execution_id: object, task_external_id: object, cdf_task_id: object) -> None:
    """
    Refuse an address that names no task, or two.

    :raises ValueError: with what to give instead.
    """
    if (task_external_id is None) == (cdf_task_id is None):
        raise ValueError("Give either task_external_id (with execution_id) or cdf_task_id.")
    if task_external_id is not None and execution_id is None:
        raise ValueError("task_external_id needs the execution_id that the task belongs to.")


def refuse_mistakes(arguments: Mapping[str, Any], *, is_whole: bool = True, operator: object = None) -> None:
    """
    Refuse an address that a DAG file gives, and that cannot be meant.

    :param arguments: those of an operator, or of the ``partial()`` of a mapped task.
    :param is_whole: whether nothing follows, as it does after a ``partial()``.
    :param operator: which is being made; ``None`` if none is.
    :raises ValueError: with what to give instead.
    """
    named = {name: arguments.get(name) for name in ADDRESS}
    if is_whole or None not in (named["task_external_id"], named["cdf_task_id"]):
        check_address(named["execution_id"], named["task_external_id"], named["cdf_task_id"])
    refuse_operators(**named)
    refuse_wrong_ids(operator, execution_id=named["execution_id"], cdf_task_id=named["cdf_task_id"])


def mistake_in_address(execution_id: object, task_external_id: object, cdf_task_id: object) -> str:
    """Return what :func:`check_address` refuses, where that must not raise; "" if nothing."""
    try:
        check_address(execution_id, task_external_id, cdf_task_id)
    except ValueError as error:
        return str(error)
    return ""


def target_of(operator: Any) -> Target:
    """Return the CDF task that an operator is about."""
    from airflow_provider_cdf.cdf.checks import is_missing
    from airflow_provider_cdf.operators.reporting import Target

    parent = operator.parent_task_external_id
    return Target(
        execution_id=operator.execution_id,
        task_external_id=operator.task_external_id,
        # An optional one comes out of a template as "".
        parent_task_external_id=None if is_missing(parent) else parent,
        cdf_task_id=operator.cdf_task_id,
    )


def which(operator: Any) -> str:
    """Return the ids of the CDF task that an operator is about, for the end of a message."""
    by_name = None if operator.task_external_id is None else repr(operator.task_external_id)
    return ids(task=by_name or operator.cdf_task_id, execution=operator.execution_id)
