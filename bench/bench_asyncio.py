"""1,000 requests at once in one event loop, each of a session of its own: load, read 2, write 1, save.

Ours keep a backup copy; the rivals write one copy, and two requests of one session would overwrite each other.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest

from bench.attributes import mixed_attributes
from bench.conftest import Measure
from bench.rivals import rival
from bench.servers import PATIENT, nodes_setting
from bench.targets import CONCURRENT, timed
from msm_fast import AsyncSessionManager
from tests.memcached import Memcached

N_SESSIONS = 1_000
LIFETIME_S = 1800
EXPECTED = mixed_attributes()["user_id"], mixed_attributes()["cart"]
Serve = Callable[[int], Awaitable[Any]]
Get = Callable[[bytes], Awaitable[bytes]]
Put = Callable[[bytes, bytes], Awaitable[Any]]
Contender = Callable[[list[Memcached], asyncio.AbstractEventLoop, ExitStack], Serve]


def by_manager(servers: list[Memcached], loop: asyncio.AbstractEventLoop, stack: ExitStack) -> Serve:
    manager = AsyncSessionManager(nodes_setting(servers), replicas=1, timeouts=PATIENT)
    stack.callback(lambda: loop.run_until_complete(manager.close()))
    ids: list[str] = []

    async def fill() -> None:
        for _ in range(N_SESSIONS):
            session = manager.create()
            session.update(mixed_attributes())
            assert (await manager.save(session)).backups
            ids.append(session.id)

    async def serve(n: int) -> Any:
        async with manager.request(ids[n], method="POST", uri="/cart") as live:
            read = live["user_id"], live["cart"]
            live["score"] = live["score"] + 1
        return read

    loop.run_until_complete(fill())
    return serve


async def served(
    get: Callable[[bytes], Awaitable[bytes]], put: Callable[[bytes, bytes], Awaitable[Any]], n: int
) -> Any:
    """Serve one request as one might without a framework."""
    key = f"session:{n}".encode()
    attributes = pickle.loads(await get(key))
    read = attributes["user_id"], attributes["cart"]
    attributes["score"] += 1
    await put(key, pickle.dumps(attributes, pickle.HIGHEST_PROTOCOL))
    return read


def by_client(loop: asyncio.AbstractEventLoop, get: Get, put: Put) -> Serve:
    async def fill() -> None:
        for n in range(N_SESSIONS):
            await put(f"session:{n}".encode(), pickle.dumps(mixed_attributes(), pickle.HIGHEST_PROTOCOL))

    loop.run_until_complete(fill())
    return lambda n: served(get, put, n)


def by_aiomcache(servers: list[Memcached], loop: asyncio.AbstractEventLoop, stack: ExitStack) -> Serve:
    client = rival("aiomcache").Client("127.0.0.1", servers[0].port, pool_size=10)
    stack.callback(lambda: loop.run_until_complete(client.close()))
    return by_client(loop, client.get, lambda key, value: client.set(key, value, exptime=LIFETIME_S))


def by_emcache(servers: list[Memcached], loop: asyncio.AbstractEventLoop, stack: ExitStack) -> Serve:
    emcache = rival("emcache")
    address = emcache.MemcachedHostAddress("127.0.0.1", servers[0].port)
    client = loop.run_until_complete(emcache.create_client([address], timeout=None, max_connections=10))
    stack.callback(lambda: loop.run_until_complete(client.close()))

    async def get(key: bytes) -> bytes:
        value: bytes = (await client.get(key)).value
        return value

    return by_client(loop, get, lambda key, value: client.set(key, value, exptime=LIFETIME_S))


CONTENDERS: dict[str, Contender] = {
    "msm_fast": by_manager,
    "pickle over aiomcache": by_aiomcache,
    "pickle over emcache": by_emcache,
}


@pytest.mark.parametrize("contender", CONTENDERS)
def test_concurrent_requests(
    clock: str, contender: str, measure: Measure, servers: list[Memcached], stack: ExitStack
) -> None:
    loop = asyncio.new_event_loop()
    stack.callback(loop.close)
    serve = CONTENDERS[contender](servers, loop, stack)

    async def serve_all() -> list[Any]:
        return await asyncio.gather(*(serve(n) for n in range(N_SESSIONS)))

    assert loop.run_until_complete(serve_all()) == [EXPECTED] * N_SESSIONS
    measure(timed(CONCURRENT, clock), contender, lambda: loop.run_until_complete(serve_all()), N_SESSIONS)
