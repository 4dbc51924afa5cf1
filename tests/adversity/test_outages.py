"""The whole cluster out of reach: what is served from this host meanwhile, and the way back.

Rows 33, 34, 36, 37, 38, 39 and 40 of the fault matrix, in both modes where it names both, under
on_cluster_lost="local".
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from msm_fast import DistributionState, Event, NearCacheSettings, Reconnect, SessionId, SessionManager
from tests.adversity.conftest import FALLS_BACK, UNHURRIED, Cluster, is_normal, key_of, settle
from tests.adversity.items import has_copy
from tests.adversity.proxy import Faults, is_store
from tests.adversity.stopwatch import Stopwatch
from tests.adversity.visitor import MARGIN_S, Visitor, wait_until
from tests.timeouts import HURRIED

pytestmark = pytest.mark.memcached

Mode = dict[str, Any]

DISCARD = Reconnect(first=0.1, cap=0.2)
REPLAY = Reconnect(first=0.1, cap=0.2, on_reconnect="replay")
SLOW_REPLAY = Reconnect(first=0.1, cap=0.2, on_reconnect="replay", replay_rate=20)
BACK_WITHIN_S = 1.2
"""The longest wait for a probe, and a second."""


@pytest.fixture(params=["non_sticky", "sticky"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """The settings of either mode, with what is kept here used while the cluster is lost."""
    return {**FALLS_BACK, "sticky": request.param == "sticky"}


def lose(cluster: Cluster, *workers: SessionManager) -> None:
    """Let all nodes refuse, and let the workers notice."""
    cluster.refuse_all()
    for worker in workers:
        first = cluster.visitor(worker)
        wait_until(lambda worker=worker, first=first: first.post(noticed=True) and is_local(worker))


def is_local(worker: SessionManager) -> bool:
    return worker.distribution.state is DistributionState.LOCAL


def heal(cluster: Cluster, *workers: SessionManager) -> None:
    cluster.heal_all()
    wait_until(lambda: all(is_normal(worker) for worker in workers), timeout_s=BACK_WITHIN_S)


def settled_visitor(cluster: Cluster, worker: SessionManager, **attributes: object) -> Visitor:
    """Return a client whose session is stored in the cluster."""
    visitor = cluster.visitor(worker)
    visitor.post(**attributes)
    settle(worker)
    return visitor


# -- rows 33 and 34: sessions that the cluster has


def test_row_33_with_every_node_refusing_a_sticky_session_is_read_and_written_here(
    cluster: Cluster, stopwatch: Stopwatch
) -> None:
    worker = cluster.sticky_worker("w1")
    visitor = settled_visitor(cluster, worker, n=0)
    cluster.refuse_all()
    visitor.slowest_s = 0.0
    n = 0

    def write_and_read() -> bool:
        nonlocal n
        n += 1
        assert visitor.post(n=n).status in ("queued", "local")
        assert visitor.get() == {"n": n}
        return is_local(worker)

    wait_until(write_and_read)
    before = worker.statistics().round_trips
    for _ in range(20):
        write_and_read()
    assert visitor.result.status == "local" or visitor.get() == {"n": n}
    assert visitor.slowest_s < MARGIN_S
    assert worker.statistics().round_trips == before


@pytest.mark.parametrize("backup", ["sync", "async"])
def test_row_33_the_request_that_meets_the_outage_first_fails_no_more_than_those_after_it(
    cluster: Cluster, backup: str
) -> None:
    worker = cluster.sticky_worker("w1", backup=backup)
    visitor = settled_visitor(cluster, worker, n=0)
    cluster.refuse_all()
    for n in range(1, 10):
        assert visitor.post(n=n).status in ("queued", "local")
        assert visitor.get() == {"n": n}
    assert visitor.slowest_s < MARGIN_S


def test_row_34_a_session_seen_before_is_served_as_last_seen_and_changes_are_kept(cluster: Cluster) -> None:
    worker = cluster.worker(**FALLS_BACK)
    visitor = settled_visitor(cluster, worker, n=0)
    cookie = visitor.cookie
    cluster.refuse_all()
    for n in range(1, 10):
        assert visitor.post(n=n).status == "local"
        assert visitor.get() == {"n": n}
    assert visitor.cookie == cookie
    assert visitor.slowest_s < MARGIN_S


def test_row_34_a_session_never_seen_here_gets_an_empty_one_under_its_id_and_is_back_afterwards(
    cluster: Cluster, mode: Mode
) -> None:
    visitor = settled_visitor(cluster, cluster.worker(**mode), user="ada")
    stranger = visitor.worker = cluster.worker(**mode)
    cookie = visitor.cookie
    lose(cluster, stranger)
    assert visitor.get() == {}
    visitor.post(basket=1)
    assert visitor.get() == {"basket": 1}
    assert visitor.cookie == cookie, "it could not be asked for, which is no logout"
    assert stranger.statistics().not_found == 0
    heal(cluster, stranger)
    assert visitor.get() == {"user": "ada"}, "what stood for it is not laid over it"
    assert visitor.cookie == cookie


def test_row_34_an_id_that_was_not_issued_here_is_not_adopted_in_an_outage(cluster: Cluster, mode: Mode) -> None:
    worker = cluster.worker(**mode)
    lose(cluster, worker)
    for chosen in ("chosen", f"{'0' * 32}-n9", "0" * 31 + "x-n1"):
        visitor = cluster.visitor(worker)
        visitor.cookie = chosen
        visitor.post(user="eve")
        assert visitor.cookie != chosen
        assert key_of(visitor.cookie) != chosen.partition("-")[0]


# -- rows 36 and 37: logins and logouts


@pytest.mark.parametrize("reconnect", [DISCARD, REPLAY], ids=["discard", "replay"])
def test_row_36_a_login_in_an_outage_is_kept_here_and_stored_or_dropped_as_the_policy_says(
    cluster: Cluster, mode: Mode, reconnect: Reconnect
) -> None:
    worker = cluster.worker(**mode, reconnect=reconnect)
    lose(cluster, worker)
    visitor = cluster.visitor(worker)
    assert visitor.post(user="ada").status == "local"
    login = visitor.cookie
    assert SessionId(str(login)).node is None
    session = worker.load(str(login))
    assert session is not None
    assert session.is_local
    heal(cluster, worker)
    settle(worker)
    visitor.worker = cluster.worker(**mode)
    if reconnect is REPLAY:
        assert visitor.get() == {"user": "ada"}
        assert key_of(visitor.cookie) == key_of(login)
        assert SessionId(str(visitor.cookie)).node is not None
    else:
        assert visitor.get() == {}
        visitor.post(user="ada again")
        assert key_of(visitor.cookie) != key_of(login), "an id that nobody has is not adopted"


@pytest.mark.parametrize(("how", "reconnect"), [("refuses", DISCARD), ("refuses", REPLAY), ("hangs", REPLAY)])
def test_row_37_a_logout_in_an_outage_holds_when_the_cluster_is_back(
    cluster: Cluster, mode: Mode, how: str, reconnect: Reconnect
) -> None:
    worker = cluster.worker(**mode, reconnect=reconnect, timeouts=HURRIED)
    visitors = [settled_visitor(cluster, worker, n=n) for n in range(3)]
    if how == "refuses":
        lose(cluster, worker)
    else:
        cluster.black_hole_all()
        wait_until(lambda: visitors[0].post(noticed=True) is not None and is_local(worker))
    cookies = [visitor.cookie for visitor in visitors]
    for visitor in visitors:
        visitor.post(changed=True)
        assert visitor.log_out().status == "invalidated"
    heal(cluster, worker)
    settle(worker)
    for reader in (worker, cluster.worker(**mode)):
        for visitor, cookie in zip(visitors, cookies, strict=True):
            visitor.worker, visitor.cookie = reader, cookie
            assert visitor.get() == {}
            assert visitor.cookie != cookie


# -- row 38


def test_row_38_what_is_kept_here_is_bounded_and_the_newest_stay(cluster: Cluster, mode: Mode) -> None:
    bounds = NearCacheSettings(max_sessions=20, max_bytes=40_000)
    worker = cluster.worker(**mode, near_cache=bounds)
    events: list[Event] = []
    worker.subscribe(events.append)
    lose(cluster, worker)
    visitors = [cluster.visitor(worker) for _ in range(100)]
    for n, visitor in enumerate(visitors):
        assert visitor.post(n=n, large="x" * 1000).status == "local"
        assert visitor.get()["n"] == n
    records = [worker._ctx.local.load(key) for key in worker._ctx.local.all_keys()]
    assert len(records) <= bounds.max_sessions
    assert sum(len(record.data) for record in records if record is not None) <= bounds.max_bytes
    assert worker.statistics().dropped >= 80
    assert "dropped" in {event.kind for event in events}
    for n, visitor in list(enumerate(visitors))[-5:]:
        assert visitor.get()["n"] == n


# -- rows 39 and 40: the way back


class Recorder:
    """Notes what workers send through the proxies, in order."""

    def __init__(self, cluster: Cluster) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        for proxy in cluster.proxies.values():
            proxy.requests = Faults(only=self._note)

    def _note(self, data: bytes) -> bool:
        self.pieces.append((time.monotonic(), data))
        return False

    def first(self, command: str, cookie: str | None) -> float:
        """Return when a command for the session was first sent."""
        start = f"{command} {key_of(cookie)} ".encode()
        return next((at for at, data in self.pieces if start in data), float("inf"))


class Gate:
    """Holds up what workers send from the n-th store on, for as long as a node may take to answer, or until opened."""

    def __init__(self, cluster: Cluster, n: int) -> None:
        self._n_left = n
        self._is_reached = threading.Event()
        self._is_open = threading.Event()
        for proxy in cluster.proxies.values():
            proxy.requests = Faults(only=self._hold)

    def wait(self) -> None:
        assert self._is_reached.wait(10)

    def open(self) -> None:
        self._is_open.set()

    def _hold(self, data: bytes) -> bool:
        self._n_left -= is_store(data)
        if self._n_left <= 0:
            self._is_reached.set()
            self._is_open.wait(UNHURRIED.operation)
        return False


def test_row_39_on_the_way_back_logouts_go_first_then_what_was_kept_not_faster_than_allowed(
    cluster: Cluster, mode: Mode
) -> None:
    worker = cluster.worker(**mode, reconnect=SLOW_REPLAY)
    ended = settled_visitor(cluster, worker, user="ada")
    kept = [settled_visitor(cluster, worker, n=n) for n in range(8)]
    lose(cluster, worker)
    for visitor in kept:
        visitor.post(changed=True)
    login = ended.cookie
    ended.log_out()
    recorder = Recorder(cluster)
    cluster.listen_all()
    wait_until(lambda: is_normal(worker), timeout_s=BACK_WITHIN_S + (len(kept) + 1) / SLOW_REPLAY.replay_rate)
    settle(worker)
    assert recorder.first("ms", login) < min(recorder.first("mg", visitor.cookie) for visitor in kept)
    stored = sorted(recorder.first("ms", visitor.cookie) for visitor in kept)
    assert stored[-1] - stored[0] >= (len(kept) - 2) / SLOW_REPLAY.replay_rate
    assert len(worker._ctx.local) == 0
    for n, visitor in enumerate(kept):
        for reader in (worker, cluster.worker(**mode)):
            visitor.worker = reader
            assert visitor.get() == {"n": n, "changed": True}


def test_row_39_what_is_changed_or_ended_during_the_replay_is_stored_or_ended_too(cluster: Cluster, mode: Mode) -> None:
    worker = cluster.worker(**mode, reconnect=REPLAY)
    visitors = [settled_visitor(cluster, worker, n=n) for n in range(6)]
    lose(cluster, worker)
    for visitor in visitors:
        visitor.post(changed=True)
    gate = Gate(cluster, 6)  # two to four sessions are stored then, each on two nodes
    cluster.listen_all()
    gate.wait()
    cookies = [visitor.cookie for visitor in visitors]
    for visitor in visitors[:3]:
        visitor.post(late=True)
    for visitor in visitors[3:]:
        assert visitor.log_out().status == "invalidated"
    login = cluster.visitor(worker)
    login.post(user="ada")
    assert is_local(worker)
    gate.open()
    wait_until(lambda: is_normal(worker), timeout_s=BACK_WITHIN_S)
    settle(worker)
    assert len(worker._ctx.local) == 0
    for reader in (cluster.worker(**mode), worker):
        for n, (visitor, cookie) in enumerate(zip(visitors, cookies, strict=True)):
            visitor.worker, visitor.cookie = reader, cookie
            assert visitor.get() == ({"n": n, "changed": True, "late": True} if n < 3 else {})
    login.worker = cluster.worker(**mode)
    assert login.get() == {"user": "ada"}


def test_row_39_what_another_worker_stored_meanwhile_is_not_hidden_by_what_was_kept_here(
    cluster: Cluster, mode: Mode
) -> None:
    worker, connected = cluster.worker(**mode), cluster.worker(**mode, is_direct=True)
    visitor = settled_visitor(cluster, worker, n=0)
    old = visitor.cookie
    lose(cluster, worker)
    visitor.post(n=1, here=True)
    visitor.worker, visitor.cookie = connected, old
    visitor.post(n=2)
    settle(connected)
    heal(cluster, worker)
    visitor.worker = worker
    assert visitor.get() == {"n": 2}
    assert visitor.post(n=3).status in ("stored", "queued")
    settle(worker)
    assert len(worker._ctx.local) == 0


def test_row_40_a_cluster_that_is_lost_again_during_the_replay_loses_nothing_of_it(
    cluster: Cluster, mode: Mode
) -> None:
    worker = cluster.worker(**mode, reconnect=REPLAY)
    visitors = [settled_visitor(cluster, worker, n=n) for n in range(8)]
    lose(cluster, worker)
    for visitor in visitors:
        visitor.post(changed=True)
    logins = [cluster.visitor(worker) for _ in range(4)]
    for n, visitor in enumerate(logins):
        visitor.post(n=n, changed=True)
    gate = Gate(cluster, 6)
    cluster.listen_all()
    gate.wait()
    cluster.refuse_all()
    gate.open()
    wait_until(lambda: not any(node.is_up for node in worker.nodes()))
    assert 0 < worker.statistics().replayed < len(visitors) + len(logins)
    for n, visitor in [*enumerate(visitors), *enumerate(logins)]:
        assert visitor.get() == {"n": n, "changed": True}
        visitor.post(again=True)
    assert is_local(worker)
    cluster.heal_all()
    wait_until(lambda: is_normal(worker), timeout_s=BACK_WITHIN_S)
    assert len(worker._ctx.local) == 0
    settle(worker)
    stranger = cluster.worker(**mode)
    for n, visitor in [*enumerate(visitors), *enumerate(logins)]:
        visitor.worker = stranger
        assert visitor.get() == {"n": n, "changed": True, "again": True}
        assert any(has_copy(cluster, node, visitor.cookie) for node in cluster.servers)
