"""Every node is away, and comes back: what is kept on this host meanwhile, and what becomes of it.

Rows 33, 34, 36, 37, 38, 39 and 40 of the fault matrix, for sessions that are not sticky and for sticky ones.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from msm_fast import DistributionState, Event, NearCacheSettings, Reconnect, SessionManager
from tests.adversity.conftest import HURRIED, Cluster, home_of, key_of
from tests.adversity.test_node_loss import has_copy
from tests.adversity.test_sticky_faults import seen_by_another, settle
from tests.adversity.visitor import Visitor, wait_until

pytestmark = pytest.mark.memcached

AT_ONCE_S = 0.05
QUICK: dict[str, Any] = {"first": 0.1, "cap": 0.2}
DISCARD, REPLAY = Reconnect(**QUICK), Reconnect(**QUICK, on_reconnect="replay")


@pytest.fixture(params=[False, True], ids=["non-sticky", "sticky"])
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of either mode, serving from this host in an outage."""
    return {"is_direct": True, "on_cluster_lost": "local", "sticky": request.param}


def lose_all(cluster: Cluster, worker: SessionManager) -> None:
    """Kill every node, and let the worker know of it."""
    settle(worker)
    for server in cluster.servers.values():
        server.kill()
    while worker.distribution.state is not DistributionState.LOCAL:
        cluster.visitor(worker).post(user="the first to notice")


def heal_all(cluster: Cluster, worker: SessionManager) -> None:
    for server in cluster.servers.values():
        server.start()
    wait_until(lambda: is_normal(worker))


def is_normal(worker: SessionManager) -> bool:
    return worker.distribution.state is DistributionState.DISTRIBUTED


def hang_all(cluster: Cluster, *workers: SessionManager) -> None:
    """Let every node hang, with what it has, until the workers know of it."""
    for worker in workers:
        settle(worker)
    for server in cluster.servers.values():
        server.pause()
    for worker in workers:
        while worker.distribution.state is not DistributionState.LOCAL:
            cluster.visitor(worker).post(user="the first to notice")


def resume_all(cluster: Cluster, *workers: SessionManager) -> None:
    for server in cluster.servers.values():
        server.resume()
    for worker in workers:
        wait_until(lambda worker=worker: is_normal(worker))


def test_row_33_34_with_every_node_refusing_a_session_is_read_and_written_on_this_host(
    cluster: Cluster, mode: dict[str, Any]
) -> None:
    worker = cluster.worker(**mode, reconnect=Reconnect(first=60))
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    cookie = visitor.cookie
    lose_all(cluster, worker)
    visitor.slowest_s = 0.0
    for n in range(1, 20):
        visitor.post(n=n)
        assert visitor.get() == {"n": n}
    assert visitor.slowest_s < AT_ONCE_S
    assert visitor.cookie == cookie, "nobody is logged out"


@pytest.mark.parametrize("reconnect", [DISCARD, REPLAY], ids=["discard", "replay"])
def test_row_36_39_a_login_in_an_outage_has_an_id_without_a_node_and_is_kept_or_dropped_as_the_policy_says(
    cluster: Cluster, mode: dict[str, Any], reconnect: Reconnect
) -> None:
    worker = cluster.worker(**mode, reconnect=reconnect)
    told: list[Event] = []
    worker.subscribe(told.append)
    lose_all(cluster, worker)
    visitor = cluster.visitor(worker)
    assert visitor.post(user="ada").status == "local"
    given = key_of(visitor.cookie)
    assert visitor.cookie == given
    assert visitor.get() == {"user": "ada"}
    heal_all(cluster, worker)
    if reconnect is REPLAY:
        assert visitor.get() == {"user": "ada"}
        settle(worker)
        assert visitor.get() == {"user": "ada"}
        assert home_of(visitor.cookie) in cluster.servers
        assert key_of(visitor.cookie) == given
        assert seen_by_another(cluster, visitor) == {"user": "ada"}
    else:
        assert visitor.get() == {}
        assert [event.kind for event in told].count("reset") == 1


def test_row_37_a_logout_in_an_outage_holds_on_every_worker_after_it(cluster: Cluster, mode: dict[str, Any]) -> None:
    one, two = (cluster.worker(**mode, reconnect=REPLAY, timeouts=HURRIED) for _ in range(2))
    visitor = cluster.visitor_at_home_on("n1", one, user="ada")
    thief = cluster.visitor(two)
    thief.cookie = visitor.cookie
    hang_all(cluster, one, two)
    assert visitor.log_out().status == "invalidated"
    resume_all(cluster, one, two)
    for worker in (one, two, cluster.worker(is_direct=True)):
        thief.worker, before = worker, thief.cookie
        assert thief.get() == {}
        thief.cookie = before


