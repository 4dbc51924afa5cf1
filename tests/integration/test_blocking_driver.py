"""The blocking driver alone, on real memcached processes."""

import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from msm_fast import Node, SessionManager, Timeouts
from msm_fast._core import wire
from msm_fast._core.wire import Command
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.drivers.connection import Connection
from msm_fast.drivers.failures import ConnectionFailed
from msm_fast.drivers.greeting import FIRST_FREE_OPAQUE
from msm_fast.engine.effects import Batch, Budget, Exchange, Flow, NodeFailure, Outcome, Sleep
from tests.integration.conftest import Nodes, have_no_plain_sockets
from tests.proxy import Link, Proxy

pytestmark = pytest.mark.memcached

MARGIN_S = 0.1


@pytest.fixture(params=["at_once", "one_by_one"])
def driver(nodes: Nodes, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingDriver]:
    """At once, as plain sockets are used, or one connection after the other, as TLS and gevent are."""
    if request.param == "one_by_one":
        have_no_plain_sockets(monkeypatch)
    driver = BlockingDriver({name: Node(name, "127.0.0.1", server.port) for name, server in nodes.items()}, Timeouts())
    yield driver
    driver.close()


def exchange(driver: BlockingDriver, *batches: Batch, seconds: float = 1) -> list[Outcome]:
    def flow() -> Flow[list[Outcome]]:
        outcomes: list[Outcome] = yield Exchange(batches)
        return outcomes

    return driver.run(flow(), time.monotonic() + seconds)


def statuses(outcome: Outcome) -> list[str]:
    assert not isinstance(outcome, NodeFailure), outcome
    return [reply.status for reply in outcome]


def test_several_nodes_are_asked_together(driver: BlockingDriver) -> None:
    outcomes = exchange(driver, *(Batch(name, [wire.get(b"k"), wire.noop()]) for name in ("n1", "n2", "n3")))
    assert [statuses(outcome) for outcome in outcomes] == [["EN", "MN"]] * 3


def test_a_node_that_hangs_does_not_make_the_others_late(driver: BlockingDriver, nodes: Nodes) -> None:
    batches = [Batch(name, [wire.get(b"k")]) for name in ("n1", "n2", "n3")]
    exchange(driver, *batches)
    nodes["n1"].pause()
    try:
        started = time.monotonic()
        hanging, *others = exchange(driver, *batches)
        assert time.monotonic() - started < 0.1 + MARGIN_S
    finally:
        nodes["n1"].resume()
    assert isinstance(hanging, NodeFailure)
    assert (hanging.kind, hanging.sent) == ("timeout", True)
    assert [statuses(outcome) for outcome in others] == [["EN"], ["EN"]]


def test_a_forked_child_has_none_of_its_parents_connections_and_keeps_those_of_its_own(driver: BlockingDriver) -> None:
    exchange(driver, Batch("n1", [wire.noop()]))
    (of_parent,) = driver._made
    driver.abandon_connections()
    assert not of_parent.is_open
    assert driver._idle.take_all("n1") == []
    for _ in range(2):
        assert statuses(*exchange(driver, Batch("n1", [wire.noop()]))) == ["MN"]
    (of_child,) = [connection for connection in driver._made if connection.is_open]
    assert driver._idle.pop("n1") is of_child
    of_child.close()


def test_a_thread_that_waits_long_for_the_gil_is_connected_and_answered_all_the_same(
    driver: BlockingDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver._least_turn_s = 5
    clock, write = time.monotonic, Connection.write
    waited_s = [0]

    def write_and_wait(connection: Connection, data: bytes) -> None:
        write(connection, data)
        waited_s[0] += 10

    monkeypatch.setattr(Connection, "write", write_and_wait)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + waited_s[0])
    budget = Budget(0.25)
    for _ in range(2):  # a request looks its session up, and stores it
        outcomes = driver.exchange([Batch(name, [wire.noop()]) for name in ("n1", "n2")], budget)
        assert [statuses(outcome) for outcome in outcomes] == [["MN"]] * 2
    assert budget.left_s < -10


