"""Servers that refuse: too little memory, too small items, too many connections, a password; and lifetimes at the edge.

Rows 23, 24, 25, 49 and 51 of the fault matrix.
"""

from __future__ import annotations

import itertools
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheServerError

from msm_fast import ConfigurationError, DistributionState, Event, Reconnect, SessionManager, SessionTooLarge
from tests.adversity.conftest import Cluster, home_of, key_of, settle
from tests.adversity.proxy import FaultProxy, Faults
from tests.adversity.visitor import wait_until
from tests.memcached import Memcached

pytestmark = pytest.mark.memcached

MakeCluster = Callable[..., Cluster]


def nodes_with(cluster: Cluster, **others: Memcached | FaultProxy) -> str:
    """Return the cluster's nodes, with some of them replaced."""
    return ",".join(f"{name}:{end.address}" for name, end in {**cluster.servers, **others}.items())


@pytest.fixture
def password_file() -> Iterator[str]:
    """A file of memcached's -Y in a folder that any user may read: the server gives up root before it reads it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "users")
        path.write_text("user:password\n")
        yield str(path)


def fill(server: Memcached) -> None:
    """Use up the server's memory, so that it takes no more of any size."""
    with server.client() as client:
        for size in (500_000, 50_000, 5_000, 500, 100, 60, 16):
            with pytest.raises(MemcacheServerError, match="out of memory"):
                _store_for_ever(client, size)


def _store_for_ever(client: Client, size: int) -> None:
    for n in itertools.count():
        client.set(f"fill{size}-{n}", b"x" * size)


@pytest.fixture
def full_server() -> Iterator[Memcached]:
    """A server that says that it is out of memory rather than to evict anything."""
    server = Memcached("-M", "-m", "8")
    yield server
    server.stop()


def test_row_23_a_node_out_of_memory_holds_no_copy_and_the_others_do(cluster: Cluster, full_server: Memcached) -> None:
    nodes = nodes_with(cluster, n1=full_server)
    worker = cluster.worker_on(nodes)
    visitors = [cluster.visitor_at_home_on("n1", worker, step=1) for _ in range(3)]
    fill(full_server)
    for visitor in visitors:
        large = "x" * 5000
        result = visitor.post(large=large)
        assert result.status == "stored"
        assert {result.node, *result.backups} == {"n2", "n3"}
        for reader in (worker, cluster.worker_on(nodes)):
            visitor.worker = reader
            assert visitor.get() == {"step": 1, "large": large}


def test_row_23_a_sticky_session_whose_node_is_out_of_memory_is_written_to_the_others(
    cluster: Cluster, full_server: Memcached
) -> None:
    nodes = nodes_with(cluster, n1=full_server)
    worker = cluster.worker_on(nodes, sticky=True, route="w1")
    visitor = cluster.visitor_at_home_on("n1", worker, step=1)
    settle(worker)
    fill(full_server)
    visitor.post(large="x" * 5000)
    settle(worker)
    assert visitor.get() == {"step": 1, "large": "x" * 5000}
    visitor.worker = cluster.worker_on(nodes, sticky=True, route="w2")
    assert visitor.get() == {"step": 1, "large": "x" * 5000}


def test_row_23_a_backup_out_of_memory_is_replaced_by_the_third_node(cluster: Cluster, full_server: Memcached) -> None:
    worker = cluster.worker_on(nodes_with(cluster, n2=full_server))
    visitors = [cluster.visitor_at_home_on("n1", worker, step=1) for _ in range(6)]
    fill(full_server)
    for visitor in visitors:
        result = visitor.post(large="x" * 5000)
        assert (result.node, result.backups) == ("n1", ("n3",))
    cluster.servers["n1"].kill()
    for visitor in visitors:
        assert len(str(visitor.get()["large"])) == 5000


def test_row_23_a_node_out_of_memory_for_locks_keeps_nobody_waiting_for_one(
    cluster: Cluster, full_server: Memcached
) -> None:
    events: list[Event] = []
    worker = cluster.worker_on(nodes_with(cluster, n1=full_server), locking="all")
    worker.subscribe(events.append)
    visitor = cluster.visitor_at_home_on("n1", worker, user="ada")
    fill(full_server)
    assert visitor.get() == {"user": "ada"}
    assert visitor.post(step=1).status == "stored"
    assert visitor.get() == {"user": "ada", "step": 1}
    assert worker.statistics().lock_waits == 0
    (refused,) = [event for event in events if event.kind == "refused"]
    assert refused.node == "n1"
    assert "cannot store a lock (out of memory" in refused.detail


