"""In which state Airflow has a task, asked from inside that task or its trigger."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

#: States of a task that goes on: it waits, was resumed and waits for a slot, or a try of it runs or will.
#: ``restarting`` is one that was cleared while it ran.
GOES_ON = frozenset({"deferred", "scheduled", "queued", "running", "up_for_retry", "up_for_reschedule"})


def state_of(ti: Any) -> str | None:
    """
    Ask Airflow for the state of one task instance (3.0 or later). Blocks while Airflow is asked.

    :param ti: the task instance, as the task or a trigger has it.
    :return: ``None`` for one that has none, such as one that was cleared.
    :raises LookupError: if Airflow does not know it.
    """
    ask = getattr(ti, "get_task_states", None)
    if ask is None:  # as a trigger has it
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ask = RuntimeTaskInstance.get_task_states
    states = ask(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])
    is_mapped = ti.map_index is not None and ti.map_index >= 0
    state = states[ti.run_id][f"{ti.task_id}_{ti.map_index}" if is_mapped else ti.task_id]
    return None if state is None else str(state)


class NoAnswerError(Exception):
    """Airflow has not said in which state a task is."""


def state_within(ti: Any, seconds: float) -> str | None:
    """
    Ask for the state from a signal handler, or from a thread that one waits for.

    The interrupted task may hold the lock of its line to Airflow, and Airflow's API may be away, as in a
    deploy. So the question has a time limit.

    :return: ``None`` for a task that has no state, that Airflow does not know any more, or on Airflow 2.
    :raises NoAnswerError: there is no answer in time, or an error instead of one.
    """
    answer: list[str | None] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            try:
                answer.append(state_of(ti))
            except (LookupError, ImportError):  # not there, or Airflow 2, which has no such question
                answer.append(None)

    thread = threading.Thread(target=ask, name="cdf-task-state", daemon=True)
    thread.start()
    thread.join(seconds)
    if not answer:
        raise NoAnswerError
    return answer[0]
