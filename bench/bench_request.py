"""Round trips to real memcached processes, and whole requests made of them.

Each group runs twice. On an idle machine the processors sleep and every wake-up is counted in wall time: so the
client's own CPU time stands beside it, and while wall time is taken a process of the lowest priority keeps a
processor awake.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from typing import Any

import pytest
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient

from bench.bench_attributes import mixed_attributes
from bench.conftest import Measure
from msm_fast import AttributeMap, Node, SessionManager, Timeouts
from msm_fast._core import wire
from msm_fast._core.record import encode_record
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.engine.effects import Batch, Exchange, Flow
from tests.memcached import Memcached

KEY = "0123456789abcdef0123456789abcdef"
VALUE = bytes(range(32, 96)) * 32
LONGEST_S = 10.0
Run = Callable[[], Any]

STAY_AWAKE = """
import os
if hasattr(os, "SCHED_IDLE"):
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
else:
    os.nice(19)
while os.getppid() == PARENT:
    for _ in range(100000):
        pass
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Memcached]]:
    """Two nodes."""
    with ExitStack() as stack:
        started = []
        for _ in range(2):
            started.append(Memcached())
            stack.callback(started[-1].stop)
        yield started


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(
    params=[
        pytest.param("client's CPU time", marks=pytest.mark.benchmark(timer=time.process_time)),
        pytest.param("wall time", marks=pytest.mark.benchmark(timer=time.perf_counter)),
    ]
)
def clock(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param != "wall time":
        yield request.param
        return
    awake = subprocess.Popen([sys.executable, "-c", f"PARENT = {os.getpid()}{STAY_AWAKE}"])
    try:
        yield request.param
    finally:
        awake.kill()
        awake.wait()


def connect(server: Memcached, stack: ExitStack) -> socket.socket:
    sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def receive(sock: socket.socket, n_at_least: int = 0) -> bytes:
    data = sock.recv(65536)
    while len(data) < n_at_least or not data.endswith(b"\r\n"):
        data += sock.recv(65536)
    return data


def pymemcache_client(kind: Callable[..., Any], server: Memcached, stack: ExitStack) -> Any:
    address = ("127.0.0.1", server.port)
    nodes = [address] if kind is HashClient else address
    return stack.enter_context(closing(kind(nodes, no_delay=True, timeout=1, default_noreply=False)))


# One value of 2 KB


def get_by_driver(server: Memcached, stack: ExitStack) -> Run:
    driver = stack.enter_context(closing(BlockingDriver({"n1": Node("n1", "127.0.0.1", server.port)}, Timeouts())))
    key = KEY.encode()

    def flow() -> Flow[Any]:
        ((reply,),) = yield Exchange([Batch("n1", [wire.get(key)])])
        return reply.value

    return lambda: driver.run(flow(), time.monotonic() + LONGEST_S)


def get_by(kind: Callable[..., Any]) -> Callable[[Memcached, ExitStack], Run]:
    def contender(server: Memcached, stack: ExitStack) -> Run:
        client = pymemcache_client(kind, server, stack)
        return lambda: client.get(KEY)

    return contender


def get_bare(server: Memcached, stack: ExitStack) -> Run:
    sock = connect(server, stack)
    command = wire.encode([wire.get(KEY.encode())], 0)

    def run() -> bytes:
        sock.send(command)
        return receive(sock, len(VALUE))

    return run


ROUND_TRIP: dict[str, Callable[[Memcached, ExitStack], Run]] = {
    "msm_fast": get_by_driver,
    "pymemcache Client": get_by(Client),
    "pymemcache PooledClient": get_by(PooledClient),
    "pymemcache HashClient": get_by(HashClient),
    "floor: a bare socket's send and recv": get_bare,
}


@pytest.mark.parametrize("contender", ROUND_TRIP)
def test_get_2_kb(clock: str, contender: str, measure: Measure, servers: list[Memcached], stack: ExitStack) -> None:
    pymemcache_client(Client, servers[0], stack).set(KEY, VALUE)
    run = ROUND_TRIP[contender](servers[0], stack)
    answer = run()
    assert VALUE in answer if contender.startswith("floor") else answer == VALUE
    measure(f"get 2 KB, {clock}", contender, run)


# A request: load, read 2 attributes, write 1, save with backup


def request_by_manager(servers: list[Memcached], stack: ExitStack) -> Run:
    nodes = ",".join(f"n{i}:{server.address}" for i, server in enumerate(servers, 1))
    manager = stack.enter_context(SessionManager(nodes, replicas=1))
    session = manager.create()
    session.update(mixed_attributes())
    assert manager.save(session).backups
    numbers = count(1)

    def run() -> Any:
        with manager.request(session.id, method="POST", uri="/cart") as live:
            read = live["user_id"], live["cart"]
            live["score"] = next(numbers)
        return read

    n_round_trips = manager.statistics().round_trips
    run()
    assert manager.statistics().round_trips == n_round_trips + 2
    loaded = manager.load(session.id)
    assert loaded is not None
    assert (loaded["score"], loaded.generation) == (1, session.generation + 1)
    scope = manager.request(session.id, method="POST")
    scope.session["score"] = next(numbers)
    assert scope.save().backups
    return run


def request_by_pickle(kind: Callable[..., Any]) -> Callable[[list[Memcached], ExitStack], Run]:
    def contender(servers: list[Memcached], stack: ExitStack) -> Run:
        client = pymemcache_client(kind, servers[0], stack)
        client.set(KEY, pickle.dumps(mixed_attributes()), 1800)
        numbers = count(1)

        def run() -> Any:
            attributes = pickle.loads(client.get(KEY))
            read = attributes["user_id"], attributes["cart"]
            attributes["score"] = next(numbers)
            client.set(KEY, pickle.dumps(attributes, pickle.HIGHEST_PROTOCOL), 1800)
            return read

        return run

    return contender


def two_bare_round_trips(servers: list[Memcached], stack: ExitStack) -> Run:
    """Send a record's bytes to both nodes and wait for both; then get them back from one."""
    socks = [connect(server, stack) for server in servers]
    key = KEY.encode()
    body = AttributeMap(mixed_attributes()).encode()[0]
    record = encode_record(key, body, generation=1, created_ms=1, accessed_ms=1, lineage=(1,))
    get_command = wire.encode([wire.get(key)], 0)
    store_command = wire.encode([wire.store(key, record, 1, 1800)], 0)

    def run() -> list[bytes]:
        replies = []
        for sock in socks:
            sock.send(store_command)
        for sock in socks:
            replies.append(receive(sock))
        socks[0].send(get_command)
        replies.append(receive(socks[0], len(record)))
        return replies

    *stored, got = run()
    assert all(reply.startswith(b"HD") for reply in stored)
    assert record in got
    return run


REQUEST: dict[str, Callable[[list[Memcached], ExitStack], Run]] = {
    "msm_fast": request_by_manager,
    "pickle over pymemcache Client, no backup": request_by_pickle(Client),
    "pickle over pymemcache HashClient, no backup": request_by_pickle(HashClient),
    "floor: two bare round trips, with backup": two_bare_round_trips,
}


@pytest.mark.parametrize("contender", REQUEST)
def test_request(clock: str, contender: str, measure: Measure, servers: list[Memcached], stack: ExitStack) -> None:
    run = REQUEST[contender](servers, stack)
    if not contender.startswith("floor"):
        expected = mixed_attributes()
        assert run() == (expected["user_id"], expected["cart"])
    measure(f"request with backup copy, {clock}", contender, run)
