"""Sticky sessions while nodes are killed, restarted, paused, emptied or taken away.

Rows 1, 7, 10, 26, 28, 32 and 52 of the fault matrix. A request that finds its session here asks no node, so what is
tried is what is written behind it, and how the next worker finds it.
"""

from __future__ import annotations

import time

import pytest

from msm_fast import SessionManager
from tests.adversity.conftest import Cluster, home_of, is_normal, settle
from tests.adversity.items import delete, flush, has_copy
from tests.adversity.visitor import MARGIN_S, Visitor, wait_until
from tests.timeouts import HURRIED

pytestmark = pytest.mark.memcached


def settled_visitor_on(cluster: Cluster, node: str, worker: SessionManager, **attributes: object) -> Visitor:
    """Return a client with a session at home on node, where it is written already."""
    visitor = cluster.visitor_at_home_on(node, worker, **attributes)
    settle(worker)
    return visitor


def n_round_trips(worker: SessionManager) -> int:
    return worker.statistics().round_trips


# -- row 1


def test_row_01_a_node_that_refuses_is_not_noticed_by_who_reads_a_session_that_lives_here(cluster: Cluster) -> None:
    worker = cluster.sticky_worker("w1", is_direct=True)
    visitor = settled_visitor_on(cluster, "n1", worker, step=1)
    cluster.servers["n1"].kill()
    before, visitor.slowest_s = n_round_trips(worker), 0.0
    for _ in range(10):
        assert visitor.get() == {"step": 1}
    assert n_round_trips(worker) == before
    assert visitor.slowest_s < MARGIN_S
    assert home_of(visitor.cookie) == "n1"


@pytest.mark.parametrize("backup", ["async", "sync"])
def test_row_01_the_first_refusal_of_a_write_takes_the_node_out_and_moves_the_session(
    cluster: Cluster, backup: str
) -> None:
    worker = cluster.sticky_worker("w1", is_direct=True, backup=backup)
    visitor = settled_visitor_on(cluster, "n1", worker, step=1)
    cluster.servers["n1"].kill()
    assert visitor.post(step=2).status == {"async": "queued", "sync": "stored"}[backup]
    settle(worker)
    assert not worker.nodes()[0].is_up
    assert worker.statistics().node_failures == 1
    assert visitor.get() == {"step": 2}
    assert home_of(visitor.cookie) != "n1"
    visitor.worker = cluster.sticky_worker("w2", is_direct=True)
    assert visitor.get() == {"step": 2}


@pytest.mark.parametrize("is_fresh", [True, False], ids=["a_fresh_worker", "a_worker_with_open_connections"])
def test_row_01_a_worker_that_takes_over_finds_the_backup_in_the_same_request(cluster: Cluster, is_fresh: bool) -> None:
    writer, taker = (cluster.sticky_worker(route, is_direct=True) for route in ("w1", "w2"))
    visitor = settled_visitor_on(cluster, "n1", writer, user="ada")
    if not is_fresh:
        settled_visitor_on(cluster, "n1", taker, user="eve")
    cluster.servers["n1"].kill()
    visitor.worker = taker
    assert visitor.get() == {"user": "ada"}
    assert home_of(visitor.cookie) != "n1"
    assert str(visitor.cookie).endswith(".w2")
    assert taker.statistics().fallbacks == 0


# -- row 7


def test_row_07_a_node_that_hangs_keeps_no_request_of_a_session_that_lives_here_waiting(cluster: Cluster) -> None:
    worker = cluster.sticky_worker("w1", is_direct=True, timeouts=HURRIED)
    visitors = [settled_visitor_on(cluster, "n1", worker, step=0) for _ in range(4)]
    for visitor in visitors:
        visitor.slowest_s = 0.0
    cluster.servers["n1"].pause()
    for step in range(1, 6):
        for visitor in visitors:
            assert visitor.post(step=step).status == "queued"
            assert visitor.get() == {"step": step}
    assert max(visitor.slowest_s for visitor in visitors) < MARGIN_S
    settle(worker)
    taker = cluster.sticky_worker("w2", is_direct=True, timeouts=HURRIED)
    for visitor in visitors:
        visitor.worker = taker
        assert visitor.get() == {"step": 5}


