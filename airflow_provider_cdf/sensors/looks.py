"""The looks of a sensor on the worker: the first one, those of a wait, and the last one."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.cdf.errors import CdfError, CdfWaitImpossibleError
from airflow_provider_cdf.cdf.messages import told
from airflow_provider_cdf.progress import Progress, table
from airflow_provider_cdf.waiting import GoOn, Patience, Reached, contradiction, may_not_be_listed_yet

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.models import WorkflowExecutionDetails
    from airflow_provider_cdf.hooks.cdf import CdfHook
    from airflow_provider_cdf.waiting import Verdict


class Looks:
    """
    Look at an execution, log what has changed, and outlive looks that fail while the wait goes on.

    :param decide: says what an observation means.
    :param interval: seconds between looks.
    :param max_silence: seconds without one good answer after which the wait gives up.
    :param log: of the sensor.
    """

    def __init__(
        self,
        hook: CdfHook,
        execution_id: str,
        decide: Callable[[WorkflowExecutionDetails], Verdict],
        *,
        interval: float,
        max_silence: float,
        log: Any,
    ) -> None:
        self._hook, self._execution_id, self._decide = hook, execution_id, decide
        self._interval, self._max_silence, self._log = interval, max_silence, log
        self._progress = Progress()
        self._patience: Patience | None = None
        self._again_at = 0.0
        #: The state of what is waited for, in a few words, when it was last seen.
        self.observed: str | None = None

    @property
    def has_begun(self) -> bool:
        """Whether there has been a look, here or, before, elsewhere."""
        return self._patience is not None

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next one: after those that failed, later than the interval says."""
        return time.monotonic() >= self._again_at

    @property
    def next_interval(self) -> float:
        """Seconds until the next one."""
        return (self._patience or self.begin()).next_interval

    def begin(self) -> Patience:
        """Note that the wait has begun: from here on, a look that fails does not end it."""
        self._patience = Patience(
            interval=self._interval, max_silence=self._max_silence, now=time.monotonic()
        )
        return self._patience

    def first(self, *, started_at: float, until: float) -> Reached | None:
        """
        Look for the first time, until CDF knows the execution, which it may have started a moment ago.

        :param started_at: the latest moment at which it can have been started.
        :param until: when the time for it is over; like the other, in seconds since the epoch.
        """
        has_told = False
        while True:
            try:
                execution = self._hook.get_execution(self._execution_id)
            except CdfError as error:
                now = time.time()
                is_young = may_not_be_listed_yet(error, started_at=started_at, now=now)
                if not is_young or now >= until:
                    raise error.adding("Nothing was changed in CDF.") from None
                if not has_told:
                    self._log.info("%s", told("It may have been started a moment ago; looking again.", error))
                    has_told = True
                time.sleep(min(self._interval, until - now))
            else:
                return self._meaning_of(execution, self.begin())

    def next(self, *, within: float | None = None) -> Reached | None:
        """Look once; ``None`` also if that failed, and the wait goes on."""
        return self._look(self._poll_hook, within)

    def last(self) -> Reached | None:
        """Look once more. It takes its time, because no other look makes up for it."""
        return self._look(self._hook, None)

    def _look(self, hook: CdfHook, within: float | None) -> Reached | None:
        patience = self._patience or self.begin()
        try:
            execution = hook.get_execution(self._execution_id, within=within)
        except CdfError as error:
            self._failed(patience, error)
            return None
        return self._meaning_of(execution, patience)

    def _meaning_of(self, execution: WorkflowExecutionDetails, patience: Patience) -> Reached | None:
        verdict = self._decide(execution)
        if isinstance(verdict, GoOn) and (doubt := contradiction(execution)):
            self._failed(patience, doubt)
            return None
        if note := patience.answered(now=time.monotonic()):
            self._log.info(note)
        if isinstance(verdict, Reached):
            return verdict
        if not isinstance(verdict, GoOn):
            self._log.info(
                "The tasks of the workflow: [execution %s]\n%s", self._execution_id, table(execution)
            )
            raise CdfWaitImpossibleError(verdict.reason)
        self.observed = verdict.observed
        for line in self._progress.lines(execution, verdict.observed, now=time.time()):
            self._log.info(line)
        return None

    def _failed(self, patience: Patience, error: CdfError) -> None:
        """Outlive a look that failed, or raise what ends the wait."""
        try:
            note = patience.failed(error, now=time.monotonic())
        except CdfError as last:
            raise last.adding("Nothing was changed in CDF.") from None
        if note:
            self._log.warning(note)
        # Half an interval early: Airflow pokes at its own pace, and not to the millisecond.
        self._again_at = time.monotonic() + patience.next_interval - self._interval / 2

    @cached_property
    def _poll_hook(self) -> CdfHook:
        """The hook for the looks of a wait, which is patient itself."""
        return self._hook.sibling(retry_for=0)
