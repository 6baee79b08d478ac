"""The event trigger that rings while CDF tasks wait for Airflow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_cdf.arguments import number_or
from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.triggers.base import BaseEventTrigger
from airflow_provider_cdf.triggers.polling import PACKAGE, POLL_INTERVAL, load

if TYPE_CHECKING:
    from airflow_provider_cdf.hooks.shared import Look
    from airflow_provider_cdf.triggers.streams import Snapshot

#: Seconds after which it rings again while a task still waits: the ring before may have come to nothing.
RING_AGAIN = 180.0
#: Seconds between looks at an execution with a task that waits already; where more of them wait, as many
#: seconds as there are, up to the other: one request per second finds out what it can.
LOOK_AGAIN = 30.0


def in_seconds(interval: Any) -> Any:
    """Return an interval as a trigger stores it: a timedelta and a text with a number as seconds."""
    if isinstance(interval, timedelta):
        return interval.total_seconds()
    try:
        return float(interval) if isinstance(interval, str) else interval
    except ValueError:
        return interval  # refused nowhere: the default counts


class CdfTaskEventTrigger(BaseEventTrigger):
    """
    A doorbell for an ``AssetWatcher`` (Airflow 3): it rings when a CDF task begins to wait for Airflow.

    Airflow merges asset events: thirty in one moment give one DAG run. So an event says only that tasks wait,
    and the DAG that it wakes lists them itself: :func:`~airflow_provider_cdf.inbox.cdf_inbox` makes such a
    DAG. It rings again every three minutes while any task waits, and for what has waited before the watcher
    began.

    All watchers, and all triggers that wait for executions, of a connection share one request per interval
    (Airflow 3.3). For the executions of its workflow that may hold a waiting task there is one more each; one
    whose task waits, or has ended for good, is not asked again every time.

    :param cdf_conn_id: id of the Airflow connection.
    :param workflow_external_id: external id of the workflow.
    :param task_external_id: external id of the task.
    :param version: version of the workflow; all of them without it.
    :param parent_task_external_id: the dynamic task or subworkflow whose children are meant.
    :param poll_interval: seconds between polls, or a timedelta.
    """

    def __init__(
        self,
        cdf_conn_id: str = "cdf_default",
        workflow_external_id: str = "",
        task_external_id: str = "",
        version: str | None = None,
        parent_task_external_id: str | None = None,
        poll_interval: float | timedelta | str = POLL_INTERVAL,
        **more: Any,
    ) -> None:
        # Never raises: an exception here would stop the whole triggerer. `more` is what a newer release has
        # stored.
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.cdf_conn_id = cdf_conn_id
        self.workflow_external_id = workflow_external_id
        self.task_external_id = task_external_id
        self.version = None if version is None else str(version)
        self.parent_task_external_id = parent_task_external_id
        self.poll_interval = in_seconds(poll_interval)
        #: When to look at an execution next, by its id.
        self._look_at: dict[str, float] = {}
        #: The attempts that wait, by execution.
        self._waiting: dict[str, set[str]] = {}
        #: Looks that are under way, by execution. Other triggers may share them: their client cancels them.
        self._reading: dict[str, asyncio.Task[Look]] = {}
        #: Executions that could not be read when they were looked at last.
        self._unread: set[str] = set()
        self._ring_at = 0.0
        self._is_silent = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "cdf_conn_id": self.cdf_conn_id,
                "workflow_external_id": self.workflow_external_id,
                "task_external_id": self.task_external_id,
                "version": self.version,
                "parent_task_external_id": self.parent_task_external_id,
                "poll_interval": self.poll_interval,
            },
        )

    @property
    def interval(self) -> float:
        """Seconds between polls, whatever was stored: what is no number must not flood CDF."""
        return number_or(self.poll_interval, POLL_INTERVAL)

    def shared_stream_key(self) -> Hashable:
        """Name what is polled: all executions that run, at an interval."""
        return PACKAGE, "running executions", str(self.cdf_conn_id), self.interval

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Snapshot]:
        """
        Poll the list of executions that run, for all triggers with the same key.

        :param kwargs: what one of them has stored.
        """
        await load()
        from airflow_provider_cdf.triggers.streams import of_running

        one = cls(**kwargs)
        async with aclosing(of_running(str(one.cdf_conn_id), interval=one.interval)) as stream:
            async for snapshot in stream:
                yield snapshot

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[Snapshot]
    ) -> AsyncIterator[TriggerEvent]:
        """Ring whenever a snapshot shows a reason to, for ever."""
        await load()
        for name in ("workflow_external_id", "task_external_id"):
            if not getattr(self, name):
                self.log.warning("%s is empty: this watcher will never ring.", name)
                break
        async for snapshot in shared_stream:
            if not snapshot.is_outdated and (count := await self._reason_to_ring(snapshot)):
                self.log.info("%d CDF tasks %r wait for Airflow.", count, self.task_external_id)
                yield TriggerEvent({"waiting": count, "task_external_id": self.task_external_id})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll alone, below Airflow 3.3."""
        async with aclosing(self.open_shared_stream(self.serialize()[1])) as stream:  # type: ignore[type-var]
            async for event in self.filter_shared_stream(stream):
                yield event

    async def _reason_to_ring(self, snapshot: Snapshot) -> int:
        """Return how many tasks wait, if there is a new one among them or it is time to ring again."""
        self._say_once(snapshot)
        if snapshot.error is not None:
            return 0
        now = clock.now()
        mine = [
            execution.id
            for execution in snapshot.found
            if execution.workflow_external_id == self.workflow_external_id
            and self.version in (None, execution.version)
        ]
        self._look_at = {one: self._look_at.get(one, 0.0) for one in mine}
        self._waiting = {one: ids for one, ids in self._waiting.items() if one in self._look_at}
        self._unread &= set(mine)
        known = {attempt for ids in self._waiting.values() for attempt in ids}
        self._reading = {
            one: task for one, task in self._reading.items() if one in self._look_at and not task.cancelled()
        }
        begun = {
            one: snapshot.begin_look(one, of_crowd=True)
            for one in mine
            if one not in self._reading and now >= self._look_at[one]
        }
        self._reading |= begun
        if begun:
            # Not longer: one that hangs must not hold up all others. It is seen at a later snapshot.
            await asyncio.wait(begun.values(), timeout=self.interval)
        read = {one: task.result() for one, task in self._reading.items() if task.done()}
        self._reading = {one: task for one, task in self._reading.items() if one not in read}
        wait = [one for one, look in read.items() if self._note(one, look, now)]
        # Not at every poll: what else comes to wait in this execution, as another child of a dynamic task
        # does, mostly does so at the same time.
        pause = min(max(LOOK_AGAIN, sum(map(bool, self._waiting.values()))), RING_AGAIN)
        self._look_at |= dict.fromkeys(wait, now + pause)
        waiting = {attempt for ids in self._waiting.values() for attempt in ids}
        if not waiting or (waiting <= known and now < self._ring_at):
            return 0
        self._ring_at = now + RING_AGAIN
        return len(waiting)

    def _note(self, execution_id: str, execution: Look, now: float) -> bool:
        """Return whether a task of this execution waits, and note which."""
        from airflow_provider_cdf.cdf.errors import CdfError
        from airflow_provider_cdf.waiting_tasks import is_over_in, waiting_in

        if isinstance(execution, CdfError):
            if not self._unread:
                self.log.warning("%s Polling goes on.", execution)
            self._unread.add(execution_id)
            self._look_at[execution_id] = now + LOOK_AGAIN
            return False
        self._unread.discard(execution_id)
        found = waiting_in(execution, self.task_external_id, self.parent_task_external_id)
        self._waiting[execution_id] = {task.cdf_task_id for task in found}
        if not found and is_over_in(execution, self.task_external_id, self.parent_task_external_id):
            # Not for ever: a person may have CDF run an ended execution again, between two polls.
            self._look_at[execution_id] = now + RING_AGAIN
        return bool(found)

    def _say_once(self, snapshot: Snapshot) -> None:
        if snapshot.error is not None and not self._is_silent:
            self.log.warning("%s Polling goes on.", snapshot.error)
        elif snapshot.error is None and self._is_silent:
            self.log.info("CDF answers again.")
        self._is_silent = snapshot.error is not None
