"""One trigger's wait: it reads the snapshots of a stream, alone or beside others, until there is an end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.arguments import number_or
from airflow_provider_cdf.cdf.errors import CdfError
from airflow_provider_cdf.cdf.models import WorkflowExecution, WorkflowExecutionDetails
from airflow_provider_cdf.progress import Progress
from airflow_provider_cdf.triggers.streams import Snapshot
from airflow_provider_cdf.waiting import GoOn, Patience, Reached, contradiction, outlives

if TYPE_CHECKING:
    from airflow_provider_cdf.triggers.polling import ExecutionTrigger

#: Seconds between two wishes to see the tasks of an execution, which the list of those that run has not.
BETWEEN_WISHES = 60.0


class Wait:
    """
    The wait of one trigger, with its own patience and its own end, whatever others in the stream do.

    :param trigger: says what an observation means, and is told what to log.
    """

    def __init__(self, trigger: ExecutionTrigger) -> None:
        self._trigger = trigger
        self._log = trigger.log
        self._patience = Patience(
            interval=trigger.interval, max_silence=trigger.max_silence, now=time.monotonic()
        )
        self._end_time = number_or(trigger.end_time, None)
        self._progress = Progress()
        self._observed = "nothing yet"
        self._look_at = self._wish_at = 0.0

    async def outcome(self, stream: AsyncIterator[Snapshot]) -> dict[str, Any]:
        """Read snapshots until there is something to tell, and return it."""
        while True:
            left = math.inf if self._end_time is None else self._end_time - time.time()
            heard = self._patience.gives_up_at - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                # Airflow closes a stream that is left in the middle of a poll, which is all right at the end.
                async with asyncio.timeout(min(left, heard) if min(left, heard) < math.inf else None):
                    snapshot = await anext(stream)
                    # Where this one was held up, only the newest of the snapshots before it counts.
                    seen = None if snapshot.is_outdated else await self._see(snapshot)
            except TimeoutError:
                if left <= heard:
                    # The worker looks once more.
                    return {"outcome": "timeout", "observed": self._observed}
                return _failure(self._patience.given_up(now=time.monotonic()))
            if isinstance(seen, CdfError):
                outcome = self._failed(seen)
                if snapshot.error is None:
                    # The stream goes on at its own pace. A little early, because that is not to the second.
                    self._look_at = time.monotonic() + 0.8 * self._patience.next_interval
            else:
                outcome = None if seen is None else self._answered(seen, snapshot)
            if outcome is not None:
                return outcome

    async def _see(self, snapshot: Snapshot) -> WorkflowExecution | CdfError | None:
        """Return what a snapshot shows of the execution; where it is not in it, read it."""
        if snapshot.error is not None:
            return snapshot.error
        execution_id = self._trigger.execution_id
        shown = snapshot.shows(execution_id)
        if shown is not None:
            return shown
        if time.monotonic() < self._look_at:
            return None
        return await snapshot.look(execution_id)

    def _failed(self, error: CdfError) -> dict[str, Any] | None:
        """Outlive a failing poll, or return the end of the wait."""
        try:
            note = self._patience.failed(error, now=time.monotonic())
        except CdfError as final:
            return _failure(final)
        if note:
            self._log.warning(note)
        return None

    def _answered(self, execution: WorkflowExecution, snapshot: Snapshot) -> dict[str, Any] | None:
        """Tell what has happened, or return the end of the wait."""
        details = execution if isinstance(execution, WorkflowExecutionDetails) else None
        verdict = self._trigger.decide(execution)
        if isinstance(verdict, GoOn) and details is not None and (doubt := contradiction(details)):
            return self._failed(doubt)
        if note := self._patience.answered(now=time.monotonic()):
            self._log.info(note)
        if isinstance(verdict, Reached):
            return {"outcome": "reached"} | ({"cdf_task_id": verdict.task.id} if verdict.task else {})
        if not isinstance(verdict, GoOn):
            return {"outcome": "impossible", "message": verdict.reason}
        self._observed = verdict.observed
        for line in self._progress.lines(execution, verdict.observed, now=time.time()):
            self._log.info(line)
        if details is not None:
            self._trigger.warn(details)
        elif self._trigger.wants_tasks and time.monotonic() >= self._wish_at:
            snapshot.wish_for_tasks(self._trigger.execution_id)
            self._wish_at = time.monotonic() + BETWEEN_WISHES
        return None


def _failure(error: CdfError) -> dict[str, Any]:
    return {"outcome": "error", "message": str(error), "is_permanent": not outlives(error)}
