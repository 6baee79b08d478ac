"""Operators for whole executions: run, and cancel."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_cdf.cdf.errors import (
    CdfApiError,
    CdfError,
    CdfExecutionFailedError,
    CdfInputError,
    CdfOutputMissingError,
    CdfTimeoutError,
)
from airflow_provider_cdf.operators.recovery import (
    Cancellation,
    cancel_orphan,
    find_earlier_run,
    partial_with_callback,
    with_callback,
)
from airflow_provider_cdf.triggers.polling import BACKSTOP, MAX_POLL_SILENCE
from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecution, WorkflowExecutionDetails
    from airflow_provider_cdf.hooks.cdf import CdfHook

#: Seconds between checks whether a poking task has been killed; Airflow sends SIGKILL after 5.
NAP = 1.0


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
    :param poll_interval: seconds between looks at the execution.
    :param timeout: seconds to wait for the end in all, deferred or not. ``None`` for as long as it takes;
        CDF ends an execution after 24 hours.
    :param cancel_on_timeout: cancel the execution when ``timeout`` is over; otherwise it goes on.
    :param cancel_on_kill: cancel the execution when a person marks the task failed or successful, or clears
        it, and when its worker is told to stop or dies on the last try; not when a triggerer goes away.
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
        poll_interval: float = 10.0,
        timeout: float | timedelta | None = None,
        cancel_on_timeout: bool = True,
        cancel_on_kill: bool = True,
        retry_from_failure: bool = False,
        max_poll_silence: float = MAX_POLL_SILENCE,
        cdf_conn_id: str = "cdf_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Only now does it hold the user's, which may come from default_args.
        self.on_failure_callback = with_callback(self.on_failure_callback, cancel_orphan)
        if task_outputs and not wait_for_completion:
            raise ValueError("task_outputs needs wait_for_completion=True: a running task has no output yet.")
        self.workflow_external_id = workflow_external_id
        self.version = version
        self.input = input
        self.metadata = metadata
        self.task_outputs = task_outputs
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        self.cancel_on_timeout = cancel_on_timeout
        self.cancel_on_kill = cancel_on_kill
        self.max_poll_silence = max_poll_silence
        self.cdf_conn_id = cdf_conn_id
        self.retry_from_failure = retry_from_failure
        self.execution_id: str | None = None
        #: Whether this very object has got to decide what becomes of its execution.
        self.has_run = False
        self._killed = False
        self._cancellation: Cancellation | None = None

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Prepare a mapped task, with the failure callback that each of its instances has."""
        return partial_with_callback(super().partial(**kwargs), cancel_orphan)

    @cached_property
    def hook(self) -> CdfHook:
        """The hook of this operator's connection."""
        from airflow_provider_cdf.hooks.cdf import CdfHook

        return CdfHook(self.cdf_conn_id)

    def execute(self, context: Context) -> str:
        """Start the execution, or find the one of an earlier try, and wait for its end, here or deferred."""
        self.has_run = True
        if isinstance(self.task_outputs, str):
            raise CdfInputError("task_outputs must be a list of external ids, not one string.")
        end_time = None if self.timeout is None else time.time() + self.timeout
        execution = self._earlier_run(context)
        if self._killed and execution is None:
            raise CdfError("The task was killed before it started an execution.")
        if execution is None:
            execution = self._start(context)
        elif self.timeout is not None and execution.created_time is not None:
            # One budget for all tries, unless it is used up and the execution was meant to go on.
            began = execution.created_time / 1000
            end_time = began + self.timeout if began + self.timeout > time.time() else end_time
        self.execution_id = execution.id
        context["ti"].xcom_push(key="execution_id", value=execution.id)
        self._stop_if_killed()  # while CDF was starting it
        if not self.wait_for_completion:
            return execution.id
        return self._wait(context, end_time)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Go on where the trigger left off."""
        self.has_run = True
        event = event or {}
        outcome = event.get("outcome")
        self.execution_id = event.get("execution_id")
        if outcome in ("reached", "impossible", "timeout"):
            # What the trigger saw may be hours old: somebody may have retried the execution in CDF since, and
            # it may have ended since its time was over.
            return self._wait(context, event.get("end_time"))
        raise CdfError(
            str(event.get("message") or f"The trigger ended with an unknown event: {event}.")
            + f" Execution {self.execution_id} was left as it is."
        )

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, also after one that broke: a trigger that crashed or was given up."""
        if next_method != "__fail__":
            return super().resume_execution(next_method, next_kwargs, context)
        self.has_run = True
        ti = context["ti"]
        # XComs survive a deferral; what the deferral itself carried does not survive its failure.
        self.execution_id = ti.xcom_pull(task_ids=ti.task_id, key="execution_id", map_indexes=ti.map_index)
        if not self.execution_id:
            return super().resume_execution(next_method, next_kwargs, context)
        error = (next_kwargs or {}).get("error")
        self.log.warning(
            "The trigger that waited for execution %s has broken (%s); waiting goes on here.",
            self.execution_id,
            error,
        )
        # On the worker, because a trigger that crashed once might do so for ever.
        self.deferrable = False
        if error == "Trigger timeout":
            return self._wait(context, end_time=time.time())
        created = self.hook.get_execution(self.execution_id).created_time
        known = self.timeout is not None and created is not None
        return self._wait(context, created / 1000 + self.timeout if known else None)  # type: ignore[operator]

    def on_kill(self) -> None:
        """Cancel the execution. Airflow runs this inside the interrupted task, and then goes on with that."""
        self._killed = True
        if self.execution_id and self.cancel_on_kill and self._cancellation is None:
            self._cancellation = Cancellation(
                self.hook, self.execution_id, "The Airflow task that waited for it was killed."
            )
            # Not for long: the interrupted task may hold what the cancellation waits for.
            self._cancellation.outcome(timeout=NAP)

    def _earlier_run(self, context: Context) -> WorkflowExecution | None:
        """Return the execution that this try goes on with, if there is one."""
        if context["ti"].try_number == 1:
            return None
        found = find_earlier_run(self.hook, context, self.workflow_external_id, self.version)
        if found is None:
            return None
        if not found.status.has_ended or found.status == "COMPLETED":
            self.log.info("Going on with execution %s of an earlier try; it is %s.", found.id, found.status)
            return found
        if self.retry_from_failure:
            self.log.info("Execution %s ended %s; CDF runs its failed tasks again.", found.id, found.status)
            return self.hook.retry_execution(found.id)
        self.log.info("Execution %s of an earlier try ended %s; starting a new one.", found.id, found.status)
        return None

    def _start(self, context: Context) -> WorkflowExecution:
        from airflow_provider_cdf.operators.identity import run_metadata

        what = f"workflow {self.workflow_external_id!r} version {self.version!r}"
        started = self.hook.run_workflow(
            self.workflow_external_id,
            self.version,
            input=self.input,
            metadata=run_metadata(self.metadata, context["ti"], what),
        )
        self.log.info("CDF started execution %s of %s.", started.id, what)
        return started

    def _wait(self, context: Context, end_time: float | None) -> str:
        """Look once, then defer or poll until the execution has ended."""
        from airflow_provider_cdf.waiting import GoOn, Impossible, Patience, wait_for_end

        execution_id = str(self.execution_id)
        patience = Patience(
            interval=self.poll_interval, max_silence=self.max_poll_silence, now=time.monotonic()
        )
        while True:
            try:
                execution = self.hook.get_execution(execution_id)
            except CdfError as error:
                if note := patience.failed(error, now=time.monotonic()):
                    self.log.warning(note)
            else:
                if note := patience.answered(now=time.monotonic()):
                    self.log.info(note)
                verdict = wait_for_end(execution)
                if isinstance(verdict, Impossible):
                    raise CdfExecutionFailedError(verdict.reason)
                if not isinstance(verdict, GoOn):
                    return self._finish(context, execution)
            if end_time is not None and time.time() >= end_time:
                self._time_is_over()
            self._stop_if_killed()
            if self.deferrable:
                self._defer(execution_id, end_time)
            self._sleep(patience.next_interval, end_time)

    def _defer(self, execution_id: str, end_time: float | None) -> None:
        left = None if end_time is None else timedelta(seconds=max(end_time - time.time(), 0) + BACKSTOP)
        self.defer(
            trigger=CdfWorkflowTrigger(
                cdf_conn_id=self.cdf_conn_id,
                execution_id=execution_id,
                poll_interval=self.poll_interval,
                end_time=end_time,
                max_poll_silence=self.max_poll_silence,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="execute_complete",
            timeout=left,
        )

    def _sleep(self, seconds: float, end_time: float | None) -> None:
        until = time.time() + seconds
        if end_time is not None:
            until = min(until, end_time)
        # In naps, because Python finishes a sleep after the signal that on_kill ran in.
        while not self._killed and (left := until - time.time()) > 0:
            time.sleep(min(left, NAP))
        self._stop_if_killed()

    def _stop_if_killed(self) -> None:
        if not self._killed:
            return
        fate = "It goes on in CDF (cancel_on_kill=False)."
        if self.cancel_on_kill:
            self.on_kill()  # for the case that the signal came before the execution was known
            assert self._cancellation is not None  # noqa: S101 - for the type checker
            fate = self._cancellation.outcome()
        raise CdfError(f"The task was killed while it waited for execution {self.execution_id}. {fate}")

    def _finish(self, context: Context, execution: WorkflowExecutionDetails) -> str:
        from airflow_provider_cdf.waiting import current_attempt

        self.log.info("Execution %s is COMPLETED.", execution.id)
        if self.task_outputs:
            tasks = {name: current_attempt(execution, name) for name in self.task_outputs}
            if missing := [name for name, task in tasks.items() if task is None]:
                known = dict.fromkeys(task.external_id for task in execution.executed_tasks)
                raise CdfOutputMissingError(
                    f"Execution {execution.id} is COMPLETED, but task_outputs names tasks that it does not "
                    f"have: {', '.join(map(repr, missing))}. It has {', '.join(map(repr, known))}."
                )
            outputs = {name: task.output for name, task in tasks.items() if task is not None}
            context["ti"].xcom_push(key="task_outputs", value=outputs)
        return execution.id

    def _time_is_over(self) -> NoReturn:
        message = f"Execution {self.execution_id} has not ended within timeout={self.timeout} s."
        if not self.cancel_on_timeout:
            raise CdfTimeoutError(f"{message} It goes on in CDF (cancel_on_timeout=False).")
        raise CdfTimeoutError(
            f"{message} {self._cancel(f'Not ended within the {self.timeout} s that Airflow waited for it.')}"
        )

    def _cancel(self, reason: str) -> str:
        """Cancel the execution, and return in a sentence what became of it."""
        try:
            self.hook.cancel_execution(str(self.execution_id), reason)
        except CdfError as error:
            return f"It may still run in CDF, because it could not be cancelled: {error}"
        return "It was cancelled."


class CdfWorkflowCancelOperator(BaseOperator):
    """
    Cancel an execution, as a teardown for a run that nobody waits for.

    An execution that has ended is left alone, and so is one that never started (no id). Returns the status
    that the execution is in afterwards.

    :param execution_id: UUID of the execution. (templated)
    :param reason: becomes the execution's reason; at most 500 characters. (templated)
    :param cdf_conn_id: id of the Airflow connection. (templated)
    """

    template_fields: Sequence[str] = ("execution_id", "reason", "cdf_conn_id")

    def __init__(
        self,
        *,
        execution_id: str,
        reason: str = "Cancelled by Airflow.",
        cdf_conn_id: str = "cdf_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.execution_id = execution_id
        self.reason = reason
        self.cdf_conn_id = cdf_conn_id

    def execute(self, context: Context) -> str | None:
        """Cancel the execution unless it has ended."""
        from airflow_provider_cdf.hooks.cdf import CdfHook

        if self.execution_id in (None, "", "None"):
            self.log.info("There is no execution to cancel: the run never started.")
            return None
        hook = CdfHook(self.cdf_conn_id)
        execution = hook.get_execution(self.execution_id)
        if execution.status.has_ended:
            self.log.info("Execution %s has already ended %s.", execution.id, execution.status)
            return execution.status
        try:
            status = hook.cancel_execution(execution.id, self.reason).status
        except CdfApiError:
            # It may have ended in between, which CDF refuses with a status that is not documented.
            status = hook.get_execution(execution.id).status
            if not status.has_ended:
                raise
        self.log.info("Execution %s is %s.", execution.id, status)
        return status
