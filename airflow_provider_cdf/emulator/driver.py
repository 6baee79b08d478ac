"""Drives the engine: lets one thread in at a time, wakes up when something is due, calls functions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow_provider_cdf.emulator.clock import Clock
from airflow_provider_cdf.emulator.engine import Engine
from airflow_provider_cdf.emulator.functions import FunctionCall, call_handler

log = logging.getLogger(__name__)


class Driver:
    """
    :param engine: the engine, which nobody else may touch from now on
    :param clock: the engine's clock
    :param make_client: makes the client for handlers that take one
    """

    def __init__(self, engine: Engine, clock: Clock, make_client: Callable[[], Any]) -> None:
        self._engine = engine
        self.clock = clock
        self._make_client = make_client
        self._turn = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="cdf-engine", daemon=True)
        self._thread.start()

    @contextmanager
    def turn(self) -> Iterator[Engine]:
        """The engine, up to date, for this thread alone. Nothing slow may happen inside."""
        with self._turn:
            self._engine.advance()
            due = self._engine.timeline.next_due()
            try:
                yield self._engine
            finally:
                self._make_calls()
                if self._engine.timeline.next_due() != due:
                    self._turn.notify()

    def stop(self) -> None:
        """Stop the time. Handlers that still run are left alone; what they return is ignored."""
        with self._turn:
            self._stopped = True
            self._turn.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._turn:
            while not self._stopped:
                try:
                    self._engine.advance()
                except Exception:  # a mistake in one rule must not stop the time for everybody
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

    def _call(self, call: FunctionCall) -> None:
        response, error = None, None
        try:
            response = call_handler(call, self._make_client)
        except Exception as failure:
            log.warning("Function '%s' failed", call.function_external_id, exc_info=True)
            error = f"{type(failure).__name__}: {failure}"
        with self.turn() as engine:
            engine.function_returned(call.task_id, response, error)
