"""Nodes that are there and do not answer, or answer slowly.

Rows 4, 7, 15, 20 and 35 of the fault matrix. Each request of a Visitor is timed as a whole: none may take longer than
timeouts.request and a margin.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from msm_fast import Breaker, DistributionState, Reconnect, SessionManager, SessionUnavailable
from msm_fast._core import wire
from msm_fast.engine.effects import Batch, Budget
from tests.adversity.conftest import Cluster, home_of
from tests.adversity.proxy import FaultProxy, Faults, FullBacklog, is_store
from tests.adversity.stopwatch import Stopwatch
from tests.adversity.visitor import MARGIN_S, wait_until
from tests.memcached import Memcached
from tests.timeouts import HURRIED

pytestmark = pytest.mark.memcached

NO_PROBES = Reconnect(first=60)


@pytest.fixture
def full_backlog() -> Iterator[FullBacklog]:
    port = FullBacklog()
    yield port
    port.close()


def failures(worker: SessionManager) -> int:
    return worker.statistics().node_failures


def test_row_04_a_node_where_connecting_hangs_costs_the_connect_timeout_until_it_is_given_up(
    cluster: Cluster, full_backlog: FullBacklog
) -> None:
    servers = cluster.servers
    nodes = f"n1:{full_backlog.address},n2:{servers['n2'].address},n3:{servers['n3'].address}"
    worker = cluster.worker_on(nodes, timeouts=HURRIED, reconnect=NO_PROBES)
    visitors = [cluster.visitor(worker) for _ in range(20)]
    for n, visitor in enumerate(visitors):
        assert visitor.post(n=n).status == "stored"
        assert home_of(visitor.cookie) != "n1"
    assert failures(worker) == Breaker().timeouts
    assert not worker.nodes()[0].is_up
    assert "no connection within" in worker.nodes()[0].last_failure
    slow = [visitor for visitor in visitors if visitor.slowest_s >= HURRIED.connect]
    assert len(slow) <= Breaker().timeouts


def test_row_07_a_node_that_hangs_costs_one_operation_timeout_a_request_until_it_is_given_up(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True, timeouts=HURRIED, reconnect=NO_PROBES)
    visitors = [cluster.visitor_at_home_on("n1", worker, n=n) for n in range(5)]
    for visitor in visitors:
        visitor.slowest_s = 0.0
    cluster.servers["n1"].pause()
    n_failures = []
    for n, visitor in enumerate(visitors):
        assert visitor.get() == {"n": n}
        n_failures.append(failures(worker))
    assert n_failures == [1, 2, 3, 3, 3]
    assert max(visitor.slowest_s for visitor in visitors[:3]) < HURRIED.operation + MARGIN_S
    assert max(visitor.slowest_s for visitor in visitors[3:]) < MARGIN_S
    assert worker.distribution.state is DistributionState.DEGRADED


def test_row_07_the_late_answer_of_a_node_that_hung_is_read_by_nobody(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True, timeouts=HURRIED, reconnect=NO_PROBES)
    first = cluster.visitor_at_home_on("n1", worker, user="ada")
    second = cluster.visitor_at_home_on("n1", worker, user="eve")
    cluster.servers["n1"].pause()
    assert first.get() == {"user": "ada"}
    cluster.servers["n1"].resume()
    for _ in range(10):
        assert second.get() == {"user": "eve"}
        assert first.get() == {"user": "ada"}
    assert failures(worker) == 1


def test_row_15_a_reply_that_drips_is_bounded_as_a_whole_not_by_byte(cluster: Cluster) -> None:
    worker = cluster.worker(timeouts=HURRIED, reconnect=NO_PROBES)
    visitors = [cluster.visitor_at_home_on("n1", worker, n=n) for n in range(5)]
    cluster.proxies["n1"].replies = Faults(slice_bytes=1, slice_s=0.02)  # each byte in good time, all of them never
    for n, visitor in enumerate(visitors):
        assert visitor.get() == {"n": n}
    assert failures(worker) == Breaker().timeouts
    assert not worker.nodes()[0].is_up


def test_row_15_a_request_that_drips_away_is_bounded_as_a_whole(cluster: Cluster) -> None:
    worker = cluster.worker(timeouts=HURRIED)
    visitor = cluster.visitor_at_home_on("n1", worker, cart=["apple"])
    cluster.proxies["n1"].requests = Faults(slice_bytes=1, slice_s=0.02)
    for n in range(5):
        assert visitor.post(n=n).status == "stored"
    assert visitor.get() == {"cart": ["apple"], "n": 4}
    assert home_of(visitor.cookie) != "n1"


def test_row_15_answers_that_are_late_but_in_time_are_answers(cluster: Cluster) -> None:
    worker = cluster.worker()
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    for proxy in cluster.proxies.values():
        proxy.replies = Faults(delay_s=0.01, jitter_s=0.02)
        proxy.requests = Faults(delay_s=0.01, jitter_s=0.02)
    for n in range(5):
        assert visitor.get() == {"n": n}
        assert visitor.post(n=n + 1).status == "stored"
    assert failures(worker) == 0


def test_row_20_a_peer_that_is_gone_without_a_word_costs_one_operation_timeout(cluster: Cluster) -> None:
    worker = cluster.worker(timeouts=HURRIED, reconnect=NO_PROBES)
    visitor = cluster.visitor_at_home_on("n1", worker, step=1)
    result = visitor.post_after_load(cluster.proxies["n1"].black_hole, step=2)
    assert result.status == "stored"
    assert result.node != "n1"
    assert failures(worker) == 1
    assert visitor.slowest_s < HURRIED.operation + MARGIN_S
    assert visitor.get() == {"step": 2}


@pytest.fixture
def firewall() -> Iterator[FaultProxy]:
    server = Memcached()
    proxy = FaultProxy(server.port)
    yield proxy
    proxy.close()
    server.stop()


def test_row_20_connections_that_a_firewall_has_forgotten_make_no_probe_fail(firewall: FaultProxy) -> None:
    with closing(SessionManager(firewall.address, timeouts=HURRIED, reconnect=Reconnect(first=0.1))) as worker:
        as_by_threads = [Batch("", [wire.noop()])] * (Breaker().timeouts + 5)
        worker._driver.exchange(as_by_threads, Budget(5.0))
        assert len(firewall.links()) == len(as_by_threads)
        firewall.forget_connections()
        worker.ask_nodes()
        assert not worker.nodes()[0].is_up
        wait_until(lambda: worker.nodes()[0].is_up)
        assert failures(worker) == Breaker().timeouts


def test_row_20_a_large_session_is_stored_elsewhere_when_a_peer_reads_no_further(cluster: Cluster) -> None:
    worker = cluster.worker(timeouts=HURRIED)
    visitor = cluster.visitor_at_home_on("n1", worker, step=1)
    cluster.proxies["n1"].requests = Faults(only=is_store, slice_bytes=1, slice_s=0.2)
    result = visitor.post(large="x" * 900_000)
    assert result.status == "stored"
    assert result.node != "n1"
    assert len(str(visitor.get()["large"])) == 900_000


def test_row_35_with_every_node_silent_a_request_fails_in_time_and_then_at_once(
    cluster: Cluster, stopwatch: Stopwatch
) -> None:
    worker = cluster.worker(timeouts=HURRIED, reconnect=NO_PROBES)
    visitor = cluster.visitor_at_home_on("n1", worker, user="ada")
    cookie = visitor.cookie
    for proxy in cluster.proxies.values():
        proxy.black_hole()
    while any(node.is_up for node in worker.nodes()):
        with pytest.raises(SessionUnavailable):
            visitor.get()
    interval = stopwatch.start()
    for _ in range(20):
        with pytest.raises(SessionUnavailable):
            visitor.get()
        with pytest.raises(SessionUnavailable):
            cluster.visitor(worker).post(user="new")
    assert interval.seconds() < 0.1
    assert visitor.cookie == cookie


def test_row_35_sessions_are_back_when_the_network_is(cluster: Cluster) -> None:
    worker = cluster.worker(timeouts=HURRIED)
    visitor = cluster.visitor_at_home_on("n1", worker, user="ada")
    for proxy in cluster.proxies.values():
        proxy.black_hole()
    while worker.distribution.state is not DistributionState.LOCAL:
        with pytest.raises(SessionUnavailable):
            visitor.get()
    for proxy in cluster.proxies.values():
        proxy.heal()
    wait_until(lambda: worker.distribution.state is DistributionState.DISTRIBUTED, timeout_s=1.5)
    assert visitor.get() == {"user": "ada"}
    assert visitor.post(seen=True).status == "stored"