class Late(Proxy):
    """A node that is 20 ms away."""

    def carry(self, data: bytes, link: Link, *, is_reply: bool) -> None:
        time.sleep(0.02)
        super().carry(data, link, is_reply=is_reply)


def test_an_answer_has_a_turn_though_the_time_of_its_request_is_over(nodes: Nodes) -> None:
    with closing(Late(nodes["n1"].port)) as proxy:
        timeouts = Timeouts(connect=5, operation=5, request=5, busy_poll=0)
        with closing(
            BlockingDriver({"n1": Node("n1", "127.0.0.1", int(proxy.address.rpartition(":")[2]))}, timeouts)
        ) as driver:
            driver._least_turn_s = 5
            for left_s in (5, -5):
                (outcome,) = driver.exchange([Batch("n1", [wire.noop()])], Budget(left_s))
                assert statuses(outcome) == ["MN"]


@pytest.mark.parametrize("settings", [{}, {"locking": "all"}, {"backup": "async"}])
def test_a_request_whose_time_is_over_stores_its_session_whatever_the_settings(
    nodes: Nodes, settings: dict[str, Any]
) -> None:
    timeouts = Timeouts(connect=5, operation=5, request=5, busy_poll=0)
    with (
        closing(Late(nodes["n1"].port)) as proxy,
        SessionManager(f"n1:{proxy.address}", timeouts=timeouts, **settings) as manager,
    ):
        manager._driver._least_turn_s = 5
        with manager.request(None) as session:
            session["seen"] = 1
        request = manager.request(session.id, "POST")
        request.session["seen"] = 2
        request.left_s = -5
        assert request.save().status == "stored"
        request.close()


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have new connections hand the kernel so little at once that large values go out in many pieces."""
    connect = BlockingDriver._connect

    def connect_narrowly(driver: BlockingDriver, node: Node, deadline: float) -> Connection:
        connection = connect(driver, node, deadline)
        with socket.socket(fileno=os.dup(connection.fileno())) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        return connection

    monkeypatch.setattr(BlockingDriver, "_connect", connect_narrowly)


@pytest.mark.parametrize("hung", ["n1", "n2"])
@pytest.mark.usefixtures("small_buffers")
def test_a_node_that_hangs_does_not_keep_the_rest_of_a_large_value_from_another_one(
    driver: BlockingDriver, nodes: Nodes, hung: str
) -> None:
    names = ["n1", "n2"]
    exchange(driver, *(Batch(name, [wire.noop()]) for name in names))
    nodes[hung].pause()
    try:
        outcomes = exchange(driver, *(Batch(name, [wire.store(b"k", bytes(1_000_000), 1, 0)]) for name in names))
    finally:
        nodes[hung].resume()
    by_node = dict(zip(names, outcomes, strict=True))
    failure = by_node.pop(hung)
    assert isinstance(failure, NodeFailure)
    assert (failure.kind, failure.sent) == ("timeout", True)
    assert [statuses(outcome) for outcome in by_node.values()] == [["HD"]]


@pytest.mark.usefixtures("small_buffers")
def test_a_node_that_reads_and_says_nothing_does_not_keep_the_rest_of_a_large_value_from_another_one(
    driver: BlockingDriver, nodes: Nodes
) -> None:
    exchange(driver, *(Batch(name, [wire.noop()]) for name in ("n1", "n2")))
    nodes["n1"].pause()
    try:
        silent, other = exchange(
            driver, Batch("n1", [wire.get(b"k")]), Batch("n2", [wire.store(b"k", bytes(1_000_000), 1, 0)])
        )
    finally:
        nodes["n1"].resume()
    assert isinstance(silent, NodeFailure)
    assert statuses(other) == ["HD"]


def test_the_late_answer_of_a_node_that_hung_is_never_read(driver: BlockingDriver, nodes: Nodes) -> None:
    exchange(driver, Batch("n1", [wire.store(b"k", b"old", 1, 0)]))
    nodes["n1"].pause()
    try:
        exchange(driver, Batch("n1", [wire.get(b"k")]))
    finally:
        nodes["n1"].resume()
    (outcome,) = exchange(driver, Batch("n1", [wire.get(b"missing")]))
    assert statuses(outcome) == ["EN"]


def test_a_large_value_goes_out_and_comes_back(driver: BlockingDriver) -> None:
    value = bytes(range(256)) * 4000
    (stored,) = exchange(driver, Batch("n1", [wire.store(b"k", value, 1, 0)]))
    assert statuses(stored) == ["HD"]
    (outcome,) = exchange(driver, Batch("n1", [wire.get(b"k")] * 4 + [wire.store(b"k", value, 2, 0)]))
    assert statuses(outcome) == ["VA"] * 4 + ["HD"]
    assert not isinstance(outcome, NodeFailure)
    assert outcome[3].value == value


def test_the_requests_deadline_is_told_from_the_nodes_fault(driver: BlockingDriver, nodes: Nodes) -> None:
    exchange(driver, Batch("n1", [wire.noop()]))
    nodes["n1"].pause()
    try:
        (outcome,) = exchange(driver, Batch("n1", [wire.noop()]), seconds=0.03)
    finally:
        nodes["n1"].resume()
    assert isinstance(outcome, NodeFailure)
    assert outcome.kind == "deadline"


def test_threads_that_share_the_last_connections_to_two_nodes_do_not_wait_for_each_other(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(node: Node, deadline: float) -> Connection:
        raise ConnectionFailed("refused", False, "it has too many connections")

    def start_and_wait_for_the_other(connection: Connection, commands: Sequence[Command]) -> None:
        start(connection, commands)
        with suppress(threading.BrokenBarrierError):
            both_have_begun.wait(0.2)

    have_no_plain_sockets(monkeypatch)
    named = {name: Node(name, "127.0.0.1", nodes[name].port) for name in ("n1", "n2")}
    batches = [Batch(name, [wire.noop()]) for name in named]
    with closing(BlockingDriver(named, Timeouts(connect=1, operation=1))) as driver:
        exchange(driver, *batches)
        monkeypatch.setattr(driver, "_connect", refuse)
        start, both_have_begun = Connection.start, threading.Barrier(2)
        monkeypatch.setattr(Connection, "start", start_and_wait_for_the_other)
        with ThreadPoolExecutor(2) as threads:
            outcomes = list(threads.map(lambda order: exchange(driver, *order, seconds=2), [batches, batches[::-1]]))
    assert [[statuses(outcome) for outcome in of_one] for of_one in outcomes] == [[["MN"]] * 2] * 2


def test_a_sleep_ends_with_the_deadline(driver: BlockingDriver) -> None:
    def flow() -> Flow[str]:
        yield Sleep(60)
        return "awake"

    started = time.monotonic()
    assert driver.run(flow(), started + 0.05) == "awake"
    assert time.monotonic() - started < 0.05 + MARGIN_S


def test_a_batch_for_a_nodes_former_life_is_not_sent_into_its_next(driver: BlockingDriver, nodes: Nodes) -> None:
    (stored,) = exchange(driver, Batch("n1", [wire.store(b"k", b"before", 1, 0)]))
    assert not isinstance(stored, NodeFailure)
    life, cas = stored.life, stored[0].cas
    nodes["n1"].kill()
    nodes["n1"].start()
    (again,) = exchange(driver, Batch("n1", [wire.store(b"k", b"after", 2, 0)]))
    assert not isinstance(again, NodeFailure)
    assert again.life == life + 1
    assert again[0].cas == cas, "memcached is expected to repeat CAS values after a restart"
    (fenced,) = exchange(driver, Batch("n1", [wire.store(b"k", b"overwritten", 3, 0, cas=cas)], life))
    assert isinstance(fenced, NodeFailure)
    assert (fenced.kind, fenced.sent) == ("restarted", False)
    (found,) = exchange(driver, Batch("n1", [wire.get(b"k")], again.life))
    assert not isinstance(found, NodeFailure)
    assert found[0].value == b"after"


def test_two_connections_to_one_life_of_a_node_agree_on_it(driver: BlockingDriver) -> None:
    lives = set()
    for _ in range(3):
        for outcome in exchange(driver, Batch("n1", [wire.noop()]), Batch("n1", [wire.noop()])):
            assert not isinstance(outcome, NodeFailure)
            lives.add(outcome.life)
    assert len(lives) == 1


class _Full(socketserver.BaseRequestHandler):
    """A memcached that has no memory left for anything."""

    version = b"1.6.18"

    def handle(self) -> None:
        asked = b""
        while data := self.request.recv(65536):
            asked += data
            if asked.endswith(b" O1\r\n"):
                self.request.sendall(b"VERSION %b\r\nEN O1\r\n" % self.version)
                asked = b""
            elif asked.endswith(b" O3\r\n") and asked.startswith(b"ms "):
                self.request.sendall(b"SERVER_ERROR out of memory storing object\r\nEN O3\r\n")
                asked = b""
            elif asked == b"stats settings\r\n":
                self.request.sendall(b"SERVER_ERROR out of memory\r\n")
                asked = b""
            elif asked == b"mn\r\n":
                self.request.sendall(b"MN\r\n")
                asked = b""
            elif asked.startswith(b"mg k"):
                break


class _Flood(_Full):
    """A node that answers the first question after the greeting with more than anybody can read."""

    def handle(self) -> None:
        super().handle()
        with suppress(OSError):
            self.request.sendall(b"VA 1073741824 c1 f1 t1 O%d\r\n" % FIRST_FREE_OPAQUE)
            while True:
                self.request.sendall(bytes(1 << 20))


@contextmanager
def full_node(version: bytes = b"1.6.18", handler_class: type[_Full] = _Full) -> Iterator[BlockingDriver]:
    """Give a driver with one node n1 that is full."""
    handler = type("_FullOfVersion", (handler_class,), {"version": version})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with closing(BlockingDriver({"n1": Node("n1", "127.0.0.1", server.server_address[1])}, Timeouts())) as driver:
            yield driver
        server.shutdown()


def test_a_node_that_cannot_keep_a_token_is_used_and_each_connection_is_a_life_of_its_own() -> None:
    with full_node() as driver:
        one, other = exchange(driver, Batch("n1", [wire.noop()]), Batch("n1", [wire.noop()]))
        assert not isinstance(one, NodeFailure)
        assert not isinstance(other, NodeFailure)
        assert one.life != other.life
        (fenced,) = exchange(driver, Batch("n1", [wire.noop()], one.life))
        assert isinstance(fenced, NodeFailure)
        assert fenced.kind == "restarted"


@pytest.mark.parametrize(
    ("version", "compares"), [(b"1.6.18", False), (b"1.6.39", False), (b"1.6.40", True), (b"1.10.0-rc1", True)]
)
def test_what_a_node_can_leave_out_is_known_by_its_version(version: bytes, compares: bool) -> None:
    with full_node(version) as driver:
        (outcome,) = exchange(driver, Batch("n1", [wire.noop()]))
        assert not isinstance(outcome, NodeFailure)
        assert outcome.compares is compares


def test_a_node_that_says_more_than_can_be_read_costs_no_more_than_one_that_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read_clock_slowly() -> float:
        time.sleep(0.005)  # in which a buffer that was read is full again
        return time.monotonic()

    have_no_plain_sockets(monkeypatch)
    monkeypatch.setattr("msm_fast.drivers.connection.time", SimpleNamespace(monotonic=read_clock_slowly))
    with full_node(handler_class=_Flood) as driver:
        started = time.monotonic()
        (outcome,) = exchange(driver, Batch("n1", [wire.get(b"k")]))
        assert time.monotonic() - started < 0.1 + MARGIN_S
    assert isinstance(outcome, NodeFailure)
    assert outcome.kind == "timeout"
