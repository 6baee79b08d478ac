"""Operators for whole executions: run, and cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, TaskDeferred, conf
from airflow.triggers.base import BaseTrigger

from airflow_provider_cdf.cdf import clock
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
    Cancellation,
    after_cancelling,
    has_ended_badly,
    is_given_up,
)
from airflow_provider_cdf.operators.fields import TextFields
from airflow_provider_cdf.triggers.polling import BACKSTOP, BROKEN, GIVEN_UP, MAX_POLL_SILENCE, seconds
from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.client import ResultT
    from airflow_provider_cdf.cdf.models import WorkflowExecution, WorkflowExecutionDetails
    from airflow_provider_cdf.hooks.cdf import CdfHook
    from airflow_provider_cdf.operators.identity import Try
    from airflow_provider_cdf.operators.starts import Starts, Steps
    from airflow_provider_cdf.waiting import Patience

#: Seconds between checks whether a waiting task has been killed; Airflow sends SIGKILL after 5.
NAP = 1.0
#: Seconds after a start within which CDF may not know the execution yet where it is read.
LAG = 30.0


class _KilledError(CdfError):
    """The task was told to stop."""


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
        self._try: Try | None = None
        self._starts: Starts | None = None
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
        return self._to_the_last(lambda: self._start_and_wait(context))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Go on where the trigger left off."""
        self._begin(context)
        return self._to_the_last(lambda: self._go_on_after(context, event or {}))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, also after one that broke: a trigger that crashed or was given up."""
        if next_method != BROKEN:
            return super().resume_execution(next_method, next_kwargs, context)
        self._begin(context)
        error = (next_kwargs or {}).get("error")
        self.log.warning(
            "The trigger that waited for this task's execution has broken (%s); waiting goes on here.", error
        )
        # On the worker, because a trigger that crashed once might do so for ever.
        self.deferrable = False
        end_time = time.time() if error == GIVEN_UP else _stored(context, "end_time")
        return self._to_the_last(lambda: self._go_on_with_the_stored(context, end_time))

    def on_kill(self) -> None:
        """Cancel the execution. Airflow runs this inside the interrupted task, and then goes on with that."""
        self._killed = True
        if self.is_settled is not False or not self.cancel_on_kill or self._try is None:
            return
        if not self.hook.is_connected:
            return  # Airflow may be being asked for the connection right now, by what this interrupts
        submit_id = self._starts.open_submission if self._starts else None
        execution_id = self.execution_id or (self._starts.started if self._starts else None)
        if execution_id is None and submit_id is None:
            return
        if self._cancellation is None or self._cancellation.execution_id != execution_id:
            self._cancellation = Cancellation(
                self.hook, execution_id=execution_id, submit_id=submit_id, since=self._try.since
            )
        # Not for long while CDF is starting the execution: the interrupted task is about to learn its id.
        self._cancellation.outcome(timeout=NAP if execution_id is None else KILL_PATIENCE)

    @property
    def has_submitted(self) -> bool:
        """Whether CDF has started an execution for this very object, or may still be starting it."""
        return self._starts is not None and bool(self._starts.open_submission or self._starts.started)

    def _begin(self, context: Context) -> None:
        from airflow_provider_cdf.operators.identity import Try
        from airflow_provider_cdf.operators.notes import loses_notes_by_clear, loses_notes_by_success
        from airflow_provider_cdf.operators.starts import Starts

        self._context, self.is_settled = context, False
        settings = self.hook.client.settings  # now, because on_kill must not ask Airflow for the connection
        self._try = Try.of(context, settings.airflow_name)
        self._starts = Starts(
            settings,
            self._try,
            self.workflow_external_id,
            may_cancel_earlier=self.cancel_on_kill,
            may_lose_notes=loses_notes_by_success() or (loses_notes_by_clear() and self._try.clears > 0),
        )

    def _to_the_last(self, work: Callable[[], str]) -> str:
        """Work; and if nothing will after a failure, find and cancel what CDF may still be starting."""
        try:
            return work()
        except TaskDeferred:
            raise
        except BaseException as error:
            this, starts = self._try, self._starts
            is_final = this is not None and (this.is_last or isinstance(error, AirflowFailException))
            if is_final and starts is not None and starts.open_submission and self.cancel_on_kill:
                self._cancel_what_may_appear(starts)
            raise

    def _cancel_what_may_appear(self, starts: Starts) -> None:
        # Here, because Airflow gives callbacks 20 s only, once a task has failed.
        from airflow_provider_cdf.cdf.conversations import NONCE_DEAD_AFTER

        submit_id = starts.open_submission
        self.log.warning(
            "The task fails while CDF may still be starting an execution (airflow_submit_id %s). Looking for "
            "it for up to %.0f s, to cancel it.",
            submit_id,
            NONCE_DEAD_AFTER,
        )
        self._killed = False
        try:
            told = self._carry_out(starts.cancel_all(lambda known: submit_id not in known, NONCE_DEAD_AFTER))
        except CdfError as error:
            self.log.warning("An execution of this task may still run in CDF: %s", error)
            return
        self.is_settled = True
        self.log.info(" ".join(told) or "No execution has appeared, and none can any more.")

    def _start_and_wait(self, context: Context) -> str:
        end_time = None if self.timeout is None else time.time() + self.timeout
        end_time = self._find_or_start(context, end_time)
        self._stop_if_killed()  # while CDF was starting it
        self._store(context, end_time)
        if not self.wait_for_completion:
            self.is_settled = True
            return str(self.execution_id)
        return self._wait(context, end_time)

    def _go_on_after(self, context: Context, event: Mapping[str, Any]) -> str:
        outcome = event.get("outcome")
        if outcome == "error":
            self.is_settled = True
            kind = CdfWaitRefusedError if event.get("is_permanent") else CdfError
            execution = event.get("execution_id") or _stored(context, "execution_id")
            raise kind(f"{event.get('message')} Execution {execution} was left as it is.")
        if outcome not in ("reached", "impossible", "timeout"):
            # Airflow may resume a deferred task without an event (apache/airflow#65248): it still waits.
            self.log.warning("The task was resumed without word from its trigger (%s); looking again.", event)
        self.execution_id = event.get("execution_id")
        # What the trigger saw may be hours old: the execution may have been retried in CDF since, and may
        # have ended since its time was over.
        return self._go_on_with_the_stored(context, event.get("end_time", _stored(context, "end_time")))

    def _go_on_with_the_stored(self, context: Context, end_time: float | None) -> str:
        # XComs survive a deferral; what the deferral itself carried does not survive its failure.
        self.execution_id = self.execution_id or _stored(context, "execution_id")
        if self.execution_id is None:
            end_time = self._find_or_start(context, end_time)
            self._store(context, end_time)
        return self._wait(context, end_time)

    def _carry_out(self, steps: Steps[ResultT]) -> ResultT:
        """Carry out steps one by one. A kill ends it between two of them."""
        from airflow_provider_cdf.cdf.client import Pause
        from airflow_provider_cdf.operators.notes import read_note, write_note
        from airflow_provider_cdf.operators.starts import ReadNote, WriteNote

        context = self._context
        assert context is not None  # noqa: S101 - for the type checker; _begin() has set it
        try:
            step = next(steps)
            while True:
                self._stop_if_killed()
                answer: Any = None
                try:
                    if isinstance(step, ReadNote):
                        answer = read_note(context)
                    elif isinstance(step, WriteNote):
                        write_note(context, step.submissions)
                    elif isinstance(step, Pause):
                        self._pause(step.seconds)
                    else:
                        answer = self.hook.client.send(step)
                except _KilledError:
                    raise
                except CdfError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            result: ResultT = end.value
            return result

    def _find_or_start(self, context: Context, end_time: float | None) -> float | None:
        """Go on with what this logical run has started, or start anew; return when the wait is over."""
        from airflow_provider_cdf.operators.identity import run_metadata

        assert self._starts is not None  # noqa: S101 - for the type checker; _begin() has set both
        assert self._try is not None  # noqa: S101
        what = f"workflow {self.workflow_external_id!r} version {self.version!r}"
        found = self._carry_out(
            self._starts.find_or_start(
                self.version,
                input=self.input,
                metadata=run_metadata(self.metadata, self._try, context["ti"], what),
                retry_from_failure=self.retry_from_failure,
            )
        )
        execution = found.execution
        self.execution_id = execution.id
        if found.is_under_way_anew:
            self._is_known_by = clock.now() + LAG
            self.log.info("CDF started execution %s of %s.", execution.id, what)
            return end_time
        self.log.info(
            "Going on with execution %s (version %s) of an earlier try; it is %s.",
            execution.id,
            execution.version,
            execution.status,
        )
        return self._end_of_budget(execution, end_time)

    def _end_of_budget(self, found: WorkflowExecution, end_time: float | None) -> float | None:
        """Return when the wait for an execution of an earlier try is over: one budget for all tries."""
        # One that CDF has retried is older than its latest attempt, which is what this waits for.
        if self.timeout is None or found.created_time is None or self.retry_from_failure:
            return end_time
        of_first_try = found.created_time / 1000 + self.timeout
        # Used up and left to go on: it was meant to, so this try waits as long again.
        is_left_to_go_on = of_first_try <= time.time() and not self.cancel_on_timeout
        return end_time if is_left_to_go_on else of_first_try

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

        patience = Patience(interval=self.poll_interval, max_silence=self.max_poll_silence, now=clock.now())
        while True:
            is_over = end_time is not None and time.time() >= end_time
            # A cancellation is a look, too, and tells more.
            execution = self._look(patience, is_last=is_over and not self.cancel_on_timeout)
            self._stop_if_killed()
            if execution is not None:
                verdict = wait_for_end(execution)
                if isinstance(verdict, Impossible):
                    if is_given_up(execution):
                        self.is_settled = True
                        raise CdfExecutionFailedError(verdict.reason)
                    self.log.warning(
                        "Execution %s was cancelled by another process of this task.", execution.id
                    )
                    _check_that_it_is_wanted(context)
                    self.execution_id = None
                    end_time = self._find_or_start(context, end_time)
                    self._store(context, end_time)
                elif not isinstance(verdict, GoOn):
                    return self._finish(context, execution)
            if is_over:
                return self._time_is_over(context, execution)
            # A trigger would take it for unknown if CDF does not know it yet where it is read.
            if self.deferrable and (execution is not None or clock.now() >= self._is_known_by):
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
            if isinstance(error, CdfApiError) and error.code == 404 and clock.now() < self._is_known_by:
                return None  # started a moment ago: what reads it lags behind
            try:
                note = patience.failed(error, now=clock.now())
            except CdfError as last:
                self.is_settled = True
                raise last.adding(f"Execution {self.execution_id} was left as it is.") from None
            if note:
                self.log.warning(note)
            return None
        if note := patience.answered(now=clock.now()):
            self.log.info(note)
        return execution

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
        until = clock.now() + seconds
        # In naps, because Python finishes a sleep after the signal that on_kill ran in.
        while not self._killed and (left := until - clock.now()) > 0:
            clock.sleep(min(left, NAP))
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
        # A submission that is open is looked for as long as the process lives.
        self.is_settled = self._starts is None or not self._starts.open_submission
        raise _KilledError(f"The task was killed. {fate}")

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
        if has_ended_badly(execution) and execution.status != "TERMINATED":
            raise CdfExecutionFailedError(describe_bad_end(self.hook.get_execution(execution.id)))
        raise CdfTimeoutError(f"{message} {after_cancelling(execution)}")


def _check_that_it_is_wanted(context: Context) -> None:
    """
    Check that Airflow still counts on this process, before it starts something in the middle of a wait.

    :raises CdfError: if its task has been ended.
    """
    ti: Any = context["ti"]
    if not hasattr(ti, "get_task_states"):
        return  # Airflow 2
    key = ti.task_id if ti.map_index is None or ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])
    state = states.get(ti.run_id, {}).get(key)
    if state not in (None, "running"):
        raise CdfError(f"The task is {state} in Airflow, so this process of it starts nothing more.")


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
