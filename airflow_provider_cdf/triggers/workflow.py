"""Deferred waiting for an execution to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_cdf.triggers.polling import ExecutionTrigger

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.models import WorkflowExecutionDetails
    from airflow_provider_cdf.waiting import Verdict


class CdfWorkflowTrigger(ExecutionTrigger):
    """Fires when an execution has ended, well (``reached``) or badly (``impossible``)."""

    def decide(self, execution: WorkflowExecutionDetails) -> Verdict:
        """Say what an observation means for this wait."""
        from airflow_provider_cdf.waiting import wait_for_end

        return wait_for_end(execution)