def test_row_38_a_store_that_is_full_drops_what_was_used_least_and_says_so(
    cluster: Cluster, mode: dict[str, Any]
) -> None:
    worker = cluster.worker(**mode, reconnect=Reconnect(first=60), near_cache=NearCacheSettings(max_sessions=50))
    told: list[Event] = []
    worker.subscribe(told.append)
    lose_all(cluster, worker)
    visitors = [cluster.visitor(worker) for _ in range(200)]
    for n, visitor in enumerate(visitors):
        visitor.post(n=n)
    assert [visitor.get() for visitor in visitors[-40:]] == [{"n": n} for n in range(160, 200)]
    assert visitors[0].get() == {}
    assert len(worker._ctx.local) <= 50
    assert any(event.kind == "dropped" for event in told)


def test_row_39_what_the_nodes_have_is_used_again_within_the_probe_interval_and_a_second(
    cluster: Cluster, mode: dict[str, Any]
) -> None:
    worker = cluster.worker(**mode, reconnect=DISCARD, timeouts=HURRIED)
    visitor = cluster.visitor_at_home_on("n1", worker, n=1)
    hang_all(cluster, worker)
    visitor.post(n=2)
    assert visitor.get() == {"n": 2}
    for server in cluster.servers.values():
        server.resume()
    wait_until(lambda: is_normal(worker), timeout_s=QUICK["cap"] * 1.5 + 1)
    assert visitor.get() == {"n": 1}, "what was kept on this host is dropped"


def test_row_39_a_replay_goes_no_faster_than_it_may(cluster: Cluster) -> None:
    reconnect = Reconnect(**QUICK, on_reconnect="replay", replay_rate=50)
    worker = cluster.worker(is_direct=True, on_cluster_lost="local", reconnect=reconnect)
    lose_all(cluster, worker)
    visitors: list[Visitor] = [cluster.visitor(worker) for _ in range(25)]
    for n, visitor in enumerate(visitors):
        visitor.post(n=n)
    for server in cluster.servers.values():
        server.start()
    wait_until(lambda: worker.statistics().replayed > 0)
    interval = cluster._stopwatch.start()
    n_replayed = worker.statistics().replayed
    wait_until(lambda: is_normal(worker))
    assert interval.seconds() > 0.8 * (25 - n_replayed) / 50
    assert [visitor.get() for visitor in visitors] == [{"n": n} for n in range(25)]


def test_row_40_nodes_that_die_during_a_replay_lose_nothing(cluster: Cluster) -> None:
    reconnect = Reconnect(**QUICK, on_reconnect="replay", replay_rate=50)
    worker = cluster.worker(is_direct=True, on_cluster_lost="local", reconnect=reconnect, timeouts=HURRIED)
    lose_all(cluster, worker)
    visitors = [cluster.visitor(worker) for _ in range(25)]
    for n, visitor in enumerate(visitors):
        visitor.post(n=n)
    for server in cluster.servers.values():
        server.start()
    wait_until(lambda: worker.statistics().replayed > 5)
    for server in cluster.servers.values():
        server.pause()
    wait_until(lambda: worker.distribution.state is DistributionState.LOCAL)
    resume_all(cluster, worker)
    assert [visitor.get() for visitor in visitors] == [{"n": n} for n in range(25)]
    for visitor in visitors:
        assert sum(has_copy(cluster, node, visitor.cookie) for node in cluster.servers) >= 1


def test_row_40_sticky_sessions_outlive_nodes_that_come_and_go(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True, on_cluster_lost="local", reconnect=REPLAY, sticky=True)
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    is_over = threading.Event()

    def flap() -> None:
        while not is_over.wait(0.15):
            for server in cluster.servers.values():
                server.kill()
            is_over.wait(0.15)
            for server in cluster.servers.values():
                server.start()

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        for n in range(1, 300):
            visitor.post(n=n)
            assert visitor.get() == {"n": n}
            is_over.wait(0.005)
    finally:
        is_over.set()
        thread.join()
    wait_until(lambda: is_normal(worker))
    settle(worker)
    assert visitor.get() == {"n": 299}
    visitor.post(last=True)
    settle(worker)
    assert seen_by_another(cluster, visitor) == {"n": 299, "last": True}
