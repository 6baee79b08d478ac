"""
Two thin senders of the same calls, one for threads and one for event loops.

Redirects are never followed: they would carry credentials elsewhere. Connections belong to a process and to
an event loop: what a fork copies, or an ended loop leaves behind, is never used again, so one client may be
used from anywhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import wait
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeAlias

import httpx
from tenacity import AsyncRetrying, Retrying

from airflow_provider_cdf.cdf import clock
from airflow_provider_cdf.cdf.auth import Login
from airflow_provider_cdf.cdf.calls import AnswerT, Call, inspect_token
from airflow_provider_cdf.cdf.errors import CdfApiError, CdfError
from airflow_provider_cdf.cdf.logins.base import Credentials
from airflow_provider_cdf.cdf.models import ExecutionPage, TokenInspection, WorkflowExecution
from airflow_provider_cdf.cdf.network import AsyncNetwork, Network
from airflow_provider_cdf.cdf.pages import Pages
from airflow_provider_cdf.cdf.retry import retrying
from airflow_provider_cdf.cdf.sender import Sender
from airflow_provider_cdf.cdf.settings import Settings, Source
from airflow_provider_cdf.cdf.steps import Conversation, Pause, ResultT
from airflow_provider_cdf.cdf.transport import (
    MOST_OF_AN_ANSWER,
    MOST_OF_AN_ERROR,
    Answer,
    NoAnswer,
    aexchange,
    exchange,
)

log = logging.getLogger(__name__)

PageAt: TypeAlias = Callable[[str | None], Call[ExecutionPage]]


class CdfClient(Sender):
    """
    CDF, for threads.

    :param settings: where CDF is, and who asks.
    :param login: instead of the one that all clients of a process share. Then ``source`` is not asked.
    """

    def __init__(self, settings: Settings, *, login: Login | None = None) -> None:
        super().__init__(settings, login)
        #: By process.
        self._opened: dict[int, Network] = {}

    def send(self, call: Call[AnswerT], *, within: float | None = None) -> AnswerT:
        """
        Send one call and read its answer; repeat it as long as that does no harm and may help.

        :param within: seconds for all of it, where there is less time than the settings say.
        :raises CdfError: of the class that says what happened; its message names the call.
        """
        again = Retrying(sleep=clock.sleep, **retrying(call, self.settings.retry_for, within))
        give_up_at = None if within is None else clock.now() + within
        try:
            answer: AnswerT = again(self._send_once, call, give_up_at)
            return answer
        except CdfError as error:
            failed = error.bare()
        if isinstance(failed, CdfApiError) and self._may_inspect(call, failed):
            failed.inspection = self._inspect(give_up_at)
            failed.adding(self._failure(call).lacking(failed))
        raise failed

    def _inspect(self, give_up_at: float | None) -> TokenInspection | None:
        try:
            return self._attempt(inspect_token(), self._inspect_ends(give_up_at))
        except CdfError:
            return None

    def _send_once(self, call: Call[AnswerT], give_up_at: float | None) -> AnswerT:
        used = self.settings.credentials
        try:
            return self._attempt(call, give_up_at)
        except CdfError as error:
            source = self._source_after(call, error)
            if source is None or not self._has_renewed(source, used):
                raise
        return self._attempt(call, give_up_at)

    def _has_renewed(self, source: Source, used: Credentials) -> bool:
        if self.settings.credentials == used:  # another request may have brought others meanwhile
            try:
                self.renew(source.read_settings())
            except CdfError as error:
                log.info("The credentials could not be read again: %s", error)
        return self.settings.credentials != used

    def _attempt(self, call: Call[AnswerT], give_up_at: float | None) -> AnswerT:
        try:
            call = self._current(call)
            return self._read(call, self._exchange(self._request(call), self._ends(give_up_at)))
        except Exception as error:
            failed = self._failure(call).of(error)
        raise failed

    def _exchange(self, request: httpx.Request, ends: float) -> Answer:
        with closing(self._steps(request)) as steps:
            try:
                step = next(steps)
                while True:
                    answer = None
                    try:
                        if isinstance(step, httpx.Request):
                            most = MOST_OF_AN_ANSWER if step is request else MOST_OF_AN_ERROR
                            answer = exchange(self._transport(), step, ends, most)
                        else:
                            wait([step], timeout=max(0.0, ends - clock.now()))
                    except NoAnswer as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(answer)
            except StopIteration as end:
                whole: Answer = end.value
                return whole

    def _transport(self) -> Network:
        here = os.getpid()
        opened = self._opened.get(here)
        if opened is None:
            opened = self._opened.setdefault(here, Network(self.tls))
            for pid in [pid for pid in list(self._opened) if pid != here]:
                # The parent's: dropped, not closed, because the parent goes on with them.
                self._opened.pop(pid, None)
        return opened

    def perform(self, conversation: Conversation[ResultT]) -> ResultT:
        """Carry out a conversation of several calls."""
        try:
            step = next(conversation)
            while True:
                answer = None
                try:
                    if isinstance(step, Pause):
                        clock.sleep(step.seconds)
                    else:
                        answer = self.send(step)
                except CdfError as error:
                    step = conversation.throw(error)
                else:
                    step = conversation.send(answer)
        except StopIteration as end:
            result: ResultT = end.value
            return result
        except CdfError as error:
            failed = error.bare()  # the conversation's frame holds a nonce
        raise failed

    def executions(self, page_at: PageAt) -> Iterator[WorkflowExecution]:
        """Iterate over all pages of a list, given the call for the page at a cursor."""
        pages = Pages()
        while not pages.are_over:
            yield from pages.items_of(self.send(page_at(pages.cursor)))

    def close(self) -> None:
        """Close the connections. The next call opens others."""
        opened = self._opened.pop(os.getpid(), None)
        if opened is not None:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncCdfClient(Sender):
    """
    CDF, for coroutines.

    :param settings: where CDF is, and who asks.
    :param login: instead of the one that all clients of a process share. Then ``source`` is not asked.
    """

    def __init__(self, settings: Settings, *, login: Login | None = None) -> None:
        super().__init__(settings, login)
        #: By process and event loop.
        self._opened: dict[tuple[int, asyncio.AbstractEventLoop], AsyncNetwork] = {}

    def sibling(self, *, retry_for: float) -> AsyncCdfClient:
        """
        Return a client with another patience over the very same connections, which either one closes.

        :param retry_for: seconds within which a failed request is repeated, where that does no harm.
        """
        other = AsyncCdfClient(replace(self.settings, retry_for=retry_for))
        other._opened = self._opened
        return other

    async def send(self, call: Call[AnswerT], *, within: float | None = None) -> AnswerT:
        """
        Send one call and read its answer; repeat it as long as that does no harm and may help.

        :param within: seconds for all of it, where there is less time than the settings say.
        :raises CdfError: of the class that says what happened; its message names the call.
        """
        again = AsyncRetrying(sleep=clock.asleep, **retrying(call, self.settings.retry_for, within))
        give_up_at = None if within is None else clock.now() + within
        try:
            return await again(self._send_once, call, give_up_at)
        except CdfError as error:
            failed = error.bare()
        if isinstance(failed, CdfApiError) and self._may_inspect(call, failed):
            failed.inspection = await self._inspect(give_up_at)
            failed.adding(self._failure(call).lacking(failed))
        raise failed

    async def _inspect(self, give_up_at: float | None) -> TokenInspection | None:
        try:
            return await self._attempt(inspect_token(), self._inspect_ends(give_up_at))
        except CdfError:
            return None

    async def _send_once(self, call: Call[AnswerT], give_up_at: float | None) -> AnswerT:
        used = self.settings.credentials
        try:
            return await self._attempt(call, give_up_at)
        except CdfError as error:
            source = self._source_after(call, error)
            if source is None or not await self._has_renewed(source, used):
                raise
        return await self._attempt(call, give_up_at)

    async def _has_renewed(self, source: Source, used: Credentials) -> bool:
        if self.settings.credentials == used:  # another request may have brought others meanwhile
            try:
                self.renew(await source.aread_settings())
            except CdfError as error:
                log.info("The credentials could not be read again: %s", error)
        return self.settings.credentials != used

    async def _attempt(self, call: Call[AnswerT], give_up_at: float | None) -> AnswerT:
        try:
            call = self._current(call)
            return self._read(call, await self._exchange(self._request(call), self._ends(give_up_at)))
        except Exception as error:
            failed = self._failure(call).of(error)
        raise failed

    async def _exchange(self, request: httpx.Request, ends: float) -> Answer:
        with closing(self._steps(request)) as steps:
            try:
                step = next(steps)
                while True:
                    answer = None
                    try:
                        if isinstance(step, httpx.Request):
                            most = MOST_OF_AN_ANSWER if step is request else MOST_OF_AN_ERROR
                            answer = await aexchange(self._transport(), step, ends, most)
                        else:
                            fetching = [asyncio.wrap_future(step)]
                            await asyncio.wait(fetching, timeout=max(0.0, ends - clock.now()))
                    except NoAnswer as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(answer)
            except StopIteration as end:
                whole: Answer = end.value
                return whole

    def _transport(self) -> AsyncNetwork:
        here = (os.getpid(), asyncio.get_running_loop())
        opened = self._opened.get(here)
        if opened is None:
            opened = self._opened[here] = AsyncNetwork(self.tls)
            for pid, loop in list(self._opened):
                # Dropped, not closed: the parent process goes on with its own, and an ended loop cannot.
                if pid != here[0] or loop.is_closed():
                    self._opened.pop((pid, loop), None)
        return opened

    async def perform(self, conversation: Conversation[ResultT]) -> ResultT:
        """Carry out a conversation of several calls."""
        try:
            step = next(conversation)
            while True:
                answer = None
                try:
                    if isinstance(step, Pause):
                        await clock.asleep(step.seconds)
                    else:
                        answer = await self.send(step)
                except CdfError as error:
                    step = conversation.throw(error)
                else:
                    step = conversation.send(answer)
        except StopIteration as end:
            result: ResultT = end.value
            return result
        except CdfError as error:
            failed = error.bare()  # the conversation's frame holds a nonce
        raise failed

    async def executions(self, page_at: PageAt) -> AsyncIterator[WorkflowExecution]:
        """Iterate over all pages of a list, given the call for the page at a cursor."""
        pages = Pages()
        while not pages.are_over:
            for execution in pages.items_of(await self.send(page_at(pages.cursor))):
                yield execution

    async def close(self) -> None:
        """Close the connections of this event loop. The next call opens others."""
        opened = self._opened.pop((os.getpid(), asyncio.get_running_loop()), None)
        if opened is not None:
            await opened.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
