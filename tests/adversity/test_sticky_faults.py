"""Sticky sessions over connections that hang, break or lie, and over items that are no records.

Rows 4, 11, 12, 14, 15, 16, 17, 18, 19, 20, 22, 35, 46 and 47 of the fault matrix. What is read is read by the worker
that takes a session over; what is written is written behind the requests, which may not notice.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from msm_fast import DistributionState, Reconnect, SessionManager
from tests.adversity.conftest import Cluster, home_of, is_normal, key_of, settle
from tests.adversity.items import Tamper, has_copy, item_of, tamper
from tests.adversity.proxy import Edit, Faults, FullBacklog, change_opaque, glue, has_value, is_store, is_stored, once
from tests.adversity.stopwatch import Stopwatch
from tests.adversity.test_bad_data import TAMPERED
from tests.adversity.visitor import MARGIN_S, Visitor, wait_until
from tests.timeouts import HURRIED

pytestmark = pytest.mark.memcached

NO_PROBES = Reconnect(first=60)
CART = ["apple"] * 30


def settled_visitor(cluster: Cluster, worker: SessionManager, **attributes: object) -> Visitor:
    """Return a client with a session at home on n1, where it is written already."""
    visitor = cluster.visitor_at_home_on("n1", worker, **attributes)
    settle(worker)
    visitor.slowest_s = 0.0
    return visitor


def move_to_another_worker(cluster: Cluster, visitor: Visitor, **settings: object) -> SessionManager:
    """Send the client's next requests to a worker that has connections, and has never seen its session."""
    taker = cluster.sticky_worker("w2", **settings)
    settled_visitor(cluster, taker, user="eve")
    visitor.worker = taker
    return taker


# -- nodes that hang


@pytest.fixture
def full_backlog() -> Iterator[FullBacklog]:
    port = FullBacklog()
    yield port
    port.close()


def test_row_04_a_node_where_connecting_hangs_keeps_no_sticky_request_waiting(
    cluster: Cluster, full_backlog: FullBacklog
) -> None:
    servers = cluster.servers
    nodes = f"n1:{full_backlog.address},n2:{servers['n2'].address},n3:{servers['n3'].address}"
    worker = cluster.worker_on(nodes, sticky=True, timeouts=HURRIED, reconnect=NO_PROBES)
    visitors = []
    for _ in range(worker.settings.breaker.timeouts):  # what is written together finds a node silent once
        newcomers = [cluster.visitor(worker) for _ in range(20)]
        for n, visitor in enumerate(newcomers, len(visitors)):
            assert visitor.post(n=n).status == "queued"
        settle(worker)
        visitors += newcomers
    assert max(visitor.slowest_s for visitor in visitors) < MARGIN_S
    assert not worker.nodes()[0].is_up
    for n, visitor in enumerate(visitors):
        assert visitor.get() == {"n": n}
        assert home_of(visitor.cookie) != "n1"
        assert has_copy(cluster, home_of(visitor.cookie), visitor.cookie)


def test_row_15_a_write_that_drips_away_keeps_no_request_waiting_and_is_stored_elsewhere(cluster: Cluster) -> None:
    worker = cluster.sticky_worker("w1", timeouts=HURRIED)
    visitor = settled_visitor(cluster, worker, step=0)
    cluster.proxies["n1"].requests = Faults(slice_bytes=1, slice_s=0.02)
    for step in range(1, 6):
        assert visitor.post(step=step).status == "queued"
        assert visitor.get() == {"step": step}
    assert visitor.slowest_s < MARGIN_S
    settle(worker)
    move_to_another_worker(cluster, visitor, is_direct=True)
    assert visitor.get() == {"step": 5}


def test_row_15_a_value_that_drips_is_bounded_as_a_whole_for_who_takes_the_session_over(cluster: Cluster) -> None:
    visitor = settled_visitor(cluster, cluster.sticky_worker("w1"), cart=CART)
    taker = move_to_another_worker(cluster, visitor, timeouts=HURRIED, reconnect=NO_PROBES)
    cluster.proxies["n1"].replies = Faults(slice_bytes=1, slice_s=0.02)
    assert visitor.get() == {"cart": CART}
    assert visitor.slowest_s < HURRIED.operation + MARGIN_S
    assert taker.statistics().node_failures >= 1


@pytest.mark.parametrize("fault", ["black_hole", "reads_no_further"])
def test_row_20_a_peer_that_is_gone_without_a_word_is_noticed_behind_the_request(cluster: Cluster, fault: str) -> None:
    worker = cluster.sticky_worker("w1", timeouts=HURRIED)
    visitor = settled_visitor(cluster, worker, step=1)
    if fault == "black_hole":
        cluster.proxies["n1"].black_hole()
    else:
        cluster.proxies["n1"].requests = Faults(only=is_store, slice_bytes=1, slice_s=0.2)
    visitor.post(step=2, large="x" * 900_000)
    assert visitor.get()["step"] == 2
    assert visitor.slowest_s < MARGIN_S
    settle(worker)
    assert worker.statistics().node_failures >= 1
    move_to_another_worker(cluster, visitor, is_direct=True)
    assert visitor.get() == {"step": 2, "large": "x" * 900_000}


