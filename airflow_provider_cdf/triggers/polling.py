"""What the triggers that wait for an execution share: what is stored of them, and how they are run."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from contextlib import aclosing
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_cdf.arguments import number_or
from airflow_provider_cdf.triggers.base import BaseEventTrigger

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.models import WorkflowExecution, WorkflowExecutionDetails
    from airflow_provider_cdf.triggers.streams import Snapshot
    from airflow_provider_cdf.waiting import Verdict

#: Seconds between polls, unless something else is asked for.
POLL_INTERVAL = 10.0
#: Seconds without one good answer after which a wait gives up.
MAX_POLL_SILENCE = 900.0
#: What the key of every stream begins with: Airflow finds those who share one by their key alone.
PACKAGE = "airflow_provider_cdf"
#: A deferral ends this many seconds after the trigger's own end of the wait, should the trigger be stuck.
BACKSTOP = 120.0


class ExecutionTrigger(BaseEventTrigger):
    """
    Watch an execution until there is something for a worker to do.

    Fires one event: a dict with ``outcome`` ``reached``, ``impossible``, ``timeout`` or ``error`` (with
    ``is_permanent``), and ``end_time`` for a task that goes on waiting. Events hold ids and messages only,
    because Airflow logs them whole. The triggers only read, so that two copies of one, which Airflow may run
    for a while, do no harm.

    :param cdf_conn_id: id of the Airflow connection.
    :param execution_id: UUID of the execution.
    :param poll_interval: seconds between polls.
    :param end_time: seconds since the epoch at which the wait is over; the wall clock, because another
        triggerer may go on with it. ``None`` for no end.
    :param max_poll_silence: seconds without one good answer from CDF after which the wait gives up.
    """

    # Airflow's event triggers share their polls; these do, too, but tasks are deferred to them.
    supports_triggerer_queue = True

    def __init__(
        self,
        cdf_conn_id: str = "cdf_default",
        execution_id: str = "",
        poll_interval: float = POLL_INTERVAL,
        end_time: float | None = None,
        max_poll_silence: float = MAX_POLL_SILENCE,
        **more: Any,
    ) -> None:
        # Never raises, whatever it is given: an exception here would stop the whole triggerer. `more` is
        # what a newer release has stored.
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.cdf_conn_id = cdf_conn_id
        self.execution_id = execution_id
        self.poll_interval = poll_interval
        self.end_time = end_time
        self.max_poll_silence = max_poll_silence

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "cdf_conn_id": self.cdf_conn_id,
                "execution_id": self.execution_id,
                "poll_interval": self.poll_interval,
                "end_time": self.end_time,
                "max_poll_silence": self.max_poll_silence,
            },
        )

    @abstractmethod
    def decide(self, execution: WorkflowExecution) -> Verdict:
        """Say what an observation means for this wait."""

    def warn(self, execution: WorkflowExecutionDetails) -> None:
        """Warn of what may never end."""

    @property
    def wants_tasks(self) -> bool:
        """Whether :meth:`warn` has to see the tasks, now and then, which a list of executions has not."""
        return False

    @property
    def interval(self) -> float:
        """Seconds between polls, whatever was stored: what is no number must not flood CDF."""
        return number_or(self.poll_interval, POLL_INTERVAL)

    @property
    def max_silence(self) -> float:
        """Seconds of silence that the wait outlives, whatever was stored: it must not wait for ever."""
        return number_or(self.max_poll_silence, MAX_POLL_SILENCE)

    @abstractmethod
    def shared_stream_key(self) -> Hashable:
        """Name what is polled: Airflow 3.3 polls once for all triggers that name the same."""

    @abstractmethod
    def stream(self) -> AsyncGenerator[Snapshot, None]:
        """Poll for ever on behalf of all triggers with the same key; only what is in the key counts."""

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Snapshot]:
        """
        Poll for ever, for all triggers with the same key.

        :param kwargs: what one of them has stored.
        """
        await load()
        async with aclosing(cls(**kwargs).stream()) as stream:
            async for snapshot in stream:
                yield snapshot

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[Snapshot]
    ) -> AsyncIterator[TriggerEvent]:
        """Read the snapshots until there is something to tell, tell it once, and end."""
        yield await self._event(shared_stream)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll alone until there is something to tell, tell it once, and end."""
        await load()
        from airflow_provider_cdf.triggers.streams import of_execution
        from airflow_provider_cdf.waiting import longest_obeyed

        alone = of_execution(
            str(self.cdf_conn_id),
            self.execution_id,
            interval=self.interval,
            longest_retry_after=longest_obeyed(self.max_silence),
        )
        async with aclosing(alone):
            event = await self._event(alone)
        yield event

    async def _event(self, stream: AsyncIterator[Snapshot]) -> TriggerEvent:
        await load()
        from airflow_provider_cdf.triggers.waits import Wait

        outcome = await Wait(self).outcome(stream)
        return TriggerEvent({"execution_id": self.execution_id, "end_time": self.end_time, **outcome})


_is_loaded = False


async def load() -> None:
    """
    Import what polls, once, in a thread.

    Airflow imports trigger modules on the event loop, so what is heavy waits until here; and it is here that
    a thousand triggers start.
    """
    global _is_loaded
    if not _is_loaded:
        await asyncio.to_thread(import_module, "airflow_provider_cdf.triggers.waits")
        _is_loaded = True
