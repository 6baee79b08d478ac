"""Time of the emulated CDF: real, faster than real, or stopped and moved by hand."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Where the emulator reads the time. All times are milliseconds since 1970, as in the API."""

    def now(self) -> int:
        """The time that workflows live in."""

    def client_now(self) -> int:
        """The time that clients live in: tokens and nonces expire by it, however fast workflows run."""

    def wait_seconds(self, until: int) -> float | None:
        """How long to wait, in real seconds, until :meth:`now` reaches ``until``. None: unknown."""


class RunningClock:
    """
    A clock that runs by itself.

    :param speed: seconds of workflow time in one real second
    """

    def __init__(self, speed: float = 1.0) -> None:
        if not 0 < speed < float("inf"):
            raise ValueError(f"The speed of the clock must be positive and finite, not {speed}")
        self._speed = speed
        self._started = time.time()
        self._monotonic = time.monotonic()

    def now(self) -> int:
        elapsed = time.monotonic() - self._monotonic
        return round((self._started + elapsed * self._speed) * 1000)

    def client_now(self) -> int:
        return round((self._started + time.monotonic() - self._monotonic) * 1000)

    def wait_seconds(self, until: int) -> float | None:
        return max(0.0, (until - self.now()) / 1000 / self._speed)


class ManualClock:
    """
    A clock that stands still until it is moved.

    :param now: milliseconds since 1970
    """

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    def client_now(self) -> int:
        return self._now

    def wait_seconds(self, until: int) -> float | None:
        return 0.0 if until <= self._now else None

    def advance(self, seconds: float) -> None:
        """
        Move the time forward.

        :param seconds: how far
        """
        self.move_to(self._now + round(seconds * 1000))

    def move_to(self, now: int) -> None:
        """
        Let it be a certain time.

        :param now: milliseconds since 1970
        """
        if now < self._now:
            raise ValueError(f"Time cannot go back by {(self._now - now) / 1000} seconds")
        self._now = now


class Timer:
    """Something that is to happen at a certain time, unless it is cancelled before."""

    __slots__ = ("action", "due")

    def __init__(self, due: int, action: Callable[[], None]) -> None:
        self.due = due
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Let go of the action, and of everything it refers to, at once."""
        self.action = None


class Timers:
    """The timers in the order in which they come due; equal times in the order in which they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._compact_at = 1024

    def set(self, due: int, action: Callable[[], None]) -> Timer:
        """
        Have ``action`` called at the time ``due``.

        :param due: milliseconds since 1970
        :param action: what to do
        """
        timer = Timer(due, action)
        heapq.heappush(self._heap, (due, next(self._order), timer))
        if len(self._heap) > self._compact_at:
            # Most timers are timeouts of an hour and more that were cancelled within seconds.
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._compact_at = max(1024, 2 * len(self._heap))
        return timer

    def next_due(self) -> int | None:
        """When the first timer comes due; None if there is none."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: int) -> Timer | None:
        """
        Take the first timer that is due.

        :param now: milliseconds since 1970
        """
        due = self.next_due()
        if due is None or due > now:
            return None
        return heapq.heappop(self._heap)[2]


class Timeline:
    """
    The time of workflows: what is to happen when, and what time it is while it happens.

    :param clock: what time it is outside
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now = clock.now()
        self._timers = Timers()

    def now(self) -> int:
        """The time of what is happening now: while time is caught up with, that of the event."""
        return self._now

    def advance(self) -> None:
        """Let everything happen that was to happen by now, in order and each at its own time."""
        now = self._clock.now()
        while (timer := self._timers.pop_due(now)) is not None:
            self._now = max(self._now, timer.due)
            if timer.action is not None:
                timer.action()
        self._now = max(self._now, now)

    def next_due(self) -> int | None:
        """When something will happen next; None if nothing will."""
        return self._timers.next_due()

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """
        Have something happen later.

        :param seconds: of workflow time
        :param action: what is to happen
        """
        return self.at(self._now + round(seconds * 1000), action)

    def at(self, due: int, action: Callable[[], None]) -> Timer:
        """
        Have something happen at a certain time.

        :param due: milliseconds since 1970
        :param action: what is to happen
        """
        return self._timers.set(due, action)
