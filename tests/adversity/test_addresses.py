"""Hosts whose name server hangs, that have several addresses, or that move.

Rows 5 and 6 of the fault matrix. Each request of a Visitor is timed as a whole.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from msm_fast import Reconnect
from msm_fast.drivers.addresses import Address
from tests.adversity.conftest import Cluster, home_of, settle
from tests.adversity.proxy import FullBacklog
from tests.adversity.visitor import MARGIN_S, wait_until
from tests.memcached import Memcached
from tests.threaded import drop_connections
from tests.timeouts import HURRIED

pytestmark = pytest.mark.memcached

HOST = "cache.example"
NO_PROBES = Reconnect(first=60)


class NameServer:
    """Knows HOST alone. It hangs while `answers` is not set."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.answers = threading.Event()
        self.answers.set()
        self.threads: set[threading.Thread] = set()

    def getaddrinfo(self, host: str, *_: object) -> list[Address]:
        assert host == HOST
        self.threads.add(threading.current_thread())
        self.answers.wait(30)
        ends = [address.split(":") for address in self.addresses]
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (ip, int(port))) for ip, port in ends]


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    yield server
    server.answers.set()
    for thread in server.threads:
        thread.join(10)


@pytest.fixture
def full_backlog() -> Iterator[FullBacklog]:
    port = FullBacklog()
    yield port
    port.close()


def with_named_n1(cluster: Cluster) -> str:
    """Return the text of the cluster's nodes, where only a name server knows n1's address."""
    return f"n1:{HOST}:11211,n2:{cluster.servers['n2'].address},n3:{cluster.servers['n3'].address}"


def refused_address() -> str:
    """Return an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_row_05_a_name_server_that_hangs_costs_the_connect_timeout_until_the_node_is_given_up(
    cluster: Cluster, name_server: NameServer
) -> None:
    name_server.answers.clear()
    worker = cluster.worker_on(with_named_n1(cluster), timeouts=HURRIED, reconnect=NO_PROBES)
    visitors = [cluster.visitor(worker) for _ in range(20)]
    for n, visitor in enumerate(visitors):
        assert visitor.post(n=n).status == "stored"
        assert home_of(visitor.cookie) != "n1"
    slow = [visitor for visitor in visitors if visitor.slowest_s >= HURRIED.connect]
    assert 1 <= len(slow) <= worker.settings.breaker.timeouts
    assert HOST in worker.nodes()[0].last_failure
    assert threading.current_thread() not in name_server.threads
    assert len(name_server.threads) == 1


def test_row_05_a_name_server_that_hangs_keeps_no_sticky_request_waiting(
    cluster: Cluster, name_server: NameServer
) -> None:
    name_server.answers.clear()
    worker = cluster.worker_on(with_named_n1(cluster), sticky=True, timeouts=HURRIED, reconnect=NO_PROBES)
    visitors = []
    for _ in range(worker.settings.breaker.timeouts):  # what is written together finds a node silent once
        newcomers = [cluster.visitor(worker) for _ in range(20)]
        for n, visitor in enumerate(newcomers, len(visitors)):
            assert visitor.post(n=n).status == "queued"
        settle(worker)
        visitors += newcomers
    for n, visitor in enumerate(visitors):
        assert visitor.get() == {"n": n}
        assert home_of(visitor.cookie) != "n1"
        assert visitor.slowest_s < MARGIN_S
    assert not worker.nodes()[0].is_up


def test_row_05_once_known_an_address_outlives_its_name_server(cluster: Cluster, name_server: NameServer) -> None:
    name_server.addresses = [cluster.servers["n1"].address]
    worker = cluster.worker_on(with_named_n1(cluster))
    visitor = cluster.visitor_at_home_on("n1", worker, user="ada")
    name_server.answers.clear()
    cluster.servers["n1"].kill()
    assert visitor.get() == {"user": "ada"}
    cluster.servers["n1"].start()
    wait_until(lambda: worker.nodes()[0].is_up)


@pytest.mark.parametrize(("first", "is_sticky"), [("refuses", False), ("hangs", False), ("hangs", True)])
def test_row_06_the_second_address_is_tried_in_the_same_request_and_first_from_then_on(
    cluster: Cluster, name_server: NameServer, full_backlog: FullBacklog, first: str, is_sticky: bool
) -> None:
    dead = full_backlog.address if first == "hangs" else refused_address()
    name_server.addresses = [dead, cluster.servers["n1"].address]
    mode = {"sticky": is_sticky, "backup": "sync"}
    worker = cluster.worker_on(with_named_n1(cluster), timeouts=HURRIED, reconnect=NO_PROBES, **mode)
    visitor = cluster.visitor_at_home_on("n1", worker, user="ada")
    assert worker.nodes()[0].is_up
    assert worker.statistics().node_failures == 0
    drop_connections(worker)
    visitor.slowest_s = 0.0
    assert visitor.post(n=1).status == "stored"
    assert visitor.slowest_s < HURRIED.connect / 4, "the dead address would take half of the time"
    assert worker.statistics().node_failures == 0


def test_a_host_that_has_moved_is_found_by_the_next_probe(cluster: Cluster, name_server: NameServer) -> None:
    name_server.addresses = [cluster.servers["n1"].address]
    worker = cluster.worker_on(with_named_n1(cluster), reconnect=Reconnect(first=0.4, factor=100, cap=60))
    visitor = cluster.visitor_at_home_on("n1", worker, user="ada")
    moved = Memcached()
    try:
        cluster.servers["n1"].kill()
        assert visitor.get() == {"user": "ada"}
        wait_until(lambda: not any(thread.is_alive() for thread in name_server.threads))
        assert not worker.nodes()[0].is_up
        name_server.addresses = [moved.address]
        wait_until(lambda: worker.nodes()[0].is_up)
        assert cluster.visitor_at_home_on("n1", worker, user="eve").get() == {"user": "eve"}
    finally:
        moved.stop()


def test_a_host_that_has_moved_is_found_without_a_probe_if_another_address_of_it_serves(
    cluster: Cluster, name_server: NameServer
) -> None:
    name_server.addresses = [refused_address(), cluster.servers["n1"].address]
    worker = cluster.worker_on(with_named_n1(cluster), reconnect=NO_PROBES)
    cluster.visitor_at_home_on("n1", worker, user="ada")
    assert len(name_server.threads) > 1, "a failed connection has the host looked up again"
