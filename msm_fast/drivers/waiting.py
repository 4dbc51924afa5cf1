"""Waiting in an event loop that the application may hold up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

__all__ = ["HELD_UP_S", "result_within", "wait_for_end"]

T = TypeVar("T")

HELD_UP_S = 0.01
"""A timer that is so much late was held up: nothing of what has come meanwhile was read then."""


async def wait_for_end(future: asyncio.Future[Any], timeout_s: float) -> None:
    """Wait until future is done, for timeout_s, and as long again if the loop was held up meanwhile."""
    until = time.monotonic() + timeout_s
    await asyncio.wait([future], timeout=timeout_s)
    if not future.done() and time.monotonic() > until + HELD_UP_S:
        await asyncio.wait([future], timeout=timeout_s)


async def result_within(timeout_s: float, work: Awaitable[T]) -> T:
    """Return what work returns, within the time that `wait_for_end` gives it; after that it is cancelled.

    Raises: asyncio.TimeoutError; what work raises.
    """
    task = asyncio.ensure_future(work)
    try:
        await wait_for_end(task, timeout_s)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody else asks, if this was broken off
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()
