"""What arguments of operators and sensors have in common, checked where a DAG file is read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypeVar

#: Pairs of metadata that a DAG author has: CDF takes 10, and two are needed to find a run again.
OWN_METADATA_PAIRS = 8
#: Seconds, some 30 years: beyond what any date can be moved by.
LONGEST = 1e9

_Default = TypeVar("_Default", float, None, float | None)


def seconds(duration: float | timedelta, name: str = "The duration") -> float:
    """
    Return a duration in seconds, as triggers store it.

    :param name: the argument's name, for the message.
    :raises ValueError: unless it is positive and finite: anything else would flood CDF or wait for nothing.
    """
    number = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if not is_number(number) or not 0 < number <= LONGEST:
        raise ValueError(f"{name} must be a positive number of seconds or a timedelta, not {duration!r}.")
    return number


def is_number(value: object) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number_or(value: object, default: _Default) -> _Default | float:
    """Return what a trigger has stored if it is a positive number: a trigger must not refuse anything."""
    return value if isinstance(value, int | float) and is_number(value) and value > 0 else default


def refuse_operators(operator: Any, names: Iterable[str]) -> None:
    """
    Refuse an operator in place of its result, as in ``execution_id=run`` instead of ``run.output``.

    :param operator: whose arguments these are.
    :param names: of the arguments.
    :raises TypeError: naming the argument and what to write.
    """
    for name in names:
        value: Any = getattr(operator, name, None)
        # Operators, mapped ones too; Airflow would render them as the text "<Task(...): ...>".
        if hasattr(value, "task_id") and hasattr(type(value), "output"):
            raise TypeError(f"{name} is the operator {value.task_id!r} itself: write {value.task_id}.output.")


def is_literal(value: object) -> bool:
    """Whether a templated argument holds text (or several) that is as it will be when the task runs."""
    if isinstance(value, list | tuple):
        return all(is_literal(one) for one in value)
    return isinstance(value, str) and not ("{{" in value or "{%" in value)
