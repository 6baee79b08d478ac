"""Sensor for a task of an execution."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.cdf.errors import CdfError
from airflow_provider_cdf.fields import as_text, is_literal, refuse_operators
from airflow_provider_cdf.places import names_place
from airflow_provider_cdf.sensors.base import ExecutionSensor
from airflow_provider_cdf.triggers.task import CdfTaskTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecutionDetails
    from airflow_provider_cdf.waiting import Reached, Verdict


class CdfTaskSensor(ExecutionSensor):
    """
    Wait until a task of an execution is in a wanted status.

    Of several attempts the one that goes on counts, else the latest. While the execution is RUNNING, a
    FAILED or TIMED_OUT attempt may be followed by another one, so the wait goes on.

    The parameters are those of :class:`~airflow_provider_cdf.sensors.base.ExecutionSensor`, and:

    :param task_external_id: external id of the task. (templated)
    :param target_status: one status or several, in any case. (templated)
    :param parent_task_external_id: the dynamic task or subworkflow whose child is meant. Without it, a task
        without a parent comes first; of children that share an external id, none is guessed. (templated)
    :xcom return_value: the id that CDF gave this attempt at the task.
    :xcom status: the status of the task.
    :xcom input: the task's input, with its references resolved; of a function, its data are under
        ``["function"]["data"]``.
    :xcom output: the task's output so far.
    """

    template_fields: Sequence[str] = (
        *ExecutionSensor.template_fields,
        "task_external_id",
        "target_status",
        "parent_task_external_id",
    )
    text_fields = template_fields
    collections_of_text = ("target_status",)
    pushed_ids = MappingProxyType({"return_value": "cdf_task_id"})

    @names_place
    def __init__(
        self,
        *,
        task_external_id: str,
        target_status: str | Sequence[str] = "IN_PROGRESS",
        parent_task_external_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        refuse_operators(
            task_external_id=task_external_id,
            target_status=target_status,
            parent_task_external_id=parent_task_external_id,
        )
        self.task_external_id = as_text(task_external_id)
        self.target_status = target_status
        self.parent_task_external_id = as_text(parent_task_external_id)
        # The default is right, and what a template becomes is not known yet.
        if target_status != "IN_PROGRESS" and is_literal(target_status):
            _ = self.target_statuses

    @property
    def target_statuses(self) -> list[str]:
        """
        The wanted statuses as CDF writes them.

        :raises CdfInputError: if there is none, or one that CDF does not have.
        """
        from airflow_provider_cdf.cdf.checks import check_task_statuses

        return check_task_statuses(self.target_status)

    @property
    def goal(self) -> str:
        """What is waited for, for messages."""
        parent = f" of {self._parent!r}" if self._parent else ""
        return f"task {self.task_external_id!r}{parent} is {' or '.join(self.target_statuses)}"

    @property
    def _parent(self) -> str | None:
        from airflow_provider_cdf.cdf.checks import is_missing

        return None if is_missing(self.parent_task_external_id) else self.parent_task_external_id

    def decide(self, execution: WorkflowExecutionDetails) -> Verdict:
        """Say what an observation means for this wait."""
        from airflow_provider_cdf.waiting import wait_for_task

        return wait_for_task(
            execution,
            self.task_external_id,
            self.target_statuses,
            parent_task_external_id=self._parent,
            seen=self._seen,
        )

    def trigger(self, **kwargs: Any) -> CdfTaskTrigger:
        """Make the trigger that goes on waiting."""
        return CdfTaskTrigger(
            task_external_id=self.task_external_id,
            target_statuses=self.target_statuses,
            parent_task_external_id=self._parent,
            **kwargs,
        )

    def arrived(self, context: Context, reached: Reached) -> str:
        """Push what is known of the task, and return its id."""
        task = reached.task
        if task is None:
            raise CdfError(
                f"CDF no longer lists the attempt at task {self.task_external_id!r} that was seen. "
                f"Nothing was changed in CDF. [execution {self.execution_id}]"
            )
        self.log.info("Task %r is %s. [execution %s]", self.task_external_id, task.status, self.execution_id)
        for key, value in (("status", str(task.status)), ("input", task.input), ("output", task.output)):
            context["ti"].xcom_push(key=key, value=value)
        return task.id
