"""Operators for whole executions: run, and cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred, conf

from airflow_provider_cdf.arguments import OWN_METADATA_PAIRS, flag, seconds
from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.errors import CdfError, CdfInputError, CdfWaitRefusedError
from airflow_provider_cdf.cdf.foreign import one_line
from airflow_provider_cdf.cdf.messages import ids, told
from airflow_provider_cdf.fields import TextFields, as_text, is_from_mapped, is_literal, refuse_operators
from airflow_provider_cdf.operators.callbacks import cancel_orphan, partial_with_callback, with_callback
from airflow_provider_cdf.operators.cancel import CdfWorkflowCancelOperator
from airflow_provider_cdf.operators.cancelling import KILL_PATIENCE, Cancellation
from airflow_provider_cdf.operators.mapped import with_checks
from airflow_provider_cdf.operators.waits import WaitsForEnd, stored
from airflow_provider_cdf.places import names_place
from airflow_provider_cdf.stack import without_stack
from airflow_provider_cdf.triggers.broken import BROKEN, resumed_after_failure
from airflow_provider_cdf.triggers.polling import MAX_POLL_SILENCE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecution
    from airflow_provider_cdf.cdf.steps import ResultT
    from airflow_provider_cdf.operators.identity import Try
    from airflow_provider_cdf.operators.starts import NotedConversation, Starts

__all__ = ["CdfWorkflowCancelOperator", "CdfWorkflowRunOperator"]

#: Seconds between checks whether a waiting task has been killed; Airflow sends SIGKILL after 5.
NAP = 1.0


class _KilledError(CdfError):
    """The task was told to stop."""


class CdfWorkflowRunOperator(TextFields, WaitsForEnd):
    """
    Start a workflow, wait until it has ended, and return the execution's id.

    One logical run of this task is one execution. A retry finds the execution of the try before it, whatever
    died in between: it goes on waiting if that is RUNNING, takes the result if it is COMPLETED, and starts a
    new one if it ended badly. A person who clears the task gets a new execution; the old one is cancelled.

    An execution that ends in another status than COMPLETED fails the task, naming each failed CDF task and
    why.

    :param workflow_external_id: external id of the workflow. (templated)
    :param version: version of the workflow. (templated)
    :param input: JSON object of at most 100 000 bytes, read by tasks as ``${workflow.input...}``. Workflow
        inputs are no place for secrets. (templated)
    :param metadata: at most 8 pairs of strings (CDF takes 10, two hold this package's keys), keys of 32 and
        values of 255 characters. (templated)
    :param task_outputs: external ids of the CDF tasks whose outputs are pushed as the XCom
        ``task_outputs``; needs ``wait_for_completion``. A child that several tasks have is refused: for that
        there is the XCom ``output`` of a CdfTaskSensor. (templated)
    :param wait_for_completion: if false, the task ends when CDF has accepted the run.
    :param deferrable: wait in the triggerer instead of in a worker slot.
    :param poll_interval: seconds between looks at the execution; more after one that failed.
    :param timeout: seconds to wait for the end of one execution, over all tries that wait for it, deferred or
        not; needs ``wait_for_completion``. ``None`` for as long as it takes; CDF ends an execution after 24
        hours.
    :param cancel_on_timeout: cancel the execution when ``timeout`` is over; otherwise it goes on.
    :param cancel_on_kill: cancel the execution when a person marks the task failed or successful, or clears
        it (while it is deferred: Airflow 3.3 or later), when its worker is told to stop or dies on the last
        try, and when the last try fails after the start; not when a triggerer goes away.
    :param retry_from_failure: a retry asks CDF to run the failed tasks of the same execution once more,
        instead of starting a new one. Only within one logical run of this task.
    :param max_poll_silence: seconds without one good answer from CDF after which the wait gives up; single
        failing polls do not end it.
    :param cdf_conn_id: id of the Airflow connection. (templated)
    :xcom return_value: the execution's id.
    :xcom execution_id: the same, as soon as CDF has accepted the run: for what must know it although this
        task fails, such as a callback, or a teardown that cancels.
    :xcom task_outputs: the outputs of the tasks that ``task_outputs`` names, by external id.
    """

    template_fields: Sequence[str] = (
        "workflow_external_id",
        "version",
        "input",
        "metadata",
        "task_outputs",
        "cdf_conn_id",
    )
    text_fields = tuple(name for name in template_fields if name != "input")
    collections_of_text = ("metadata", "task_outputs")
    pushed_ids = MappingProxyType({"return_value": "execution_id", "execution_id": "execution_id"})

    @names_place
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
        if not is_from_mapped(self):  # whose values execute() checks
            _refuse_mistakes(
                input,
                metadata,
                workflow_external_id=workflow_external_id,
                version=version,
                task_outputs=task_outputs,
            )
            # Airflow has merged default_args in, which hold for many tasks, and hands them over as well.
            defaults = kwargs.get("default_args") or {}
            own = {"task_outputs": task_outputs, "timeout": timeout}
            _refuse_what_needs_a_wait(
                wait_for_completion,
                {name: value for name, value in own.items() if defaults.get(name) is not value},
            )
        super().__init__(**kwargs)
        # Only now does it hold the user's, which may come from default_args.
        self.on_failure_callback = with_callback(self.on_failure_callback, cancel_orphan)
        # What only matters while waiting is ignored where nothing is waited for: default_args may hold it.
        self.workflow_external_id = as_text(workflow_external_id)
        self.version = as_text(version)
        self.input = input
        self.metadata = metadata
        self.task_outputs = task_outputs
        self.wait_for_completion = flag(wait_for_completion, "wait_for_completion")
        self.deferrable = flag(deferrable, "deferrable")
        self.poll_interval = seconds(poll_interval, "poll_interval")
        self.timeout = None if timeout is None else seconds(timeout, "timeout")
        self.cancel_on_timeout = flag(cancel_on_timeout, "cancel_on_timeout")
        self.cancel_on_kill = flag(cancel_on_kill, "cancel_on_kill")
        self.max_poll_silence = seconds(max_poll_silence, "max_poll_silence")
        self.cdf_conn_id = cdf_conn_id
        self.retry_from_failure = flag(retry_from_failure, "retry_from_failure")
        self._context: Context | None = None
        self._try: Try | None = None
        self._starts: Starts | None = None
        self._killed = False
        self._cancellation: Cancellation | None = None

    @classmethod
    @names_place
    def partial(cls, **kwargs: Any) -> Any:
        """Prepare a mapped task, with the failure callback that each of its instances has."""
        _refuse_mistakes_among(kwargs)
        return partial_with_callback(
            with_checks(super().partial(**kwargs), _refuse_mistakes_among), cancel_orphan
        )

    @without_stack
    def execute(self, context: Context) -> str:
        """Start the execution, or find the one of an earlier try, and wait for its end, here or deferred."""
        self._begin(context)
        if problem := _problem_of_names(self.task_outputs or ()):
            raise CdfInputError(problem)
        return self._to_the_last(lambda: self._start_and_wait(context))

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, end_time: float | None = None
    ) -> str:
        """
        Go on where the trigger left off.

        :param event: what the trigger has seen. None where Airflow has started a deferred task once more
            (apache/airflow#65248): then waiting goes on.
        :param end_time: when ``timeout`` is over, in seconds since the epoch.
        """
        self._begin(context)
        end_time = stored(context, "end_time") if end_time is None else end_time
        return self._to_the_last(lambda: self._go_on_after(context, event or {}, end_time))

    @without_stack
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, also after one that broke: a trigger that crashed or was given up."""
        if next_method != BROKEN:
            return super().resume_execution(next_method, next_kwargs, context)
        self._begin(context)
        is_over = resumed_after_failure(next_kwargs, self.log)
        # On the worker, because a trigger that crashed once might do so for ever.
        self.deferrable = False
        end_time = stored(context, "end_time")
        if is_over and end_time is not None:
            end_time = min(end_time, time.time())
        return self._to_the_last(lambda: self._go_on_with_what_is_stored(context, end_time))

    def on_kill(self) -> None:
        """
        Cancel the execution, unless only this process ends and the task's next try goes on with it.

        Airflow runs this inside the interrupted task, and then goes on with that.
        """
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
            has_a_retry = self._context is not None and not self._try.is_last
            self._cancellation = Cancellation(
                self.hook,
                execution_id=execution_id,
                submit_id=submit_id,
                since=self._try.since,
                ti=self._context["ti"] if has_a_retry and self._context else None,
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
        from airflow_provider_cdf.cdf.submitting import NONCE_DEAD_AFTER

        submit_id = starts.open_submission
        self.log.warning(
            "The task fails while CDF may still be starting an execution. Looking for it for up to %.0f s, "
            "to cancel it: its metadata is airflow_submit_id = %s.",
            NONCE_DEAD_AFTER,
            submit_id,
        )
        self._killed = False
        try:
            fates = self._carry_out(starts.cancel_all(lambda known: submit_id not in known, NONCE_DEAD_AFTER))
        except CdfError as error:
            self.log.warning("%s", told("An execution of this task may still run in CDF.", error))
            return
        self.is_settled = True
        self.log.info(told(*fates) or "No execution has appeared, and none can any more.")

    def _start_and_wait(self, context: Context) -> str:
        end_time = None if self.timeout is None else time.time() + self.timeout
        end_time = self._find_or_start(context, end_time)
        self._stop_if_killed()  # while CDF was starting it
        self._store(context, end_time)
        if not self.wait_for_completion:
            self.is_settled = self.is_left_running = True
            return str(self.execution_id)
        return self._wait(context, end_time)

    def _go_on_after(self, context: Context, event: Mapping[str, Any], end_time: float | None) -> str:
        outcome = event.get("outcome")
        if outcome == "error":
            self.is_settled = True
            kind = CdfWaitRefusedError if event.get("is_permanent") else CdfError
            execution = event.get("execution_id") or stored(context, "execution_id")
            raise kind(
                told(event.get("message"), "The execution was left as it is.", ids(execution=execution))
            )
        if outcome not in ("reached", "impossible", "timeout"):
            # Airflow may resume a deferred task without an event (apache/airflow#65248): it still waits.
            self.log.warning(
                "The task was resumed without word from its trigger; looking again. It said: %s", event
            )
        self.execution_id = event.get("execution_id")
        # What the trigger saw may be hours old: the execution may have been retried in CDF since, and may
        # have ended since its time was over.
        return self._go_on_with_what_is_stored(context, end_time)

    def _go_on_with_what_is_stored(self, context: Context, end_time: float | None) -> str:
        # XComs survive a deferral; what the deferral itself carried does not survive its failure.
        self.execution_id = self.execution_id or stored(context, "execution_id")
        if self.execution_id is None:
            end_time = self._find_or_start(context, end_time)
            self._store(context, end_time)
        return self._wait(context, end_time)

    def _carry_out(self, steps: NotedConversation[ResultT]) -> ResultT:
        """Carry out steps one by one. A kill ends it between two of them."""
        from airflow_provider_cdf.cdf.steps import Pause
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
            self._started_at = clock.now()
            self.log.info("CDF has started %s. [execution %s]", what, execution.id)
            return end_time
        self.log.info(
            "Going on with the execution of an earlier try (version %s); it is %s. [execution %s]",
            execution.version,
            execution.status,
            execution.id,
        )
        return self._end_of_budget(execution, end_time)

    def _end_of_budget(self, found: WorkflowExecution, end_time: float | None) -> float | None:
        """Return when the wait for an execution of an earlier try is over: one budget for all tries."""
        # One that CDF has retried is older than its latest attempt, which is what this waits for.
        if self.timeout is None or found.created_time is None or self.retry_from_failure:
            return end_time
        if not self._may_be_of_this_task(found.created_time):
            self.log.warning(
                "CDF dates the execution as no execution of this task can be. So timeout counts from the "
                "start of this try. The createdTime was %s. [execution %s]",
                one_line(found.created_time, 40),
                found.id,
            )
            return end_time
        of_first_try = found.created_time / 1000 + self.timeout
        # Used up and left to go on: it was meant to, so this try waits as long again.
        is_left_to_go_on = of_first_try <= time.time() and not self.cancel_on_timeout
        return end_time if is_left_to_go_on else of_first_try

    def _may_be_of_this_task(self, created_time: int) -> bool:
        """Whether an execution may have been created then: not before the DAG run, nor in the future."""
        from airflow_provider_cdf.cdf.conversations import CLOCK_MARGIN

        assert self._try is not None  # noqa: S101 - for the type checker; _begin() has set it
        # The number of milliseconds may be too big for a float.
        latest = (time.time() + CLOCK_MARGIN.total_seconds()) * 1000
        return self._try.since.timestamp() * 1000 <= created_time <= latest

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
            fate = f"The execution goes on in CDF (cancel_on_kill=False). [execution {self.execution_id}]"
        else:
            fate = "It had not started an execution in CDF."
        # A submission that is open is looked for as long as the process lives.
        self.is_settled = self._starts is None or not self._starts.open_submission
        raise _KilledError(f"The task was killed. {fate}")


def _refuse_mistakes(input: object, metadata: object, **fields: Any) -> None:  # noqa: A002 - the API's own name
    """
    Refuse what a DAG file says and CDF would refuse, while the file is read. Only literals can be judged.

    :raises ValueError: with what to write instead.
    """
    refuse_operators(input=input, metadata=metadata, **fields)
    if input is not None and is_literal(input):
        from airflow_provider_cdf.cdf.values import json_object

        # Here, because what is no JSON fails in Airflow itself before the task begins, without a path to it.
        try:
            json_object(input, "input")
        except CdfInputError as error:
            raise ValueError(error.problem) from None
    if isinstance(metadata, Mapping) and len(metadata) > OWN_METADATA_PAIRS:
        raise ValueError(
            f"metadata has {len(metadata)} pairs; {OWN_METADATA_PAIRS} is the most. CDF takes two more, "
            "which are needed to find the run again."
        )
    try:
        for name in ("workflow_external_id", "version"):
            if fields.get(name) is not None and is_literal(fields[name]):
                from airflow_provider_cdf.cdf.checks import check_segment

                check_segment(as_text(fields[name]), name)
        if metadata is not None and is_literal(metadata):
            from airflow_provider_cdf.cdf.checks import check_metadata

            check_metadata(as_text(metadata), f"workflow {fields.get('workflow_external_id')!r}")
    except CdfInputError as error:
        raise ValueError(error.problem) from None
    names = fields.get("task_outputs") or ()
    if is_literal(names) and (problem := _problem_of_names(names)):
        raise ValueError(problem)


def _refuse_what_needs_a_wait(wait_for_completion: object, own: Mapping[str, Any]) -> None:
    """
    Refuse what a task is told itself, and has no effect where it does not wait.

    :raises ValueError: while the file is parsed.
    """
    if wait_for_completion is not False:
        return
    if own.get("task_outputs") not in (None, (), []):
        raise ValueError(
            "task_outputs needs wait_for_completion: without it, the task ends before there are any. Leave "
            "out one of them. What one CDF task has put out is the XCom output of a CdfTaskSensor."
        )
    if own.get("timeout") is not None:
        raise ValueError(
            "timeout needs wait_for_completion: without it, there is no wait to end. Leave out one of them. "
            "How long the task itself may take is Airflow's execution_timeout."
        )


def _refuse_mistakes_among(arguments: Mapping[str, Any]) -> None:
    """
    Refuse mistakes in the arguments of a mapped task.

    :raises ValueError: while the file is parsed.
    """
    named = ("input", "metadata", "workflow_external_id", "version", "task_outputs")
    _refuse_mistakes(**{name: arguments.get(name) for name in named})
    # Those of default_args are not among them.
    _refuse_what_needs_a_wait(arguments.get("wait_for_completion"), arguments)


def _problem_of_names(task_outputs: object) -> str | None:
    if isinstance(task_outputs, str):
        return "task_outputs must be a list of external ids, not one string."
    if isinstance(task_outputs, Sequence) and all(isinstance(one, str) and one for one in task_outputs):
        return None
    return f"task_outputs must be a list of external ids. It is {task_outputs!r:.60}."
