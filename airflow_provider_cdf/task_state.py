"""In which state Airflow has a task, asked from inside that task or its trigger."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from airflow_provider_cdf.versions import HAS_TASK_API

#: States of a task that goes on with what it has begun: it waits, was resumed and waits for a slot, or a try
#: of it runs or will. Not ``restarting``: what was cleared while it ran begins anew.
ALIVE = frozenset({"deferred", "scheduled", "queued", "running", "up_for_retry", "up_for_reschedule"})


def state_of(ti: Any) -> str | None:
    """
    Ask Airflow for the state of one task instance. Blocks while Airflow is asked.

    :param ti: the task instance, as the task or a trigger has it.
    :return: ``None`` for one that has none, such as one that was cleared.
    :raises LookupError: if Airflow does not know it.
    """
    index = -1 if ti.map_index is None else ti.map_index
    if not HAS_TASK_API:
        for one in ti.dag_run.get_task_instances():
            if (one.task_id, one.map_index) == (ti.task_id, index):
                return None if one.state is None else str(one.state)
        raise LookupError(ti.task_id)
    ask = getattr(ti, "get_task_states", None)
    if ask is None:  # as a trigger has it
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ask = RuntimeTaskInstance.get_task_states
    states = ask(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])
    state = states[ti.run_id][ti.task_id if index < 0 else f"{ti.task_id}_{index}"]
    return None if state is None else str(state)


class NoAnswerError(Exception):
    """Airflow has not said in which state a task is."""


def state_within(ti: Any, seconds: float) -> str | None:
    """
    Ask for the state from a signal handler, or from a thread that one waits for.

    The interrupted task may hold the lock of its line to Airflow, and Airflow's API may be away, as in a
    deploy. So the question has a time limit.

    :return: ``None`` for a task that has no state, or that Airflow does not know any more.
    :raises NoAnswerError: there is no answer in time, or an error instead of one.
    """
    answer: list[str | None] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            try:
                answer.append(state_of(ti))
            except LookupError:
                answer.append(None)

    thread = threading.Thread(target=ask, name="cdf-task-state", daemon=True)
    thread.start()
    thread.join(seconds)
    if not answer:
        raise NoAnswerError
    return answer[0]
