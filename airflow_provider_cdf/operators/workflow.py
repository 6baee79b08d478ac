"""Operators for whole executions: run, and cancel."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator, conf
from airflow.triggers.base import BaseTrigger

from airflow_provider_cdf.cdf.errors import (
    CdfApiError,
    CdfError,
    CdfExecutionFailedError,
    CdfInputError,
    CdfOutputMissingError,
    CdfTimeoutError,
    CdfWaitRefusedError,
)
from airflow_provider_cdf.operators.callbacks import cancel_orphan, partial_with_callback, with_callback
from airflow_provider_cdf.operators.cancelling import (
    KILL_PATIENCE,
    TASK_HAS_DIED,
    TASK_WAS_KILLED,
    Cancellation,
    after_cancelling,
)
from airflow_provider_cdf.operators.fields import TextFields
from airflow_provider_cdf.operators.recovery import (
    cancel_other_runs,
    find_earlier_run,
    has_been_cleared,
    has_ended_badly,
    note_start,
)
from airflow_provider_cdf.triggers.polling import BACKSTOP, BROKEN, GIVEN_UP, MAX_POLL_SILENCE, seconds
from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecution, WorkflowExecutionDetails
    from airflow_provider_cdf.hooks.cdf import CdfHook
    from airflow_provider_cdf.waiting import Patience

#: Seconds between checks whether a waiting task has been killed; Airflow sends SIGKILL after 5.
NAP = 1.0
#: Seconds after a start within which CDF may not know the execution yet where it is read.
LAG = 30.0


class CdfWorkflowRunOperator(BaseOperator):
    """
    Start a workflow, wait until it has ended, and return the execution's id.

    One logical run of this task is one execution. A retry finds the execution of the try before it, whatever
    died in between: it goes on waiting if that is RUNNING, takes the result if it is COMPLETED, and starts a
    new one if it ended badly. A person who clears the task gets a new execution; the old one is cancelled.

    An execution that ends in another status than COMPLETED fails the task, naming each failed CDF task and
    why. The id is pushed as the XCom ``execution_id`` as soon as CDF has accepted the run.

    :param workflow_external_id: external id of the workflow. (templated)
    :param version: version of the workflow. (templated)
    :param input: JSON object of at most 100 000 bytes, read by tasks as ``${workflow.input...}``. Workflow
        inputs are no place for secrets. (templated)
    :param metadata: at most 8 pairs of strings (CDF takes 10, two hold this package's keys), keys of 32 and
        values of 255 characters. (templated)
    :param task_outputs: external ids of tasks whose outputs become the XCom ``task_outputs``, by external
        id; needs ``wait_for_completion``. (templated)
    :param wait_for_completion: if false, the task ends when CDF has accepted the run.
    :param deferrable: wait in the triggerer instead of in a worker slot.
    :param poll_interval: seconds between looks at the execution; more after one that failed.
    :param timeout: seconds to wait for the end of one execution, over all tries that wait for it, deferred or
        not; needs ``wait_for_completion``. ``None`` for as long as it takes; CDF ends an execution after 24
        hours.
    :param cancel_on_timeout: cancel the execution when ``timeout`` is over; otherwise it goes on.
    :param cancel_on_kill: cancel the execution when a person marks the task failed or successful, or clears
        it (while it is deferred: Airflow 3.3 or later), and when its worker is told to stop or dies on the
        last try; not when a triggerer goes away.
    :param retry_from_failure: a retry asks CDF to run the failed tasks of the same execution once more,
        instead of starting a new one. Only within one logical run of this task.
    :param max_poll_silence: seconds without one good answer from CDF after which the wait gives up; single
        failing polls do not end it.
    :param cdf_conn_id: id of the Airflow connection. (templated)
    """

    template_fields: Sequence[str] = (
        "workflow_external_id",
        "version",
        "input",
        "metadata",
        "task_outputs",
        "cdf_conn_id",
    )

    def __init__(
        self,
        *,
        workflow_external_id: str,
        version: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's own name
        metadata: Mapping[str, str] | None = None,
        task_outputs: Sequence[str] = (),
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta | None = None,
        cancel_on_timeout: bool = True,
        cancel_on_kill: bool = True,
        retry_from_failure: bool = False,
        max_poll_silence: float | timedelta = MAX_POLL_SILENCE,
        cdf_conn_id: str = "cdf_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Only now does it hold the user's, which may come from default_args.
        self.on_failure_callback = with_callback(self.on_failure_callback, cancel_orphan)
        if task_outputs and not wait_for_completion:
            raise ValueError("task_outputs needs wait_for_completion=True: a running task has no output yet.")
        if timeout is not None and not wait_for_completion:
            raise ValueError("timeout needs wait_for_completion=True: it is the time to wait for the end.")
        self.workflow_external_id = workflow_external_id
        self.version = version
        self.input = input
        self.metadata = metadata
        self.task_outputs = task_outputs
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = seconds(poll_interval)
        self.timeout = None if timeout is None else seconds(timeout)
        self.cancel_on_timeout = cancel_on_timeout
        self.cancel_on_kill = cancel_on_kill
        self.max_poll_silence = seconds(max_poll_silence)
        self.cdf_conn_id = cdf_conn_id
        self.retry_from_failure = retry_from_failure
        self.execution_id: str | None = None
        #: Whether it is decided what becomes of what this very object has started or found in CDF, or left to
        #: others such as a trigger. ``None`` if it has not run.
        self.is_settled: bool | None = None
        self._context: Context | None = None
        self._killed = False
        self._cancellation: Cancellation | None = None
        self._is_known_by = 0.0

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Prepare a mapped task, with the failure callback that each of its instances has."""
        return partial_with_callback(super().partial(**kwargs), cancel_orphan)

    @cached_property
    def hook(self) -> CdfHook:
        """The hook of this operator's connection."""
        from airflow_provider_cdf.hooks.cdf import CdfHook

        return CdfHook(self.cdf_conn_id)

    @cached_property
    def _poll_hook(self) -> CdfHook:
        """The hook for polls, which have a patience of their own."""
        return self.hook.sibling(retry_for=0)

    def execute(self, context: Context) -> str:
        """Start the execution, or find the one of an earlier try, and wait for its end, here or deferred."""
        self._begin(context)
        if isinstance(self.task_outputs, str):
            raise CdfInputError("task_outputs must be a list of external ids, not one string.")
        end_time = None if self.timeout is None else time.time() + self.timeout
        if context["ti"].try_number == 1:
            self._start(context)
        else:
            end_time = self._start_or_go_on(context, end_time)
        self._stop_if_killed()  # while CDF was starting it
        self._store(context, end_time)
        if not self.wait_for_completion:
            self.is_settled = True
            return str(self.execution_id)
        return self._wait(context, end_time)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Go on where the trigger left off."""
        self._begin(context)
        event = event or {}
        self.execution_id = event.get("execution_id") or _stored(context, "execution_id")
        if self.execution_id and event.get("outcome") in ("reached", "impossible", "timeout"):
            # What the trigger saw may be hours old: somebody may have retried the execution in CDF since, and
            # it may have ended since its time was over.
            return self._wait(context, event.get("end_time"))
        self.is_settled = True
        kind = CdfWaitRefusedError if event.get("is_permanent") else CdfError
        what = event.get("message") or f"The trigger ended with an unknown event: {event}."
        raise kind(f"{what} Execution {self.execution_id or 'in CDF, if there is one,'} was left as it is.")

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, also after one that broke: a trigger that crashed or was given up."""
        if next_method != BROKEN:
            return super().resume_execution(next_method, next_kwargs, context)
        self._begin(context)
        error = (next_kwargs or {}).get("error")
        # XComs survive a deferral; what the deferral itself carried does not survive its failure.
        self.execution_id = _stored(context, "execution_id")
        if self.execution_id is None:
            found = self._earlier_run(context)
            if found is None:
                raise CdfError(f"The trigger broke ({error}), and CDF lists no execution of this task.")
            self.execution_id = found.id
        self.log.warning(
            "The trigger that waited for execution %s has broken (%s); waiting goes on here.",
            self.execution_id,
            error,
        )
        # On the worker, because a trigger that crashed once might do so for ever.
        self.deferrable = False
        return self._wait(context, time.time() if error == GIVEN_UP else _stored(context, "end_time"))

    def on_kill(self) -> None:
        """Cancel the execution. Airflow runs this inside the interrupted task, and then goes on with that."""
        self._killed = True
        if self.is_settled is not False or not self.cancel_on_kill or self._context is None:
            return
        if not self.hook.is_connected:
            return  # Airflow may be being asked for the connection right now, by what this interrupts
        if self._cancellation is None or self._cancellation.execution_id != self.execution_id:
            self._cancellation = Cancellation(self.hook, self._context, self.execution_id)
        # Not for long while CDF is starting the execution: the interrupted task is about to learn its id.
        self._cancellation.outcome(timeout=NAP if self.execution_id is None else KILL_PATIENCE)

    def _begin(self, context: Context) -> None:
        self._context, self.is_settled = context, False
        _ = self.hook.client  # now, because on_kill must not ask Airflow for the connection

    def _start_or_go_on(self, context: Context, end_time: float | None) -> float | None:
        """Go on with what an earlier try has started, or start anew; return when the wait is over."""
        try:
            found = self._earlier_run(context)
        except CdfError as error:
            raise error.adding("An execution of an earlier try may still run in CDF.") from None
        self._stop_if_killed()
        if found is not None and found.status == "COMPLETED" and has_been_cleared(context, self.retries or 0):
            self.log.info("Execution %s is from before this task was cleared.", found.id)
            found = None
        if found is not None and has_ended_badly(found) and self.retry_from_failure:
            found = self._retry_in_cdf(found)
            if found.status == "RUNNING":
                self.execution_id = found.id
                return end_time
        if found is not None and not has_ended_badly(found):
            self.log.info(
                "Going on with execution %s (version %s) of an earlier try; it is %s.",
                found.id,
                found.version,
                found.status,
            )
            self.execution_id = found.id
            return self._end_of_budget(found, end_time)
        if found is not None:
            self.log.info(
                "Execution %s of an earlier try ended %s; starting a new one.", found.id, found.status
            )
        started = self._start(context)
        if self.cancel_on_kill:
            try:
                cancel_other_runs(self.hook, context, keep=started)
            except CdfError as error:
                self.log.warning("An orphan of this task may have started another execution: %s", error)
        return end_time

    def _earlier_run(self, context: Context) -> WorkflowExecution | None:
        return find_earlier_run(
            self.hook,
            context,
            self.workflow_external_id,
            may_cancel=self.cancel_on_kill,
            pause=self._pause,
        )

    def _retry_in_cdf(self, found: WorkflowExecution) -> WorkflowExecution:
        """Let CDF run the failed tasks of an execution again, unless somebody else has just done so."""
        self.log.info("Execution %s ended %s; CDF runs its failed tasks again.", found.id, found.status)
        try:
            return self.hook.retry_execution(found.id)
        except CdfError as error:
            if isinstance(error, CdfApiError) and error.is_about_the_id:
                now = self.hook.get_execution(found.id)
                if not has_ended_badly(now):
                    return now
            raise error.adding(f"Execution {found.id} had ended {found.status} before.") from None

    def _end_of_budget(self, found: WorkflowExecution, end_time: float | None) -> float | None:
        """Return when the wait for an execution of an earlier try is over: one budget for all tries."""
        # One that CDF has retried is older than its latest attempt, which is what this waits for.
        if self.timeout is None or found.created_time is None or self.retry_from_failure:
            return end_time
        of_first_try = found.created_time / 1000 + self.timeout
        # Used up and left to go on: it was meant to, so this try waits as long again.
        is_left_to_go_on = of_first_try <= time.time() and not self.cancel_on_timeout
        return end_time if is_left_to_go_on else of_first_try

    def _start(self, context: Context) -> WorkflowExecution:
        from airflow_provider_cdf.operators.identity import run_metadata

        what = f"workflow {self.workflow_external_id!r} version {self.version!r}"
        note_start(context)
        started = self.hook.run_workflow(
            self.workflow_external_id,
            self.version,
            input=self.input,
            metadata=run_metadata(self.metadata, context["ti"], what),
        )
        self.execution_id = started.id
        self._is_known_by = time.monotonic() + LAG
        self.log.info("CDF started execution %s of %s.", started.id, what)
        return started

    def _store(self, context: Context, end_time: float | None) -> None:
        """Leave in XComs what a broken trigger would lose."""
        try:
            context["ti"].xcom_push(key="execution_id", value=self.execution_id)
            if end_time is not None:
                context["ti"].xcom_push(key="end_time", value=end_time)
        except Exception:
            self.log.warning("Execution %s runs in CDF, but Airflow did not store its id.", self.execution_id)
            raise

    def _wait(self, context: Context, end_time: float | None) -> str:
        """Look once, then defer or poll until the execution has ended."""
        from airflow_provider_cdf.waiting import GoOn, Impossible, Patience, wait_for_end

        patience = Patience(
            interval=self.poll_interval, max_silence=self.max_poll_silence, now=time.monotonic()
        )
        while True:
            is_over = end_time is not None and time.time() >= end_time
            # A cancellation is a look, too, and tells more.
            execution = self._look(patience, is_last=is_over and not self.cancel_on_timeout)
            self._stop_if_killed()
            if execution is not None:
                verdict = wait_for_end(execution)
                if isinstance(verdict, Impossible):
                    if self._is_given_up_by(execution):
                        self.is_settled = True
                        raise CdfExecutionFailedError(verdict.reason)
                    self._start(context)
                    self._store(context, end_time)
                elif not isinstance(verdict, GoOn):
                    return self._finish(context, execution)
            if is_over:
                return self._time_is_over(context, execution)
            # A trigger would take it for unknown if CDF does not know it yet where it is read.
            if self.deferrable and (execution is not None or time.monotonic() >= self._is_known_by):
                self._defer(end_time)
            left = None if end_time is None else max(end_time - time.time(), 0)
            self._pause(patience.next_interval if left is None else min(patience.next_interval, left))

    def _look(self, patience: Patience, *, is_last: bool) -> WorkflowExecutionDetails | None:
        """
        Read the execution; ``None`` if that failed, and the wait goes on.

        The last look takes its time, because no other makes up for it.
        """
        hook = self.hook if is_last else self._poll_hook
        try:
            execution = hook.get_execution(str(self.execution_id))
        except CdfError as error:
            if isinstance(error, CdfApiError) and error.code == 404 and time.monotonic() < self._is_known_by:
                return None  # started a moment ago: what reads it lags behind
            try:
                note = patience.failed(error, now=time.monotonic())
            except CdfError as last:
                self.is_settled = True
                raise last.adding(f"Execution {self.execution_id} was left as it is.") from None
            if note:
                self.log.warning(note)
            return None
        if note := patience.answered(now=time.monotonic()):
            self.log.info(note)
        return execution

    def _is_given_up_by(self, execution: WorkflowExecution) -> bool:
        """Whether it has ended for good, and not just because another process of this task was stopped."""
        if execution.status != "TERMINATED" or execution.reason_for_incompletion not in (
            TASK_WAS_KILLED,
            TASK_HAS_DIED,
        ):
            return True
        self.log.warning(
            "Execution %s was cancelled as another process of this task was stopped; starting a new one.",
            execution.id,
        )
        return False

    def _defer(self, end_time: float | None) -> NoReturn:
        if self.cancel_on_kill and not hasattr(BaseTrigger, "on_kill"):
            self.log.warning(
                "Airflow below 3.3 does not tell a deferred task that it was marked or cleared: execution %s "
                "will go on then, in spite of cancel_on_kill=True.",
                self.execution_id,
            )
        self.is_settled = True
        self.defer(
            trigger=CdfWorkflowTrigger(
                cdf_conn_id=self.cdf_conn_id,
                execution_id=str(self.execution_id),
                poll_interval=self.poll_interval,
                end_time=end_time,
                max_poll_silence=self.max_poll_silence,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="execute_complete",
            timeout=None
            if end_time is None
            else timedelta(seconds=max(end_time - time.time(), 0) + BACKSTOP),
        )

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        # In naps, because Python finishes a sleep after the signal that on_kill ran in.
        while not self._killed and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, NAP))
        self._stop_if_killed()

    def _stop_if_killed(self) -> None:
        if not self._killed:
            return
        self.on_kill()  # for the case that the signal came before the execution was known
        if self._cancellation is not None:
            fate = self._cancellation.outcome()
        elif self.execution_id is not None:
            fate = f"Execution {self.execution_id} goes on in CDF (cancel_on_kill=False)."
        else:
            fate = "It had not started an execution in CDF."
        self.is_settled = True
        raise CdfError(f"The task was killed. {fate}")

    def _finish(self, context: Context, execution: WorkflowExecutionDetails) -> str:
        from airflow_provider_cdf.waiting import current_attempt

        self.is_settled = True
        self.log.info("Execution %s is COMPLETED.", execution.id)
        if self.task_outputs:
            tasks = {name: current_attempt(execution, name) for name in self.task_outputs}
            if missing := [name for name, task in tasks.items() if task is None]:
                known = dict.fromkeys(task.external_id for task in execution.executed_tasks)
                raise CdfOutputMissingError(
                    f"Execution {execution.id} is COMPLETED, but task_outputs names tasks that it does not "
                    f"have: {', '.join(map(repr, missing))}. It has {', '.join(map(repr, known)) or 'none'}."
                )
            outputs = {name: task.output for name, task in tasks.items() if task is not None}
            context["ti"].xcom_push(key="task_outputs", value=outputs)
        return execution.id

    def _time_is_over(self, context: Context, seen: WorkflowExecution | None) -> str:
        """
        Cancel the execution if that is wanted, and fail, unless it ends by itself in the last moment.

        :param seen: what the last look has seen; ``None`` if it failed.
        """
        from airflow_provider_cdf.waiting import describe_bad_end

        message = f"Execution {self.execution_id} has not ended within timeout={self.timeout:g} s."
        if not self.cancel_on_timeout:
            self.is_settled = True
            if seen is None:
                raise CdfTimeoutError(
                    f"The timeout={self.timeout:g} s of execution {self.execution_id} is over, and CDF does "
                    "not say what has become of it. It was left as it is (cancel_on_timeout=False)."
                )
            raise CdfTimeoutError(f"{message} It goes on in CDF (cancel_on_timeout=False).")
        reason = f"Not ended within the {self.timeout:g} s that Airflow waited for it."
        try:
            patient = self.hook.sibling(retry_for=self.max_poll_silence)
            execution = patient.cancel_execution(str(self.execution_id), reason)
        except CdfError as error:
            raise CdfTimeoutError(
                f"{message} It may still run in CDF, because it could not be cancelled: {error}"
            ) from None
        if execution.status == "COMPLETED":
            return self._finish(context, self.hook.get_execution(execution.id))
        self.is_settled = True
        if execution.status != "TERMINATED":
            raise CdfExecutionFailedError(describe_bad_end(self.hook.get_execution(execution.id)))
        raise CdfTimeoutError(f"{message} {after_cancelling(execution)}")


