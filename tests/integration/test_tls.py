"""Sessions over TLS, on memcached processes that speak it (memcached -Z)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from msm_fast import Node, SessionManager, SessionUnavailable, Timeouts, Tls
from msm_fast._core import wire
from msm_fast.drivers.access import Access
from msm_fast.drivers.asynchronous import AsyncDriver
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.engine.effects import Batch, Exchange, Flow, NodeFailure
from msm_fast.settings import Settings
from tests.adversity.proxy import FaultProxy, Faults
from tests.certificates import Authority
from tests.memcached import Memcached, find_memcached
from tests.proxy import Link, Proxy
from tests.threaded import drop_connections

pytestmark = pytest.mark.memcached

UNHURRIED = Timeouts(connect=2, operation=2, request=5)
HOST = "127.0.0.1"
T = TypeVar("T")
MakeManager = Callable[..., SessionManager]


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Authority(Path(folder))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Memcached]:
    server = tls_server(authority.sign(HOST))
    yield server
    server.stop()


@pytest.fixture
def make(manager_class: Any, authority: Authority, start: Callable[..., Any]) -> MakeManager:
    """Return a function that makes a manager of the node at an address; it trusts the authority."""

    def make(address: str, **settings: Any) -> SessionManager:
        settings = {"tls": Tls(ca_file=authority.file), "timeouts": UNHURRIED, "on_cluster_lost": "error", **settings}
        manager: SessionManager = start(manager_class(f"n1:{address}", **settings))
        return manager

    return make


def tls_server(certificate: str, *options: str) -> Memcached:
    return Memcached("-Z", "-o", ",".join([f"ssl_chain_cert={certificate}", f"ssl_key={certificate}", *options]))


def keep(manager: SessionManager, **attributes: object) -> str:
    with manager.request(None) as session:
        session.update(attributes)
    return session.id


def reason(manager: SessionManager) -> str:
    """Return why a manager cannot use its only node."""
    started = time.monotonic()
    with pytest.raises(SessionUnavailable):
        keep(manager, user="ada")
    assert time.monotonic() - started < UNHURRIED.request
    (node,) = manager.nodes()
    assert not node.is_up
    return node.last_failure


class Recorder(Proxy):
    """Keeps what passes."""

    def __init__(self, target_port: int) -> None:
        self.seen = b""
        super().__init__(target_port)

    def carry(self, data: bytes, link: Link, *, is_reply: bool) -> None:
        self.seen += data
        super().carry(data, link, is_reply=is_reply)


def test_sessions_are_stored_and_found_and_nobody_on_the_way_can_read_them(
    server: Memcached, make: MakeManager, start: Callable[..., Any]
) -> None:
    recorder = start(Recorder(server.port))
    session_id = keep(make(recorder.address), user="ada", large="apple" * 100_000)
    found = make(recorder.address).load(session_id)
    assert found == {"user": "ada", "large": "apple" * 100_000}
    assert len(recorder.seen) > 1_000_000
    assert b"apple" not in recorder.seen
    assert session_id.partition("-")[0].encode() not in recorder.seen


def test_a_program_may_bring_a_context_of_its_own(server: Memcached, make: MakeManager, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=authority.file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    manager = make(server.address, tls=context)
    assert manager.load(keep(manager, user="ada")) == {"user": "ada"}


def test_many_requests_at_once_share_a_server(server: Memcached, make: MakeManager) -> None:
    manager = make(server.address)
    session_id = keep(manager, n="apple" * 10_000)
    wrong: list[object] = []

    def read() -> None:
        for _ in range(20):
            found = manager.load(session_id)
            if found != {"n": "apple" * 10_000}:
                wrong.append(found)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class Reader(socket.socket):
    """A server that says something to whoever connects, and then reads for ever."""

    def __init__(self, says: bytes) -> None:
        super().__init__()
        self.bind((HOST, 0))
        self.listen()
        self.address = f"{HOST}:{self.getsockname()[1]}"
        self._says = says
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.accept()
            except OSError:
                return
            self._connections.append(connection)
            connection.sendall(self._says)

    def close(self) -> None:
        self.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for sock in (super(), *self._connections):
            sock.close()


def test_a_server_that_speaks_something_else_is_not_used(make: MakeManager, start: Callable[..., Any]) -> None:
    server = start(Reader(b"ERROR\r\n"))
    assert reason(make(server.address)).startswith("no TLS with it: ")


def test_a_handshake_that_hangs_takes_no_longer_than_a_connection_may(
    make: MakeManager, start: Callable[..., Any]
) -> None:
    server = start(Reader(b""))
    manager = make(server.address, timeouts=Timeouts(connect=0.1, operation=0.1, request=2))
    for _ in range(manager.settings.breaker.timeouts):
        started = time.monotonic()
        with pytest.raises(SessionUnavailable):
            keep(manager, user="ada")
        assert 0.1 <= time.monotonic() - started < 1
    (node,) = manager.nodes()
    assert not node.is_up
    assert "TLS handshake" in node.last_failure


def test_a_handshake_that_drips_in_takes_no_longer_than_a_connection_may(
    server: Memcached, make: MakeManager, start: Callable[..., Any]
) -> None:
    proxy = start(FaultProxy(server.port))
    proxy.replies = Faults(slice_bytes=1, slice_s=0.02)
    manager = make(proxy.address, timeouts=Timeouts(connect=0.2, operation=0.2, request=3))
    started = time.monotonic()
    with pytest.raises(SessionUnavailable):
        keep(manager, user="ada")
    assert time.monotonic() - started < 1


def test_records_that_arrive_in_pieces_are_put_together(
    server: Memcached, make: MakeManager, start: Callable[..., Any]
) -> None:
    proxy = start(FaultProxy(server.port))
    proxy.replies = Faults(slice_bytes=7, slice_s=0.0001)
    proxy.requests = Faults(slice_bytes=11, slice_s=0.0001)
    manager = make(proxy.address)
    session_id = keep(manager, user="ada")
    proxy.replies = proxy.requests = Faults(slice_bytes=1001, slice_s=0.0001)
    for n in range(20):
        session_id = keep(manager, user="ada", n="x" * 997 * n)
        assert make(proxy.address).load(session_id) == {"user": "ada", "n": "x" * 997 * n}
    assert manager.statistics().node_failures == 0


@pytest.mark.parametrize("cut", [0, 1, 5, 20, 1000, 20_000, 40_000])
def test_a_value_that_breaks_off_is_read_again_on_a_new_connection(
    server: Memcached, make: MakeManager, start: Callable[..., Any], cut: int
) -> None:
    session_id = keep(make(server.address), cart=["apple"] * 10_000)
    proxy = start(FaultProxy(server.port))
    manager = make(proxy.address)
    assert manager.load("0" * 32 + "-n1") is None
    begun: list[int] = []

    def is_value(data: bytes) -> bool:
        """Whether it is the first piece of the first large reply."""
        begun.append(len(data))
        return len(begun) == 1

    proxy.replies = Faults(only=is_value, cuts_after=cut)
    assert manager.load(session_id) == {"cart": ["apple"] * 10_000}
    assert len(begun) > 1
    assert manager.statistics().retries == 1
    assert manager.statistics().node_failures == 0


def test_a_record_that_was_changed_on_the_way_is_noticed(
    server: Memcached, make: MakeManager, start: Callable[..., Any]
) -> None:
    session_id = keep(make(server.address), user="ada")
    proxy = start(FaultProxy(server.port))
    manager = make(proxy.address)
    assert manager.load("0" * 32 + "-n1") is None
    proxy.replies = Faults(edit=lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(SessionUnavailable):
        manager.load(session_id)


def test_a_node_that_hangs_is_not_waited_for(server: Memcached, make: MakeManager, start: Callable[..., Any]) -> None:
    proxy = start(FaultProxy(server.port))
    manager = make(proxy.address, timeouts=Timeouts(connect=1, operation=0.1, request=0.5))
    session_id = keep(manager, user="ada")
    proxy.black_hole()
    started = time.monotonic()
    with pytest.raises(SessionUnavailable):
        manager.load(session_id)
    assert time.monotonic() - started < 0.5 + 0.2
    proxy.heal()
    drop_connections(manager)
    assert manager.load(session_id) == {"user": "ada"}


def test_a_unix_socket_stays_without(make: MakeManager, start: Callable[..., Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        path = f"{folder}/memcached"
        start(unix_server := UnixMemcached(path))
        manager = make(path)
        assert manager.load(keep(manager, user="ada")) == {"user": "ada"}
        unix_server.stop()


class UnixMemcached(Memcached):
    """A memcached process behind a unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__()

    def start(self) -> None:
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen([find_memcached(), "-s", self._path, "-a", "0777", *as_user])
        deadline = time.monotonic() + 10
        while not os.path.exists(self._path):
            assert time.monotonic() < deadline
            time.sleep(0.005)


