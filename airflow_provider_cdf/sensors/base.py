"""What the sensors share: look once, then poke, or defer."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_cdf.arguments import flag, seconds
from airflow_provider_cdf.cdf.errors import CdfError, CdfWaitRefusedError
from airflow_provider_cdf.cdf.messages import ids, told
from airflow_provider_cdf.fields import (
    TextFields,
    as_text,
    is_from_mapped,
    refuse_operators,
    refuse_wrong_ids,
)
from airflow_provider_cdf.hooks.using import UsesHook
from airflow_provider_cdf.operators.mapped import with_checks
from airflow_provider_cdf.places import names_place
from airflow_provider_cdf.stack import without_stack
from airflow_provider_cdf.triggers.broken import BROKEN, resumed_after_failure
from airflow_provider_cdf.triggers.polling import BACKSTOP, MAX_POLL_SILENCE, POLL_INTERVAL
from airflow_provider_cdf.versions import HAS_TASK_API

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecutionDetails
    from airflow_provider_cdf.sensors.looks import Looks
    from airflow_provider_cdf.triggers.polling import ExecutionTrigger
    from airflow_provider_cdf.waiting import Reached, Verdict


class ExecutionSensor(TextFields, UsesHook, BaseSensorOperator):
    """
    Wait for something to happen to an execution.

    The first look is always on the worker. So a wrong connection ends the task at once, and what has happened
    already needs no deferral. An id that CDF does not know ends it too, but not within the first
    minute of the try: CDF may have started that execution a moment ago. What can no longer happen ends the
    wait at once, with the reason that CDF gives, and is not retried.

    ``soft_fail``, ``timeout`` (7 days unless it is given) and ``mode`` are Airflow's own: after a deferral,
    ``soft_fail`` skips for each error, otherwise for those that are not retried. ``execution_timeout`` counts
    from the start of the try, deferred or not, and is retried; in the mode ``reschedule`` it is, as
    everywhere, for each look alone.

    :param execution_id: UUID of the execution. (templated)
    :param cdf_conn_id: id of the Airflow connection. (templated)
    :param poke_interval: seconds between looks, deferred or not.
    :param deferrable: wait in the triggerer instead of in a worker slot.
    :param max_poll_silence: seconds without one good answer from CDF after which the wait gives up; single
        failing looks do not end it. Without effect in the mode ``reschedule``, where each look is a process
        of its own: there ``timeout`` ends the wait, also one that CDF refuses.
    :raises ValueError: if a duration is not positive and finite, an operator stands in place of its
        ``.output``, or an id that the DAG file gives is no UUID.
    """

    template_fields: Sequence[str] = ("execution_id", "cdf_conn_id")
    text_fields = template_fields

    @names_place
    def __init__(
        self,
        *,
        execution_id: str,
        cdf_conn_id: str = "cdf_default",
        poke_interval: float | timedelta = POLL_INTERVAL,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        max_poll_silence: float | timedelta = MAX_POLL_SILENCE,
        **kwargs: Any,
    ) -> None:
        seconds(poke_interval, "poke_interval")
        if kwargs.get("timeout") is not None:
            seconds(kwargs["timeout"], "timeout")
        else:
            kwargs.pop("timeout", None)  # which Airflow 2 does not take for its default
        if not is_from_mapped(self):
            _refuse_mistakes({"execution_id": execution_id, "cdf_conn_id": cdf_conn_id})
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.execution_id: str = as_text(execution_id)
        self.cdf_conn_id = cdf_conn_id
        self.deferrable = flag(deferrable, "deferrable")
        self.max_poll_silence = seconds(max_poll_silence, "max_poll_silence")
        #: The attempt at a task that the trigger saw in a wanted status.
        self._seen: str | None = None
        self._is_unserved = False

    @classmethod
    @names_place
    def partial(cls, **kwargs: Any) -> Any:
        """Prepare a mapped task."""
        _refuse_mistakes(kwargs)
        return with_checks(super().partial(**kwargs), _refuse_mistakes)

    @cached_property
    def looks(self) -> Looks:
        """The looks of this process."""
        from airflow_provider_cdf.sensors.looks import Looks

        return Looks(
            self.hook,
            self.execution_id,
            self.decide,
            interval=self.poke_interval,
            max_silence=self.max_poll_silence,
            log=self.log,
        )

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

    @without_stack
    def execute(self, context: Context) -> Any:
        """Wait on the worker, or defer."""
        try:
            return self.look_or_defer(context) if self.deferrable else super().execute(context)
        except AirflowSkipException:
            raise
        except AirflowException as raised:
            is_over = isinstance(raised, AirflowSensorTimeout)
            # Airflow's own says how long it waited, but not for what.
            error = self._in_vain() if is_over else raised
            # Airflow sees to this where a sensor pokes, and where it resumes. Other errors are retried.
            if self.deferrable and (self.never_fail or (self.soft_fail and _is_final(error))):
                raise AirflowSkipException(f"Skipped instead of failed: {error}") from None
            if is_over:
                raise error from None
            raise

    @without_stack
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, also after one that broke: a trigger that crashed or was given up."""
        if next_method == BROKEN:
            self._is_unserved = resumed_after_failure(next_kwargs, self.log)
            # On the worker, because a trigger that crashed once might do so for ever. By way of Airflow's own
            # method, because that is where it applies soft_fail.
            next_method, next_kwargs = "wait_here", {"is_over": self._is_unserved}
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSkipException:
            raise
        except AirflowException as error:
            # Airflow sees to this itself from 3.1 on.
            if self.never_fail:
                raise AirflowSkipException(f"Skipped instead of failed: {error}") from error
            raise

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        # Airflow calls this at its own fixed interval; after failing looks, not every call is one.
        if not self.looks.is_due:
            return PokeReturnValue(is_done=False)
        if self.reschedule and not self.looks.has_begun and _has_been_rescheduled(context["ti"], context):
            # Its looks are the first ones of their processes, but not of the wait.
            self.looks.begin()
        end_time = _started_at(context["ti"]) + self.timeout
        if self.looks.has_begun:
            within = None if self.reschedule else max(end_time - time.time(), 1.0)
            reached = self.looks.next(within=within)
        else:
            reached = self.looks.first(started_at=_started_at(context["ti"]), until=end_time)
        if reached is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self.arrived(context, reached))

    def look_or_defer(self, context: Context, end_time: float | None = None) -> str:
        """
        Look once, and defer if it has not happened yet and there is time left.

        :param end_time: when the time is over, in seconds since the epoch, if the wait has begun before.
        """
        name, limit = self._limit
        if end_time is None:
            end_time = _started_at(context["ti"]) + limit
        is_over = time.time() >= end_time
        if not self.looks.has_begun:
            reached = self.looks.first(started_at=_started_at(context["ti"]), until=end_time)
        else:
            reached = self.looks.last() if is_over else self.looks.next()
        if reached is not None:
            return self.arrived(context, reached)
        if is_over:
            self._time_is_over()
        self.log.info(
            "Deferred: the triggerer looks every %g s until %s (%s). [execution %s]",
            self.poke_interval,
            datetime.fromtimestamp(end_time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            name,
            self.execution_id,
        )
        self.defer(
            trigger=self.trigger(
                cdf_conn_id=self.cdf_conn_id,
                execution_id=self.execution_id,
                poll_interval=self.poke_interval,
                end_time=end_time,
                max_poll_silence=self.max_poll_silence,
            ),
            method_name="execute_complete",
            # Airflow keeps the start of a try over a deferral only if there are some of these.
            kwargs={"end_time": end_time},
            timeout=timedelta(seconds=max(end_time - time.time(), 0) + BACKSTOP),
        )

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, end_time: float | None = None
    ) -> str:
        """
        Go on where the trigger left off.

        :param event: what the trigger has seen. None where Airflow has started a deferred task once more
            (apache/airflow#65248): then waiting goes on.
        :param end_time: when the time is over, in seconds since the epoch.
        """
        event = event or {"outcome": None}
        outcome = event.get("outcome", "unknown")
        if end_time is None:
            end_time = event.get("end_time")  # all that dag.test() leaves of a deferral
        if outcome in ("reached", "impossible", "timeout", None):
            # Things may have changed while this task waited for a slot, which can take hours.
            self.looks.observed = event.get("observed")
            self._seen = event.get("cdf_task_id")
            if outcome == "timeout" or end_time is None or time.time() < end_time:
                self.looks.begin()  # otherwise a look that fails must not make a timeout of what was in time
            return self.look_or_defer(context, end_time)
        kind = CdfWaitRefusedError if event.get("is_permanent") else CdfError
        what = event.get("message") or f"The trigger ended with an unknown event: {event}."
        raise kind(told(what, "The execution was left as it is.", ids(execution=self.execution_id)))

    def wait_here(self, context: Context, is_over: bool = False) -> str:
        """
        Wait on the worker until it has happened.

        :param is_over: whether the time for it is over, so that there is one more look only.
        """
        self.looks.begin()
        _, limit = self._limit
        end_time = _started_at(context["ti"]) + limit
        while True:
            left = 0 if is_over else end_time - time.time()
            reached = self.looks.next(within=left) if left > 0 else self.looks.last()
            if reached is not None:
                return self.arrived(context, reached)
            if left <= 0:
                self._time_is_over()
            time.sleep(min(self.looks.next_interval, max(end_time - time.time(), 0)))

    @property
    def _limit(self) -> tuple[str, float]:
        """
        What ends a try that is deferred, and after how many seconds.

        Airflow does not look at ``execution_timeout`` meanwhile, and counts it anew after each deferral.
        """
        longest = self.execution_timeout.total_seconds() if self.execution_timeout else math.inf
        return ("execution_timeout", longest) if longest < self.timeout else ("timeout", self.timeout)

    def _time_is_over(self) -> NoReturn:
        """Fail, or skip, because time is over."""
        name, limit = self._limit
        if name == "timeout":
            raise self._in_vain()
        message = self._why(name, limit)
        # Airflow skips for its own, too, where that strikes in a look.
        if self.soft_fail or self.never_fail:
            raise AirflowSkipException(f"Skipped instead of failed: {message}")
        raise AirflowTaskTimeout(message)

    def _in_vain(self) -> AirflowSensorTimeout:
        return AirflowSensorTimeout(self._why("timeout", self.timeout))

    def _why(self, name: str, limit: float) -> str:
        unserved = (
            "No triggerer has served this wait: none runs, or it is stuck. " if self._is_unserved else ""
        )
        seen = self.looks.observed
        observed = f"It is {seen}" if seen else "Its state is not known"
        return (
            f"{unserved}Waited in vain for {name}={limit:g} s: until {self.goal}. {observed}. "
            f"Nothing was changed in CDF. [execution {self.execution_id}]"
        )


def _is_final(error: AirflowException) -> bool:
    return isinstance(error, AirflowFailException | AirflowSensorTimeout)


def _started_at(ti: Any) -> float:
    """Return when this try began, which Airflow keeps over a deferral."""
    return ti.start_date.timestamp() if ti.start_date is not None else time.time()


def _has_been_rescheduled(ti: Any, context: Context) -> bool:
    if HAS_TASK_API:
        return ti.get_first_reschedule_date(context) is not None
    from airflow.sensors.base import _orig_start_date  # type: ignore[import-not-found]

    first = _orig_start_date(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, ti.try_number)
    return first is not None


def _refuse_mistakes(arguments: Mapping[str, Any]) -> None:
    """
    Refuse what a DAG file says itself, and cannot be meant.

    :raises ValueError: while the file is parsed.
    """
    named = ("task_external_id", "target_status", "parent_task_external_id", "execution_id", "cdf_conn_id")
    refuse_operators(**{name: arguments.get(name) for name in named})
    refuse_wrong_ids(None, execution_id=arguments.get("execution_id"))
