"""What the sensors share: look once, then poke, or defer."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_cdf.cdf.errors import CdfError, CdfWaitImpossibleError
from airflow_provider_cdf.triggers.polling import BACKSTOP, MAX_POLL_SILENCE

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
    wait at once too, with the reason that CDF gives, and is not retried. ``soft_fail``, ``timeout`` and
    ``mode`` are Airflow's own.

    :param execution_id: UUID of the execution. (templated)
    :param cdf_conn_id: id of the Airflow connection. (templated)
    :param poke_interval: seconds between looks, deferred or not.
    :param deferrable: wait in the triggerer instead of in a worker slot.
    :param max_poll_silence: seconds without one good answer from CDF after which the wait gives up; single
        failing looks do not end it.
    """

    template_fields: Sequence[str] = ("execution_id", "cdf_conn_id")

    def __init__(
        self,
        *,
        execution_id: str,
        cdf_conn_id: str = "cdf_default",
        poke_interval: float | timedelta = 10.0,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        max_poll_silence: float = MAX_POLL_SILENCE,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.execution_id = execution_id
        self.cdf_conn_id = cdf_conn_id
        self.deferrable = deferrable
        self.max_poll_silence = max_poll_silence
        self._patience: Patience | None = None
        self._observed: str | None = None

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
        if not self.deferrable:
            return super().execute(context)
        # By way of resume_execution, because that is where Airflow applies soft_fail and never_fail.
        return self.resume_execution("look_or_defer", None, context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        from airflow_provider_cdf.waiting import may_pass

        try:
            reached = self._look()
        except CdfError as error:
            # Each look of a rescheduled sensor is the first one of its process, but not of the wait.
            if not (self.reschedule and may_pass(error) and _has_been_rescheduled(context["ti"], context)):
                raise
            self.log.warning("%s The wait goes on.", error)
            reached = None
        if reached is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self.arrived(context, reached))

    def look_or_defer(self, context: Context, end_time: float | None = None) -> str:
        """Look once, and defer if it has not happened yet and there is time left."""
        reached = self._look()
        if reached is not None:
            return self.arrived(context, reached)
        if end_time is None:
            end_time = time.time() + self.timeout
        elif time.time() >= end_time:
            raise AirflowSensorTimeout(
                f"Waited in vain for timeout={self.timeout:g} s until {self.goal}; it is {self._observed}. "
                "Nothing was changed in CDF."
            )
        self._defer(end_time)

    def _defer(self, end_time: float) -> NoReturn:
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
        from airflow_provider_cdf.waiting import Patience, Reached, may_pass

        event = event or {}
        outcome = event.get("outcome")
        # From here on this is a wait that has begun: a look that fails does not end it.
        self._patience = Patience(
            interval=self.poke_interval, max_silence=self.max_poll_silence, now=time.monotonic()
        )
        self._observed = event.get("observed")
        if outcome == "reached":
            try:
                execution = self.hook.get_execution(self.execution_id)
            except CdfError as error:
                if not may_pass(error):
                    raise
                self.log.warning("%s The wait goes on.", error)
                self._defer(event.get("end_time") or time.time() + self.timeout)
            tasks = [task for task in execution.executed_tasks if task.id == event.get("cdf_task_id")]
            return self.arrived(context, Reached(tasks[0] if tasks else None))
        if outcome in ("impossible", "timeout"):
            # Things may have changed while this task waited for a slot, which can take hours.
            return self.look_or_defer(context, event.get("end_time"))
        raise CdfError(
            str(event.get("message") or f"The trigger ended with an unknown event: {event}.")
            + f" Nothing was changed in CDF (execution {self.execution_id})."
        )

    def _look(self) -> Reached | None:
        """Look once; log what has changed, and outlive a failing look that is not the first one."""
        from airflow_provider_cdf.waiting import GoOn, Patience, Reached

        try:
            verdict = self.decide(self.hook.get_execution(self.execution_id))
        except CdfError as error:
            if self._patience is None:
                raise
            if note := self._patience.failed(error, now=time.monotonic()):
                self.log.warning(note)
            return None
        now = time.monotonic()
        if self._patience is None:
            self._patience = Patience(interval=self.poke_interval, max_silence=self.max_poll_silence, now=now)
        elif note := self._patience.answered(now=now):
            self.log.info(note)
        if isinstance(verdict, Reached):
            return verdict
        if not isinstance(verdict, GoOn):
            raise CdfWaitImpossibleError(verdict.reason)
        if verdict.observed != self._observed:
            self._observed = verdict.observed
            self.log.info("Execution %s: %s.", self.execution_id, verdict.observed)
        return None


def _has_been_rescheduled(ti: Any, context: Context) -> bool:
    if hasattr(ti, "get_first_reschedule_date"):
        return ti.get_first_reschedule_date(context) is not None
    # Airflow 2: the task runs with the database at hand.
    from airflow.sensors.base import _orig_start_date  # type: ignore[import-not-found]

    first = _orig_start_date(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, ti.try_number)
    return first is not None