def test_row_23_new_connections_find_a_node_out_of_memory_in_the_life_that_it_is_in(
    cluster: Cluster, full_server: Memcached
) -> None:
    nodes = nodes_with(cluster, n1=full_server)
    first = cluster.worker_on(nodes)
    visitor = cluster.visitor_at_home_on("n1", first, user="ada")
    fill(full_server)
    with full_server.client() as client:
        token = client.get("msm_fast:life:")
        assert token is not None
        for _ in range(3):
            visitor.worker = cluster.worker_on(nodes)
            assert visitor.get() == {"user": "ada"}
            assert client.get("msm_fast:life:") == token


def test_row_24_a_session_over_the_nodes_own_item_limit_is_refused_before_it_is_sent(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("-I", "512k")
    worker = cluster.worker(is_direct=True)
    visitor = cluster.visitor_at_home_on("n1", worker, user="ada")
    with pytest.raises(SessionTooLarge) as refused:
        visitor.post(large="x" * 600_000)
    assert refused.value.limit <= 512 * 1024
    visitor.worker = cluster.worker(is_direct=True)
    assert visitor.get() == {"user": "ada"}
    for node in {home_of(visitor.cookie), *visitor.result.backups}:
        with cluster.servers[node].client() as client:
            assert client.get(key_of(visitor.cookie)) is not None


def test_row_24_the_limit_is_learned_by_the_first_request_even_if_that_makes_the_session(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("-I", "512k")
    visitor = cluster.visitor(cluster.worker(is_direct=True))
    with pytest.raises(SessionTooLarge):
        visitor.post(large="x" * 600_000)


def test_row_24_the_largest_session_that_is_accepted_is_one_that_every_node_takes(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("-I", "512k")
    visitor = cluster.visitor_at_home_on("n1", cluster.worker(is_direct=True, key_prefix="p" * 80), user="ada")
    overhead = 2000
    for spare in range(overhead, 0, -100):
        try:
            result = visitor.post(large="x" * (512 * 1024 - spare))
        except SessionTooLarge:
            return
        assert (result.status, result.node, len(result.backups)) == ("stored", "n1", 1)
    raise AssertionError("a session as large as the limit itself was accepted")


def test_row_24_a_session_over_the_default_limit_is_refused_before_it_is_sent(cluster: Cluster) -> None:
    visitor = cluster.visitor_at_home_on("n1", cluster.worker(is_direct=True), user="ada")
    with pytest.raises(SessionTooLarge):
        visitor.post(large="x" * 1_100_000)
    visitor.worker = cluster.worker(is_direct=True)
    assert visitor.get() == {"user": "ada"}


def test_row_24_a_sticky_session_over_the_limit_is_refused_in_its_request_and_the_old_copy_lives(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("-I", "512k")
    worker = cluster.sticky_worker("w1", is_direct=True)
    visitor = cluster.visitor_at_home_on("n1", worker, user="ada")
    settle(worker)
    with pytest.raises(SessionTooLarge):
        visitor.post(large="x" * 600_000)
    visitor.worker = cluster.sticky_worker("w2", is_direct=True)
    assert visitor.get() == {"user": "ada"}


def test_row_24_a_sticky_session_over_the_limit_can_stay_here_while_others_are_distributed(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("-I", "512k")
    worker = cluster.sticky_worker("w1", is_direct=True, on_unserializable="local_session")
    large = cluster.visitor(worker)
    large.post(large="x" * 600_000)  # before any node has told its limit: it is found out behind the request
    settle(worker)
    assert large.get() == {"large": "x" * 600_000}
    assert large.post(n=1).status == "local"
    other = cluster.visitor_at_home_on("n1", worker, user="ada")
    settle(worker)
    other.worker = cluster.sticky_worker("w2", is_direct=True)
    assert other.get() == {"user": "ada"}


@pytest.mark.parametrize("answer", [b"ERROR\r\n", b"CLIENT_ERROR no\r\n", b"SERVER_ERROR no\r\n", b"END\r\n"])
def test_row_24_a_server_that_does_not_tell_its_limit_is_taken_to_have_the_default(
    cluster: Cluster, answer: bytes
) -> None:
    for proxy in cluster.proxies.values():
        proxy.replies = Faults(only=lambda data: data.startswith(b"STAT "), edit=lambda data: answer)
    visitor = cluster.visitor_at_home_on("n1", cluster.worker(), user="ada")
    assert visitor.post(large="x" * 1_000_000).status == "stored"
    with pytest.raises(SessionTooLarge):
        visitor.post(large="x" * 1_100_000)


DAY_S = 24 * 3600


@pytest.mark.parametrize(
    "max_inactive",
    [30 * DAY_S - 1, 30 * DAY_S, 30 * DAY_S + 1, 31 * DAY_S, 365 * DAY_S, 100 * 365 * DAY_S, 2**32 - 1, None],
)
def test_row_25_a_very_long_lifetime_does_not_end_at_once(cluster: Cluster, max_inactive: float | None) -> None:
    worker = cluster.worker(is_direct=True, max_inactive=max_inactive)
    visitor = cluster.visitor(worker)
    visitor.post(user="ada")
    for reader in (worker, cluster.worker(is_direct=True, max_inactive=max_inactive)):
        visitor.worker = reader
        assert visitor.get() == {"user": "ada"}
        assert visitor.post(seen=True).status in ("stored", "unchanged")
        assert visitor.get() == {"user": "ada", "seen": True}
        with reader.request(visitor.cookie, "POST") as session:
            del session["seen"]


@pytest.mark.parametrize("max_inactive", [30 * DAY_S + 1, 2**32 - 1, None])
def test_row_25_a_very_long_lifetime_does_not_end_a_sticky_session_at_once(
    cluster: Cluster, max_inactive: float | None
) -> None:
    worker = cluster.sticky_worker("w1", is_direct=True, max_inactive=max_inactive)
    visitor = cluster.visitor(worker)
    visitor.post(user="ada")
    settle(worker)
    assert visitor.get() == {"user": "ada"}
    visitor.worker = cluster.sticky_worker("w2", is_direct=True, max_inactive=max_inactive)
    assert visitor.get() == {"user": "ada"}


def test_row_25_a_lifetime_of_a_second_is_one_to_three(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True, max_inactive=1)
    visitor = cluster.visitor(worker)
    visitor.post(user="ada")
    assert visitor.get() == {"user": "ada"}
    time.sleep(3.2)
    assert visitor.get() == {}


@pytest.mark.parametrize("max_inactive", [-1, 0, 0.5, float("nan"), float("inf"), 2**32])
def test_row_25_a_lifetime_that_memcached_would_misread_is_no_setting(max_inactive: float) -> None:
    with pytest.raises(ConfigurationError, match="max_inactive"):
        SessionManager(max_inactive=max_inactive)


@pytest.mark.parametrize("is_sticky", [False, True], ids=["non_sticky", "sticky"])
def test_a_server_without_cas_values_is_told_once_and_left_alone(cluster: Cluster, is_sticky: bool) -> None:
    unable = Memcached("-C")
    events: list[Event] = []
    try:
        mode = {"sticky": is_sticky, "backup": "sync"}
        worker = cluster.worker_on(nodes_with(cluster, n1=unable), reconnect=Reconnect(first=60), **mode)
        worker.subscribe(events.append)
        visitors = [cluster.visitor(worker) for _ in range(20)]
        for n, visitor in enumerate(visitors):
            assert visitor.post(n=n).status == "stored"
            assert visitor.post(changed=True).status == "stored"
            assert visitor.get() == {"n": n, "changed": True}
    finally:
        unable.stop()
    assert [event.node for event in events if event.kind == "node_down"] == ["n1"]
    assert "without -C" in worker.nodes()[0].last_failure


@pytest.mark.parametrize("is_sticky", [False, True], ids=["non_sticky", "sticky"])
def test_row_49_a_server_that_wants_a_password_is_told_once_and_left_alone(
    cluster: Cluster, password_file: str, is_sticky: bool
) -> None:
    guarded = Memcached("-Y", password_file)
    proxy = FaultProxy(guarded.port)
    events: list[Event] = []
    try:
        mode = {"sticky": is_sticky, "backup": "sync"}
        worker = cluster.worker_on(nodes_with(cluster, n1=proxy), reconnect=Reconnect(first=60), **mode)
        worker.subscribe(events.append)
        visitors = [cluster.visitor(worker) for _ in range(20)]
        for n, visitor in enumerate(visitors):
            assert visitor.post(n=n).status == "stored"
            assert visitor.get() == {"n": n}
        assert proxy.n_connections == 1
    finally:
        proxy.close()
        guarded.stop()
    assert [event.node for event in events if event.kind == "node_down"] == ["n1"]
    assert "password" in worker.nodes()[0].last_failure


def test_row_51_a_server_with_too_many_connections_is_not_stormed_by_what_is_written_behind(cluster: Cluster) -> None:
    busy = Memcached("-c", "20", "-t", "1")
    proxy = FaultProxy(busy.port)
    held = [socket.create_connection(("127.0.0.1", busy.port)) for _ in range(30)]
    try:
        worker = cluster.worker_on(nodes_with(cluster, n1=proxy), sticky=True, reconnect=Reconnect(first=60))
        visitors = [cluster.visitor(worker) for _ in range(30)]
        for n, visitor in enumerate(visitors):
            assert visitor.post(n=n).status == "queued"
        settle(worker)
        for n, visitor in enumerate(visitors):
            assert visitor.get() == {"n": n}
            assert home_of(visitor.cookie) != "n1"
        assert worker.distribution.state is DistributionState.DEGRADED
        assert proxy.n_connections <= 2
    finally:
        for sock in held:
            sock.close()
        proxy.close()
        busy.stop()


def test_row_51_a_server_with_too_many_connections_is_overloaded_and_not_stormed(cluster: Cluster) -> None:
    busy = Memcached("-c", "20", "-t", "1")
    proxy = FaultProxy(busy.port)
    held = [socket.create_connection(("127.0.0.1", busy.port)) for _ in range(30)]
    try:
        worker = cluster.worker_on(nodes_with(cluster, n1=proxy))
        visitors = [cluster.visitor(worker) for _ in range(30)]
        for n, visitor in enumerate(visitors):
            assert visitor.post(n=n).status == "stored"
            assert visitor.get() == {"n": n}
            assert home_of(visitor.cookie) != "n1"
        assert worker.distribution.state is DistributionState.DEGRADED
        assert "too many connections" in worker.nodes()[0].last_failure
        time.sleep(1)
        assert proxy.n_connections <= 12  # one, and a probe every 0.1 to 0.3 seconds
        for sock in held:
            sock.close()
        wait_until(lambda: worker.distribution.state is DistributionState.DISTRIBUTED, timeout_s=1.5)
    finally:
        for sock in held:
            sock.close()
        proxy.close()
        busy.stop()


@pytest.mark.parametrize("manager_class", [SessionManager], ids=["threads"])
def test_row_51_a_worker_with_more_threads_than_a_server_has_connections_for_shares_those_that_it_has(
    cluster: Cluster,
) -> None:
    busy = Memcached("-c", "20", "-t", "1")  # eight are left for clients
    proxy = FaultProxy(busy.port)
    events: list[Event] = []
    try:
        worker = cluster.worker_on(nodes_with(cluster, n1=proxy))
        worker.subscribe(events.append)
        visitors = [cluster.visitor_at_home_on("n1", worker, n=0) for _ in range(30)]
        proxy.replies = Faults(delay_s=0.01)
        with ThreadPoolExecutor(30) as threads:
            for n in range(1, 6):
                saved = list(threads.map(lambda visitor, n=n: visitor.post(n=n).status, visitors))
                assert saved == ["stored"] * 30
        assert [visitor.get() for visitor in visitors] == [{"n": 5}] * 30
        assert {home_of(visitor.cookie) for visitor in visitors} == {"n1"}
        assert 8 < proxy.n_connections < 60, "some were refused, and not each request asked for one"
    finally:
        proxy.close()
        busy.stop()
    assert [event.kind for event in events] == []
    assert worker.statistics().node_failures == 0
