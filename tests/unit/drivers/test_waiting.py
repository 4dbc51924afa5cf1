"""Waiting by a clock that says what time the loop had, for something that takes many of its turns."""

from __future__ import annotations

import asyncio
import time

import pytest

from msm_fast.drivers.waiting import result_until, wait_until
from msm_fast.drivers.watch import Watch
from msm_fast.policies import Timeouts

LIMIT_S = 0.1
BUSY_S = 0.03


async def after_turns(n: int) -> str:
    for _ in range(n):
        await asyncio.sleep(0)
    return "there"


def keep_busy() -> None:
    """Hold this loop up in each of its turns, for good."""
    time.sleep(BUSY_S)
    asyncio.get_running_loop().call_soon(keep_busy)


def test_what_takes_a_few_turns_of_a_busy_loop_is_waited_for_longer_than_its_limit() -> None:
    async def test() -> None:
        clock = Watch(Timeouts())
        keep_busy()
        began = time.monotonic()
        assert await result_until(clock, clock.now() + LIMIT_S, after_turns(6)) == "there"
        assert time.monotonic() - began > LIMIT_S

    asyncio.run(test())


def test_what_never_comes_is_given_up_in_a_busy_loop() -> None:
    async def test() -> None:
        clock = Watch(Timeouts())
        keep_busy()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(result_until(clock, clock.now() + LIMIT_S, asyncio.sleep(60)), 30 * BUSY_S)
        assert not clock.due

    asyncio.run(test())


def test_what_never_comes_is_given_up_in_time_in_a_loop_that_is_free() -> None:
    async def test() -> None:
        clock = Watch(Timeouts())
        future = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        await wait_until(clock, clock.now() + LIMIT_S, future)
        assert not future.done()
        assert time.monotonic() - began >= LIMIT_S
        assert not clock.due

    asyncio.run(test())
