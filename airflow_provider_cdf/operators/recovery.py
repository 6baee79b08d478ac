"""
Finding again what an Airflow task has started in CDF, whatever died in between.

Nothing is stored in Airflow for it: an execution's metadata says which logical run of which task it is.
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
#: Seconds between the end of a try and a person who has read why, and clears the task.
A_PERSON_TAKES = 90.0


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

    A try that was killed may have left a request under way. Unless the latest try is accounted for, this
    looks again until none can have an effect any more.

    :param may_cancel: whether to cancel what else still runs of this task: executions of its life before a
        person cleared it, who asked for a new one instead.
    :param pause: waits some seconds, or raises if the task is to stop.
    """
    from airflow_provider_cdf.cdf.conversations import NONCE_DEAD_AFTER, RUN_KEY
    from airflow_provider_cdf.operators.identity import TRY_NUMBER, began, earlier_run_keys, run_key

    ti = context["ti"]
    key, earlier_keys, since = run_key(ti), earlier_run_keys(ti), began(context)
    until = time.monotonic() + NONCE_DEAD_AFTER - _since_the_last_try(context)
    looks = 0
    while True:
        # All that run, whatever their workflow: somebody may have edited that between two tries.
        listed = {one.id: one for one in hook.list_executions(status="RUNNING", created_after=since)}
        for one in hook.list_executions(workflow_external_id=workflow_external_id, created_after=since):
            listed[one.id] = one
        own = [one for one in listed.values() if one.metadata.get(RUN_KEY) == key]
        earlier = [one for one in listed.values() if one.metadata.get(RUN_KEY) in earlier_keys]
        found = max(own, key=_usefulness) if own else None
        if may_cancel:
            _cancel_others(hook, context, listed.values(), keep=found)
        looks += 1
        tries = {one.metadata.get(TRY_NUMBER) for one in (*own, *earlier)}
        is_clear = str(ti.try_number - 1) in tries or (looks > 1 and time.monotonic() >= until)
        if is_clear or (found is not None and not has_ended_badly(found)):
            return found
        if looks == 1 and until - time.monotonic() > LOOK_AGAIN_AFTER:
            log.info(
                "CDF lists no execution of the try before. A request of it may still be under way; looking "
                "for that for %.0f s.",
                until - time.monotonic(),
            )
        pause(LOOK_AGAIN_AFTER)


def has_ended_badly(execution: WorkflowExecution) -> bool:
    """Whether an execution is over without a result."""
    return execution.status.has_ended and execution.status != "COMPLETED"


def _usefulness(execution: WorkflowExecution) -> tuple[bool, bool, int]:
    """Order executions of one logical run: one that runs, else one with a result, else the latest."""
    runs, is_done = not execution.status.has_ended, execution.status == "COMPLETED"
    return runs, is_done, execution.created_time or 0


def _since_the_last_try(context: Context) -> float:
    """Return the least number of seconds that must have passed since the try before this one ended."""
    task: Any = context.get("task")
    if getattr(context["dag_run"], "clear_number", 0):
        return A_PERSON_TAKES
    if task is None:
        return 0.0
    delay = task.retry_delay
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    # An exponential backoff begins with half the delay.
    return seconds / 2 if task.retry_exponential_backoff else seconds


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
    hook: CdfHook, context: Context, running: Iterable[WorkflowExecution], keep: WorkflowExecution | None
) -> None:
    from airflow_provider_cdf.cdf.conversations import RUN_KEY
    from airflow_provider_cdf.operators.identity import earlier_run_keys, run_key

    keys = earlier_run_keys(context["ti"]) | {run_key(context["ti"])}
    for execution in running:
        if execution.metadata.get(RUN_KEY) in keys and (keep is None or execution.id != keep.id):
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