def test_row_07_what_a_node_that_hung_carries_out_later_does_not_replace_what_was_written_since(
    cluster: Cluster,
) -> None:
    worker = cluster.sticky_worker("w1", is_direct=True, timeouts=HURRIED)
    visitor = settled_visitor_on(cluster, "n1", worker, step=1)
    old_cookie = visitor.cookie
    cluster.servers["n1"].pause()
    visitor.post(step=2)
    settle(worker)
    visitor.post(step=3)
    settle(worker)
    cluster.servers["n1"].resume()
    wait_until(lambda: is_normal(worker))
    for cookie in (visitor.cookie, old_cookie):
        visitor.worker, visitor.cookie = cluster.sticky_worker("w2", is_direct=True, timeouts=HURRIED), cookie
        assert visitor.get() == {"step": 3}


def test_row_07_with_synchronous_backups_a_request_waits_for_one_operation_timeout_at_most(cluster: Cluster) -> None:
    worker = cluster.sticky_worker("w1", is_direct=True, timeouts=HURRIED, backup="sync")
    visitor = cluster.visitor_at_home_on("n1", worker, step=1)
    cluster.servers["n1"].pause()
    visitor.slowest_s = 0.0
    result = visitor.post(step=2)
    assert visitor.slowest_s < HURRIED.operation + MARGIN_S
    assert (result.status, result.node != "n1") == ("stored", True)
    visitor.worker = cluster.sticky_worker("w2", is_direct=True, timeouts=HURRIED)
    assert visitor.get() == {"step": 2}


# -- row 10


def test_row_10_a_node_restarted_between_requests_fails_none_and_gets_the_sessions_back(cluster: Cluster) -> None:
    worker = cluster.sticky_worker("w1", is_direct=True)
    visitors = [settled_visitor_on(cluster, "n3", worker, n=n) for n in range(3)]
    cluster.servers["n3"].kill()
    cluster.servers["n3"].start()
    for visitor in visitors:
        visitor.post(again=True)
    settle(worker)
    assert worker.statistics().node_failures == 0
    taker = cluster.sticky_worker("w2", is_direct=True)
    for n, visitor in enumerate(visitors):
        assert has_copy(cluster, "n3", visitor.cookie)
        visitor.worker = taker
        assert visitor.get() == {"n": n, "again": True}


# -- row 26


@pytest.mark.parametrize("where", ["home", "everywhere"])
def test_row_26_a_session_that_was_evicted_is_stored_again_with_its_next_change(cluster: Cluster, where: str) -> None:
    worker = cluster.sticky_worker("w1", is_direct=True)
    visitor = settled_visitor_on(cluster, "n1", worker, user="ada", n=1)
    for node in ("n1",) if where == "home" else cluster.servers:
        delete(cluster, node, visitor.cookie)
    assert visitor.get() == {"user": "ada", "n": 1}
    visitor.post(n=2)
    settle(worker)
    assert home_of(visitor.cookie) == "n1"
    assert has_copy(cluster, "n1", visitor.cookie)
    visitor.worker = cluster.sticky_worker("w2", is_direct=True)
    assert visitor.get() == {"user": "ada", "n": 2}


@pytest.mark.parametrize("where", ["home", "everywhere"])
def test_row_26_a_session_that_was_evicted_and_is_only_read_is_stored_again(cluster: Cluster, where: str) -> None:
    worker = cluster.sticky_worker("w1", is_direct=True, max_inactive=5)
    visitor = settled_visitor_on(cluster, "n1", worker, user="ada")
    for node in ("n1",) if where == "home" else cluster.servers:
        delete(cluster, node, visitor.cookie)

    def is_back() -> bool:
        assert visitor.get() == {"user": "ada"}
        return has_copy(cluster, "n1", visitor.cookie)

    wait_until(is_back)
    settle(worker)
    cluster.servers["n1"].kill()
    visitor.worker = cluster.sticky_worker("w2", is_direct=True, max_inactive=5)
    assert visitor.get() == {"user": "ada"}, "the backup is whole too"


