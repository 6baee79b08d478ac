"""How CdfTaskOperator waits for its CDF task."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.cdf.attempts import is_async_complete
from airflow_provider_cdf.cdf.messages import ids
from airflow_provider_cdf.operators.cdf_task import attempt_at
from airflow_provider_cdf.operators.reporting import reported_before, workflow_state
from airflow_provider_cdf.sensors.task import CdfTaskSensor
from airflow_provider_cdf.waiting import Impossible, Reached

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import TaskExecution, WorkflowExecutionDetails
    from airflow_provider_cdf.hooks.cdf import CdfHook
    from airflow_provider_cdf.operators.reporting import Target
    from airflow_provider_cdf.waiting import Verdict

#: Seconds of a wait at most. It is CDF that ends it: an execution after 24 hours, and the task with that. Not
#: Airflow's ``[sensors] default_timeout``, which is for tasks that do nothing but wait.
LONGEST_WAIT = 7 * 24 * 3600.0


class TaskWait(CdfTaskSensor):
    """
    The sensor's wait, as part of an operator that goes on to do the work.

    Its parameters are those of the sensor, but for:

    :param target: the task that is waited for. One that is addressed by ``cdf_task_id`` waits already.
    """

    def __init__(self, *, target: Target, hook: CdfHook, **kwargs: Any) -> None:
        super().__init__(
            execution_id="",  # below: what a template has become is refused where it is used
            task_external_id=str(target.task_external_id),
            parent_task_external_id=target.parent_task_external_id,
            timeout=LONGEST_WAIT,
            **kwargs,
        )
        self.execution_id = str(target.execution_id)
        self.target = target
        self.hook = hook
        self._ti: Any = None
        #: The attempt that waits.
        self.attempt: TaskExecution | None = None
        #: The attempt that an earlier try of the same Airflow task has completed.
        self.completed: TaskExecution | None = None

    def begin(self, context: Context) -> None:
        """Wait, in the triggerer or on the worker."""
        ti: Any = context["ti"]
        self._ti = ti
        if self.deferrable:
            self.look_or_defer(context)
            return
        started_at = ti.start_date.timestamp() if ti.start_date is not None else time.time()
        reached = self.looks.first(started_at=started_at, until=started_at + self.timeout)
        if reached is not None:
            self.arrived(context, reached)
            return
        time.sleep(self.poke_interval)
        self.wait_here(context)

    def resume(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> None:
        """Go on where a deferral has ended."""
        self._ti = context["ti"]
        self.resume_execution(next_method, next_kwargs, context)

    def decide(self, execution: WorkflowExecutionDetails) -> Verdict:
        """Say what an observation means for this wait."""
        before = reported_before(self._ti, execution, self.target)
        if before is not None and before.status == "COMPLETED":
            self.completed = before
            return Reached(before)
        verdict = (
            self._of_attempt(execution) if self.target.task_external_id is None else super().decide(execution)
        )
        if (
            isinstance(verdict, Reached)
            and verdict.task
            and is_async_complete(execution, verdict.task) is False
        ):
            return Impossible(
                f"Task {verdict.task.external_id!r} waits for no report: it is not asynchronous "
                f"(isAsyncComplete), so CDF ends it itself. {ids(execution=execution.id)}"
            )
        return verdict

    def _of_attempt(self, execution: WorkflowExecutionDetails) -> Verdict:
        task = attempt_at(execution, self.target)
        if task is None:
            return Impossible(
                f"The execution has no such task. {ids(task=self.target.cdf_task_id, execution=execution.id)}"
            )
        if task.has_ended or execution.has_ended:
            ended = f"has already ended {task.status}" if task.has_ended else f"was left {task.status}"
            return Impossible(
                f"Task {task.external_id!r} waits for no report: it {ended}. {workflow_state(execution)} "
                f"{ids(task=task.id, execution=execution.id)}"
            )
        return Reached(task)

    def arrived(self, context: Context, reached: Reached) -> str:
        """Keep the attempt for the operator."""
        if self.completed is None:
            self.attempt = reached.task
        return ""  # the operator has another result
