"""The clock itself, which all other tests replace."""

from __future__ import annotations

import asyncio
import time

from airflow_provider_cdf.cdf import clock

SHORT = 0.05


def test_it_goes_forward_while_a_thread_sleeps() -> None:
    before = clock.now()
    clock.sleep(SHORT)
    assert clock.now() - before >= SHORT


def test_it_goes_forward_while_a_coroutine_sleeps() -> None:
    before = clock.now()
    asyncio.run(clock.asleep(SHORT))
    assert clock.now() - before >= SHORT


def test_a_coroutine_that_sleeps_lets_others_work() -> None:
    async def both() -> list[str]:
        done: list[str] = []

        async def sleeper() -> None:
            await clock.asleep(SHORT)
            done.append("slept")

        async def worker() -> None:
            done.append("worked")

        await asyncio.gather(sleeper(), worker())
        return done

    assert asyncio.run(both()) == ["worked", "slept"]


def test_a_wall_clock_that_jumps_does_not_move_it() -> None:
    # Both are read by time.monotonic, however the machine's date is set.
    assert abs(clock.now() - time.monotonic()) < 60
    assert abs(clock.now() - time.time()) > 60