GREENLETS = """
from gevent import monkey

monkey.patch_all()

import sys
import gevent
from msm_fast import SessionManager, Timeouts, Tls

unhurried = Timeouts(connect=5, operation=5, request=10)
manager = SessionManager(sys.argv[1], tls=Tls(ca_file=sys.argv[2]), timeouts=unhurried, on_cluster_lost="error")

def live(number):
    value = "apple" * 100 * number
    with manager.request(None) as session:
        session["value"] = value
    for _ in range(5):
        assert manager.load(session.id) == {"value": value}

gevent.joinall([gevent.spawn(live, number) for number in range(100)], raise_error=True)
assert manager.statistics().node_failures == 0
manager.close()
"""


def test_greenlets_each_see_their_own_session_only(server: Memcached, authority: Authority) -> None:
    command = [sys.executable, "-c", GREENLETS, f"n1:{server.address}", authority.file]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr


# -- the drivers alone


def carry_out_with_threads(nodes: dict[str, Node], access: Access, flow: Flow[T]) -> T:
    with closing(BlockingDriver(nodes, UNHURRIED, access=access)) as driver:
        return driver.run(flow, time.monotonic() + 10)


def carry_out_in_loop(nodes: dict[str, Node], access: Access, flow: Flow[T], loop: asyncio.AbstractEventLoop) -> T:
    async def carry_out() -> T:
        driver = AsyncDriver(nodes, UNHURRIED, access=access)
        try:
            return await driver.run(flow, time.monotonic() + 10)
        finally:
            await driver.close(1)

    with closing(loop):
        return loop.run_until_complete(carry_out())


