"""Locks of requests in an event loop: had once, renewed, waited for, and let go by those that are cancelled too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from msm_fast import AsyncSessionManager, LockTimeout
from tests.integration.conftest import Nodes
from tests.integration.test_asyncio import Run, put, run, seen, text_of
from tests.timeouts import UNHURRIED

__all__ = ["run"]

pytestmark = pytest.mark.memcached


@asynccontextmanager
async def sooner_than(seconds: float) -> AsyncIterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def test_tasks_of_a_request_that_look_its_session_up_at_once_have_one_lock(nodes: Nodes, run: Run) -> None:
    async def test() -> None:
        timeouts = replace(UNHURRIED, lock=2)
        async with AsyncSessionManager(text_of(nodes), locking="all", timeouts=timeouts) as manager:
            cookie = await put(manager, n=1)
            scope = manager.request(cookie, "POST")
            one, other = await asyncio.gather(scope.load(), scope.load())
            assert one is other
            assert one["n"] == 1
            await scope.close()
            assert await put(manager, cookie, n=2)
            assert manager.statistics().locks == 2

    run(test())


def test_a_request_that_is_cancelled_lets_its_lock_go_at_once(nodes: Nodes, run: Run) -> None:
    async def test() -> None:
        timeouts = replace(UNHURRIED, lock=20)
        settings: dict[str, Any] = {"locking": "all", "timeouts": timeouts}
        async with AsyncSessionManager(text_of(nodes), **settings) as manager:
            cookie = await put(manager, n=0)

            async def linger() -> None:
                async with manager.request(cookie, "POST") as session:
                    session["n"] = 1
                    await asyncio.sleep(60)

            for n_turns in range(40):  # while it asks for the lock, and when it has it
                task = asyncio.ensure_future(linger())
                for _ in range(n_turns):
                    await asyncio.sleep(0)
                if n_turns > 20:
                    await asyncio.sleep(0.002)
                task.cancel()
                await asyncio.wait([task])
                async with sooner_than(15):
                    assert await seen(manager, cookie) == {"n": 0}

    run(test())


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_manager_that_is_closed_leaves_no_lock_of_a_request_that_failed_before(
    nodes: Nodes, run: Run, is_cancelled: bool
) -> None:
    """As a server that is restarted: it cancels what still runs, then the application ends."""

    async def test() -> None:
        settings: dict[str, Any] = {"locking": "all", "timeouts": UNHURRIED}
        error = asyncio.CancelledError if is_cancelled else ZeroDivisionError
        async with AsyncSessionManager(text_of(nodes), **settings) as manager:
            cookie = await put(manager, n=0)

            async def fail() -> None:
                async with manager.request(cookie, "POST") as session:
                    session["n"] = 1
                    raise error

            with pytest.raises(error):
                await fail()
        async with AsyncSessionManager(text_of(nodes), **settings) as after:
            assert await seen(after, cookie) == {"n": 0}
            assert after.statistics().lock_waits == 0

    run(test())


def test_a_lock_is_renewed_while_its_request_runs_and_waited_for(nodes: Nodes, run: Run) -> None:
    async def test() -> None:
        timeouts = replace(UNHURRIED, lock=0.2, lock_ttl=3)
        async with AsyncSessionManager(text_of(nodes), locking="all", timeouts=timeouts) as manager:
            cookie = await put(manager, n=0)
            async with manager.request(cookie, "POST") as session:
                session["n"] = 1
                for _ in range(5):
                    await asyncio.sleep(0.8)
                    with pytest.raises(LockTimeout):
                        await seen(manager, cookie)
            assert await seen(manager, cookie) == {"n": 1}

    run(test())


def test_a_request_that_only_reads_is_learned_of_though_it_never_looked(nodes: Nodes, run: Run) -> None:
    async def test() -> None:
        async with AsyncSessionManager(text_of(nodes), locking="auto", timeouts=UNHURRIED) as manager:
            cookie = await put(manager, n=0)
            before = manager.statistics().locks
            for _ in range(5):
                async with manager.request(cookie, "GET", "/static"):
                    pass
            assert manager.statistics().locks == before + 1

    run(test())
