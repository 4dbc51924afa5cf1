"""The manager for event loops on real memcached processes: what is its own; the rest is tried with both managers."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import os
import sqlite3
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from msm_fast import AsyncSessionManager, DistributionState, Reconnect, SessionUnavailable, WrongEventLoop
from tests.integration.conftest import Nodes
from tests.memcached import Memcached, find_memcached
from tests.proxy import CountingProxy
from tests.timeouts import UNHURRIED

pytestmark = pytest.mark.memcached

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that runs a coroutine in a loop of its own, and sees that nothing is left of it there."""

    def run_in_new_loop(coroutine: Coroutine[Any, Any, None]) -> None:
        loop = request.param()
        n_sockets = count_sockets()
        try:
            loop.run_until_complete(coroutine)
            left = [task.get_name() for task in asyncio.all_tasks(loop)]
            loop.run_until_complete(asyncio.sleep(0))
            assert left == [], "tasks were left behind"
        finally:
            loop.close()
        gc.collect()
        deadline = time.monotonic() + 5  # a proxy in this process takes a moment to close its own
        while count_sockets() > n_sockets and time.monotonic() < deadline:
            time.sleep(0.01)
        assert count_sockets() <= n_sockets, "sockets were left behind"

    return run_in_new_loop


def count_sockets() -> int:
    """Return how many sockets this process has open, but for those of loops."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return 0
    return sum(os.path.exists(fd) and os.readlink(fd).startswith("socket:") for fd in folder.iterdir())


def text_of(nodes: Nodes) -> str:
    return ",".join(f"{name}:{server.address}" for name, server in nodes.items())


async def put(manager: AsyncSessionManager, cookie: str | None = None, **attributes: Any) -> str:
    async with manager.request(cookie, "POST") as session:
        session.update(attributes)
        return session.id


async def seen(manager: AsyncSessionManager, cookie: str) -> dict[str, Any]:
    async with manager.request(cookie) as session:
        return dict(session)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


@pytest.fixture
def proxy(nodes: Nodes) -> Iterator[CountingProxy]:
    proxy = CountingProxy(nodes["n1"].port)
    yield proxy
    proxy.close()


def test_500_tasks_share_one_connection_and_its_writes(proxy: CountingProxy, run: Run) -> None:
    async def test() -> None:
        async with AsyncSessionManager(f"n1:{proxy.address}", timeouts=UNHURRIED) as manager:

            async def visit(n: int) -> None:
                cookie = await put(manager, n=n, text=f"{n}\r\n" * n)
                for turn in range(3):
                    assert await seen(manager, cookie) == {
                        "n": n,
                        "text": f"{n}\r\n" * n,
                        **({"turn": turn - 1} if turn else {}),
                    }
                    await put(manager, cookie, turn=turn)

            await asyncio.gather(*(visit(n) for n in range(500)))
            assert proxy.n_connections == 1
            assert proxy.turns < manager.statistics().round_trips / 10

    run(test())


def test_what_requests_had_is_gone_with_them_and_not_left_to_the_garbage_collector(nodes: Nodes, run: Run) -> None:
    async def test() -> None:
        async with AsyncSessionManager(text_of(nodes), replicas=1, timeouts=UNHURRIED) as manager:
            cookies = [await put(manager, cart=[n]) for n in range(50)]
            gc.collect()
            gc.disable()
            try:
                await asyncio.gather(*(put(manager, cookie, cart=[]) for cookie in cookies))
                await asyncio.gather(*(seen(manager, cookie) for cookie in cookies))
                assert gc.collect() < len(cookies)
            finally:
                gc.enable()

    run(test())


def test_what_a_request_has_in_its_context_outlives_it_nowhere_and_is_not_that_of_events_in_the_background(
    nodes: Nodes, run: Run
) -> None:
    class Request:
        """Stands for what tracing and logging keep of a request."""

    current: contextvars.ContextVar[Request | None] = contextvars.ContextVar("current", default=None)

    async def request(manager: AsyncSessionManager) -> weakref.ref[Request]:
        current.set(Request())
        await put(manager, n=1)
        request = current.get()
        assert request is not None
        return weakref.ref(request)

    async def test() -> None:
        reconnect = Reconnect(first=0.01)
        async with AsyncSessionManager(text_of(nodes), timeouts=UNHURRIED, reconnect=reconnect) as manager:
            before = await asyncio.create_task(request(manager))
            await asyncio.sleep(0)
            assert before() is None

            told: dict[str, Request | None] = {}
            manager.subscribe(lambda event: told.setdefault(event.kind, current.get()))
            nodes["n1"].kill()
            await until(lambda: not manager._driver._links["n1"].is_open)
            for _ in range(100):  # two of three are new on it
                await asyncio.create_task(request(manager))
                if "node_down" in told:
                    break
            nodes["n1"].start()
            await until(lambda: "node_up" in told)
            assert told["node_down"] is not None
            assert told["node_up"] is None

    run(test())


def test_a_request_that_never_looks_at_its_session_is_not_harmed_by_what_cannot_be_found(
    nodes: Nodes, run: Run
) -> None:
    async def test() -> None:
        async with AsyncSessionManager(text_of(nodes), on_cluster_lost="error", timeouts=UNHURRIED) as manager:
            cookie = await put(manager, user="ada")
            for server in nodes.values():
                server.kill()
            async with manager.request(cookie):
                pass
            scope = manager.request(cookie)
            await scope.load()
            for _ in range(2):
                with pytest.raises(SessionUnavailable):
                    scope.session["user"]

    run(test())


def test_a_session_that_is_not_looked_up_yet_says_what_to_do() -> None:
    manager = AsyncSessionManager()
    with pytest.raises(RuntimeError, match=r"await scope\.load"):
        manager.request("x").session.get("user")


def test_under_trio_it_says_what_it_needs() -> None:
    manager = AsyncSessionManager()
    with pytest.raises(WrongEventLoop, match="needs asyncio or uvloop"):
        manager.load("x").send(None)  # as a loop of trio does


def test_a_second_loop_is_refused_while_the_first_lives_and_served_when_that_is_closed(nodes: Nodes) -> None:
    manager = AsyncSessionManager(text_of(nodes), timeouts=UNHURRIED)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    cookie = first.run_until_complete(put(manager, n=1))
    with pytest.raises(WrongEventLoop, match="one manager for each loop, or one application whose middleware"):
        second.run_until_complete(seen(manager, cookie))
    first.run_until_complete(manager._driver.close(5))
    first.close()
    assert second.run_until_complete(seen(manager, cookie)) == {"n": 1}
    second.run_until_complete(manager.close())
    second.close()


def test_a_manager_that_was_closed_still_serves_late_requests_and_keeps_nothing_open(nodes: Nodes, run: Run) -> None:
    async def test() -> None:
        manager = AsyncSessionManager(text_of(nodes), timeouts=UNHURRIED)
        cookie = await put(manager, n=1)
        await manager.close()
        assert await seen(manager, cookie) == {"n": 1}
        await manager.close()

    run(test())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_an_eager_task_that_fails_to_connect_at_once_is_followed_by_others(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def test() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        async with AsyncSessionManager(text_of(nodes), timeouts=UNHURRIED, on_cluster_lost="error") as manager:
            with monkeypatch.context() as patch:
                patch.setattr("msm_fast.drivers.dialing.socket.socket", refuse)
                with pytest.raises(SessionUnavailable):
                    await put(manager, n=0)
            cookie = await put(manager, n=1)
            assert await seen(manager, cookie) == {"n": 1}

    asyncio.run(test())


def test_a_unix_socket_is_as_good_as_a_port(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "memcached.sock"
    as_user = ["-u", "root"] if os.geteuid() == 0 else []
    with subprocess.Popen([find_memcached(), "-s", str(path), *as_user]) as server:
        try:
            while not path.exists():
                time.sleep(0.01)

            async def test() -> None:
                async with AsyncSessionManager(f"n1:{path}", timeouts=UNHURRIED) as manager:
                    cookie = await put(manager, n=1)
                    assert manager.distribution.state is DistributionState.DISTRIBUTED
                    assert await seen(manager, cookie) == {"n": 1}

            run(test())
        finally:
            server.kill()


@pytest.mark.parametrize("sticky", [False, True])
def test_nodes_that_come_back_are_used_again_and_leave_no_task(nodes: Nodes, run: Run, sticky: bool) -> None:
    async def test() -> None:
        reconnect = Reconnect(first=0.05, cap=0.1, on_reconnect="replay")
        settings = {"sticky": sticky, "timeouts": UNHURRIED, "reconnect": reconnect}
        async with AsyncSessionManager(text_of(nodes), **settings) as manager:
            cookie = await put(manager, n=0)
            await until(lambda: not len(manager._ctx.behind))
            for server in nodes.values():
                server.kill()
            if not sticky:
                cookie = await put(manager, n=0)  # what nodes have lost that are empty now has ended
            for n in range(1, 10):
                cookie = await put(manager, cookie, n=n)
                assert await seen(manager, cookie) == {"n": n}
            await until(lambda: manager.distribution.state is DistributionState.LOCAL)
            for server in nodes.values():
                server.start()
            await until(lambda: manager.distribution.state is DistributionState.DISTRIBUTED)
            await until(lambda: not len(manager._ctx.local) and not len(manager._ctx.behind))
            async with AsyncSessionManager(text_of(nodes), timeouts=UNHURRIED) as other:
                assert await seen(other, cookie) == {"n": 9}
            assert not {task.get_name() for task in asyncio.all_tasks()} & {"msm-fast-prober"}

    run(test())


def test_a_local_store_in_a_file_holds_the_loop_up_nowhere(nodes: Nodes, run: Run, tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "sessions.db"
        settings: dict[str, Any] = {"local_store": f"sqlite:///{path}", "timeouts": UNHURRIED}
        async with AsyncSessionManager(text_of(nodes), **settings) as manager:
            cookie = await put(manager, n=1)
            manager.distribution.stop()
            cookie = await put(manager, cookie, n=2)
            rival = sqlite3.connect(path, isolation_level=None)
            rival.execute("BEGIN EXCLUSIVE")
            waiting, n_turns = asyncio.ensure_future(put(manager, cookie, n=3)), 0
            while not waiting.done():  # for a tenth of a second
                await asyncio.sleep(0.001)
                n_turns += 1
            with pytest.raises(SessionUnavailable, match="local store"):
                await waiting
            assert n_turns > 3
            assert await seen(manager, cookie) == {"n": 2}  # what cannot be written can be read
            rival.execute("ROLLBACK")
            rival.close()
            assert await seen(manager, await put(manager, cookie, n=4)) == {"n": 4}

    run(test())


WRITE_AND_LEAVE = """
import asyncio, sys
from msm_fast import AsyncSessionManager
manager = AsyncSessionManager(sys.argv[1], sticky=True, route="w1")

async def main():
    async with manager.request(None, "POST") as session:
        session["user"] = "ada"
    for n in range(200):
        async with manager.request(session.id, "POST") as session:
            session["n"] = n
    print(session.id, flush=True)

asyncio.run(main())
"""


def test_what_was_not_written_when_the_loop_ended_is_written_at_the_end_of_the_interpreter(
    nodes: Nodes, run: Run
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", WRITE_AND_LEAVE, text_of(nodes)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    async def test() -> None:
        async with AsyncSessionManager(text_of(nodes), sticky=True, route="w2", timeouts=UNHURRIED) as manager:
            assert await seen(manager, done.stdout.strip()) == {"user": "ada", "n": 199}

    run(test())


def test_a_server_that_is_restarted_between_requests_costs_none_of_them(run: Run) -> None:
    server = Memcached()

    async def test() -> None:
        async with AsyncSessionManager(f"n1:{server.address}", timeouts=UNHURRIED) as manager:
            for _ in range(5):
                cookie = await put(manager, n=1)
                server.kill()
                server.start()
                assert await manager.load(cookie) is None
            assert manager.statistics().node_failures == 0

    try:
        run(test())
    finally:
        server.stop()
