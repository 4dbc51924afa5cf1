"""Many tasks of one event loop on one connection to each node, while the network does what it can.

Row 44 of the fault matrix for tasks that are cancelled, and rows 2, 7, 15, 16, 17, 18 and 46 for requests that share a
connection. The other rows are tried with both managers, one request at a time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from msm_fast import AsyncSessionManager, Reconnect, Timeouts
from tests.adversity.conftest import NAMES, home_of
from tests.adversity.proxy import FaultProxy, Faults, change_opaque, flip_bit, glue, has_value, once
from tests.adversity.stopwatch import Stopwatch
from tests.adversity.visitor import MARGIN_S
from tests.memcached import Memcached
from tests.timeouts import UNHURRIED

pytestmark = pytest.mark.memcached

N_TASKS = 40
BRISK = Timeouts(connect=1, operation=1, request=4)
"""For nodes that hang: a busy machine keeps one task out of many waiting for longer than a request alone."""


class Site:
    """Three nodes behind proxies, and a worker whose requests are tasks; each is timed.

    slowest_s: of all requests.
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        self.servers = {name: Memcached() for name in NAMES}
        self.proxies = {name: FaultProxy(server.port) for name, server in self.servers.items()}
        self._stopwatch = stopwatch
        self.slowest_s = 0.0

    def close(self) -> None:
        for proxy in self.proxies.values():
            proxy.close()
        for server in self.servers.values():
            server.stop()

    @asynccontextmanager
    async def worker(self, **settings: Any) -> AsyncIterator[AsyncSessionManager]:
        text = ",".join(f"{name}:{proxy.address}" for name, proxy in self.proxies.items())
        settings = {"timeouts": UNHURRIED, "reconnect": Reconnect(first=0.1, cap=0.2), **settings}
        async with AsyncSessionManager(text, on_cluster_lost="error", on_corrupt="error", **settings) as manager:
            yield manager

    async def put(self, manager: AsyncSessionManager, cookie: str | None = None, **attributes: Any) -> str:
        async with self._timed(manager), manager.request(cookie, "POST") as session:
            session.update(attributes)
        return session.id

    async def seen(self, manager: AsyncSessionManager, cookie: str) -> dict[str, Any]:
        async with self._timed(manager), manager.request(cookie) as session:
            return dict(session)

    @asynccontextmanager
    async def _timed(self, manager: AsyncSessionManager) -> AsyncIterator[None]:
        interval = self._stopwatch.start()
        yield
        took_s = interval.seconds()
        self.slowest_s = max(self.slowest_s, took_s)
        assert took_s <= manager.settings.timeouts.request + MARGIN_S, f"a request took {took_s:.3f} s"


@pytest.fixture
def site(stopwatch: Stopwatch) -> Iterator[Site]:
    site = Site(stopwatch)
    yield site
    site.close()


def text_of(n: int) -> str:
    return f"{n}\r\nHD c1 O{n}\n" * (n % 40)


async def store_all(site: Site, manager: AsyncSessionManager) -> list[str]:
    return list(await asyncio.gather(*(site.put(manager, n=n, text=text_of(n)) for n in range(N_TASKS))))


async def check_all(site: Site, manager: AsyncSessionManager, cookies: list[str]) -> None:
    found = await asyncio.gather(*(site.seen(manager, cookie) for cookie in cookies))
    assert found == [{"n": n, "text": text_of(n)} for n in range(N_TASKS)]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


# -- cancelled


