"""The clock that pauses, repetitions and nonces go by: one place, so that a test can stop the time."""

from __future__ import annotations

import asyncio
import time


def now() -> float:
    """Return seconds on a clock that only goes forward: the wall clock of a machine may jump."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    """Wait, in a thread."""
    time.sleep(seconds)


async def asleep(seconds: float) -> None:
    """Wait, in a coroutine."""
    await asyncio.sleep(seconds)
