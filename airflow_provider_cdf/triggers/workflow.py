"""Deferred waiting for an execution to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable
from typing import TYPE_CHECKING, Any

from airflow_provider_cdf.task_state import ALIVE, state_of
from airflow_provider_cdf.triggers.endings import CdfWorkflowEventTrigger
from airflow_provider_cdf.triggers.polling import PACKAGE, ExecutionTrigger, load

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.models import WorkflowExecution, WorkflowExecutionDetails
    from airflow_provider_cdf.triggers.streams import Snapshot
    from airflow_provider_cdf.waiting import Verdict

__all__ = ["CdfWorkflowEventTrigger", "CdfWorkflowTrigger"]

#: Tasks of the event loop that nobody refers to may be collected before they are done.
_cancellations: set[asyncio.Task[None]] = set()


class CdfWorkflowTrigger(ExecutionTrigger):
    """
    Fires when an execution has ended, well (``reached``) or badly (``impossible``).

    The parameters are those of :class:`~airflow_provider_cdf.triggers.polling.ExecutionTrigger`, and:

    :param cancel_on_kill: cancel the execution when a person marks the deferred task failed or successful, or
        clears it (Airflow 3.3 or later).
    :param warn_of_standstill: warn once a task of CDF's waits for a report: for what has started the
        execution, which may wait for a report that a task behind it is to make.
    """

    def __init__(self, cancel_on_kill: bool = False, warn_of_standstill: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = cancel_on_kill
        self.warn_of_standstill = warn_of_standstill
        self._has_warned = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores to make this trigger again."""
        path, kwargs = super().serialize()
        return path, kwargs | {
            "cancel_on_kill": self.cancel_on_kill,
            "warn_of_standstill": self.warn_of_standstill,
        }

    def decide(self, execution: WorkflowExecution) -> Verdict:
        """Say what an observation means for this wait."""
        from airflow_provider_cdf.waiting import wait_for_end

        return wait_for_end(execution)

    def warn(self, execution: WorkflowExecutionDetails) -> None:
        """Warn once that a task of CDF's waits for a report, if that is wanted."""
        from airflow_provider_cdf.progress import standstill

        if self.wants_tasks and (warning := standstill(execution)):
            self._has_warned = True
            self.log.warning(warning)

    @property
    def wants_tasks(self) -> bool:
        """Whether there is something to warn of yet."""
        return self.warn_of_standstill and not self._has_warned

    def shared_stream_key(self) -> Hashable:
        """Name what is polled: all executions that run, at an interval."""
        return PACKAGE, "running executions", str(self.cdf_conn_id), self.interval

    def stream(self) -> AsyncGenerator[Snapshot, None]:
        """Poll the list of executions that run, for ever."""
        from airflow_provider_cdf.triggers.streams import of_running

        return of_running(str(self.cdf_conn_id), interval=self.interval)

    async def on_kill(self) -> None:
        """Cancel the execution of a task that a person has ended; never because a triggerer goes away."""
        if not self.cancel_on_kill:
            self.log.info(
                "The execution goes on in CDF, whatever has become of the task that waited. [execution %s]",
                self.execution_id,
            )
            return
        # Shielded, because Airflow 3.3 cancels this coroutine anew with each heartbeat, once a second.
        cancellation = asyncio.create_task(self._cancel_if_killed())
        _cancellations.add(cancellation)
        cancellation.add_done_callback(_cancellations.discard)
        await asyncio.shield(cancellation)

    async def _cancel_if_killed(self) -> None:
        if not await self._is_really_killed():
            return
        await load()
        from airflow_provider_cdf.cdf.conversations import cancel_execution
        from airflow_provider_cdf.cdf.messages import ids, told
        from airflow_provider_cdf.hooks.shared import shared_client

        reason = "The Airflow task that waited for it was ended or cleared."
        try:
            async with shared_client(str(self.cdf_conn_id)) as shared:
                client = await shared.patient()
                execution = await client.perform(cancel_execution(client.settings, self.execution_id, reason))
        except Exception as error:
            fate = "An execution may still run in CDF, because it could not be cancelled."
            self.log.warning("%s", told(fate, error, ids(execution=self.execution_id)))
        else:
            self.log.info(
                "Its task was ended or cleared: it is %s. [execution %s]", execution.status, execution.id
            )

    async def _is_really_killed(self) -> bool:
        # Airflow 3.3.0 to 3.3.2 call on_kill also when a trigger merely moves to another triggerer
        # (apache/airflow#73454). The task is still deferred then, or has even been resumed elsewhere.
        ti = self.task_instance
        if ti is None:
            return False
        try:
            # In a thread, because it asks the supervisor and waits for the answer.
            state = await asyncio.to_thread(state_of, ti)
        except Exception as error:
            self.log.warning(
                "The execution was left as it is: it is not known whether its task was killed (%r). "
                "[execution %s]",
                error,
                self.execution_id,
            )
            return False
        # A cleared task that is to run again cannot be told from one that was resumed. It cancels the
        # execution of its earlier life itself, first thing.
        if state in ALIVE | {"restarting"}:
            self.log.info(
                "The execution goes on: its task is %s, only the trigger moves. [execution %s]",
                state,
                self.execution_id,
            )
            return False
        return True
