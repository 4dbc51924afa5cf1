"""One value of 2 KB from a real memcached process."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import pytest
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient

from bench.conftest import Measure
from bench.rivals import rival
from bench.servers import PATIENCE_S, PATIENT, connect, pymemcache_client, receive
from bench.targets import ROUND_TRIP, timed
from msm_fast import Node
from msm_fast._core import wire
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.engine.effects import Batch, Exchange, Flow
from tests.memcached import Memcached

KEY = "0123456789abcdef0123456789abcdef"
VALUE = bytes(range(32, 96)) * 32
FLOOR = "floor: a bare socket's send and recv"
Run = Callable[[], Any]
Contender = Callable[[Memcached, ExitStack], Run]


def by_driver(server: Memcached, stack: ExitStack) -> Run:
    driver = stack.enter_context(closing(BlockingDriver({"n1": Node("n1", "127.0.0.1", server.port)}, PATIENT)))
    key = KEY.encode()

    def flow() -> Flow[Any]:
        ((reply,),) = yield Exchange([Batch("n1", [wire.get(key)])])
        return reply.value

    return lambda: driver.run(flow(), time.monotonic() + PATIENCE_S)


def by_pymemcache(kind: Callable[..., Any]) -> Contender:
    def contender(server: Memcached, stack: ExitStack) -> Run:
        client = pymemcache_client(kind, server, stack)
        return lambda: client.get(KEY)

    return contender


def by_pylibmc(server: Memcached, stack: ExitStack) -> Run:
    client = rival("pylibmc").Client([server.address], behaviors={"tcp_nodelay": True})
    stack.callback(client.disconnect_all)
    client.set(KEY, VALUE)
    return lambda: client.get(KEY)


def by_libmc(server: Memcached, stack: ExitStack) -> Run:
    client = rival("libmc").Client([server.address])
    stack.callback(client.quit)
    client.set(KEY, VALUE)
    return lambda: client.get(KEY)


def by_meta_memcache(server: Memcached, stack: ExitStack) -> Run:
    meta = rival("meta_memcache")
    make_pool = meta.connection_pool_factory_builder()

    def pool(address: Any) -> Any:
        made = make_pool(address)
        stack.callback(lambda: made.pop_connection().close())
        return made

    client = meta.CacheClient.cache_client_from_servers([meta.ServerAddress("127.0.0.1", server.port)], pool)
    client.set(KEY, VALUE, ttl=3600)
    return lambda: client.get(KEY)


def by_bare_socket(server: Memcached, stack: ExitStack) -> Run:
    sock = connect(server, stack)
    command = wire.encode([wire.get(KEY.encode())], 0)

    def run() -> bytes:
        sock.send(command)
        return receive(sock, len(VALUE))

    return run


CONTENDERS: dict[str, Contender] = {
    "msm_fast": by_driver,
    "pymemcache Client": by_pymemcache(Client),
    "pymemcache PooledClient": by_pymemcache(PooledClient),
    "pymemcache HashClient": by_pymemcache(HashClient),
    "pylibmc": by_pylibmc,
    "libmc": by_libmc,
    "meta-memcache": by_meta_memcache,
    FLOOR: by_bare_socket,
}


@pytest.mark.parametrize("contender", CONTENDERS)
def test_get_2_kb(clock: str, contender: str, measure: Measure, servers: list[Memcached], stack: ExitStack) -> None:
    pymemcache_client(Client, servers[0], stack).set(KEY, VALUE)
    run = CONTENDERS[contender](servers[0], stack)
    answer = run()
    assert VALUE in answer if contender == FLOOR else answer == VALUE
    measure(timed(ROUND_TRIP, clock), contender, run)
