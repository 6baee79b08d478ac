"""Waiting for the end of an execution, on the worker or deferred: half of the run operator."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowTaskTimeout, BaseOperator

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.errors import (
    CdfAmbiguousTaskError,
    CdfError,
    CdfExecutionFailedError,
    CdfOutputMissingError,
    CdfTimeoutError,
)
from airflow_provider_cdf.cdf.messages import ids, told
from airflow_provider_cdf.hooks.using import UsesHook
from airflow_provider_cdf.operators.cancelling import after_cancelling, has_ended_badly, is_given_up
from airflow_provider_cdf.task_state import state_of
from airflow_provider_cdf.triggers.polling import BACKSTOP
from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger
from airflow_provider_cdf.versions import HAS_ON_KILL

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecution, WorkflowExecutionDetails
    from airflow_provider_cdf.hooks.cdf import CdfHook
    from airflow_provider_cdf.progress import Progress
    from airflow_provider_cdf.waiting import Patience


class WaitsForEnd(UsesHook, BaseOperator):
    """
    An operator that waits until its execution has ended.

    What it waits with are the arguments of
    :class:`~airflow_provider_cdf.operators.workflow.CdfWorkflowRunOperator`, which it is a part of.
    """

    task_outputs: Any
    deferrable: bool
    poll_interval: float
    timeout: float | None
    cancel_on_timeout: bool
    cancel_on_kill: bool
    max_poll_silence: float
    cdf_conn_id: str

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.execution_id: str | None = None
        #: Whether it is decided what becomes of what this very object has started or found in CDF, or left to
        #: others such as a trigger. ``None`` if it has not run.
        self.is_settled: bool | None = None
        #: Whether it was started to run on without a task that waits for it.
        self.is_left_running = False
        #: When this very object has started the execution, on :mod:`cdf.clock`.
        self._started_at = -math.inf

    @cached_property
    def _poll_hook(self) -> CdfHook:
        """The hook for polls, which have a patience of their own."""
        return self.hook.sibling(retry_for=0)

    @cached_property
    def _progress(self) -> Progress:
        from airflow_provider_cdf.progress import Progress

        return Progress()

    @abstractmethod
    def _find_or_start(self, context: Context, end_time: float | None) -> float | None:
        """Make sure that there is an execution; return when the wait for it is over."""

    @abstractmethod
    def _pause(self, seconds: float) -> None:
        """Wait some seconds, or raise if the task was killed."""

    @abstractmethod
    def _stop_if_killed(self) -> None:
        """Raise if the task was killed."""

    def _store(self, context: Context, end_time: float | None) -> None:
        """Leave in XComs what a broken trigger would lose."""
        try:
            context["ti"].xcom_push(key="execution_id", value=self.execution_id)
            if end_time is not None:
                context["ti"].xcom_push(key="end_time", value=end_time)
            if self.execution_timeout is not None:
                context["ti"].xcom_push(key="execution_end", value=self._execution_end(context))
        except Exception:
            self.log.warning(
                "Airflow did not store the id of an execution. [execution %s]", self.execution_id
            )
            raise

    def _wait(self, context: Context, end_time: float | None) -> str:
        """
        Look once, then defer or poll until the execution has ended.

        :param end_time: when ``timeout`` is over, in seconds since the epoch.
        """
        from airflow_provider_cdf.progress import standstill
        from airflow_provider_cdf.waiting import LAG, GoOn, Impossible, Patience, wait_for_end

        patience = Patience(interval=self.poll_interval, max_silence=self.max_poll_silence, now=clock.now())
        has_warned = False
        while True:
            until = min(math.inf if end_time is None else end_time, self._execution_end(context))
            left = until - time.time()
            # A cancellation is a look, too, and tells more.
            execution = self._look(patience, is_last=left <= 0 and not self.cancel_on_timeout, within=left)
            self._stop_if_killed()
            if execution is not None:
                verdict = wait_for_end(execution)
                if isinstance(verdict, Impossible):
                    self._check_that_it_is_not_the_end(context, execution, verdict.reason)
                    self.execution_id = None
                    end_time = self._find_or_start(context, end_time)
                    self._store(context, end_time)
                elif not isinstance(verdict, GoOn):
                    return self._finish(context, execution)
                else:
                    for line in self._progress.lines(execution, verdict.observed, now=time.time()):
                        self.log.info(line)
                    if not has_warned and (warning := standstill(execution)):
                        has_warned = True
                        self.log.warning(warning)
            if left <= 0:
                return self._time_is_over(context, end_time, execution)
            # A trigger would take it for unknown if CDF does not know it yet where it is read.
            if self.deferrable and (execution is not None or clock.now() >= self._started_at + LAG):
                self._defer(end_time, until)
            self._pause(max(min(patience.next_interval, until - time.time()), 0))

    def _look(self, patience: Patience, *, is_last: bool, within: float) -> WorkflowExecutionDetails | None:
        """
        Read the execution; ``None`` if that failed, and the wait goes on.

        :param is_last: whether no other look makes up for this one, which therefore takes its time.
        :param within: otherwise, the seconds that are left for it.
        """
        from airflow_provider_cdf.waiting import contradiction, may_not_be_listed_yet

        try:
            if is_last:
                execution = self.hook.get_execution(str(self.execution_id))
            else:
                limit = max(within, 1.0) if math.isfinite(within) else None
                execution = self._poll_hook.get_execution(str(self.execution_id), within=limit)
        except CdfError as error:
            if may_not_be_listed_yet(error, started_at=self._started_at, now=clock.now()):
                return None
            self._failed(patience, error)
            return None
        if not execution.has_ended and (doubt := contradiction(execution)):
            self._failed(patience, doubt)
            return None
        if note := patience.answered(now=clock.now()):
            self.log.info(note)
        return execution

    def _failed(self, patience: Patience, error: CdfError) -> None:
        """Outlive a look that failed, or raise what ends the wait."""
        try:
            note = patience.failed(error, now=clock.now())
        except CdfError as last:
            self.is_settled = True
            raise last.adding(f"The execution was left as it is. [execution {self.execution_id}]") from None
        if note:
            self.log.warning(note)

    def _check_that_it_is_not_the_end(
        self, context: Context, execution: WorkflowExecutionDetails, reason: str
    ) -> None:
        """
        Check that an execution that has ended badly was only cancelled by another process of this task.

        :raises CdfError: if it has ended for good, or Airflow does not count on this process any more.
        """
        if is_given_up(execution):
            from airflow_provider_cdf.progress import table

            self.is_settled = True
            self.log.info("The tasks of the workflow: [execution %s]\n%s", execution.id, table(execution))
            raise CdfExecutionFailedError(reason)
        self.log.warning(
            "Another process of this task has cancelled its execution. [execution %s]", execution.id
        )
        try:
            state = state_of(context["ti"])
        except LookupError:
            state = None
        if state not in (None, "running"):
            raise CdfError(f"The task is {state} in Airflow, so this process of it starts nothing more.")

    def _execution_end(self, context: Context) -> float:
        """
        Return when ``execution_timeout`` is over, from the start of the try over all its deferrals.

        Airflow counts it anew after each deferral, and ``dag.test()`` also moves the start of the try.
        """
        if self.execution_timeout is None:
            return math.inf
        if (noted := stored(context, "execution_end")) is not None:
            return float(noted)
        started_at = context["ti"].start_date
        began = started_at.timestamp() if started_at is not None else time.time()
        end: float = began + self.execution_timeout.total_seconds()
        return end

    def _defer(self, end_time: float | None, until: float) -> NoReturn:
        if self.cancel_on_kill and not HAS_ON_KILL:
            self.log.warning(
                "Below 3.3, Airflow does not tell a deferred task that it was marked or cleared. Then its "
                "execution goes on, in spite of cancel_on_kill=True. [execution %s]",
                self.execution_id,
            )
        self.is_settled = True
        has_end = math.isfinite(until)
        self.log.info(
            "Deferred: the triggerer looks every %g s%s. [execution %s]",
            self.poll_interval,
            f" until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S} UTC" if has_end else "",
            self.execution_id,
        )
        self.defer(
            trigger=CdfWorkflowTrigger(
                cdf_conn_id=self.cdf_conn_id,
                execution_id=str(self.execution_id),
                poll_interval=self.poll_interval,
                end_time=until if has_end else None,
                max_poll_silence=self.max_poll_silence,
                cancel_on_kill=self.cancel_on_kill,
                warn_of_standstill=True,
            ),
            method_name="execute_complete",
            # Airflow keeps the start of a try over a deferral only if there are some of these.
            kwargs={"end_time": end_time},
            timeout=timedelta(seconds=max(until - time.time(), 0) + BACKSTOP) if has_end else None,
        )

    def _finish(self, context: Context, execution: WorkflowExecutionDetails) -> str:
        from airflow_provider_cdf.cdf.attempts import current_attempt

        self.is_settled = True
        self.log.info("The workflow is COMPLETED. [execution %s]", execution.id)
        if self.task_outputs:
            tasks = {}
            for name in self.task_outputs:
                try:
                    tasks[name] = current_attempt(execution, name)
                except CdfAmbiguousTaskError as error:
                    raise CdfOutputMissingError(
                        f"task_outputs names {name!r}, and there are several. The workflow is COMPLETED. "
                        "Read that output with CdfTaskSensor(target_status='COMPLETED', "
                        "parent_task_external_id=...), whose XCom 'output' it is. The parents are "
                        f"{', '.join(map(repr, error.parents))}. [execution {execution.id}]"
                    ) from None
            if missing := [name for name, task in tasks.items() if task is None]:
                known = dict.fromkeys(task.external_id for task in execution.executed_tasks)
                raise CdfOutputMissingError(
                    f"task_outputs names tasks that the execution does not have: "
                    f"{', '.join(map(repr, missing))}. It has {', '.join(map(repr, known)) or 'none'}. It is "
                    f"COMPLETED. [execution {execution.id}]"
                )
            outputs = {name: task.output for name, task in tasks.items() if task is not None}
            context["ti"].xcom_push(key="task_outputs", value=outputs)
        return execution.id

    def _time_is_over(self, context: Context, end_time: float | None, seen: WorkflowExecution | None) -> str:
        """
        Cancel the execution if that is wanted, and fail, unless it ends by itself in the last moment.

        :param end_time: when ``timeout`` is over; before that, it is ``execution_timeout``.
        :param seen: what the last look has seen; ``None`` if it failed.
        """
        from airflow_provider_cdf.waiting import describe_bad_end

        which = ids(execution=self.execution_id)
        if self.timeout is None or end_time is None or time.time() < end_time:
            # As on a worker: a retry goes on with the execution, and the last failure's callback cancels it.
            raise AirflowTaskTimeout(f"Not ended within execution_timeout={self.execution_timeout}. {which}")
        message = f"Not ended within timeout={self.timeout:g} s. {which}"
        if not self.cancel_on_timeout:
            self.is_settled = True
            if seen is None:
                raise CdfTimeoutError(
                    f"The timeout={self.timeout:g} s is over, and CDF does not say what has become of it. "
                    f"The execution was left as it is (cancel_on_timeout=False). {which}"
                )
            raise CdfTimeoutError(told(message, "It goes on in CDF (cancel_on_timeout=False)."))
        reason = f"Not ended within the {self.timeout:g} s that Airflow waited for it."
        try:
            patient = self.hook.sibling(retry_for=self.max_poll_silence)
            execution = patient.cancel_execution(str(self.execution_id), reason)
        except CdfError as error:
            raise CdfTimeoutError(
                told(message, "It may still run in CDF, because it could not be cancelled.", error)
            ) from None
        if execution.status == "COMPLETED":
            return self._finish(context, self.hook.get_execution(execution.id))
        self.is_settled = True
        if has_ended_badly(execution) and execution.status != "TERMINATED":
            raise CdfExecutionFailedError(describe_bad_end(self.hook.get_execution(execution.id)))
        raise CdfTimeoutError(told(message, after_cancelling(execution)))


def stored(context: Context, key: str) -> Any:
    """Return what this very task has left in an XCom before it was deferred."""
    ti = context["ti"]
    return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)