def _stored(context: Context, key: str) -> Any:
    """Return what this very task has left in an XCom before it was deferred."""
    ti = context["ti"]
    return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)


class CdfWorkflowCancelOperator(TextFields, BaseOperator):
    """
    Cancel an execution, as a teardown for a run that nobody waits for.

    An execution that has ended is left alone, and so is one that never started (no id). Returns the status
    that the execution is in afterwards; ``None`` if it was not looked at.

    :param execution_id: UUID of the execution. (templated)
    :param reason: becomes the execution's reason; at most 500 characters. (templated)
    :param only_after_failure: cancel only if a task right before this one did not succeed, such as a report
        that could not be made. So it can stand before a task that waits for the end of the execution.
    :param cdf_conn_id: id of the Airflow connection. (templated)
    """

    template_fields: Sequence[str] = ("execution_id", "reason", "cdf_conn_id")
    text_fields = template_fields

    def __init__(
        self,
        *,
        execution_id: str,
        reason: str = "Cancelled by Airflow.",
        only_after_failure: bool = False,
        cdf_conn_id: str = "cdf_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.execution_id = execution_id
        self.reason = reason
        self.only_after_failure = only_after_failure
        self.cdf_conn_id = cdf_conn_id

    def execute(self, context: Context) -> str | None:
        """Cancel the execution unless it has ended."""
        from airflow_provider_cdf.cdf.calls import is_missing
        from airflow_provider_cdf.hooks.cdf import CdfHook
        from airflow_provider_cdf.operators.upstream import direct_upstream

        if self.only_after_failure:
            before = direct_upstream(self, context["ti"])
            if all(one.state == "success" for one in before):
                self.log.info("All tasks before have succeeded: the execution is left alone.")
                return None
        if is_missing(self.execution_id):
            self.log.info("There is no execution to cancel: the run never started.")
            return None
        try:
            execution = CdfHook(self.cdf_conn_id).cancel_execution(self.execution_id, self.reason)
        except CdfError as error:
            raise error.adding(f"Execution {self.execution_id} may still run in CDF.") from None
        self.log.info(after_cancelling(execution))
        return execution.status