# -- row 28


def test_row_28_a_flush_of_all_nodes_loses_no_session_that_lives_here(cluster: Cluster) -> None:
    worker = cluster.sticky_worker("w1", is_direct=True)
    visitors = [settled_visitor_on(cluster, node, worker, step=1) for node in cluster.servers]
    for node in cluster.servers:
        flush(cluster, node)
    for visitor in visitors:
        assert visitor.get() == {"step": 1}
        visitor.post(step=2)
    settle(worker)
    taker = cluster.sticky_worker("w2", is_direct=True)
    for visitor in visitors:
        visitor.worker = taker
        assert visitor.get() == {"step": 2}


def test_row_28_after_a_flush_a_worker_does_not_serve_what_another_has_replaced(cluster: Cluster) -> None:
    first, second = (cluster.sticky_worker(route, is_direct=True) for route in ("w1", "w2"))
    visitor = settled_visitor_on(cluster, "n2", first, step=1)
    visitor.worker = second
    visitor.post(step=2)
    settle(second)
    flush(cluster, "n2")
    visitor.worker = first
    assert visitor.get() == {"step": 2}
    visitor.post(step=3)
    settle(first)
    visitor.worker = second
    assert visitor.get() == {"step": 3}


# -- row 32


def test_row_32_a_node_that_flaps_fails_no_sticky_request_and_loses_no_write(cluster: Cluster) -> None:
    worker = cluster.sticky_worker("w1")
    visitors = [settled_visitor_on(cluster, node, worker, n=0) for node in cluster.servers]
    before, n = cluster.proxies["n2"].n_connections, 0
    for _ in range(5):
        cluster.proxies["n2"].refuse()
        for _ in range(5):
            n += 1
            for visitor in visitors:
                assert visitor.post(n=n).status == "queued"
        settle(worker)
        cluster.proxies["n2"].heal()
        time.sleep(0.1)
        for visitor in visitors:
            assert visitor.get() == {"n": n}
    wait_until(lambda: is_normal(worker))
    settle(worker)
    assert worker.statistics().node_failures > 0
    assert cluster.proxies["n2"].n_connections - before <= 20, "a few a second, however many requests"
    taker = cluster.sticky_worker("w2")
    for visitor in visitors:
        assert visitor.slowest_s < MARGIN_S
        visitor.worker = taker
        assert visitor.get() == {"n": n}


# -- row 52


@pytest.mark.parametrize("is_drained_first", [True, False])
def test_row_52_sticky_sessions_of_a_node_that_is_removed_move_and_are_found_under_their_old_ids(
    cluster: Cluster, is_drained_first: bool
) -> None:
    worker = cluster.sticky_worker("w1", is_direct=True)
    visitors = [settled_visitor_on(cluster, "n3", worker, n=n) for n in range(5)]
    old_cookies = [visitor.cookie for visitor in visitors]
    if is_drained_first:
        worker.drain("n3")
        for visitor in visitors:
            visitor.post(drained=True)
        settle(worker)
    nodes = ",".join(f"{name}:{cluster.servers[name].address}" for name in ("n1", "n2"))
    worker.set_nodes(nodes)
    cluster.servers["n3"].kill()
    taker = cluster.worker_on(nodes, sticky=True, route="w2")
    for n, (visitor, old) in enumerate(zip(visitors, old_cookies, strict=True)):
        visitor.cookie = old
        visitor.post(last=True)
        assert home_of(visitor.cookie) in ("n1", "n2")
        settle(worker)
        visitor.worker = taker
        assert visitor.get() == {"n": n, "last": True, **({"drained": True} if is_drained_first else {})}
    assert worker.statistics().node_failures == 0
