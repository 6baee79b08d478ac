"""Sensor for a task of an execution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.cdf.errors import CdfError
from airflow_provider_cdf.sensors.base import ExecutionSensor
from airflow_provider_cdf.triggers.task import CdfTaskTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecutionDetails
    from airflow_provider_cdf.waiting import Reached, Verdict


class CdfTaskSensor(ExecutionSensor):
    """
    Wait until a task of an execution is in a wanted status, and return the id that CDF gave the task.

    Also pushes the XComs ``status``, ``input`` (with its references resolved) and ``output`` of the task.
    Of several attempts the one that goes on counts, else the latest. While the execution is RUNNING, a
    FAILED or TIMED_OUT attempt may be followed by another one, so the wait goes on.

    The parameters are those of :class:`~airflow_provider_cdf.sensors.base.ExecutionSensor`, and:

    :param task_external_id: external id of the task. (templated)
    :param target_status: one status or several, in any case. (templated)
    """

    template_fields: Sequence[str] = (*ExecutionSensor.template_fields, "task_external_id", "target_status")

    def __init__(
        self, *, task_external_id: str, target_status: str | Sequence[str] = "IN_PROGRESS", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.task_external_id = task_external_id
        self.target_status = target_status

    @property
    def target_statuses(self) -> list[str]:
        """
        The wanted statuses as CDF writes them.

        :raises CdfInputError: if there is none, or one that CDF does not have.
        """
        from airflow_provider_cdf.cdf.calls import check_task_statuses

        return check_task_statuses(self.target_status)

    @property
    def goal(self) -> str:
        """What is waited for, for messages."""
        return (
            f"task {self.task_external_id!r} of execution {self.execution_id} is "
            f"{' or '.join(self.target_statuses)}"
        )

    def decide(self, execution: WorkflowExecutionDetails) -> Verdict:
        """Say what an observation means for this wait."""
        from airflow_provider_cdf.waiting import wait_for_task

        return wait_for_task(execution, self.task_external_id, self.target_statuses, seen=self._seen)

    def trigger(self, **kwargs: Any) -> CdfTaskTrigger:
        """Make the trigger that goes on waiting."""
        return CdfTaskTrigger(
            task_external_id=self.task_external_id, target_statuses=self.target_statuses, **kwargs
        )

    def arrived(self, context: Context, reached: Reached) -> str:
        """Push what is known of the task, and return its id."""
        task = reached.task
        if task is None:
            raise CdfError(
                f"Task {self.task_external_id!r} was seen in execution {self.execution_id}, "
                "but CDF no longer lists that attempt. Nothing was changed in CDF."
            )
        self.log.info("Task %r of execution %s is %s.", self.task_external_id, self.execution_id, task.status)
        for key, value in (("status", str(task.status)), ("input", task.input), ("output", task.output)):
            context["ti"].xcom_push(key=key, value=value)
        return task.id
