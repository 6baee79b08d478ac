"""What Airflow says to a task whose trigger has ended without an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_cdf.cdf.foreign import one_line

#: The method that Airflow resumes a task with whose trigger has broken, and the error if it was given up.
BROKEN, GIVEN_UP = "__fail__", "Trigger timeout"


def resumed_after_failure(said: Mapping[str, Any] | None, log: Any) -> bool:
    """
    Log why a task goes on, on the worker, that was resumed because its trigger has broken or was given up.

    :param said: what Airflow resumes the task with. The error is the same for all triggers that have broken;
        the reason is in the traceback, which Airflow has where it was an exception.
    :param log: of the task.
    :return: whether the trigger was given up, because its time was over.
    """
    error = (said or {}).get("error")
    if error == GIVEN_UP:
        log.warning("No triggerer has ended this wait in its time. Looking once more, here.")
        return True
    trace = (said or {}).get("traceback") or [error or "unknown"]
    log.warning(
        "The trigger has broken. Waiting goes on here, in a worker slot. The reason: %s", one_line(trace[-1])
    )
    if trace[1:]:
        log.info("The traceback of the trigger:\n%s", "".join(trace))
    return False
