"""
One client for all who poll through a connection in one event loop: one login, one TLS context, one pool.

A triggerer runs a thousand triggers in one event loop. Each with a client of its own would ask Airflow for
the connection and open sockets a thousand times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self, TypeAlias

from airflow_provider_cdf.cdf import calls, clock
from airflow_provider_cdf.cdf.calls import AnswerT, Call
from airflow_provider_cdf.cdf.client import AsyncCdfClient
from airflow_provider_cdf.cdf.errors import CdfApiError, CdfError, CdfLoginError
from airflow_provider_cdf.cdf.foreign import one_line
from airflow_provider_cdf.cdf.models import WorkflowExecution, WorkflowExecutionDetails
from airflow_provider_cdf.cdf.pages import LIST_WITHIN, MOST_RUNNING, Pages
from airflow_provider_cdf.cdf.reading import ExecutionPolls, ListPoll
from airflow_provider_cdf.hooks.cdf import CdfHook

#: Executions that are read at once, of each kind. The rest wait for their turn: an answer may have 20 MB.
MOST_AT_ONCE = 16
#: The longest ``Retry-After`` that is obeyed, seconds: what waits of the usual ``max_poll_silence`` obey.
LONGEST_RETRY_AFTER = 90.0

#: What a look at an execution brings; an error is passed on to all who need to know.
Look: TypeAlias = WorkflowExecutionDetails | CdfError

_clients: dict[tuple[asyncio.AbstractEventLoop, str], SharedClient] = {}


class _Opened:
    """A client for as long as requests are sent with it."""

    def __init__(self, hook: CdfHook, client: AsyncCdfClient) -> None:
        self.hook, self.client = hook, client
        #: The polls are patient themselves.
        self.impatient = client.sibling(retry_for=0)
        self.sending = 0


class SharedClient:
    """
    The client of a connection in this event loop, for as long as it has users.

        async with shared_client("cdf_default") as client:
            look = await client.look(execution_id)

    The Airflow connection is read at first use, and again after a login that was refused: the secret may have
    been renewed. A 429 is a word to all who poll: see :attr:`quiet_for`.
    """

    def __init__(self, cdf_conn_id: str) -> None:
        self.cdf_conn_id = cdf_conn_id
        self._users = 0
        self._opening = asyncio.Lock()
        self._opened: _Opened | None = None
        #: Of streams, of what waits for an end, and of watchers, which may look at hundreds: what hangs of
        #: one kind does not delay the others.
        self._polls, self._ends, self._crowd = (asyncio.Semaphore(MOST_AT_ONCE) for _ in range(3))
        self._looks: set[asyncio.Task[Look]] = set()
        #: The newest list of what runs.
        self._list: ListPoll | None = None
        self._quiet_until = 0.0
        self._quiet: CdfError | None = None

    # -- users ------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._users -= 1
        if self._users:
            return
        key = (asyncio.get_running_loop(), self.cdf_conn_id)
        if _clients.get(key) is self:
            del _clients[key]  # before anything is awaited: who comes now gets another one
        for look in self._looks:
            look.cancel()
        opened, self._opened = self._opened, None
        if opened is not None and not opened.sending:
            await opened.hook.aclose()

    # -- requests ---------------------------------------------------------------------------------------

    async def running(self) -> dict[str, WorkflowExecution] | CdfError:
        """Return all executions that are RUNNING, without tasks, by id in lower case; or what went wrong."""
        found: dict[str, WorkflowExecution] = {}
        poll = ListPoll(self._list)
        pages = Pages(LIST_WITHIN, MOST_RUNNING)
        while not pages.are_over:
            page = await self._tried(partial(calls.poll_executions, poll=poll, cursor=pages.cursor))
            if isinstance(page, CdfError):
                return page
            try:
                found |= {execution.id: execution for execution in pages.items_of(page)}
            except CdfError as error:
                return error
        self._list = poll
        return found

    async def look(self, execution_id: str, polls: ExecutionPolls) -> Look:
        """
        Read an execution and its tasks, without inputs and outputs; or return what went wrong.

        :param polls: who has read the looks before this one.
        """
        return await self._turn(execution_id, polls, self._polls, is_heeding=False)

    def begin_look(self, execution_id: str, *, of_crowd: bool = False) -> asyncio.Task[Look]:
        """
        Begin a look that several wait for with ``asyncio.shield``: it does not end with one of them.

        Where CDF does not want to be asked, it brings what CDF said then.

        :param of_crowd: whether it is one of many that no wait depends on.
        """
        turns = self._crowd if of_crowd else self._ends
        look = asyncio.create_task(self._turn(execution_id, ExecutionPolls(), turns, is_heeding=True))
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)
        return look

    async def _turn(
        self, execution_id: str, polls: ExecutionPolls, turns: asyncio.Semaphore, *, is_heeding: bool
    ) -> Look:
        async with turns:
            if is_heeding and self._quiet is not None and self.quiet_for:
                return self._quiet
            return await self._tried(partial(calls.poll_execution, execution_id=execution_id, polls=polls))

    @property
    def quiet_for(self) -> float:
        """Seconds for which CDF does not want to be asked."""
        return max(self._quiet_until - clock.now(), 0.0)

    async def patient(self) -> AsyncCdfClient:
        """Return the client with the patience that the connection says, for what is not a poll."""
        return (await self._open()).client

    async def _tried(self, call_in: Callable[[str], Call[AnswerT]]) -> AnswerT | CdfError:
        """Send a call; never raise, because what came out of a poll is passed on to others."""
        try:
            return await self._send(call_in)
        except CdfError as error:
            return error
        except Exception as error:
            return CdfError(f"A poll of CDF has failed unexpectedly: {one_line(repr(error))}.")

    async def _send(self, call_in: Callable[[str], Call[AnswerT]]) -> AnswerT:
        """Send a call, given the project that it is about."""
        opened = await self._open()
        opened.sending += 1
        try:
            return await opened.impatient.send(call_in(opened.client.settings.project))
        except CdfLoginError:
            if self._opened is opened:
                self._opened = None  # the next request reads the connection again
            raise
        except CdfApiError as error:
            if error.code in (429, 503) and error.retry_after:
                self._quiet = error
                self._quiet_until = clock.now() + min(error.retry_after, LONGEST_RETRY_AFTER)
            raise
        finally:
            opened.sending -= 1
            if opened is not self._opened and not opened.sending:
                await opened.hook.aclose()

    async def _open(self) -> _Opened:
        if self._opened is not None:
            return self._opened
        async with self._opening:
            if self._opened is None:
                hook = CdfHook(self.cdf_conn_id)
                self._opened = _Opened(hook, await hook.aclient())
            return self._opened


def shared_client(cdf_conn_id: str) -> SharedClient:
    """Return the client of a connection in this event loop; use it as an asynchronous context manager."""
    key = (asyncio.get_running_loop(), cdf_conn_id)
    client = _clients.get(key)
    if client is None:
        client = _clients[key] = SharedClient(cdf_conn_id)
    return client
