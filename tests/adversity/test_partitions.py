"""Clusters that are lost, flap, or look different to each worker; clocks that jump; nodes that are taken away.

Rows 32, 34, 41, 50 and 52 of the fault matrix, under on_cluster_lost="error".
"""

from __future__ import annotations

import itertools
import time

import pytest

from msm_fast import DistributionState, Event, SessionManager, SessionUnavailable
from tests.adversity.conftest import Cluster, home_of, is_normal, key_of
from tests.adversity.stopwatch import Stopwatch
from tests.adversity.visitor import Visitor, wait_until
from tests.timeouts import HURRIED

pytestmark = pytest.mark.memcached

AT_ONCE_S = 0.1


# -- row 32


def test_row_32_a_node_that_flaps_is_probed_one_at_a_time_and_fails_no_request(cluster: Cluster) -> None:
    worker = cluster.worker()
    events: list[Event] = []
    worker.subscribe(events.append)
    visitors = [cluster.visitor_at_home_on(node, worker, n=0) for node in cluster.servers]
    before = cluster.proxies["n2"].n_connections
    n = 0
    for _ in range(8):
        cluster.proxies["n2"].refuse()
        for _ in range(5):
            n += 1
            for visitor in visitors:
                assert visitor.post(n=n).status == "stored"
        cluster.proxies["n2"].heal()
        time.sleep(0.1)
        for visitor in visitors:
            assert visitor.get() == {"n": n}
    wait_until(lambda: is_normal(worker))
    for reader in (worker, cluster.worker()):
        for visitor in visitors:
            visitor.worker = reader
            assert visitor.get() == {"n": n}
    n_switches = sum(event.kind in ("node_down", "node_up") for event in events)
    assert {event.node for event in events if event.kind == "node_down"} == {"n2"}
    assert n_switches <= 16
    assert cluster.proxies["n2"].n_connections - before <= 16 + n_switches  # a few a second, however many requests


# -- row 34


@pytest.mark.parametrize("is_fresh", [True, False], ids=["a_fresh_worker", "a_worker_with_open_connections"])
def test_row_34_with_every_node_refusing_the_answer_is_unavailable_at_once_and_never_a_logout(
    cluster: Cluster, stopwatch: Stopwatch, is_fresh: bool
) -> None:
    writer = cluster.worker(is_direct=True)
    visitor = cluster.visitor_at_home_on("n1", writer, user="ada")
    cookie = visitor.cookie
    worker = visitor.worker = cluster.worker(is_direct=True) if is_fresh else writer
    for server in cluster.servers.values():
        server.kill()
    for _ in range(10):
        interval = stopwatch.start()
        with pytest.raises(SessionUnavailable):
            visitor.get()
        with pytest.raises(SessionUnavailable):
            visitor.post(user="ada")
        with pytest.raises(SessionUnavailable):
            visitor.log_out()
        assert interval.seconds() < AT_ONCE_S
    assert visitor.cookie == cookie
    assert worker.statistics().not_found == 0
    assert worker.distribution.state is DistributionState.LOCAL


def test_row_34_a_new_session_that_no_node_takes_is_an_error_not_a_success(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True)
    for server in cluster.servers.values():
        server.kill()
    with pytest.raises(SessionUnavailable):
        cluster.visitor(worker).post(user="ada")
    for server in cluster.servers.values():
        server.start()
    wait_until(lambda: is_normal(worker), timeout_s=1.5)
    visitor = cluster.visitor(worker)
    assert visitor.post(user="ada").status == "stored"
    assert visitor.get() == {"user": "ada"}


def test_row_34_a_request_that_needs_no_session_is_served_in_an_outage(cluster: Cluster) -> None:
    worker = cluster.worker(is_direct=True)
    for server in cluster.servers.values():
        server.kill()
    assert cluster.visitor(worker).get() == {}
    scope = worker.request("0" * 32 + "-n1")
    assert scope.save().status == "unchanged"


# -- row 41


def test_row_41_a_worker_that_cannot_reach_a_node_moves_the_session_and_the_other_follows(cluster: Cluster) -> None:
    cut_off, other = cluster.worker(timeouts=HURRIED), cluster.worker(is_direct=True)
    visitor = cluster.visitor_at_home_on("n1", cut_off, step=1)
    cluster.proxies["n1"].black_hole()
    visitor.post(step=2)
    assert home_of(visitor.cookie) != "n1"
    visitor.worker = other
    assert visitor.get() == {"step": 2}
    assert visitor.post(step=3).status == "stored"
    visitor.worker = cut_off
    assert visitor.get() == {"step": 3}


