"""The stack that Airflow's task log shows below an error."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowTaskTimeout,
)

from airflow_provider_cdf.cdf.errors import CdfError

ResultT = TypeVar("ResultT")
#: Errors whose message says what a reader needs. Any other one is a fault of this package, or not its own.
_TELLING = (CdfError, AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout)


def without_stack(method: Callable[..., ResultT]) -> Callable[..., ResultT]:
    """
    Decorate what Airflow calls on an operator: an error with a message of its own leaves it without a stack.

    Airflow logs all frames of an error, also where it does not retry. Those of this package say nothing to a
    DAG author. One is left, this one: Python adds the frame that raises.
    """

    @wraps(method)
    def without_frames_of_ours(*args: Any, **kwargs: Any) -> ResultT:
        try:
            return method(*args, **kwargs)
        except _TELLING as error:
            error.__cause__ = error.__context__ = None
            failed = error.with_traceback(None)
        raise failed

    return without_frames_of_ours