def test_row_35_with_every_node_silent_no_sticky_request_waits_before_or_after_that_is_known(
    cluster: Cluster, stopwatch: Stopwatch
) -> None:
    worker = cluster.sticky_worker("w1", timeouts=HURRIED)
    visitor = settled_visitor(cluster, worker, n=0)
    cluster.black_hole_all()
    n = 0

    def is_known() -> bool:
        nonlocal n
        n += 1
        visitor.post(n=n)
        assert visitor.get() == {"n": n}
        return worker.distribution.state is DistributionState.LOCAL

    wait_until(is_known)
    assert visitor.slowest_s < MARGIN_S
    interval = stopwatch.start()
    for n in range(100):
        visitor.post(n=n)
        assert visitor.get() == {"n": n}
        assert cluster.visitor(worker).post(user="new").status == "local"
    assert interval.seconds() < 0.5


def test_row_35_who_takes_a_session_over_from_silent_nodes_is_served_in_time_and_then_at_once(
    cluster: Cluster, stopwatch: Stopwatch
) -> None:
    visitor = settled_visitor(cluster, cluster.sticky_worker("w1"), user="ada")
    taker = move_to_another_worker(cluster, visitor, timeouts=HURRIED)
    cookie = visitor.cookie
    cluster.black_hole_all()
    while taker.distribution.state is not DistributionState.LOCAL:
        assert visitor.get() == {}
        assert visitor.cookie == cookie, "it is somewhere, so it keeps its id"
    interval = stopwatch.start()
    for _ in range(20):
        assert visitor.get() == {}
    assert interval.seconds() < MARGIN_S
    cluster.heal_all()
    wait_until(lambda: is_normal(taker), timeout_s=1.5)
    assert visitor.get() == {"user": "ada"}
    assert key_of(visitor.cookie) == key_of(cookie)


# -- values that break off or are not what was asked for


def test_row_11_a_value_that_breaks_off_is_read_again_by_who_takes_the_session_over(cluster: Cluster) -> None:
    visitor = settled_visitor(cluster, cluster.sticky_worker("w1"), cart=CART)
    taker = move_to_another_worker(cluster, visitor)
    cluster.proxies["n1"].replies = Faults(only=once(has_value), cuts_after=70)
    assert visitor.get() == {"cart": CART}
    assert home_of(visitor.cookie) == "n1"
    assert (taker.statistics().retries, taker.statistics().node_failures) == (1, 0)


def test_row_11_a_node_whose_values_break_off_is_replaced_by_the_backup(cluster: Cluster) -> None:
    visitor = settled_visitor(cluster, cluster.sticky_worker("w1"), cart=CART)
    taker = move_to_another_worker(cluster, visitor, reconnect=NO_PROBES)
    cluster.proxies["n1"].replies = Faults(only=has_value, cuts_after=70)
    assert visitor.get() == {"cart": CART}
    assert home_of(visitor.cookie) != "n1"
    settle(taker)
    visitor.worker = cluster.sticky_worker("w3", is_direct=True)
    assert visitor.get() == {"cart": CART}


def test_row_16_replies_that_arrive_byte_by_byte_read_as_if_whole(cluster: Cluster) -> None:
    visitor = settled_visitor(cluster, cluster.sticky_worker("w1"), cart=CART)
    taker = move_to_another_worker(cluster, visitor)
    for proxy in cluster.proxies.values():
        proxy.replies = Faults(slice_bytes=1)
    assert visitor.get() == {"cart": CART}
    visitor.post(n=1)
    settle(taker)
    assert taker.statistics().node_failures == 0
    move_to_another_worker(cluster, visitor, is_direct=True)
    assert visitor.get() == {"cart": CART, "n": 1}


def take_over_with_replies_edited(cluster: Cluster, edit: Edit) -> SessionManager:
    """Let a worker take four sessions over while n1's values are edited; return it. Each client must get its own."""
    writer = cluster.sticky_worker("w1")
    visitors = [settled_visitor(cluster, writer, n=n) for n in range(4)]
    taker = cluster.sticky_worker("w2")
    cluster.proxies["n1"].replies = Faults(only=has_value, edit=edit)
    for n, visitor in enumerate(visitors):
        visitor.worker = taker
        assert visitor.get() == {"n": n}
    return taker


def test_row_17_bytes_after_a_reply_are_given_to_no_session(cluster: Cluster) -> None:
    taker = take_over_with_replies_edited(cluster, glue(b"VA 1 f0\r\nx\r\n"))
    assert taker.statistics().corrupt == 0


def test_row_18_a_reply_with_the_opaque_of_another_command_is_given_to_no_session(cluster: Cluster) -> None:
    taker = take_over_with_replies_edited(cluster, change_opaque)
    assert not taker.nodes()[0].is_up
    assert "opaque" in taker.nodes()[0].last_failure