def test_row_41_two_workers_that_see_different_nodes_lose_none_of_each_others_changes(cluster: Cluster) -> None:
    cut_off, other = cluster.worker(timeouts=HURRIED), cluster.worker(is_direct=True)
    here = cluster.visitor_at_home_on("n1", cut_off, step=1)
    there = cluster.visitor(other)
    there.cookie = here.cookie  # the same user's second tab, which keeps the old id
    assert there.get() == {"step": 1}
    cluster.proxies["n1"].black_hole()
    here.post(here=True)
    there.post(there=True)
    assert there.get() == {"step": 1, "here": True, "there": True}
    assert here.get() == {"step": 1, "here": True, "there": True}
    cluster.proxies["n1"].heal()
    wait_until(lambda: is_normal(cut_off))
    here.post(healed=True)
    for visitor in (here, there):
        assert visitor.get() == {"step": 1, "here": True, "there": True, "healed": True}


# -- row 50


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
@pytest.mark.parametrize("max_inactive", [60, 40 * 24 * 3600], ids=["a_minute", "over_thirty_days"])
@pytest.mark.parametrize("is_sticky", [False, True], ids=["non_sticky", "sticky"])
def test_row_50_a_clock_that_is_an_hour_off_ends_no_session_and_no_timeout(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, jump_s: float, max_inactive: float, is_sticky: bool
) -> None:
    mode = {"is_direct": True, "max_inactive": max_inactive, "sticky": is_sticky, "backup": "sync"}
    right = cluster.worker(**mode, route="w1")
    jumping_s = [0.0]
    real_time = time.time
    monkeypatch.setattr(time, "time", lambda: real_time() + jumping_s[0])
    jumping = cluster.worker(**mode, route="w2", absolute_lifetime=8 * 3600)
    monkeypatch.undo()
    visitor = cluster.visitor(jumping)
    visitor.post(user="ada")
    jumping_s[0] = jump_s
    for reader in (jumping, right, jumping):
        visitor.worker = reader
        assert visitor.get() == {"user": "ada"}
        assert visitor.post(by=str(id(reader))).status == "stored"
        with reader.request(visitor.cookie, "POST") as session:
            del session["by"]
    for node in {home_of(visitor.cookie), *visitor.result.backups}:
        with cluster.servers[node].client() as client:
            assert client.get(key_of(visitor.cookie)) is not None


# -- row 52


@pytest.mark.parametrize("is_drained_first", [True, False])
def test_row_52_sessions_of_a_node_that_is_removed_are_found_under_their_old_ids(
    cluster: Cluster, is_drained_first: bool
) -> None:
    worker = cluster.worker(is_direct=True)
    visitors = [cluster.visitor_at_home_on("n3", worker, n=n) for n in range(5)]
    old_cookies = [visitor.cookie for visitor in visitors]
    if is_drained_first:
        worker.drain("n3")
        for n, visitor in enumerate(visitors):
            assert visitor.get() == {"n": n}
            assert home_of(visitor.cookie) != "n3"
    worker.set_nodes(",".join(f"{name}:{cluster.servers[name].address}" for name in ("n1", "n2")))
    cluster.servers["n3"].kill()
    for n, (visitor, old) in enumerate(zip(visitors, old_cookies, strict=True)):
        assert visitor.get() == {"n": n}
        assert home_of(visitor.cookie) in ("n1", "n2")
        visitor.cookie = old
        assert visitor.get() == {"n": n}
    assert worker.statistics().node_failures == 0


def test_row_52_a_node_comes_and_goes_while_workers_have_different_lists(cluster: Cluster) -> None:
    two = ",".join(f"{name}:{cluster.servers[name].address}" for name in ("n1", "n2"))

    def without() -> SessionManager:
        return cluster.worker_on(two)

    def with_it_draining() -> SessionManager:
        worker = cluster.worker(is_direct=True)
        worker.drain("n3")
        return worker

    def with_it() -> SessionManager:
        return cluster.worker(is_direct=True)

    # As docs/deploy.md has it: to add n3, then to take it away. At each step some workers are ahead of the others.
    steps = [without, with_it_draining, with_it, with_it_draining, without]
    visitors: list[Visitor] = []
    for before, after in itertools.pairwise(steps):
        behind, ahead = before(), after()
        for _ in range(8):
            visitors += [cluster.visitor(behind), cluster.visitor(ahead)]
            for visitor in visitors[-2:]:
                visitor.post(user="ada")
        for worker in (ahead, behind, ahead):
            for visitor in visitors:
                visitor.worker = worker
                assert visitor.get() == {"user": "ada"}
        assert ahead.statistics().refused_ids == behind.statistics().refused_ids == 0
