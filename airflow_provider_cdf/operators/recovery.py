"""
Finding again what an Airflow task has started in CDF, whatever died in between.

An execution's metadata says which logical run of which task it is. Airflow stores only which try has begun to
start one, so that a retry knows whether there is anything to look for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.operators.cancelling import TASK_HAS_DIED, cancel

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecution
    from airflow_provider_cdf.hooks.cdf import CdfHook

log = logging.getLogger(__name__)

#: Seconds before a second look for an execution that the first look did not find: CDF's list may lag behind.
LOOK_AGAIN_AFTER = 5.0
#: Key in Airflow's store of task states (3.3 or later), which outlives tries and clears.
LAST_START = "cdf_last_start"


def note_start(context: Context) -> None:
    """
    Note in Airflow, before anything is sent, that this try is about to start an execution.

    Airflow takes no such note from an orphan, whose supervisor is dead or whose task has gone on to another
    try. So that cannot start anything beside its own retry.
    """
    store = _store(context)
    if store is not None:
        store.set(LAST_START, context["ti"].try_number)


def find_earlier_run(
    hook: CdfHook,
    context: Context,
    workflow_external_id: str,
    *,
    may_cancel: bool,
    pause: Callable[[float], None],
) -> WorkflowExecution | None:
    """
    Return the execution that an earlier try of this logical run has started, of whatever version.

    A try that was killed may have left a request under way. Unless the latest one that began to start an
    execution is accounted for, this looks again until no request can have an effect any more.

    :param may_cancel: whether to cancel what else still runs of this task: executions of its life before a
        person cleared it, who asked for a new one instead.
    :param pause: waits some seconds, or raises if the task is to stop.
    """
    from airflow_provider_cdf.cdf.conversations import NONCE_DEAD_AFTER, RUN_KEY
    from airflow_provider_cdf.operators.identity import TRY_NUMBER, began, earlier_run_keys, run_key

    ti = context["ti"]
    key, earlier_keys, since = run_key(ti), earlier_run_keys(ti), began(context)
    last_start = _last_start(context)
    until = time.monotonic() + NONCE_DEAD_AFTER - _since_the_last_try(context)
    looks = 0
    while True:
        # All that run, whatever their workflow: somebody may have edited that between two tries.
        listed = {one.id: one for one in hook.list_executions(status="RUNNING", created_after=since)}
        for one in hook.list_executions(workflow_external_id=workflow_external_id, created_after=since):
            listed[one.id] = one
        own = [one for one in listed.values() if one.metadata.get(RUN_KEY) == key]
        earlier = [one for one in listed.values() if one.metadata.get(RUN_KEY) in earlier_keys]
        # Those of a task that has started none yet are of a DAG run with the same id that has been deleted.
        found = max(own, key=_usefulness) if own and last_start is not None else None
        if may_cancel:
            _cancel_others(hook, context, listed.values(), keep=found)
        looks += 1
        tries = {one.metadata.get(TRY_NUMBER) for one in (*own, *earlier)}
        is_accounted_for = last_start is None or str(last_start) in tries
        is_clear = is_accounted_for or (looks > 1 and time.monotonic() >= until)
        if is_clear or (found is not None and not has_ended_badly(found)):
            return found
        if looks == 1 and until - time.monotonic() > LOOK_AGAIN_AFTER:
            log.info(
                "CDF lists no execution of try %s. A request of it may still be under way; looking for that "
                "for %.0f s.",
                last_start,
                until - time.monotonic(),
            )
        pause(LOOK_AGAIN_AFTER)


def has_ended_badly(execution: WorkflowExecution) -> bool:
    """Whether an execution is over without a result."""
    return execution.has_ended and execution.status != "COMPLETED"


def _usefulness(execution: WorkflowExecution) -> tuple[bool, int]:
    """Order executions of one logical run: one that runs, else the latest: a result ends its run."""
    return not execution.has_ended, execution.created_time or 0


def _last_start(context: Context) -> int | None:
    """Return the latest try that has begun to start an execution; ``None`` if none has."""
    store = _store(context)
    if store is not None:
        try_number: int | None = store.get(LAST_START)
        return try_number
    # Airflow below 3.3 cannot tell; the try before may have.
    return context["ti"].try_number - 1


def _store(context: Context) -> Any:
    return context.get("task_state_store")


def _since_the_last_try(context: Context) -> float:
    """Return the least number of seconds that must have passed since the try before this one ended."""
    task: Any = context.get("task")
    has_been_cleared = bool(getattr(context["dag_run"], "clear_number", 0))
    # A person clears at any moment, and a policy may retry at once.
    if task is None or has_been_cleared or getattr(task, "retry_policy", None):
        return 0.0
    delay, longest = (_in_seconds(value) for value in (task.retry_delay, task.max_retry_delay))
    if task.retry_exponential_backoff:
        delay /= 2  # which is what it begins with
    return min(delay, longest or delay)


def _in_seconds(delay: timedelta | float | None) -> float:
    return delay.total_seconds() if isinstance(delay, timedelta) else float(delay or 0)


def cancel_runs_of_the_dead(hook: CdfHook, context: Context) -> None:
    """Cancel all that runs of a task of which nobody is left to decide anything."""
    from airflow_provider_cdf.cdf.conversations import RUN_KEY
    from airflow_provider_cdf.operators.identity import began, earlier_run_keys, run_key

    keys = earlier_run_keys(context["ti"]) | {run_key(context["ti"])}
    for execution in hook.list_executions(status="RUNNING", created_after=began(context)):
        if execution.metadata.get(RUN_KEY) in keys:
            log.info(cancel(hook, execution.id, TASK_HAS_DIED))


def cancel_other_runs(hook: CdfHook, context: Context, keep: WorkflowExecution) -> None:
    """
    Cancel all that runs of this task but one execution.

    For a retry that has just started one: the process of the try before it may have gone on as an orphan, and
    have started one too.
    """
    from airflow_provider_cdf.operators.identity import began

    _cancel_others(hook, context, hook.list_executions(status="RUNNING", created_after=began(context)), keep)


def _cancel_others(
    hook: CdfHook, context: Context, executions: Iterable[WorkflowExecution], keep: WorkflowExecution | None
) -> None:
    from airflow_provider_cdf.cdf.conversations import RUN_KEY
    from airflow_provider_cdf.operators.identity import earlier_run_keys, run_key

    keys = earlier_run_keys(context["ti"]) | {run_key(context["ti"])}
    for execution in executions:
        is_own = execution.metadata.get(RUN_KEY) in keys and (keep is None or execution.id != keep.id)
        if is_own and not execution.has_ended:
            log.info(cancel(hook, execution.id, "The Airflow task that started it goes on without it."))


def has_been_cleared(context: Context, retries: int) -> bool:
    """
    Whether this is the first try after a person has cleared the task, although the run key is the old one.

    A clear sets ``max_tries`` to the tries so far plus ``retries``. Where ``retries`` has been lowered in the
    meantime, that can be what it was before.
    """
    ti = context["ti"]
    has_any = bool(getattr(context["dag_run"], "clear_number", 0))
    return has_any and bool(ti.try_number == ti.max_tries - retries + 1)