@pytest.mark.parametrize("how", [{"cuts_after": 100}, {"swallows": True}], ids=["broken_off", "swallowed"])
def test_row_12_a_write_that_breaks_off_is_written_elsewhere_and_never_hides_from_its_client(
    cluster: Cluster, how: dict[str, object]
) -> None:
    worker = cluster.sticky_worker("w1", timeouts=HURRIED)
    visitor = settled_visitor(cluster, worker, step=1)
    old = visitor.cookie
    cluster.proxies["n1"].requests = Faults(only=is_store, **how)  # type: ignore[arg-type]
    visitor.post(step=2, cart=CART)
    assert visitor.get() == {"step": 2, "cart": CART}
    assert has_copy(cluster, "n1", old), "as it was, not gone and not half"
    settle(worker)
    cluster.proxies["n1"].heal()
    visitor.worker, visitor.cookie = cluster.sticky_worker("w2"), old
    assert visitor.get() == {"step": 2, "cart": CART}


@pytest.mark.parametrize("backup", ["async", "sync"])
def test_row_14_a_new_session_whose_reply_was_lost_is_stored_once_under_its_id(cluster: Cluster, backup: str) -> None:
    worker = cluster.sticky_worker("w1", backup=backup)
    settled_visitor(cluster, worker, warm=True)
    for proxy in cluster.proxies.values():
        proxy.replies = Faults(only=is_stored, resets=1)
    visitor = cluster.visitor(worker)
    visitor.post(user="ada")
    settle(worker)
    assert worker.statistics().conflicts == 0
    session = cluster.sticky_worker("w2").load(str(visitor.cookie))
    assert session is not None
    assert (session.generation, dict(session)) == (1, {"user": "ada"})


def test_row_22_a_write_that_a_node_answers_with_an_error_is_stored_elsewhere(cluster: Cluster) -> None:
    worker = cluster.sticky_worker("w1")
    visitor = settled_visitor(cluster, worker, step=1)
    cluster.proxies["n1"].replies = Faults(only=is_stored, edit=lambda data: b"CLIENT_ERROR bad data chunk\r\n")
    visitor.post(step=2)
    settle(worker)
    assert visitor.get() == {"step": 2}
    assert home_of(visitor.cookie) != "n1"
    cluster.proxies["n1"].heal()
    move_to_another_worker(cluster, visitor)
    assert visitor.get() == {"step": 2}


# -- items that are no records


def test_row_19_the_record_of_another_session_is_not_taken_over(cluster: Cluster) -> None:
    writer, taker = cluster.sticky_worker("w1"), cluster.sticky_worker("w2")
    ada, eve = settled_visitor(cluster, writer, user="ada"), settled_visitor(cluster, writer, user="eve")
    tamper(cluster, ada.cookie, lambda item: item_of(cluster, eve.cookie), "n1")
    ada.worker = taker
    assert ada.get() == {"user": "ada"}
    assert taker.statistics().corrupt == 1


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED.keys())
def test_row_46_a_copy_that_is_no_record_is_told_and_replaced_by_the_backup_s(cluster: Cluster, change: Tamper) -> None:
    visitor = settled_visitor(cluster, cluster.sticky_worker("w1"), user="ada", cart=CART)
    taker = cluster.sticky_worker("w2")
    tamper(cluster, visitor.cookie, change, "n1")
    visitor.worker = taker
    assert visitor.get() == {"user": "ada", "cart": CART}
    assert taker.statistics().corrupt == 1
    settle(taker)
    visitor.worker = third = cluster.sticky_worker("w3")
    assert visitor.get() == {"user": "ada", "cart": CART}
    assert third.statistics().corrupt == 0


def test_row_46_where_no_copy_can_be_read_the_worker_that_has_the_session_serves_and_mends_it(
    cluster: Cluster,
) -> None:
    worker = cluster.sticky_worker("w1")
    visitor = settled_visitor(cluster, worker, user="ada")
    tamper(cluster, visitor.cookie, TAMPERED["noise"])
    assert visitor.get() == {"user": "ada"}
    visitor.post(n=1)
    settle(worker)
    taker = visitor.worker = cluster.sticky_worker("w2")
    assert visitor.get() == {"user": "ada", "n": 1}
    assert taker.statistics().corrupt == 0


def test_row_46_who_takes_over_what_nobody_can_read_begins_a_new_session_and_leaves_the_items(
    cluster: Cluster,
) -> None:
    visitor = settled_visitor(cluster, cluster.sticky_worker("w1"), user="ada")
    old, taker = visitor.cookie, cluster.sticky_worker("w2")
    tamper(cluster, old, TAMPERED["noise"])
    left = item_of(cluster, old)
    visitor.worker = taker
    assert visitor.get() == {}
    visitor.post(user="ada again")
    settle(taker)
    assert key_of(visitor.cookie) != key_of(old)
    assert item_of(cluster, old) == left


def test_row_47_a_pickle_in_memcached_is_not_run_by_who_takes_the_session_over(cluster: Cluster) -> None:
    visitor = settled_visitor(cluster, cluster.sticky_worker("w1"), user="ada")
    tamper(cluster, visitor.cookie, lambda item: pickle.dumps(pytest.fail))
    taker = visitor.worker = cluster.sticky_worker("w2")
    assert visitor.get() == {}
    assert taker.statistics().corrupt == 2
