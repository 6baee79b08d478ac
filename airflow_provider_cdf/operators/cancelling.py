"""Cancelling what an Airflow task has started in CDF, from wherever that has to be done."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from airflow_provider_cdf.cdf.errors import CdfError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecution
    from airflow_provider_cdf.hooks.cdf import CdfHook

log = logging.getLogger(__name__)

#: Seconds that a killed task has for its cancellation; Airflow sends SIGKILL 5 s after SIGTERM.
KILL_PATIENCE = 3.0
#: Seconds between two looks for an execution that a killed task has just started.
KILL_LOOK_INTERVAL = 0.5

#: Reasons of executions that were cancelled because a process of their task was stopped. Should another
#: process of the task live on, it sees by them that nobody has given up on the work, and starts anew.
TASK_WAS_KILLED = "The Airflow task that waited for it was killed."
TASK_HAS_DIED = "The Airflow task that waited for it has died."


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
        from airflow_provider_cdf.operators.identity import began, run_key

        key, since = run_key(self._context["ti"]), began(self._context)
        until = time.monotonic() + KILL_PATIENCE
        while True:
            for execution in hook.list_executions(status="RUNNING", created_after=since):
                if execution.metadata.get(RUN_KEY) == key:
                    return execution.id
            if time.monotonic() >= until:
                return None
            time.sleep(KILL_LOOK_INTERVAL)
