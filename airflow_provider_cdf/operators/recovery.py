"""
Finding again what an Airflow task has started in CDF, whatever died in between.

Nothing is stored in Airflow for it: an execution's metadata says which logical run of which task it is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.cdf.errors import CdfError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecution
    from airflow_provider_cdf.hooks.cdf import CdfHook

log = logging.getLogger(__name__)

#: Seconds before a second look for an execution that the first look did not find: CDF's list may lag behind.
LOOK_AGAIN_AFTER = 5.0
#: Seconds between the end of a try and a person who has read why, and clears the task.
A_PERSON_TAKES = 90.0
#: Seconds that a killed task has for its cancellation; Airflow sends SIGKILL 5 s after SIGTERM.
KILL_PATIENCE = 3.0
#: Seconds between two looks for an execution that a killed task has just started.
KILL_LOOK_INTERVAL = 0.5

#: Reasons of executions that were cancelled because a process of their task was stopped. Should another
#: process of the task live on, it sees by them that nobody has given up on the work, and starts anew.
TASK_WAS_KILLED = "The Airflow task that waited for it was killed."
TASK_HAS_DIED = "The Airflow task that waited for it has died."


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
    from airflow_provider_cdf.operators.identity import TRY_NUMBER, earlier_run_keys, run_key

    ti = context["ti"]
    key, earlier_keys, began = run_key(ti), earlier_run_keys(ti), _began(context)
    until = time.monotonic() + NONCE_DEAD_AFTER - _since_the_last_try(context)
    looks = 0
    while True:
        # All that run, whatever their workflow: somebody may have edited that between two tries.
        listed = {one.id: one for one in hook.list_executions(status="RUNNING", created_after=began)}
        for one in hook.list_executions(workflow_external_id=workflow_external_id, created_after=began):
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


def cancel_other_runs(hook: CdfHook, context: Context, keep: WorkflowExecution) -> None:
    """
    Cancel all that runs of this task but one execution.

    For a retry that has just started one: the process of the try before it may have gone on as an orphan, and
    have started one too.
    """
    _cancel_others(hook, context, hook.list_executions(status="RUNNING", created_after=_began(context)), keep)


def _cancel_others(
    hook: CdfHook, context: Context, running: Iterable[WorkflowExecution], keep: WorkflowExecution | None
) -> None:
    from airflow_provider_cdf.cdf.conversations import RUN_KEY
    from airflow_provider_cdf.operators.identity import earlier_run_keys, run_key

    keys = earlier_run_keys(context["ti"]) | {run_key(context["ti"])}
    for execution in running:
        if execution.metadata.get(RUN_KEY) in keys and (keep is None or execution.id != keep.id):
            log.info(cancel(hook, execution.id, "The Airflow task that started it goes on without it."))


def cancel_runs_of_the_dead(hook: CdfHook, context: Context) -> None:
    """Cancel all that runs of a task of which nobody is left to decide anything."""
    from airflow_provider_cdf.cdf.conversations import RUN_KEY
    from airflow_provider_cdf.operators.identity import earlier_run_keys, run_key

    keys = earlier_run_keys(context["ti"]) | {run_key(context["ti"])}
    for execution in hook.list_executions(status="RUNNING", created_after=_began(context)):
        if execution.metadata.get(RUN_KEY) in keys:
            log.info(cancel(hook, execution.id, TASK_HAS_DIED))


def cancel(hook: CdfHook, execution_id: str, reason: str) -> str:
    """Cancel an execution, and return in a sentence what has become of it."""
    try:
        return after_cancelling(hook.cancel_execution(execution_id, reason))
    except CdfError as error:
        return f"Execution {execution_id} may still run in CDF, because it could not be cancelled: {error}"


def after_cancelling(execution: WorkflowExecution) -> str:
    """Say in a sentence what a cancellation has found or made of an execution."""
    if execution.status == "TERMINATED":
        return f"Execution {execution.id} was cancelled."
    return f"Execution {execution.id} had ended {execution.status} before it could be cancelled."


def _began(context: Context) -> datetime:
    """Return a moment before which no execution of this task instance was started, by any machine's clock."""
    from airflow_provider_cdf.cdf.conversations import CLOCK_MARGIN

    run = context["dag_run"]
    # A cleared DAG run has a new start date, but executions of its tasks may be older. Airflow 2 has no
    # run_after; the logical date is earlier still.
    since = getattr(run, "run_after", None) or run.logical_date
    dates = (since, getattr(run, "queued_at", None), getattr(run, "start_date", None))
    began: datetime = min(date for date in dates if date is not None)
    return began - CLOCK_MARGIN


