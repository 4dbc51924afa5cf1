"""A loop that the application holds up: requests are not charged for it, and no node is taken for down."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from typing import Any

import pytest

from msm_fast import AsyncSessionManager
from tests.integration.conftest import Nodes
from tests.integration.test_asyncio import Run, put, run, seen, text_of
from tests.timeouts import UNHURRIED

__all__ = ["run"]

pytestmark = pytest.mark.memcached


def test_a_loop_that_was_held_up_reads_what_has_come_before_it_gives_up(nodes: Nodes, run: Run) -> None:
    async def test() -> None:
        timeouts = replace(UNHURRIED, operation=0.7)
        async with AsyncSessionManager(text_of(nodes), timeouts=timeouts) as manager:
            cookie = await put(manager, n=0)
            loop, (mine, other) = asyncio.get_running_loop(), socket.socketpair()

            def hold_up() -> None:
                mine.recv(1)
                time.sleep(0.8)

            loop.add_reader(mine, hold_up)
            for n_turns in range(2, 10):
                reading = asyncio.ensure_future(seen(manager, cookie))
                for _ in range(n_turns % 4 + 1):
                    await asyncio.sleep(0)
                if n_turns < 6:
                    time.sleep(0.8)
                else:
                    other.send(b"x")
                assert await reading == {"n": 0}
            loop.remove_reader(mine)
            mine.close()
            other.close()
            assert manager.statistics().node_failures == 0

    run(test())


@pytest.mark.parametrize("locking", ["none", "all"])
def test_the_time_for_which_the_application_holds_up_the_loop_is_not_charged_to_requests(
    nodes: Nodes, run: Run, locking: str
) -> None:
    async def test() -> None:
        timeouts = replace(UNHURRIED, operation=0.3, request=0.6)
        settings: dict[str, Any] = {"timeouts": timeouts, "locking": locking, "on_cluster_lost": "error"}
        async with AsyncSessionManager(text_of(nodes), **settings) as manager:
            cookie = await put(manager, n=0)
            for n in range(1, 4):
                writing = asyncio.ensure_future(put(manager, cookie, n=n))
                for _ in range(n):
                    await asyncio.sleep(0)
                time.sleep(0.7)
                await writing
                assert await seen(manager, cookie) == {"n": n}
            assert manager.statistics().node_failures == 0

    run(test())


def test_a_loop_that_was_held_up_while_it_connects_takes_no_node_for_down(nodes: Nodes, run: Run) -> None:
    async def test() -> None:
        for n_turns in range(1, 7):
            timeouts = replace(UNHURRIED, connect=0.25)
            async with AsyncSessionManager(text_of(nodes), timeouts=timeouts) as manager:
                writing = [asyncio.ensure_future(put(manager, n=n)) for n in range(3)]
                for _ in range(n_turns):
                    await asyncio.sleep(0)
                    time.sleep(0.3)
                await asyncio.gather(*writing)
                assert manager.statistics().node_failures == 0

    run(test())
