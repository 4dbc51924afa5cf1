"""Nodes that are killed, restarted or emptied, while sessions have a backup.

Rows 2, 3, 8, 10, 27, 28, 29, 30 and 31 of the fault matrix. A refused connection is a killed process's, so the
workers of these tests reach the servers directly.
"""

from __future__ import annotations

import pytest

from msm_fast import DistributionState, SessionManager
from msm_fast.engine.topology import Topology
from tests.adversity.conftest import Cluster, home_of, is_normal, key_of
from tests.adversity.items import delete, flush, has_copy
from tests.adversity.visitor import wait_until
from tests.timeouts import HURRIED

pytestmark = pytest.mark.memcached


def rank(worker: SessionManager, cookie: str | None) -> list[str]:
    """Return all nodes in the order in which a session prefers them."""
    return Topology(worker.settings.nodes).ranked(key_of(cookie), lambda node: True)


@pytest.mark.parametrize("is_fresh", [True, False], ids=["a_fresh_worker", "a_worker_with_open_connections"])
def test_row_02_a_node_that_refuses_is_read_from_its_backup_and_the_id_names_another(
    cluster: Cluster, is_fresh: bool
) -> None:
    writer = cluster.worker(is_direct=True)
    visitor = cluster.visitor_at_home_on("n1", writer, cart=["apple"])
    old = visitor.cookie
    visitor.worker = cluster.worker(is_direct=True) if is_fresh else writer
    cluster.servers["n1"].kill()
    assert visitor.get() == {"cart": ["apple"]}
    assert key_of(visitor.cookie) == key_of(old)
    assert home_of(visitor.cookie) == next(n for n in rank(writer, old) if n != "n1")
    assert visitor.worker.distribution.state is DistributionState.DEGRADED


def test_row_03_a_save_whose_node_refuses_is_stored_on_the_next_two_ranks(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True)
    visitor = cluster.visitor_at_home_on("n2", worker, step=1)
    result = visitor.post_after_load(cluster.servers["n2"].kill, step=2)
    assert result.status == "stored"
    assert [result.node, *result.backups] == [n for n in rank(worker, visitor.cookie) if n != "n2"]
    assert worker.distribution.state is DistributionState.DEGRADED
    visitor.worker = cluster.worker(is_direct=True)
    assert visitor.get() == {"step": 2}


def test_row_03_an_acknowledged_save_survives_the_loss_of_any_one_node(cluster: Cluster) -> None:
    writer = cluster.worker(is_direct=True)
    visitors = [cluster.visitor(writer) for _ in range(12)]
    for victim, server in cluster.servers.items():
        for visitor in visitors:
            assert visitor.post(last=victim).status == "stored"
        server.kill()
        reader = cluster.worker(is_direct=True)
        for visitor in visitors:
            visitor.worker = reader
            assert visitor.get() == {"last": victim}
            visitor.worker = writer
        server.start()
        wait_until(lambda: is_normal(writer))


def test_row_08_a_write_that_a_paused_node_carries_out_later_loses_against_the_newer_copy(cluster: Cluster) -> None:
    worker, neighbour = (
        cluster.worker(is_direct=True, timeouts=HURRIED),
        cluster.worker(is_direct=True, timeouts=HURRIED),
    )
    visitor = cluster.visitor_at_home_on("n1", worker, step=1)
    visitor.get()
    old_cookie = visitor.cookie
    visitor.post_after_load(cluster.servers["n1"].pause, step=2)
    assert home_of(visitor.cookie) != "n1"
    visitor.post(step=3)
    cluster.servers["n1"].resume()
    visitor.worker = neighbour
    assert visitor.get() == {"step": 3}
    visitor.worker = worker
    wait_until(lambda: is_normal(worker))
    visitor.cookie = old_cookie  # a second tab that missed the new one
    assert visitor.get() == {"step": 3}
    visitor.post(step=4)
    for reader in (worker, neighbour):
        visitor.worker = reader
        assert visitor.get() == {"step": 4}


def test_row_10_a_node_that_was_killed_and_restarted_between_requests_fails_none(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True)
    visitors = [cluster.visitor_at_home_on("n3", worker, n=n) for n in range(3)]
    cluster.servers["n3"].kill()
    cluster.servers["n3"].start()
    for n, visitor in enumerate(visitors):
        assert visitor.get() == {"n": n}
        assert home_of(visitor.cookie) == "n3"
    assert worker.statistics().node_failures == 0


