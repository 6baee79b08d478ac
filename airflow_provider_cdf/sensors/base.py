"""What the sensors share: look once, then poke, or defer."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_cdf.cdf.errors import CdfError, CdfWaitImpossibleError, CdfWaitRefusedError
from airflow_provider_cdf.triggers.polling import BACKSTOP, BROKEN, GIVEN_UP, MAX_POLL_SILENCE, seconds

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecutionDetails
    from airflow_provider_cdf.hooks.cdf import CdfHook
    from airflow_provider_cdf.triggers.polling import ExecutionTrigger
    from airflow_provider_cdf.waiting import Patience, Reached, Verdict


class ExecutionSensor(BaseSensorOperator):
    """
    Wait for something to happen to an execution.

    The first look is always on the worker, so that a wrong connection or an id that does not exist ends the
    task at once, and a wait that is over before it began does not defer. What can no longer happen ends the
    wait at once too, with the reason that CDF gives, and is not retried. ``soft_fail``, ``timeout`` (7 days
    unless it is given) and ``mode`` are Airflow's own: after a deferral, ``soft_fail`` skips for each error,
    otherwise for those that are not retried.

    :param execution_id: UUID of the execution. (templated)
    :param cdf_conn_id: id of the Airflow connection. (templated)
    :param poke_interval: seconds between looks, deferred or not.
    :param deferrable: wait in the triggerer instead of in a worker slot.
    :param max_poll_silence: seconds without one good answer from CDF after which the wait gives up; single
        failing looks do not end it. Without effect in the mode ``reschedule``, where each look is a process
        of its own: there ``timeout`` ends the wait, also one that CDF refuses.
    """

    template_fields: Sequence[str] = ("execution_id", "cdf_conn_id")

    def __init__(
        self,
        *,
        execution_id: str,
        cdf_conn_id: str = "cdf_default",
        poke_interval: float | timedelta = 10.0,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        max_poll_silence: float | timedelta = MAX_POLL_SILENCE,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.execution_id = execution_id
        self.cdf_conn_id = cdf_conn_id
        self.deferrable = deferrable
        self.max_poll_silence = seconds(max_poll_silence)
        self._patience: Patience | None = None
        self._look_again_at = 0.0
        self._observed: str | None = None
        #: The attempt at a task that the trigger saw in a wanted status.
        self._seen: str | None = None

    @cached_property
    def hook(self) -> CdfHook:
        """The hook of this sensor's connection."""
        from airflow_provider_cdf.hooks.cdf import CdfHook

        return CdfHook(self.cdf_conn_id)

    @property
    @abstractmethod
    def goal(self) -> str:
        """What is waited for, to complete "until ...", for messages."""

    @abstractmethod
    def decide(self, execution: WorkflowExecutionDetails) -> Verdict:
        """Say what an observation means for this wait."""

    @abstractmethod
    def trigger(self, **kwargs: Any) -> ExecutionTrigger:
        """Make the trigger that goes on waiting, given what all of them need."""

    @abstractmethod
    def arrived(self, context: Context, reached: Reached) -> str:
        """Push what has been waited for, and return the sensor's value."""

    def execute(self, context: Context) -> Any:
        """Wait on the worker, or defer."""
        try:
            return self.look_or_defer(context) if self.deferrable else super().execute(context)
        except AirflowSensorTimeout:
            # Airflow's own says how long it waited, but not for what.
            raise self._in_vain() from None
        except AirflowException as error:
            # Airflow sees to this where a sensor pokes, and where it resumes. Other errors are retried.
            if self.deferrable and (self.never_fail or (self.soft_fail and _is_final(error))):
                raise AirflowSkipException(f"Skipped instead of failed: {error}") from error
            raise

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, also after one that broke: a trigger that crashed or was given up."""
        if next_method == BROKEN:
            error = (next_kwargs or {}).get("error")
            self.log.warning(
                "The trigger that waited until %s has broken (%s); waiting goes on here.", self.goal, error
            )
            # On the worker, because a trigger that crashed once might do so for ever. By way of Airflow's own
            # method, because that is where it applies soft_fail and never_fail.
            next_method, next_kwargs = "wait_here", {"is_over": error == GIVEN_UP}
        return super().resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        # Airflow calls this at its own fixed interval; after failing looks, not every call is one.
        if time.monotonic() < self._look_again_at:
            return PokeReturnValue(is_done=False)
        if self.reschedule and self._patience is None and _has_been_rescheduled(context["ti"], context):
            # Its looks are the first ones of their processes, but not of the wait.
            self._begin()
        reached = self._look()
        if reached is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self.arrived(context, reached))

    def look_or_defer(self, context: Context, end_time: float | None = None) -> str:
        """Look once, and defer if it has not happened yet and there is time left."""
        if end_time is None:
            end_time = time.time() + self.timeout
        is_over = time.time() >= end_time
        reached = self._look(is_last=is_over)
        if reached is not None:
            return self.arrived(context, reached)
        if is_over:
            raise self._in_vain()
        self.defer(
            trigger=self.trigger(
                cdf_conn_id=self.cdf_conn_id,
                execution_id=self.execution_id,
                poll_interval=self.poke_interval,
                end_time=end_time,
                max_poll_silence=self.max_poll_silence,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(end_time - time.time(), 0) + BACKSTOP),
        )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Go on where the trigger left off."""
        event = event or {}
        outcome = event.get("outcome")
        if outcome in ("reached", "impossible", "timeout"):
            # Things may have changed while this task waited for a slot, which can take hours.
            end_time = event.get("end_time")
            self._observed = event.get("observed")
            self._seen = event.get("cdf_task_id")
            if outcome == "timeout" or end_time is None or time.time() < end_time:
                self._begin()  # otherwise a look that fails must not make a timeout of what was in time
            return self.look_or_defer(context, end_time)
        kind = CdfWaitRefusedError if event.get("is_permanent") else CdfError
        what = event.get("message") or f"The trigger ended with an unknown event: {event}."
        raise kind(f"{what} Execution {self.execution_id} was left as it is.")

    def wait_here(self, context: Context, is_over: bool = False) -> str:
        """
        Wait on the worker until it has happened.

        :param is_over: whether the time for it is over, so that there is one more look only.
        """
        patience = self._begin()
        end_time = time.time() if is_over else _started_at(context["ti"]) + self.timeout
        while True:
            left = end_time - time.time()
            reached = self._look(is_last=left <= 0)
            if reached is not None:
                return self.arrived(context, reached)
            if left <= 0:
                raise self._in_vain()
            time.sleep(min(patience.next_interval, left))

    def _begin(self) -> Patience:
        """Note that the wait has begun: from here on, a look that fails does not end it."""
        from airflow_provider_cdf.waiting import Patience

        self._patience = Patience(
            interval=self.poke_interval, max_silence=self.max_poll_silence, now=time.monotonic()
        )
        return self._patience

    def _look(self, *, is_last: bool = False) -> Reached | None:
        """
        Look once; log what has changed, and outlive a failing look while the wait goes on.

        The first look and the last one take their time, because no other makes up for them.
        """
        from airflow_provider_cdf.waiting import GoOn, Reached

        hook = self.hook if self._patience is None or is_last else self._poll_hook
        try:
            execution = hook.get_execution(self.execution_id)
        except CdfError as error:
            try:
                if self._patience is None:
                    raise
                note = self._patience.failed(error, now=time.monotonic())
            except CdfError as last:
                raise last.adding("Nothing was changed in CDF.") from None
            if note:
                self.log.warning(note)
            self._look_again_at = time.monotonic() + self._patience.next_interval - self.poke_interval / 2
            return None
        patience = self._patience or self._begin()
        if note := patience.answered(now=time.monotonic()):
            self.log.info(note)
        verdict = self.decide(execution)
        if isinstance(verdict, Reached):
            return verdict
        if not isinstance(verdict, GoOn):
            raise CdfWaitImpossibleError(verdict.reason)
        if verdict.observed != self._observed:
            self._observed = verdict.observed
            self.log.info("Execution %s: %s.", self.execution_id, verdict.observed)
        return None

    @cached_property
    def _poll_hook(self) -> CdfHook:
        """The hook for the looks of a wait, which is patient itself."""
        return self.hook.sibling(retry_for=0)

    def _in_vain(self) -> AirflowSensorTimeout:
        observed = f"it is {self._observed}" if self._observed else "its state is not known"
        return AirflowSensorTimeout(
            f"Waited in vain for timeout={self.timeout:g} s until {self.goal}; {observed}. "
            "Nothing was changed in CDF."
        )


def _is_final(error: AirflowException) -> bool:
    return isinstance(error, AirflowFailException | AirflowSensorTimeout)


def _started_at(ti: Any) -> float:
    """Return when this try began, which Airflow keeps over a deferral."""
    return ti.start_date.timestamp() if ti.start_date is not None else time.time()


def _has_been_rescheduled(ti: Any, context: Context) -> bool:
    if hasattr(ti, "get_first_reschedule_date"):
        return ti.get_first_reschedule_date(context) is not None
    # Airflow 2: the task runs with the database at hand.
    from airflow.sensors.base import _orig_start_date  # type: ignore[import-not-found]

    first = _orig_start_date(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, ti.try_number)
    return first is not None
