"""Sticky sessions whose nodes all go away and come back, some of them empty. Rows 33 and 40 of the fault matrix."""

from __future__ import annotations

import threading

import pytest

from msm_fast import DistributionState, Reconnect, SessionManager
from tests.adversity.conftest import Cluster, key_of
from tests.adversity.visitor import Visitor, wait_until
from tests.timeouts import HURRIED

pytestmark = pytest.mark.memcached

AT_ONCE_S = 0.05
REPLAY = Reconnect(first=0.1, cap=0.2, on_reconnect="replay")


def settle(worker: SessionManager) -> None:
    """Wait until all is written that requests left behind."""
    wait_until(lambda: len(worker._ctx.behind) == 0)


def seen_by_another(cluster: Cluster, visitor: Visitor) -> dict[str, object]:
    """Return what a worker that has never seen the session finds in the cluster."""
    other = cluster.visitor(cluster.worker(is_direct=True))
    other.cookie = visitor.cookie
    return other.get()


@pytest.mark.parametrize("lose", [pytest.param("kill", id="all_refuse"), pytest.param("pause", id="all_hang")])
def test_row_33_with_every_node_gone_requests_see_each_other_and_are_stored_when_one_is_back(
    cluster: Cluster, lose: str
) -> None:
    worker = cluster.worker(is_direct=True, sticky=True, on_cluster_lost="local", timeouts=HURRIED, reconnect=REPLAY)
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    settle(worker)
    visitor.slowest_s = 0.0
    for server in cluster.servers.values():
        getattr(server, lose)()
    for n in range(1, 30):
        visitor.post(n=n)
        assert visitor.get() == {"n": n}
    assert visitor.slowest_s < AT_ONCE_S
    wait_until(lambda: worker.distribution.state is DistributionState.LOCAL)
    new = cluster.visitor(worker)
    new.post(user="new")
    assert new.get() == {"user": "new"}
    for server in cluster.servers.values():
        server.start() if lose == "kill" else server.resume()
    wait_until(lambda: worker.distribution.state is DistributionState.DISTRIBUTED)
    for each, expected in ((visitor, {"n": 29}), (new, {"user": "new"})):
        assert each.get() == expected
        settle(worker)
        assert seen_by_another(cluster, each) == expected
    assert key_of(visitor.cookie) != key_of(new.cookie)


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
    wait_until(lambda: worker.distribution.state is DistributionState.DISTRIBUTED)
    settle(worker)
    assert visitor.get() == {"n": 299}
    visitor.post(last=True)
    settle(worker)
    assert seen_by_another(cluster, visitor) == {"n": 299, "last": True}
