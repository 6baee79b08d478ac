"""
What waiting triggers poll: one stream of snapshots for all that wait for the same thing.

Airflow 3.3 runs a stream once for all triggers that name the same key (``BaseEventTrigger``); below, and
where a trigger runs by itself, each opens its own. A stream knows nothing of those who read it, ends only
when it is cancelled, and passes errors on as snapshots, because one that raised would fail all its readers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Collection, Mapping

from airflow_provider_cdf.cdf.errors import CdfError
from airflow_provider_cdf.cdf.models import WorkflowExecution, WorkflowExecutionDetails
from airflow_provider_cdf.cdf.reading import ExecutionPolls
from airflow_provider_cdf.hooks.shared import LONGEST_RETRY_AFTER, Look, SharedClient, shared_client
from airflow_provider_cdf.waiting import Pace, contradiction, is_surely_running


class Stream:
    """
    What the snapshots of one stream have in common.

    :param client: through which it polls, and its readers look closer.
    """

    def __init__(self, client: SharedClient) -> None:
        self.client = client
        #: The newest one. A reader that was held up has older ones before it, and passes over them.
        self.latest: Snapshot | None = None
        #: Ids of executions whose tasks a reader wants to know, by the time of the wish.
        self.wishes: dict[str, None] = {}


class Snapshot:
    """
    What one poll has brought.

    :param found: executions by id in lower case: one with its tasks, or all that are RUNNING, without them;
        or the error that the poll has ended with.
    """

    def __init__(self, stream: Stream, found: Mapping[str, WorkflowExecution] | CdfError) -> None:
        self._stream = stream
        self._found = found
        self._looks: dict[str, asyncio.Task[Look]] = {}
        stream.latest = self

    @property
    def error(self) -> CdfError | None:
        """Why there is nothing to see, if there is not."""
        return self._found if isinstance(self._found, CdfError) else None

    @property
    def found(self) -> Collection[WorkflowExecution]:
        """All executions that the poll has found; none if it has failed."""
        return () if isinstance(self._found, CdfError) else self._found.values()

    @property
    def is_outdated(self) -> bool:
        """Whether there is a newer one already."""
        return self._stream.latest is not self

    def shows(self, execution_id: str) -> WorkflowExecution | None:
        """Return an execution, unless there is more to know of it than the snapshot shows."""
        if isinstance(self._found, CdfError):
            return None
        execution = self._found.get(_key(execution_id))
        if isinstance(execution, WorkflowExecutionDetails):
            return execution
        return execution if execution is not None and is_surely_running(execution) else None

    def begin_look(self, execution_id: str, *, of_crowd: bool = False) -> asyncio.Task[Look]:
        """
        Begin to read an execution, once for all who ask this snapshot.

        :param of_crowd: whether it is one of many that no wait depends on.
        """
        key = _key(execution_id)
        if key not in self._looks:
            self._looks[key] = self._stream.client.begin_look(execution_id, of_crowd=of_crowd)
        return self._looks[key]

    async def look(self, execution_id: str) -> Look:
        """Read an execution that is not shown, once for all who ask this snapshot."""
        return await asyncio.shield(self.begin_look(execution_id))

    def wish_for_tasks(self, execution_id: str) -> None:
        """Ask for the tasks of an execution that is RUNNING; one of a later snapshot's shows them."""
        self._stream.wishes.setdefault(_key(execution_id))


def _key(execution_id: object) -> str:
    # Whatever a trigger was given for an id: it is refused where it would be sent.
    return str(execution_id).lower()


async def of_execution(
    cdf_conn_id: str, execution_id: str, *, interval: float, longest_retry_after: float = LONGEST_RETRY_AFTER
) -> AsyncGenerator[Snapshot, None]:
    """
    Poll one execution with its tasks, for ever.

    :param interval: seconds between polls.
    :param longest_retry_after: the longest ``Retry-After`` that is obeyed, seconds.
    """
    async with shared_client(cdf_conn_id) as client:
        stream = Stream(client)
        pace = Pace(interval=interval, longest=longest_retry_after)
        polls = ExecutionPolls()
        while True:
            look = await client.look(execution_id, polls)
            yield Snapshot(stream, look if isinstance(look, CdfError) else {_key(look.id): look})
            await _pause(pace, look if isinstance(look, CdfError) else contradiction(look), client)


async def of_running(cdf_conn_id: str, *, interval: float) -> AsyncGenerator[Snapshot, None]:
    """
    Poll the list of executions that are RUNNING, for ever; one request, or one for each thousand of them.

    Lists have no tasks. For those of its readers who wish to see some, it reads one execution more between
    two polls, in turn, however many there are.

    :param interval: seconds between polls.
    """
    async with shared_client(cdf_conn_id) as client:
        stream = Stream(client)
        pace = Pace(interval=interval, longest=LONGEST_RETRY_AFTER)
        closer: asyncio.Task[Look] | None = None
        while True:
            found = await client.running()
            if closer is not None and closer.done() and not isinstance(found, CdfError):
                look = closer.result()
                if not isinstance(look, CdfError) and _key(look.id) in found:
                    found[_key(look.id)] = look
            snapshot = Snapshot(stream, found)
            yield snapshot
            if (closer is None or closer.done()) and not isinstance(found, CdfError):
                stream.wishes = {one: None for one in stream.wishes if one in found}
                wish = next(iter(stream.wishes), None)
                closer = None if wish is None else snapshot.begin_look(wish)
                stream.wishes.pop(wish or "", None)
            await _pause(pace, found if isinstance(found, CdfError) else None, client)


async def _pause(pace: Pace, error: CdfError | None, client: SharedClient) -> None:
    if error is None:
        pace.answered()
    else:
        pace.failed(error)
    # Jittered, so that streams that were opened at once do not poll at once.
    pause = pace.next_interval * random.uniform(0.9, 1.1)  # noqa: S311 - no secret depends on it
    await asyncio.sleep(max(pause, pace.asked_for, min(client.quiet_for, pace.longest)))
