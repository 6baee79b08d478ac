"""
Finding again what an Airflow task has started in CDF, whatever died in between.

Nothing is stored in Airflow for it: an execution's metadata says which logical run of which task it is.
"""

from __future__ import annotations

import logging
import threading
import time
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
#: Two machines' clocks: how much earlier than Airflow's CDF's may date an execution.
CLOCK_MARGIN = timedelta(minutes=15)
#: Seconds that a killed task waits for its cancellation; Airflow sends SIGKILL 5 s after SIGTERM.
KILL_PATIENCE = 3.0


def find_earlier_run(
    hook: CdfHook, context: Context, workflow_external_id: str, version: str
) -> WorkflowExecution | None:
    """
    Return the latest execution that an earlier try of this logical run has started.

    What still runs of the task's life before a person cleared it is cancelled on the way: the person asked
    for a new execution instead of it.
    """
    from airflow_provider_cdf.operators.identity import RUN_KEY, earlier_run_keys, run_key

    ti = context["ti"]
    key, earlier_keys = run_key(ti), earlier_run_keys(ti)
    for look in (1, 2):
        executions = list(
            hook.list_executions(
                workflow_external_id=workflow_external_id, version=version, created_after=_began(context)
            )
        )
        for execution in executions:
            if execution.metadata.get(RUN_KEY) in earlier_keys and not execution.status.has_ended:
                _cancel_replaced(hook, execution)
        own = [execution for execution in executions if execution.metadata.get(RUN_KEY) == key]
        if own:
            return max(own, key=lambda execution: execution.created_time or 0)
        if look == 1:
            time.sleep(LOOK_AGAIN_AFTER)
    return None


def _cancel_replaced(hook: CdfHook, execution: WorkflowExecution) -> None:
    try:
        hook.cancel_execution(execution.id, "The Airflow task that started it was cleared.")
    except CdfError as error:
        log.warning(
            "Execution %s of the task's life before it was cleared may go on: %s", execution.id, error
        )
    else:
        log.info("Cancelled execution %s, of the task's life before it was cleared.", execution.id)


def _began(context: Context) -> datetime:
    # A cleared DAG run has a new start date, but executions of its tasks may be older.
    run = context["dag_run"]
    dates = (getattr(run, name, None) for name in ("run_after", "queued_at", "start_date"))
    began: datetime = min(date for date in dates if date is not None)
    return began - CLOCK_MARGIN


class Cancellation:
    """
    A cancellation on behalf of a signal handler.

    The handler interrupts the task wherever it is, perhaps while it holds a lock of the HTTP client or of the
    connection to Airflow. So the request is sent from a thread, over a connection of its own.

    :param hook: a hook that has been used before, so that neither connection nor token has to be fetched.
    """

    def __init__(self, hook: CdfHook, execution_id: str, reason: str) -> None:
        self._settings = hook.client.settings
        self._execution_id, self._reason = execution_id, reason
        self._outcome = "It may still run in CDF, because it is not known yet whether it could be cancelled."
        self._thread = threading.Thread(target=self._cancel, name="cdf-cancel", daemon=True)
        self._thread.start()

    def outcome(self, timeout: float = KILL_PATIENCE) -> str:
        """Return in a sentence what has become of the execution, after some seconds at most."""
        self._thread.join(timeout)
        return self._outcome

    def _cancel(self) -> None:
        from dataclasses import replace

        from airflow_provider_cdf.cdf import conversations
        from airflow_provider_cdf.cdf.client import CdfClient

        try:
            settings = replace(self._settings, retry_for=0, request_timeout=KILL_PATIENCE)
            with CdfClient(settings) as client:
                client.perform(
                    conversations.cancel_execution(client.settings, self._execution_id, self._reason)
                )
        except CdfError as error:
            self._outcome = f"It may still run in CDF, because it could not be cancelled: {error}"
        else:
            self._outcome = "It was cancelled."


def cancel_orphan(context: Context) -> None:
    """
    Cancel the execution of a run operator that failed without running code of its own.

    Airflow calls this for every final failure. It only acts where the operator did not get to decide: its
    process was killed on the last try, and the DAG processor, which calls this then, has a fresh operator.
    """
    from airflow_provider_cdf.operators.identity import RUN_KEY, earlier_run_keys, run_key

    operator = instance_of(context)
    if operator.has_run or not operator.cancel_on_kill:
        return
    operator.render_template_fields(context)
    hook = operator.hook
    ti = context["ti"]
    keys = {run_key(ti)} | earlier_run_keys(ti)
    for execution in hook.list_executions(status="RUNNING", created_after=_began(context)):
        if execution.metadata.get(RUN_KEY) in keys:
            hook.cancel_execution(execution.id, "The Airflow task that waited for it has died.")
            log.info("Cancelled execution %s: the task that waited for it has died.", execution.id)


def with_callback(given: Any, own: Any) -> list[Any]:
    """Return a task's callbacks with one of ours added to the user's, unless it is among them already."""
    callbacks = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    return callbacks if own in callbacks else [*callbacks, own]


def partial_with_callback(partial: Any, own: Any) -> Any:
    """Return what ``partial()`` has made, for which Airflow has merged in ``default_args``, with ours added."""
    # The DAG processor takes the callbacks of a mapped task from here, without ever making an instance.
    partial.kwargs["on_failure_callback"] = with_callback(partial.kwargs.get("on_failure_callback"), own)
    return partial


def instance_of(context: Context) -> Any:
    """Return the operator that a callback is about, which of a mapped task is that of its map index."""
    operator: Any = context["task"]
    if operator.is_mapped:
        # The DAG processor has the task as it was mapped. Rendering it puts its instance into the context.
        operator.render_template_fields(context)
    return context["task"]