def test_row_27_a_session_evicted_from_its_node_is_read_from_the_backup_and_put_back(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True)
    visitor = cluster.visitor_at_home_on("n1", worker, user="ada")
    delete(cluster, "n1", visitor.cookie)
    assert visitor.get() == {"user": "ada"}
    assert home_of(visitor.cookie) == "n1"
    assert has_copy(cluster, "n1", visitor.cookie)


def test_row_27_a_session_evicted_everywhere_is_over_and_no_save_brings_it_back(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True)
    visitor = cluster.visitor_at_home_on("n1", worker, user="ada")
    old = visitor.cookie

    def evict() -> None:
        for node in cluster.servers:
            delete(cluster, node, old)

    assert visitor.post_after_load(evict, user="still ada").status == "invalidated"
    assert visitor.get() == {}
    assert visitor.cookie != old


def test_row_28_a_flush_of_one_node_loses_no_session_and_no_save_under_way(cluster: Cluster) -> None:
    worker, neighbour = cluster.worker(is_direct=True), cluster.worker(is_direct=True)
    visitor = cluster.visitor_at_home_on("n2", worker, step=1)
    flush(cluster, "n2")
    assert visitor.get() == {"step": 1}
    visitor.post_after_load(lambda: flush(cluster, "n2"), step=2)
    for reader in (neighbour, worker):
        visitor.worker = reader
        assert visitor.get() == {"step": 2}


def test_row_29_cas_values_that_a_restarted_node_gives_again_are_not_taken_for_the_old_ones(cluster: Cluster) -> None:
    worker, neighbour = cluster.worker(is_direct=True), cluster.worker(is_direct=True)
    visitor = cluster.visitor_at_home_on("n1", worker, step=1)
    cluster.servers["n1"].kill()
    cluster.servers["n1"].start()
    visitor.worker = neighbour
    for step in range(2, 8):  # with each of them the new node's counter passes a value of the old one's
        visitor.post(**{f"step{step}": step})
        visitor.worker = worker if visitor.worker is neighbour else neighbour
    assert visitor.get() == {"step": 1, **{f"step{step}": step for step in range(2, 8)}}


def test_row_30_a_node_that_restarts_empty_gets_the_copy_that_is_newer(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True)
    visitor = cluster.visitor_at_home_on("n1", worker, step=1)
    visitor.post(step=2)
    cluster.servers["n1"].kill()
    cluster.servers["n1"].start()
    visitor.worker = cluster.worker(is_direct=True)
    assert visitor.get() == {"step": 2}
    assert visitor.worker.statistics().repaired == 1
    backup = visitor.result.backups[0]
    assert has_copy(cluster, "n1", visitor.cookie)
    cluster.servers[backup].kill()
    assert visitor.get() == {"step": 2}


def test_row_31_a_node_that_comes_back_with_old_data_does_not_serve_it(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True, timeouts=HURRIED)
    visitors = [cluster.visitor_at_home_on("n1", worker, step=1) for _ in range(4)]
    old_cookies = [visitor.cookie for visitor in visitors]
    cluster.servers["n1"].pause()
    for visitor in visitors:
        visitor.post(step=2)
    assert not worker.nodes()[0].is_up
    cluster.servers["n1"].resume()
    wait_until(lambda: is_normal(worker))
    for visitor, old in zip(visitors, old_cookies, strict=True):
        assert visitor.get() == {"step": 2}
        visitor.cookie = old
        assert visitor.get() == {"step": 2}


def test_row_31_a_session_that_ended_while_a_node_was_away_stays_ended_when_it_is_back(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True, timeouts=HURRIED)
    visitor = cluster.visitor_at_home_on("n1", worker, user="ada")
    old = visitor.cookie
    cluster.servers["n1"].pause()
    assert visitor.log_out().status == "invalidated"
    cluster.servers["n1"].resume()
    wait_until(lambda: is_normal(worker))
    for reader in (worker, cluster.worker(is_direct=True, timeouts=HURRIED)):
        visitor.worker, visitor.cookie = reader, old
        assert visitor.get() == {}
        assert visitor.cookie != old
