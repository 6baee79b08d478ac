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
        #: What the wait goes on with.
        self._known: WorkflowExecution | None = None
        self._look_at = self._wish_at = 0.0

    async def outcome(self, stream: AsyncIterator[Snapshot]) -> dict[str, Any]:
        """Read snapshots until there is something to tell, and return it."""
        try:
            # Airflow closes a stream that is left in the middle of a poll, which is all right at the end.
            async with asyncio.timeout(None) as limit:
                while True:
                    self._keep_to_time(limit)
                    snapshot = await anext(stream)
                    # Where this one was held up, only the newest of the snapshots before it counts.
                    seen = None if snapshot.is_outdated else await self._see(snapshot)
                    if seen is not None and (outcome := self._concluded(seen, snapshot)) is not None:
                        return outcome
        except TimeoutError:
            if self._left <= self._heard:
                # The worker looks once more.
                return {"outcome": "timeout", "observed": self._observed}
            return _failure(self._patience.given_up(now=time.monotonic()))

    @property
    def _left(self) -> float:
        """Seconds until the wait is over."""
        return math.inf if self._end_time is None else self._end_time - time.time()

    @property
    def _heard(self) -> float:
        """Seconds until it gives up if nothing is heard of CDF."""
        return self._patience.gives_up_at - time.monotonic()

    def _keep_to_time(self, limit: asyncio.Timeout) -> None:
        """
        End the wait when its time is over.

        The timer is left as it is unless it is wrong by a second: a thousand new ones at each poll would have
        Python search for garbage.

        :raises TimeoutError: if it is over.
        """
        left = min(self._left, self._heard)
        if left <= 0:
            raise TimeoutError
        when = None if left == math.inf else asyncio.get_running_loop().time() + left
        is_set_to = limit.when()
        if when is None or is_set_to is None:
            if when is not is_set_to:
                limit.reschedule(when)
        elif abs(when - is_set_to) > 1:
            limit.reschedule(when)

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

    def _concluded(self, seen: WorkflowExecution | CdfError, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the end of the wait, if this is it."""
        if not isinstance(seen, CdfError):
            return self._answered(seen, snapshot)
        outcome = self._failed(seen)
        if snapshot.error is None:
            # The stream goes on at its own pace. A little early, because that is not to the second.
            self._look_at = time.monotonic() + 0.8 * self._patience.next_interval
        return outcome

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
        if execution is self._known and not self._progress.is_due(now=time.time()):
            # Nothing has changed since the poll before: then it is the very same object.
            self._heard_of_it()
        else:
            verdict = self._trigger.decide(execution)
            details = execution if isinstance(execution, WorkflowExecutionDetails) else None
            if isinstance(verdict, GoOn) and details is not None and (doubt := contradiction(details)):
                return self._failed(doubt)
            self._heard_of_it()
            if isinstance(verdict, Reached):
                return {"outcome": "reached"} | ({"cdf_task_id": verdict.task.id} if verdict.task else {})
            if not isinstance(verdict, GoOn):
                return {"outcome": "impossible", "message": verdict.reason}
            self._known, self._observed = execution, verdict.observed
            for line in self._progress.lines(execution, verdict.observed, now=time.time()):
                self._log.info(line)
            if details is not None:
                self._trigger.warn(details)
        is_listed = not isinstance(execution, WorkflowExecutionDetails)
        if is_listed and self._trigger.wants_tasks and time.monotonic() >= self._wish_at:
            snapshot.wish_for_tasks(self._trigger.execution_id)
            self._wish_at = time.monotonic() + BETWEEN_WISHES
        return None

    def _heard_of_it(self) -> None:
        if note := self._patience.answered(now=time.monotonic()):
            self._log.info(note)


def _failure(error: CdfError) -> dict[str, Any]:
    return {"outcome": "error", "message": str(error), "is_permanent": not outlives(error)}
