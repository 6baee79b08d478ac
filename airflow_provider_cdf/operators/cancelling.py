"""Cancelling what an Airflow task has started in CDF, from wherever that has to be done."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.errors import CdfError
from airflow_provider_cdf.cdf.messages import ids, told
from airflow_provider_cdf.task_state import ALIVE, NoAnswerError, state_within

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_cdf.cdf.models import WorkflowExecution
    from airflow_provider_cdf.hooks.cdf import CdfHook

log = logging.getLogger(__name__)

#: Seconds that a killed task has for its cancellation; Airflow sends SIGKILL 5 s after SIGTERM.
KILL_PATIENCE = 3.0
#: Seconds of it that Airflow has to say whether a person has ended the task; it takes some 0.1.
STATE_PATIENCE = 2.0
#: Seconds between two looks for an execution that a killed task has just started.
KILL_LOOK_INTERVAL = 0.5

#: Reason of executions whose task has failed for good, so that nothing waits for them any more.
TASK_HAS_DIED = "The Airflow task that waited for it has died."
#: Reasons of executions that were cancelled because a process of their task was stopped, or because two had
#: been started. Should another process of the task live on, it sees by them that the work is still wanted.
TASK_WAS_KILLED = "The Airflow task that waited for it was killed."
ANOTHER_WAS_KEPT = "The Airflow task that started it goes on with another execution."


def cancel(hook: CdfHook, execution_id: str, reason: str) -> str:
    """Cancel an execution, and return in a sentence what has become of it."""
    try:
        return after_cancelling(hook.cancel_execution(execution_id, reason))
    except CdfError as error:
        return told(
            "An execution may still run in CDF, because it could not be cancelled.",
            error,
            ids(execution=execution_id),
        )


def after_cancelling(execution: WorkflowExecution) -> str:
    """Say in a sentence what a cancellation has found or made of an execution."""
    which = ids(execution=execution.id)
    if execution.status == "TERMINATED":
        return f"The execution was cancelled. {which}"
    if not execution.has_ended:
        return f"CDF has agreed to cancel the execution, which is still {execution.status}. {which}"
    return f"The execution had ended {execution.status} before it could be cancelled. {which}"


def has_ended_badly(execution: WorkflowExecution) -> bool:
    """Whether an execution is over without a result."""
    return execution.has_ended and execution.status != "COMPLETED"


def is_given_up(execution: WorkflowExecution) -> bool:
    """Whether it has ended for good, and not because one of several processes of its task was stopped."""
    reasons = (TASK_WAS_KILLED, ANOTHER_WAS_KEPT)
    return execution.status != "TERMINATED" or execution.reason_for_incompletion not in reasons


class Cancellation:
    """
    A cancellation on behalf of a signal handler.

    The handler interrupts the task wherever it is, perhaps while it fetches a token, or holds a lock of the
    HTTP client or of the connection to Airflow. So the requests are sent from a thread, by a login and over
    connections of their own.

    :param hook: a hook that is connected, so that Airflow does not have to be asked for the connection.
    :param execution_id: the execution, if it is known.
    :param submit_id: if it is not, the submission that CDF may be accepting this very moment. What it has
        started is looked for as long as there is time.
    :param since: no execution of the task is older.
    :param ti: the task instance, if a retry can go on with the execution. Then nothing is cancelled, unless
        Airflow says that a person has ended the task: a deploy or a lost heartbeat stops only this process.
    """

    def __init__(
        self,
        hook: CdfHook,
        *,
        execution_id: str | None,
        submit_id: str | None,
        since: datetime,
        ti: Any = None,
    ) -> None:
        self.execution_id = execution_id
        self._outcome = (
            "The execution may still run in CDF: its cancellation is not answered yet. "
            f"[execution {execution_id}]"
            if execution_id
            else "CDF may be starting an execution, which is not cancelled if it appears later: look for the "
            f"metadata airflow_submit_id = {submit_id}."
        )
        self._hook, self._submit_id, self._since, self._ti = hook, submit_id, since, ti
        self._thread = threading.Thread(target=self._cancel, name="cdf-cancel", daemon=True)
        self._thread.start()

    def outcome(self, timeout: float = KILL_PATIENCE) -> str:
        """Return in a sentence what has become of the execution, after some seconds at most."""
        self._thread.join(timeout)
        return self._outcome

    def _cancel(self) -> None:
        if (why := self._why_it_goes_on()) is not None:
            which = (
                ids(execution=self.execution_id)
                if self.execution_id
                else f"Its metadata is airflow_submit_id = {self._submit_id}."
            )
            started = "What it has started" if self.execution_id else "What CDF may be starting for it"
            self._outcome = told(f"{started} goes on, for the next try.", why, which)
            log.warning("%s", told("The task was killed.", self._outcome))
            return
        hook = self._hook.sibling(
            retry_for=KILL_PATIENCE, request_timeout=KILL_PATIENCE, in_signal_handler=True
        )
        try:
            execution_id = self.execution_id or self._find(hook)
            if execution_id is not None:
                self._outcome = cancel(hook, execution_id, TASK_WAS_KILLED)
        except CdfError as error:
            self._outcome = told("An execution of this task may still run in CDF.", error)
        finally:
            hook.close()
        log.warning("%s", told("The task was killed.", self._outcome))

    def _why_it_goes_on(self) -> str | None:
        if self._ti is None:
            return None
        try:
            state = state_within(self._ti, STATE_PATIENCE)
        except NoAnswerError:
            # Airflow has just answered a person who ends a task, and the worker that asks whether to go on.
            # So when it does not answer, it is more likely that it is being deployed, and the worker with it.
            return (
                f"Airflow has not said within {STATE_PATIENCE:g} s why. Should a person have ended the task, "
                "there is no next try, and it is to be cancelled in Fusion."
            )
        return f"Only its process was stopped; the task is {state} in Airflow." if state in ALIVE else None

    def _find(self, hook: CdfHook) -> str | None:
        from airflow_provider_cdf.cdf.calls import SUBMIT_ID

        until = clock.now() + KILL_PATIENCE
        while True:
            for execution in hook.list_executions(status="RUNNING", created_after=self._since):
                if execution.metadata.get(SUBMIT_ID) == self._submit_id:
                    return execution.id
                if clock.now() >= until:
                    return None
            if clock.now() >= until:
                return None
            clock.sleep(KILL_LOOK_INTERVAL)