async def cancelled_after(n_turns: int, request: Coroutine[Any, Any, Any]) -> None:
    """Carry a request out for so many turns of the loop, and cancel it."""
    task = asyncio.ensure_future(request)
    for _ in range(n_turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


@pytest.mark.parametrize("sticky", [False, True])
@pytest.mark.parametrize("locking", ["merge", "all"])
def test_row_44_requests_cancelled_at_any_turn_of_the_loop_leave_nobody_a_reply(
    site: Site, sticky: bool, locking: str
) -> None:
    async def test() -> None:
        async with site.worker(sticky=sticky, locking=locking) as manager:
            cookies = await store_all(site, manager)
            victim = await site.put(manager, step=0)
            for n_turns in range(60):
                await asyncio.gather(
                    cancelled_after(n_turns, site.put(manager, victim, step=n_turns)),
                    cancelled_after(n_turns // 2, site.seen(manager, victim)),
                    check_all(site, manager, cookies),
                )
            assert (await site.seen(manager, victim))["step"] in range(60)
            assert manager.statistics().node_failures == 0
        assert all(proxy.n_connections == 1 for proxy in site.proxies.values())

    asyncio.run(test())


def test_row_44_requests_cancelled_at_any_moment_while_replies_drip_leave_nobody_a_reply(site: Site) -> None:
    async def test() -> None:
        rng = random.Random(0)
        async with site.worker() as manager:
            cookies = await store_all(site, manager)
            for proxy in site.proxies.values():
                proxy.replies = Faults(slice_bytes=97, slice_s=0.0002, jitter_s=0.002)
            for _ in range(15):
                tasks = [asyncio.ensure_future(site.seen(manager, cookie)) for cookie in cookies]
                await asyncio.sleep(rng.random() * 0.02)
                chosen = rng.sample(range(N_TASKS), N_TASKS // 2)
                for n in chosen:
                    tasks[n].cancel()
                await asyncio.wait(tasks)
                for n, task in enumerate(tasks):
                    if not task.cancelled():
                        assert task.result() == {"n": n, "text": text_of(n)}
            assert manager.statistics().node_failures == 0

    asyncio.run(test())


def test_row_44_a_worker_whose_requests_are_all_cancelled_on_a_node_that_hangs_ends_and_leaves_nothing(
    site: Site,
) -> None:
    async def test() -> None:
        async with site.worker() as manager:
            cookies = await store_all(site, manager)
            for server in site.servers.values():
                server.pause()
            tasks = [asyncio.ensure_future(site.put(manager, cookie, more=1)) for cookie in cookies]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            started = time.monotonic()
            await manager.close(0.2)
            assert time.monotonic() - started < UNHURRIED.operation / 2
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(test())


# -- broken streams


@pytest.mark.parametrize(
    "fault",
    [
        lambda: Faults(only=once(has_value), edit=change_opaque),
        lambda: Faults(only=once(has_value), edit=glue(b"MN\r\n")),
        lambda: Faults(only=once(has_value), cuts_after=10),
        lambda: Faults(only=once(has_value), edit=lambda data: data[:-1]),
        lambda: Faults(only=once(has_value), edit=flip_bit(5)),
        lambda: Faults(resets=1),
        lambda: Faults(slice_bytes=1),
        lambda: Faults(slice_bytes=7, jitter_s=0.003),
    ],
    ids=["opaque", "glued", "cut", "short", "flipped", "reset", "sliced", "late"],
)
def test_rows_16_to_18_and_46_one_bad_reply_among_many_gives_nobody_anothers_session_and_fails_nobody(
    site: Site, fault: Callable[[], Faults]
) -> None:
    async def test() -> None:
        async with site.worker() as writer:
            cookies = await store_all(site, writer)
        for _ in range(3):
            async with site.worker() as manager:
                await check_all(site, manager, cookies)
                manager._ctx.forget_all()
                site.proxies["n1"].replies = fault()
                await check_all(site, manager, cookies)
                site.proxies["n1"].heal()
                await until(lambda manager=manager: all(node.is_up for node in manager.nodes()))
                await check_all(site, manager, cookies)

    asyncio.run(test())


# -- nodes that hang, or die


def use_all(site: Site, manager: AsyncSessionManager, cookies: list[str]) -> Awaitable[list[str]]:
    return asyncio.gather(*(site.put(manager, cookie, again=True) for cookie in cookies))


@pytest.mark.parametrize("how", ["pause", "black_hole", "kill", "refuse", "drip"])
def test_rows_2_7_and_15_a_node_that_fails_under_many_tasks_keeps_none_waiting_and_loses_nothing(
    site: Site, how: str
) -> None:
    async def test() -> None:
        async with site.worker(timeouts=BRISK) as manager:
            cookies = await store_all(site, manager)
            under_way = asyncio.ensure_future(use_all(site, manager, cookies))
            await asyncio.sleep(0)
            if how in ("pause", "kill"):
                getattr(site.servers["n1"], how)()
            elif how == "drip":
                site.proxies["n1"].replies = Faults(slice_bytes=1, slice_s=0.1)
            else:
                getattr(site.proxies["n1"], how)()
            cookies = list(await under_way)
            for _ in range(5):
                cookies = list(await use_all(site, manager, cookies))
            assert {home_of(cookie) for cookie in cookies} == {"n2", "n3"}
            for n, found in enumerate(await asyncio.gather(*(site.seen(manager, cookie) for cookie in cookies))):
                assert found == {"n": n, "text": text_of(n), "again": True}

    asyncio.run(test())


def test_row_07_a_node_that_hangs_for_a_moment_is_asked_on_a_new_connection_and_its_late_replies_go_to_nobody(
    site: Site,
) -> None:
    async def test() -> None:
        async with site.worker(timeouts=BRISK) as manager:
            cookies = await store_all(site, manager)
            n_connections = site.proxies["n1"].n_connections
            for _ in range(2):
                site.servers["n1"].pause()
                reading = asyncio.gather(*(site.seen(manager, cookie) for cookie in cookies))
                await asyncio.sleep(BRISK.operation + 0.3)
                site.servers["n1"].resume()
                assert [found["n"] for found in await reading] == list(range(N_TASKS))
                await until(lambda: manager.nodes()[0].is_up)
                await check_all(site, manager, cookies)
            assert site.proxies["n1"].n_connections > n_connections

    asyncio.run(test())


# -- a loop that is busy


@pytest.mark.parametrize("turn_s", [0.05, 0.15])
def test_the_first_requests_of_a_worker_find_their_sessions_in_a_loop_whose_every_turn_takes_long(
    site: Site, turn_s: float
) -> None:
    def keep_busy() -> None:
        time.sleep(turn_s)
        asyncio.get_running_loop().call_soon(keep_busy)

    async def test() -> None:
        async with site.worker() as manager:
            cookies = await store_all(site, manager)
        async with site.worker(timeouts=Timeouts()) as manager:
            keep_busy()
            for n in range(3):
                async with manager.request(cookies[n], "POST") as session:
                    assert session["n"] == n
                    session["again"] = True
            assert manager.statistics().node_failures == 0

    asyncio.run(test())
