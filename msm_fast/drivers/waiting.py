"""Waiting in an event loop that the application may hold up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, TypeVar

from msm_fast.drivers.pipeline import Agenda

__all__ = ["LOOK_S", "result_until", "wait_until"]

T = TypeVar("T")

LOOK_S = 0.005
"""How often the clock of those who wait is looked at."""


async def wait_until(clock: Agenda, until: float, future: asyncio.Future[Any]) -> None:
    """Wait until future is done, and no longer than until then by the clock."""
    clock.look_at(future, math.inf)
    try:
        while not future.done() and clock.read_until < until:
            await asyncio.wait([future], timeout=max(until - clock.now(), LOOK_S))
    finally:
        clock.forget(future)


async def result_until(clock: Agenda, until: float, work: Awaitable[T]) -> T:
    """Return what work returns, if that is until then by the clock; after that it is cancelled.

    Raises: asyncio.TimeoutError; what work raises.
    """
    task = asyncio.ensure_future(work)
    try:
        await wait_until(clock, until, task)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody else asks, if this was broken off
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()
