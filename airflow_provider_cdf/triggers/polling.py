"""The loop of a trigger that watches one execution."""

from __future__ import annotations

import asyncio
import random
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_cdf.arguments import number_or
from airflow_provider_cdf.arguments import seconds as seconds

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.models import WorkflowExecutionDetails
    from airflow_provider_cdf.waiting import Verdict

#: Seconds between polls, unless something else is asked for.
POLL_INTERVAL = 10.0
#: Seconds without one good answer after which a wait gives up.
MAX_POLL_SILENCE = 900.0
#: The method that Airflow resumes a task with whose trigger has broken, and the error if it was given up.
BROKEN, GIVEN_UP = "__fail__", "Trigger timeout"
#: A deferral ends this many seconds after the trigger's own end of the wait, should the trigger be stuck.
BACKSTOP = 120.0


class ExecutionTrigger(BaseTrigger):
    """
    Watch an execution until there is something for a worker to do.

    Fires one event: a dict with ``outcome`` ``reached``, ``impossible``, ``timeout`` or ``error`` (with
    ``is_permanent``), and ``end_time`` for a task that goes on waiting. Events hold ids and messages only,
    because Airflow logs them whole. The triggers only read, so that two copies of one, which Airflow may run
    for a while, do no harm.

    :param cdf_conn_id: id of the Airflow connection.
    :param execution_id: UUID of the execution.
    :param poll_interval: seconds between polls.
    :param end_time: seconds since the epoch at which the wait is over; the wall clock, because another
        triggerer may go on with it. ``None`` for no end.
    :param max_poll_silence: seconds without one good answer from CDF after which the wait gives up.
    """

    def __init__(
        self,
        cdf_conn_id: str = "cdf_default",
        execution_id: str = "",
        poll_interval: float = POLL_INTERVAL,
        end_time: float | None = None,
        max_poll_silence: float = MAX_POLL_SILENCE,
        **more: Any,
    ) -> None:
        # Never raises, whatever it is given: an exception here would stop the whole triggerer. `more` is
        # what a newer release has stored.
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.cdf_conn_id = cdf_conn_id
        self.execution_id = execution_id
        self.poll_interval = poll_interval
        self.end_time = end_time
        self.max_poll_silence = max_poll_silence

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "cdf_conn_id": self.cdf_conn_id,
                "execution_id": self.execution_id,
                "poll_interval": self.poll_interval,
                "end_time": self.end_time,
                "max_poll_silence": self.max_poll_silence,
            },
        )

    @abstractmethod
    def decide(self, execution: WorkflowExecutionDetails) -> Verdict:
        """Say what an observation means for this wait."""

    def warn(self, execution: WorkflowExecutionDetails) -> None:
        """Warn of what may never end."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until there is something to tell, tell it once, and end."""
        # Airflow imports trigger modules on the event loop, so what is heavy waits until here.
        from airflow_provider_cdf.cdf.errors import CdfError, CdfLoginError
        from airflow_provider_cdf.hooks.cdf import CdfHook
        from airflow_provider_cdf.progress import Progress
        from airflow_provider_cdf.waiting import GoOn, Patience, Reached, contradiction, outlives

        # This loop is patient itself, and says once that it has to be.
        hook = CdfHook(self.cdf_conn_id, retry_for=0)
        # Whatever was stored: what is no number must not flood CDF, or wait for ever.
        patience = Patience(
            interval=number_or(self.poll_interval, POLL_INTERVAL),
            max_silence=number_or(self.max_poll_silence, MAX_POLL_SILENCE),
            now=time.monotonic(),
        )
        end_time = number_or(self.end_time, None)
        progress = Progress()
        observed = "nothing yet"
        try:
            while True:
                left = None if end_time is None else end_time - time.time()
                if left is not None and left <= 0:
                    # The worker looks once more.
                    yield self._event("timeout", observed=observed)
                    return
                try:
                    execution = await hook.aget_execution(self.execution_id, within=left)
                    verdict = self.decide(execution)
                    if isinstance(verdict, GoOn) and (doubt := contradiction(execution)):
                        raise doubt
                except CdfError as error:
                    try:
                        note = patience.failed(error, now=time.monotonic())
                    except CdfError as final:
                        yield self._event("error", message=str(final), is_permanent=not outlives(final))
                        return
                    if note:
                        self.log.warning(note)
                    if isinstance(error, CdfLoginError):
                        # The secret may have been renewed: the next poll reads the connection again.
                        await hook.aclose()
                else:
                    if note := patience.answered(now=time.monotonic()):
                        self.log.info(note)
                    if isinstance(verdict, Reached):
                        task_id = {"cdf_task_id": verdict.task.id} if verdict.task else {}
                        yield self._event("reached", **task_id)
                        return
                    if not isinstance(verdict, GoOn):
                        yield self._event("impossible", message=verdict.reason)
                        return
                    observed = verdict.observed
                    for line in progress.lines(execution, observed, now=time.time()):
                        self.log.info(line)
                    self.warn(execution)
                # Jittered, so that the triggers of a DAG that was started at once do not poll at once.
                pause = patience.next_interval * random.uniform(0.9, 1.1)  # noqa: S311 - no secret depends on it
                if end_time is not None:
                    pause = min(pause, max(end_time - time.time(), 0))
                await asyncio.sleep(pause)
        finally:
            await hook.aclose()

    def _event(self, outcome: str, **more: Any) -> TriggerEvent:
        return TriggerEvent(
            {"outcome": outcome, "execution_id": self.execution_id, "end_time": self.end_time, **more}
        )
