"""What becomes of sticky sessions when nodes fail under them.

The sticky halves of rows 1, 4, 7, 10, 12, 13, 15, 23, 26, 28, 33 and 35 of the fault matrix. A live session costs no
round trip, so no node can keep its requests waiting; what they write arrives when it can.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pymemcache.exceptions import MemcacheServerError

from msm_fast import Breaker, DistributionState, Reconnect, SessionManager
from tests.adversity.conftest import HURRIED, Cluster, home_of, key_of
from tests.adversity.proxy import Faults, is_store
from tests.adversity.test_node_loss import delete, flush, has_copy
from tests.adversity.visitor import Visitor, wait_until

pytestmark = pytest.mark.memcached

AT_ONCE_S = 0.05
REPLAY = Reconnect(first=0.1, cap=0.2, on_reconnect="replay")


def settle(worker: SessionManager) -> None:
    """Wait until all is written that requests left behind."""
    wait_until(lambda: len(worker._ctx.behind) == 0)


def knows_of(worker: SessionManager, *gone: str) -> Callable[[], bool]:
    return lambda: all(not node.is_up for node in worker.nodes() if node.node_id in gone)


def n_copies(cluster: Cluster, cookie: str | None) -> int:
    return sum(has_copy(cluster, node, cookie) for node in cluster.servers)


def seen_by_another(cluster: Cluster, visitor: Visitor) -> dict[str, object]:
    """Return what a worker that has never seen the session finds in the cluster."""
    other = cluster.visitor(cluster.worker(is_direct=True))
    other.cookie = visitor.cookie
    return other.get()


@pytest.fixture(params=["async", "sync"])
def backup(request: pytest.FixtureRequest) -> str:
    mode: str = request.param
    return mode


def test_row_01_a_node_that_refuses_is_not_noticed_by_a_reader_and_the_next_write_moves_the_session(
    cluster: Cluster, backup: str
) -> None:
    worker = cluster.worker(is_direct=True, sticky=True, backup=backup)
    visitor = cluster.visitor_at_home_on("n1", worker, cart=["apple"])
    settle(worker)
    cluster.servers["n1"].kill()
    assert visitor.get() == {"cart": ["apple"]}
    assert home_of(visitor.cookie) == "n1"
    visitor.post(cart=["apple", "pear"])
    settle(worker)
    assert visitor.get() == {"cart": ["apple", "pear"]}
    assert home_of(visitor.cookie) != "n1"
    assert n_copies_of_living(cluster, "n1", visitor) == 2
    assert worker.distribution.state is DistributionState.DEGRADED


def n_copies_of_living(cluster: Cluster, dead: str, visitor: Visitor) -> int:
    return sum(has_copy(cluster, node, visitor.cookie) for node in cluster.servers if node != dead)


@pytest.mark.parametrize("how", ["hangs", "drips"])
def test_row_04_07_15_a_node_that_hangs_or_drips_keeps_no_request_of_a_live_session_waiting(
    cluster: Cluster, how: str
) -> None:
    worker = cluster.worker(sticky=True, timeouts=HURRIED, reconnect=Reconnect(first=60))
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    settle(worker)
    visitor.slowest_s = 0.0
    if how == "drips":
        cluster.proxies["n1"].replies = Faults(slice_bytes=1, slice_s=0.1)
    else:
        cluster.proxies["n1"].black_hole()
    for n in range(1, 20):
        visitor.post(n=n)
        assert visitor.get()["n"] == n
    assert visitor.slowest_s < AT_ONCE_S
    settle(worker)
    assert seen_by_another(cluster, visitor) == {"n": 19}


def test_row_07_writes_that_a_node_does_not_answer_give_it_up_after_three(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True, sticky=True, timeouts=HURRIED, reconnect=Reconnect(first=60))
    visitors = [cluster.visitor_at_home_on("n1", worker, n=n) for n in range(5)]
    settle(worker)
    cluster.servers["n1"].pause()
    for visitor in visitors:
        visitor.post(page=1)
    settle(worker)
    assert worker.statistics().node_failures == Breaker().timeouts
    assert [n_copies_of_living(cluster, "n1", visitor) for visitor in visitors] == [2] * 5


def test_row_10_a_node_that_was_killed_and_is_back_loses_no_write(cluster: Cluster, backup: str) -> None:
    worker = cluster.worker(is_direct=True, sticky=True, backup=backup)
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    settle(worker)
    cluster.servers["n1"].kill()
    cluster.servers["n1"].start()
    visitor.post(n=1)
    settle(worker)
    assert seen_by_another(cluster, visitor) == {"n": 1}
    assert n_copies(cluster, visitor.cookie) == 2


@pytest.mark.parametrize("is_cut", [True, False], ids=["in_the_midst_of_it", "before_its_answer"])
def test_row_12_13_a_write_that_was_broken_off_is_done_again(cluster: Cluster, is_cut: bool) -> None:
    worker = cluster.worker(sticky=True)
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    settle(worker)
    if is_cut:
        cluster.proxies["n1"].requests = Faults(only=is_store, cuts_after=100)
    else:
        cluster.proxies["n1"].replies = Faults(resets=1)
    visitor.post(n=1, text="x" * 2000)
    wait_until(lambda: worker.statistics().node_failures + worker.statistics().retries > 0)
    cluster.proxies["n1"].heal()
    settle(worker)
    assert seen_by_another(cluster, visitor)["n"] == 1
    assert worker.statistics().conflicts == 0


@pytest.mark.parametrize("is_written", [False, True], ids=["only_read", "written"])
def test_row_26_a_session_that_was_evicted_is_put_back_from_memory(cluster: Cluster, is_written: bool) -> None:
    worker = cluster.worker(is_direct=True, sticky=True, max_inactive=10)
    visitor = cluster.visitor_at_home_on("n1", worker, cart=["apple"])
    settle(worker)
    for node in cluster.servers:
        delete(cluster, node, visitor.cookie)

    def is_back() -> bool:
        if is_written:
            visitor.post(page=1)
        assert visitor.get()["cart"] == ["apple"]
        return n_copies(cluster, visitor.cookie) == 2

    wait_until(is_back)
    settle(worker)
    assert seen_by_another(cluster, visitor)["cart"] == ["apple"]


def test_row_28_a_node_that_was_flushed_gets_its_sessions_back(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True, sticky=True, max_inactive=10)
    visitors = [cluster.visitor_at_home_on("n1", worker, n=n) for n in range(5)]
    settle(worker)
    flush(cluster, "n1")

    def are_back() -> bool:
        assert [visitor.get()["n"] for visitor in visitors] == list(range(5))
        return all(has_copy(cluster, "n1", visitor.cookie) for visitor in visitors)

    wait_until(are_back)


def fill(cluster: Cluster, node: str) -> None:
    """Store what nobody needs until the node takes no more."""
    with cluster.servers[node].client() as client:
        for n in range(1000):
            try:
                client.set(f"filler{n}", b"x" * 500_000, noreply=False)
            except MemcacheServerError:
                return
    raise AssertionError("the node has no limit")


def test_row_23_a_node_without_memory_costs_no_write(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster("-M", "-m", "64")
    worker = cluster.worker(is_direct=True, sticky=True)
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    settle(worker)
    fill(cluster, "n1")
    visitor.post(text="x" * 400_000)
    settle(worker)
    assert len(str(seen_by_another(cluster, visitor)["text"])) == 400_000


@pytest.mark.parametrize("lose", [pytest.param("kill", id="all_refuse"), pytest.param("pause", id="all_hang")])
def test_row_33_35_with_every_node_gone_requests_see_each_other_and_are_stored_when_one_is_back(
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