class Cancellation:
    """
    A cancellation on behalf of a signal handler.

    The handler interrupts the task wherever it is, perhaps while it holds a lock of the HTTP client or of the
    connection to Airflow. So the requests are sent from a thread, over connections of their own.

    :param hook: a hook that is connected, so that Airflow does not have to be asked for the connection.
    :param execution_id: the execution, if it is known; otherwise CDF may be starting it this very moment, and
        it is looked for as long as there is time.
    """

    def __init__(self, hook: CdfHook, context: Context, execution_id: str | None) -> None:
        self.execution_id = execution_id
        self._outcome = (
            f"Execution {execution_id} may still run in CDF: its cancellation is not answered yet."
            if execution_id
            else "CDF may have been starting an execution; none was found that could be cancelled."
        )
        self._hook, self._context = hook, context
        self._thread = threading.Thread(target=self._cancel, name="cdf-cancel", daemon=True)
        self._thread.start()

    def outcome(self, timeout: float = KILL_PATIENCE) -> str:
        """Return in a sentence what has become of the execution, after some seconds at most."""
        self._thread.join(timeout)
        return self._outcome

    def _cancel(self) -> None:
        hook = self._hook.sibling(retry_for=KILL_PATIENCE, request_timeout=KILL_PATIENCE)
        try:
            execution_id = self.execution_id or self._find(hook)
            if execution_id is not None:
                self._outcome = cancel(hook, execution_id, TASK_WAS_KILLED)
        except CdfError as error:
            self._outcome = f"An execution of this task may still run in CDF: {error}"
        finally:
            hook.close()
        log.warning("The task was killed. %s", self._outcome)

    def _find(self, hook: CdfHook) -> str | None:
        from airflow_provider_cdf.cdf.conversations import RUN_KEY
        from airflow_provider_cdf.operators.identity import run_key

        key, began = run_key(self._context["ti"]), _began(self._context)
        until = time.monotonic() + KILL_PATIENCE
        while True:
            for execution in hook.list_executions(status="RUNNING", created_after=began):
                if execution.metadata.get(RUN_KEY) == key:
                    return execution.id
            if time.monotonic() >= until:
                return None
            time.sleep(KILL_LOOK_INTERVAL)


def has_been_cleared(context: Context, retries: int) -> bool:
    """
    Whether this is the first try after a person has cleared the task, although the run key is the old one.

    A clear sets ``max_tries`` to the tries so far plus ``retries``. Where ``retries`` has been lowered in the
    meantime, that can be what it was before.
    """
    ti = context["ti"]
    has_any = bool(getattr(context["dag_run"], "clear_number", 0))
    return has_any and bool(ti.try_number == ti.max_tries - retries + 1)


def is_unsettled(operator: Any, context: Context) -> bool:
    """Whether something that nobody decides about may still run in CDF, after a task has failed for good."""
    from airflow_provider_cdf.cdf.retry import is_ambiguous

    if operator.is_settled is not False:
        return operator.is_settled is None  # it has not run here: its own process is dead
    error = context.get("exception")
    started_nothing = isinstance(error, CdfError) and not is_ambiguous(error)
    return not (operator.execution_id is None and context["ti"].try_number == 1 and started_nothing)
