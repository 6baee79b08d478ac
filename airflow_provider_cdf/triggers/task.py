"""Deferred waiting for a task of an execution."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Hashable, Sequence
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_cdf.arguments import statuses_of
from airflow_provider_cdf.triggers.doorbell import CdfTaskEventTrigger
from airflow_provider_cdf.triggers.polling import PACKAGE, ExecutionTrigger

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.models import WorkflowExecution, WorkflowExecutionDetails
    from airflow_provider_cdf.triggers.streams import Snapshot
    from airflow_provider_cdf.waiting import Verdict

__all__ = ["CdfTaskEventTrigger", "CdfTaskTrigger"]


class CdfTaskTrigger(ExecutionTrigger):
    """
    Fires when a task is in a wanted status (``reached``, with ``cdf_task_id``), or never will be.

    The parameters are those of :class:`~airflow_provider_cdf.triggers.polling.ExecutionTrigger`, and:

    :param task_external_id: external id of the task.
    :param target_statuses: the wanted statuses, one or several, in any case.
    :param parent_task_external_id: the dynamic task or subworkflow whose child is meant.
    """

    def __init__(
        self,
        task_external_id: str = "",
        target_statuses: str | Sequence[str] = ("IN_PROGRESS",),
        parent_task_external_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.task_external_id = task_external_id
        self.parent_task_external_id = parent_task_external_id
        self.target_statuses = target_statuses

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores to make this trigger again."""
        path, kwargs = super().serialize()
        return path, kwargs | {
            "task_external_id": self.task_external_id,
            "parent_task_external_id": self.parent_task_external_id,
            "target_statuses": statuses_of(self.target_statuses),
        }

    def decide(self, execution: WorkflowExecution) -> Verdict:
        """Say what an observation means for this wait."""
        from airflow_provider_cdf.waiting import wait_for_task

        return wait_for_task(
            cast("WorkflowExecutionDetails", execution),  # a stream of one execution shows its tasks
            self.task_external_id,
            statuses_of(self.target_statuses),
            parent_task_external_id=self.parent_task_external_id,
        )

    def shared_stream_key(self) -> Hashable:
        """Name what is polled: one execution, at an interval."""
        return PACKAGE, "execution", str(self.cdf_conn_id), str(self.execution_id).lower(), self.interval

    def stream(self) -> AsyncGenerator[Snapshot, None]:
        """Poll the execution for ever."""
        from airflow_provider_cdf.triggers.streams import of_execution

        return of_execution(str(self.cdf_conn_id), self.execution_id, interval=self.interval)
