"""The event trigger that tells which executions of a workflow have ended."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_cdf.arguments import is_number, number_or, statuses_of
from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.triggers.base import BaseEventTrigger
from airflow_provider_cdf.triggers.doorbell import in_seconds
from airflow_provider_cdf.triggers.polling import POLL_INTERVAL, load

if TYPE_CHECKING:
    from airflow_provider_cdf.cdf.models import WorkflowExecution

#: Seconds for which executions are looked at after they were created: CDF ends one after 24 hours.
LOOK_BACK = 25 * 3600.0
#: Executions that an event names at most.
MAX_NAMED = 50
#: Seconds from an event until it is noted as told. Airflow stores an event within a second or two; noted
#: before, it would be lost if the triggerer was killed in between.
TOLD_AFTER = 5.0
#: Milliseconds before the latest ending for which it is noted what was told: CDF may list one late.
OVERLAP = 600_000
#: Key in Airflow's store of asset states.
CURSOR = "cdf_endings"


class Cursor:
    """
    What has been told, as far as it matters.

    :param floor: nothing that ended until then is told, in milliseconds since the epoch.
    :param told: when executions ended that were told, by id.
    """

    def __init__(self, floor: float = 0, told: Mapping[str, int] | None = None) -> None:
        self.floor = floor
        self.told = dict(told or {})

    def is_new(self, execution: WorkflowExecution) -> bool:
        """Whether an ending is to be told: also that of one which CDF has retried."""
        ended = execution.end_time
        return ended is not None and ended > self.floor and self.told.get(execution.id) != ended

    def tell(self, ended: Sequence[WorkflowExecution], listed: Sequence[WorkflowExecution] = ()) -> None:
        """
        Note endings as told.

        :param listed: all that CDF listed. Only while it is, an end in the future is kept in mind.
        """
        self.told |= {one.id: one.end_time for one in ended if one.end_time is not None}
        now = _now()
        # An end in the future must not silence what really ends until then.
        latest = min(max(self.told.values(), default=0), now)
        self.floor = max(self.floor, latest - OVERLAP)
        ids = {one.id for one in (*ended, *listed)}
        self.told = {
            one: end for one, end in self.told.items() if end > self.floor and (end <= now or one in ids)
        }

    def stored(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"floor": self.floor, "told": self.told}

    @classmethod
    def read(cls, stored: Any) -> Cursor | None:
        """Read what was stored; ``None`` if that is no cursor."""
        if not isinstance(stored, Mapping) or not isinstance(stored.get("told"), Mapping):
            return None
        told = {str(one): ended for one, ended in stored["told"].items() if is_number(ended)}
        # Releases before this one may have stored a floor in the future.
        return cls(min(number_or(stored.get("floor"), 0.0), _now() - OVERLAP), told)


class CdfWorkflowEventTrigger(BaseEventTrigger):
    """
    For an ``AssetWatcher`` (Airflow 3): tells which executions of a workflow have ended.

    It does not matter what has started them: mostly CDF's own schedules and data triggers. "Run this DAG when
    that CDF workflow has completed" is:

    ::

        ended = CdfWorkflowEventTrigger(workflow_external_id="pump_health")
        health = Asset("pump_health", watchers=[AssetWatcher(name="pump_health", trigger=ended)])
        with DAG("after_pump_health", schedule=[health]):
            ...

    The event's payload has ``executions``, up to 50 as ``{"id", "status", "end_time"}``, the latest of them,
    and ``more``, how many there are beside. Airflow merges events: a DAG run may get several at once, in
    ``triggering_asset_events``.

    Each ending is told at least once, over restarts and kills of the triggerer, where Airflow stores how far
    it got (3.3). A kill in the seconds after an event repeats it; id and end time tell. Without a store, what
    ends while no triggerer watches is not told, and the log says so. What ended before the watcher began for
    the first time is not told either. An execution that CDF retries is told again when it ends again.

    :param cdf_conn_id: id of the Airflow connection.
    :param workflow_external_id: external id of the workflow.
    :param version: version of the workflow; all of them without it.
    :param statuses: the endings that are told, one or several, in any case.
    :param poll_interval: seconds between polls, of one request each, or a timedelta.
    """

    def __init__(
        self,
        cdf_conn_id: str = "cdf_default",
        workflow_external_id: str = "",
        version: str | None = None,
        statuses: str | Sequence[str] = ("COMPLETED",),
        poll_interval: float | timedelta | str = POLL_INTERVAL,
        **more: Any,
    ) -> None:
        # Never raises: an exception here would stop the whole triggerer. `more` is what a newer release has
        # stored.
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.cdf_conn_id = cdf_conn_id
        self.workflow_external_id = workflow_external_id
        self.version = None if version is None else str(version)
        self.statuses = statuses
        self.poll_interval = in_seconds(poll_interval)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "cdf_conn_id": self.cdf_conn_id,
                "workflow_external_id": self.workflow_external_id,
                "version": self.version,
                "statuses": statuses_of(self.statuses),
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, and tell what has ended since, for ever."""
        await load()
        from airflow_provider_cdf.cdf.errors import CdfError, CdfLoginError
        from airflow_provider_cdf.hooks.cdf import CdfHook
        from airflow_provider_cdf.waiting import Pace

        interval = number_or(self.poll_interval, POLL_INTERVAL)
        pace = Pace(interval=interval, longest=90.0)
        hook = CdfHook(self.cdf_conn_id, retry_for=0)
        self._warn_of_what_never_comes()
        cursor = await self._restore()
        try:
            while True:
                found: list[WorkflowExecution] = []
                ended: list[WorkflowExecution] = []
                try:
                    found = await self._ended(hook)
                except CdfError as error:
                    if not pace.failures:
                        self.log.warning("%s Polling goes on.", error)
                    pace.failed(error)
                    if isinstance(error, CdfLoginError):
                        await hook.aclose()  # the secret may have been renewed
                else:
                    pace.answered()
                    if cursor is None:
                        # The first poll ever: from here on, endings are told. What ended long before may not
                        # be in this list and be in a later one.
                        cursor = Cursor(_now() - OVERLAP)
                        cursor.tell(found)
                        await self._store(cursor)
                    ended = sorted(filter(cursor.is_new, found), key=lambda one: one.end_time or 0)
                    if ended:
                        self.log.info(
                            "%d executions of %r have ended.", len(ended), self.workflow_external_id
                        )
                        yield TriggerEvent(_payload(ended))
                await clock.asleep(max(pace.next_interval, TOLD_AFTER if ended else 0.0))
                if ended and cursor is not None:
                    cursor.tell(ended, found)
                    await self._store(cursor)
        finally:
            await hook.aclose()

    def _usable_statuses(self) -> list[str]:
        """Return the statuses that an ended execution may have: CDF refuses what it does not know."""
        from airflow_provider_cdf.cdf.models import WorkflowStatus

        known = set(WorkflowStatus) - {WorkflowStatus.RUNNING}
        return [one for one in statuses_of(self.statuses) if one in known]

    def _warn_of_what_never_comes(self) -> None:
        usable = self._usable_statuses()
        unusable = [one for one in statuses_of(self.statuses) if one not in usable]
        if not self.workflow_external_id:
            self.log.warning("workflow_external_id is empty: nothing will ever be told.")
        elif not usable:
            self.log.warning("No execution ends as any of %s: nothing will ever be told.", unusable)
        elif unusable:
            self.log.warning("No execution ends as %s: of that, nothing will ever be told.", unusable)

    async def _ended(self, hook: Any) -> list[WorkflowExecution]:
        since = datetime.now(UTC) - timedelta(seconds=LOOK_BACK)
        statuses = self._usable_statuses()
        if not statuses or not self.workflow_external_id:
            return []  # without them, CDF would list all there are
        listed = hook.alist_executions(
            workflow_external_id=self.workflow_external_id,
            version=self.version,
            status=statuses,
            created_after=since,
        )
        async with aclosing(listed):
            found = {one.id: one async for one in listed}  # pages may overlap
        # Whatever the server has made of the filter: what ended elsewhere is not told here.
        return [
            one
            for one in found.values()
            if one.workflow_external_id == self.workflow_external_id
            and self.version in (None, one.version)
            and one.status in statuses
        ]

    async def _restore(self) -> Cursor | None:
        """Return how far the watcher has got; ``None`` if it begins."""
        store: Any = getattr(self, "asset_state_store", None)
        while store is not None:
            try:
                return Cursor.read(await store.aget(CURSOR))
            except ValueError:
                break  # the same watcher serves several assets, each with a store of its own
            except Exception as error:
                # Without it, what has ended meanwhile would be passed over.
                self.log.warning("Airflow's store of asset states could not be read; trying again: %s", error)
                await clock.asleep(TOLD_AFTER)
        self.log.warning(
            "Executions of %r that end while no triggerer watches will not be told: this Airflow does not "
            "store how far this watcher gets.",
            self.workflow_external_id,
        )
        return None

    async def _store(self, cursor: Cursor) -> None:
        store: Any = getattr(self, "asset_state_store", None)
        if store is None:
            return
        try:
            await store.aset(CURSOR, cursor.stored())
        except Exception as error:
            self.log.warning("Airflow did not store what was told; a restart may tell it again: %s", error)


def _now() -> float:
    """Return the present as CDF writes times: milliseconds since the epoch."""
    return time.time() * 1000


def _payload(ended: Sequence[WorkflowExecution]) -> dict[str, Any]:
    named = ended[-MAX_NAMED:]
    return {
        "executions": [{"id": one.id, "status": str(one.status), "end_time": one.end_time} for one in named],
        "more": len(ended) - len(named),
    }
