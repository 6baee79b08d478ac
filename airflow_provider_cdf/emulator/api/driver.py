"""Drives the engine: lets one thread in at a time, wakes up when something is due, calls functions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from airflow_provider_cdf.emulator.rules.clock import Clock, ManualClock
from airflow_provider_cdf.emulator.rules.engine import Engine
from airflow_provider_cdf.emulator.rules.functions import FunctionCall, call_handler

log = logging.getLogger(__name__)

#: In real seconds: how long a stopped clock waits for each call before it moves on without it.
_PATIENCE = 5


class Driver:
    """
    :param engine: the engine, which belongs to the driver from now on
    :param clock: the engine's clock
    :param make_client: makes the client for handlers that take one
    :param secrets: for handlers that take them
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        make_client: Callable[[], Any],
        secrets: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._engine = engine
        self.clock = clock
        self._make_client = make_client
        self._secrets = dict(secrets)
        self._turn = threading.Condition()
        self._stopped = False
        #: By task id: when calls were made that a stopped clock waits for, in real time and in this order.
        self._under_way: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="cdf-engine", daemon=True)
        self._thread.start()

    @contextmanager
    def turn(self) -> Iterator[Engine]:
        """The engine, up to date, for this thread alone. Nothing slow may happen inside, and no request."""
        with self._turn:
            self._engine.advance()
            due = self._engine.timeline.next_due()
            try:
                yield self._engine
            finally:
                self._make_calls()
                if self._engine.timeline.next_due() != due:
                    self._turn.notify_all()

    def advance(self, seconds: float) -> None:
        """
        Move a stopped clock from event to event, so that each call is made, and returns, at its own time.

        A call that takes longer than five real seconds is not waited for any more.

        :param seconds: how far
        :raises TypeError: if the clock runs by itself
        """
        if not isinstance(self.clock, ManualClock):
            raise TypeError("Only a stopped clock can be moved; use CdfEmulator(clock=ManualClock())")
        with self._turn:
            until = self.clock.now() + round(seconds * 1000)
            if seconds < 0:
                self.clock.move_to(until)  # which refuses it
            while True:
                self._engine.advance()
                self._make_calls()
                self._wait_for_calls()
                now, due = self.clock.now(), self._engine.timeline.next_due()
                if now >= until and (due is None or due > now):
                    return
                self.clock.move_to(max(now, until if due is None else min(until, due)))

    def _wait_for_calls(self) -> None:
        """Let others have their turns until no call is under way that is worth waiting for."""
        while self._under_way and not self._stopped:
            task_id, since = next(iter(self._under_way.items()))
            patience = since + _PATIENCE - time.monotonic()
            if patience > 0:
                self._turn.wait(patience)
            else:
                del self._under_way[task_id]

    def stop(self) -> None:
        """Stop the time. Handlers that still run are left alone; what they return is ignored."""
        with self._turn:
            self._stopped = True
            self._turn.notify_all()
        self._thread.join()

    def _run(self) -> None:
        with self._turn:
            while not self._stopped:
                try:
                    self._engine.advance()
                except Exception:  # a mistake in one rule must not stop the time for all
                    log.exception("The emulator's engine failed")
                self._make_calls()
                due = self._engine.timeline.next_due()
                self._turn.wait(None if due is None else self.clock.wait_seconds(due))

    def _make_calls(self) -> None:
        while self._engine.calls and not self._stopped:
            call = self._engine.calls.popleft()
            # A thread each, so that none waits for another, and daemons, so that the program can end.
            name = f"cdf-function-{call.function_external_id}"
            threading.Thread(target=self._call, args=(call,), name=name, daemon=True).start()
            self._under_way[call.task_id] = time.monotonic()

    def _call(self, call: FunctionCall) -> None:
        response, error = None, None
        try:
            response = call_handler(call, self._make_client, self._secrets)
        except (Exception, SystemExit) as failure:
            log.warning("Function '%s' failed", call.function_external_id, exc_info=True)
            error = f"{type(failure).__name__}: {failure}"
        with self.turn() as engine:
            self._under_way.pop(call.task_id, None)
            self._turn.notify_all()
            engine.function_returned(call.task_id, response, error)