@pytest.fixture(params=["threads", "asyncio", "uvloop"])
def carry_out(request: pytest.FixtureRequest) -> Any:
    if request.param == "threads":
        return carry_out_with_threads
    new_loop = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    return partial(carry_out_in_loop, loop=new_loop())


@pytest.mark.parametrize("value_bytes", [10, 5_000, 16_300, 20_000, 200_000, 1_000_000])
def test_however_large_a_batch_and_its_values_the_server_reads_all_of_it(
    server: Memcached, authority: Authority, carry_out: Any, value_bytes: int
) -> None:
    access = Access.of(Settings.build(tls=Tls(ca_file=authority.file)))
    value = os.urandom(value_bytes)
    stores = [wire.store(b"k%d" % n, value[n:], 1, 0) for n in range(8)]
    gets = [wire.get(b"k%d" % n) for n in range(8)]

    def flow() -> Flow[None]:
        (outcome,) = yield Exchange([Batch("n1", [*stores, *gets] * 3)])
        assert not isinstance(outcome, NodeFailure), outcome
        assert [reply.status for reply in outcome] == (["HD"] * 8 + ["VA"] * 8) * 3
        assert [reply.value for reply in outcome if reply.status == "VA"] == [value[n:] for n in range(8)] * 3

    carry_out({"n1": Node("n1", HOST, server.port)}, access, flow())
