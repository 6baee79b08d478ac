"""
Finding again what an Airflow task has started in CDF, whatever died in between.

Nothing is stored in Airflow for it: an execution's metadata says which logical run of which task it is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.cdf.errors import CdfError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecution
    from airflow_provider_cdf.hooks.cdf import CdfHook

log = logging.getLogger(__name__)

#: Seconds before a second look for an execution that the first look did not find: CDF's list may lag behind.
LOOK_AGAIN_AFTER = 5.0
#: Seconds that a killed task has for its cancellation; Airflow sends SIGKILL 5 s after SIGTERM.
KILL_PATIENCE = 3.0
#: Seconds between two looks for an execution that a killed task has just started.
KILL_LOOK_INTERVAL = 0.5

#: Reasons of executions that were cancelled because a process of their task was stopped. Should another
#: process of the task live on, it sees by them that nobody has given up on the work, and starts anew.
TASK_WAS_KILLED = "The Airflow task that waited for it was killed."
TASK_HAS_DIED = "The Airflow task that waited for it has died."


def find_earlier_run(
    hook: CdfHook, context: Context, workflow_external_id: str, pause: Callable[[float], None]
) -> WorkflowExecution | None:
    """
    Return the latest execution that an earlier try of this logical run has started, of whatever version.

    What else still runs of this task is cancelled on the way: executions of its life before a person cleared
    it, who asked for a new one instead.

    :param pause: waits some seconds, or raises if the task is to stop.
    """
    from airflow_provider_cdf.operators.identity import RUN_KEY, run_key

    key, began = run_key(context["ti"]), _began(context)
    for look in (1, 2):
        # All that run, whatever their workflow: somebody may have edited that between two tries.
        running = list(hook.list_executions(status="RUNNING", created_after=began))
        own = [one for one in running if one.metadata.get(RUN_KEY) == key]
        if not own:
            ended = hook.list_executions(workflow_external_id=workflow_external_id, created_after=began)
            own = [one for one in ended if one.metadata.get(RUN_KEY) == key]
        found = max(own, key=lambda one: one.created_time or 0) if own else None
        _cancel_others(hook, context, running, keep=found)
        if found is not None:
            return found
        if look == 1:
            pause(LOOK_AGAIN_AFTER)
    return None


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
    from airflow_provider_cdf.operators.identity import RUN_KEY, earlier_run_keys, run_key

    keys = earlier_run_keys(context["ti"]) | {run_key(context["ti"])}
    for execution in running:
        if execution.metadata.get(RUN_KEY) in keys and (keep is None or execution.id != keep.id):
            log.info(cancel(hook, execution.id, "The Airflow task that started it goes on without it."))


def cancel_runs_of_the_dead(hook: CdfHook, context: Context) -> None:
    """Cancel all that runs of a task of which nobody is left to decide anything."""
    from airflow_provider_cdf.operators.identity import RUN_KEY, earlier_run_keys, run_key

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
        from airflow_provider_cdf.operators.identity import RUN_KEY, run_key

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
