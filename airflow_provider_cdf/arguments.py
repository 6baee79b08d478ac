"""What arguments of operators and sensors have in common, checked where a DAG file is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

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
        raise ValueError(
            f"{name} must be a positive number of seconds or a timedelta. It is {duration!r:.60}."
        )
    return number


def is_number(value: object) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number_or(value: object, default: _Default) -> _Default | float:
    """Return what a trigger has stored if it is a positive number: a trigger must not refuse anything."""
    return value if isinstance(value, int | float) and is_number(value) and value > 0 else default


def statuses_of(given: str | Sequence[str]) -> list[str]:
    """Return one status or several, in any case, as a trigger stores them. It refuses none."""
    return [str(one).upper() for one in ([given] if isinstance(given, str) else given)]


def flag(value: object, name: str) -> bool:
    """
    Return an argument that is True or False: the text "False" would count as true.

    :param name: the argument's name, for the message.
    :raises TypeError: if it is neither.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}.")
    return value
