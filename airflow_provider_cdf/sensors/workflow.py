"""Sensor for the end of an execution."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.sensors.base import ExecutionSensor
from airflow_provider_cdf.triggers.workflow import CdfWorkflowTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cdf.cdf.models import WorkflowExecutionDetails
    from airflow_provider_cdf.waiting import Reached, Verdict


class CdfWorkflowSensor(ExecutionSensor):
    """
    Wait until an execution has ended well (COMPLETED).

    Fails at once, naming the failed tasks and why, if the execution ends in any other way. The parameters
    are those of :class:`~airflow_provider_cdf.sensors.base.ExecutionSensor`.

    :xcom return_value: the execution's id.
    """

    pushed_ids = MappingProxyType({"return_value": "execution_id"})

    @property
    def goal(self) -> str:
        """What is waited for, for messages."""
        return "the workflow is COMPLETED"

    def decide(self, execution: WorkflowExecutionDetails) -> Verdict:
        """Say what an observation means for this wait."""
        from airflow_provider_cdf.waiting import wait_for_end

        return wait_for_end(execution)

    def trigger(self, **kwargs: Any) -> CdfWorkflowTrigger:
        """Make the trigger that goes on waiting."""
        return CdfWorkflowTrigger(**kwargs)

    def arrived(self, context: Context, reached: Reached) -> str:
        """Return the execution's id."""
        self.log.info("The workflow is COMPLETED. [execution %s]", self.execution_id)
        return self.execution_id
