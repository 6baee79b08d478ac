"""The decorator ``@task.cdf_task``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DecoratedOperator

from airflow_provider_cdf.operators.address import refuse_mistakes
from airflow_provider_cdf.operators.callbacks import report_failure, with_callback
from airflow_provider_cdf.operators.task_work import PARAMETER, CdfTaskOperator
from airflow_provider_cdf.places import names_place
from airflow_provider_cdf.versions import HAS_TASK_API

if TYPE_CHECKING or HAS_TASK_API:
    from airflow.sdk.bases.decorator import _TaskDecorator
else:
    from airflow.decorators.base import _TaskDecorator

#: What inspect, in its versions, and Airflow say of a parameter that gets no value.
_WITHOUT_VALUE = re.compile(r"missing (?:a )?required [^:]*: '?(\w+)")


class CdfDecoratedOperator(DecoratedOperator, CdfTaskOperator):
    """A CdfTaskOperator whose function is decorated with ``@task.cdf_task``."""

    template_fields: Sequence[str] = CdfTaskOperator.template_fields
    custom_operator_name = "@task.cdf_task"

    @names_place
    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        op_kwargs = dict(op_kwargs or {})
        if op_kwargs.get(PARAMETER) is not None:
            raise _given_already()
        if PARAMETER in inspect.signature(python_callable).parameters:
            # Airflow checks now whether the arguments fit the function. The task itself comes at run time.
            op_kwargs[PARAMETER] = None
        called = {"python_callable": python_callable, "op_args": op_args or (), "op_kwargs": op_kwargs}
        arguments: dict[str, Any] = {**kwargs, **called, "kwargs_to_upstream": called}
        try:
            super().__init__(**arguments)
        except TypeError as error:
            # inspect's words name neither the function nor what it is given.
            if found := _WITHOUT_VALUE.search(str(error)):
                raise TypeError(_no_value(python_callable, found[1])) from None
            raise


def _no_value(function: Callable[..., Any], parameter: str) -> str:
    has_task = PARAMETER in inspect.signature(function).parameters
    return (
        f"The function {function.__name__!r} gets no value for its parameter {parameter!r}."
        f"{'' if has_task else f' The CDF task comes as {PARAMETER}.'}"
    )


def _given_already() -> ValueError:
    return ValueError(f"The argument {PARAMETER} is given by @task.cdf_task itself: leave it out.")


class _CdfTaskDecorator(_TaskDecorator[..., Any, CdfDecoratedOperator]):
    @names_place
    def _validate_arg_names(self, func: Any, kwargs: dict[str, Any]) -> None:
        if PARAMETER in kwargs:
            raise _given_already()
        super()._validate_arg_names(func, kwargs)

    @names_place
    def _expand(self, *args: Any, **kwargs: Any) -> Any:
        expanded: Any = super()._expand(*args, **kwargs)
        # As for any mapped task: the DAG processor takes its callbacks from here.
        arguments = expanded.operator.partial_kwargs
        refuse_mistakes(arguments)
        arguments["on_failure_callback"] = with_callback(arguments.get("on_failure_callback"), report_failure)
        return expanded


def cdf_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> Any:
    """
    Make a task of a function that does the work of a CDF task.

    :param python_callable: the function. A parameter ``cdf_task`` receives the CDF task.
    :param multiple_outputs: push each key of a returned dict as an XCom, too; by default if the function says
        that it returns one.
    :param kwargs: those of :class:`~airflow_provider_cdf.operators.task_work.CdfTaskOperator`.
    """
    outputs: dict[str, Any] = {} if multiple_outputs is None else {"multiple_outputs": multiple_outputs}

    def decorate(function: Callable[..., Any]) -> _CdfTaskDecorator:
        return _CdfTaskDecorator(
            function=function, operator_class=CdfDecoratedOperator, kwargs=dict(kwargs), **outputs
        )

    return decorate if python_callable is None else decorate(python_callable)
