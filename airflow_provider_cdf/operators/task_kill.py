"""What CDF is told when a person marks the Airflow task that does the work of a CDF task."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_cdf.cdf.errors import CdfError
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.operators.cancelling import KILL_PATIENCE
from airflow_provider_cdf.operators.reporting import Target, failure, report, with_note
from airflow_provider_cdf.task_state import state_of

if TYPE_CHECKING:
    from airflow_provider_cdf.hooks.cdf import CdfHook

log = logging.getLogger(__name__)


class MarkedFailedError(AirflowException):
    """A person has marked the task, or its DAG run, as failed."""


#: What CDF is told about a task that was running, by what a person has made of it. Skipped is what Airflow
#: makes of it when the DAG run is marked failed.
_WHY = {
    "failed": "The task was marked failed in Airflow.",
    "skipped": "The task was skipped in Airflow while it ran, as when its DAG run is marked failed.",
}


class LastReport:
    """
    The report of a task that was told to stop, on behalf of a signal handler.

    Airflow sends the same signal when a person marks the task failed or successful, when one clears it, and
    when its worker is shut down. Only its state in Airflow tells them apart. It is asked for in a thread,
    because the handler may have interrupted the task while that held the connection to Airflow.

    :param hook: a hook that is connected, so that Airflow does not have to be asked for the connection.
    :param failure_status: what the CDF task is set to when the Airflow task was marked failed.
    """

    def __init__(self, hook: CdfHook, ti: Any, target: Target, failure_status: str) -> None:
        self._hook, self._ti, self._target, self._failure_status = hook, ti, target, failure_status
        self._thread = threading.Thread(target=self._tell, name="cdf-last-report", daemon=True)
        self._thread.start()

    def wait(self, timeout: float = KILL_PATIENCE) -> None:
        """Wait until it is made, for some seconds at most. It goes on beyond them while the process lives."""
        self._thread.join(timeout)

    def _tell(self) -> None:
        try:
            state = state_of(self._ti)
        except Exception as error:
            log.warning(
                "The task was told to stop, and Airflow does not say why (%r): CDF is told nothing.", error
            )
            return
        if state not in _WHY and state != "success":
            log.info(
                "The task was told to stop, and is %s in Airflow: CDF is told nothing and waits for the next "
                "try.",
                state,
            )
            return
        hook = self._hook.sibling(
            retry_for=KILL_PATIENCE, request_timeout=KILL_PATIENCE, in_signal_handler=True
        )
        try:
            if state == "success":
                output = with_note(None, self._ti, marked="success")
                report(hook, self._ti, self._target, "COMPLETED", output, patience=0.0)
            else:
                output = failure(self._ti, [], MarkedFailedError(_WHY[str(state)]))
                report(hook, self._ti, self._target, self._failure_status, output, patience=0.0)
        except CdfError as error:
            log.warning(
                "%s",
                told(f"The task is marked {state}, and the CDF task may still wait for a report.", error),
            )
        finally:
            hook.close()
