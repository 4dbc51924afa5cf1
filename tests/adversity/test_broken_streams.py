"""Connections that break in the middle, and replies that are not what was asked for.

Rows 11, 12, 13, 14, 16, 17, 18, 21 and 22 of the fault matrix.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from msm_fast import Event, SessionManager
from msm_fast._core import wire
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.engine.effects import Batch, Exchange, Flow, NodeFailure, Outcome
from tests.adversity.conftest import FORGETFUL, UNHURRIED, Cluster, home_of, is_normal
from tests.adversity.proxy import Faults, change_opaque, glue, has_value, is_store, is_stored, once, without_value
from tests.adversity.visitor import Visitor, wait_until

pytestmark = pytest.mark.memcached


def visitor_with_cart(cluster: Cluster, worker: SessionManager) -> Visitor:
    return cluster.visitor_at_home_on("n1", worker, cart=["apple"] * 30)


def together(*calls: Callable[[], object]) -> None:
    """Make calls at the same time, each in a thread. Raises: what the first of them raised."""
    with ThreadPoolExecutor(len(calls)) as threads:
        for future in [threads.submit(call) for call in calls]:
            future.result()


# -- reading


def test_row_11_a_value_that_breaks_off_is_read_again_on_a_new_connection(cluster: Cluster) -> None:
    worker = cluster.worker(near_cache=FORGETFUL)
    visitor = visitor_with_cart(cluster, worker)
    cluster.proxies["n1"].replies = Faults(only=once(has_value), cuts_after=70)
    assert visitor.get() == {"cart": ["apple"] * 30}
    assert home_of(visitor.cookie) == "n1"
    assert worker.statistics().retries == 1
    assert worker.statistics().node_failures == 0


@pytest.mark.parametrize("cut", [1, 12, 70, -2, -1])
def test_row_11_a_node_whose_values_break_off_is_replaced_by_the_backup(cluster: Cluster, cut: int) -> None:
    worker = cluster.worker(near_cache=FORGETFUL)
    visitor = visitor_with_cart(cluster, worker)
    cluster.proxies["n1"].replies = Faults(only=has_value, cuts_after=cut)
    assert visitor.get() == {"cart": ["apple"] * 30}
    assert home_of(visitor.cookie) != "n1"


def test_row_11_a_node_killed_while_it_sends_a_value_is_replaced_by_the_backup(cluster: Cluster) -> None:
    worker = cluster.worker()
    visitor = cluster.visitor_at_home_on("n1", worker, large="x" * 500_000)
    visitor.worker = cluster.worker()  # which has not seen it: the value must come over

    def kill(data: bytes) -> bytes:
        cluster.servers["n1"].kill()
        cluster.proxies["n1"].stop_listening()
        return data

    cluster.proxies["n1"].replies = Faults(only=once(has_value), edit=kill, cuts_after=1000)
    assert visitor.get() == {"large": "x" * 500_000}
    assert home_of(visitor.cookie) != "n1"


def test_row_16_replies_that_arrive_byte_by_byte_read_as_if_whole(cluster: Cluster) -> None:
    worker = cluster.worker()
    visitor = visitor_with_cart(cluster, worker)
    for proxy in cluster.proxies.values():
        proxy.replies = Faults(slice_bytes=1, slice_s=0.0002)
        proxy.requests = Faults(slice_bytes=1, slice_s=0.0002)
    for n in range(3):
        assert visitor.post(n=n).status == "stored"
        assert visitor.get() == {"cart": ["apple"] * 30, "n": n}
    assert worker.statistics().node_failures == 0


EXTRA = {
    "a_line": b"HD\r\n",
    "a_value": b"VA 3 c9 f1 t-1 O7\r\neve\r\n",
    "half_a_line": b"V",
    "an_empty_line": b"\r\n",
}


@pytest.mark.parametrize("extra", EXTRA.values(), ids=EXTRA.keys())
def test_row_17_bytes_after_the_last_reply_poison_the_connection(cluster: Cluster, extra: bytes) -> None:
    worker = cluster.worker(near_cache=FORGETFUL)
    visitor = visitor_with_cart(cluster, worker)
    other = cluster.visitor_at_home_on("n1", worker, user="eve")
    cluster.proxies["n1"].replies = Faults(only=once(has_value), edit=glue(extra))
    before = cluster.proxies["n1"].n_connections
    assert visitor.get() == {"cart": ["apple"] * 30}
    for _ in range(3):
        assert other.get() == {"user": "eve"}
        assert visitor.get() == {"cart": ["apple"] * 30}
    assert cluster.proxies["n1"].n_connections > before


def test_row_17_bytes_that_come_while_a_connection_is_idle_are_never_a_reply(cluster: Cluster) -> None:
    worker = cluster.worker()
    visitor = visitor_with_cart(cluster, worker)
    links = cluster.proxies["n1"].links()
    for link in links:
        link.client.sendall(b"HD\r\n")
    assert visitor.get() == {"cart": ["apple"] * 30}
    assert home_of(visitor.cookie) == "n1"
    assert worker.statistics().node_failures == 0
    wait_until(lambda: all(link.is_gone.is_set() for link in links))


def test_row_18_a_reply_with_the_opaque_of_another_command_is_no_reply(cluster: Cluster) -> None:
    worker = cluster.worker(near_cache=FORGETFUL)
    events: list[Event] = []
    worker.subscribe(events.append)
    visitors = [cluster.visitor_at_home_on("n1", worker, n=n) for n in range(4)]
    cluster.proxies["n1"].replies = Faults(only=has_value, edit=change_opaque)
    for n, visitor in enumerate(visitors):
        assert visitor.get() == {"n": n}
    assert "opaque" in worker.nodes()[0].last_failure
    assert [event.node for event in events if event.kind == "node_down"] == ["n1"]


def test_row_18_a_reply_without_the_value_that_was_asked_for_is_no_reply(cluster: Cluster) -> None:
    worker = cluster.worker(near_cache=FORGETFUL)
    visitor = visitor_with_cart(cluster, worker)
    cluster.proxies["n1"].replies = Faults(only=has_value, edit=without_value)
    assert visitor.get() == {"cart": ["apple"] * 30}
    assert home_of(visitor.cookie) != "n1"
    assert visitor.post(n=1).status == "stored"
    assert visitor.get() == {"cart": ["apple"] * 30, "n": 1}


@pytest.mark.parametrize("replies", [has_value, is_stored], ids=["values", "answers_to_a_save"])
def test_row_18_two_connections_whose_replies_change_places_give_nobody_anothers_session(
    cluster: Cluster, replies: Callable[[bytes], bool]
) -> None:
    workers = [cluster.worker(near_cache=FORGETFUL) for _ in range(2)]
    ada = cluster.visitor_at_home_on("n1", workers[0], user="ada")
    eve = cluster.visitor_at_home_on("n1", workers[1], user="eve")
    n_swapped = 0
    for n in range(100):
        cluster.proxies["n1"].reset_all()  # two new connections number their commands alike
        cluster.proxies["n1"].replies = Faults(only=replies, swaps=True)
        together(lambda n=n: ada.post(ada=n), lambda n=n: eve.post(eve=n))
        n_swapped += not cluster.proxies["n1"].replies.swaps
        cluster.proxies["n1"].heal()
        wait_until(lambda: all(is_normal(worker) for worker in workers))
        assert ada.get() == {"user": "ada", "ada": n}
        assert eve.get() == {"user": "eve", "eve": n}
        if n_swapped == 5:
            return
    raise AssertionError("the two never met")


# -- writing


def test_row_12_an_upload_that_breaks_off_leaves_the_old_value_and_is_stored_elsewhere(cluster: Cluster) -> None:
    worker = cluster.worker()
    visitor = cluster.visitor_at_home_on("n1", worker, step=1)
    old = visitor.cookie
    cluster.proxies["n1"].requests = Faults(only=is_store, cuts_after=100)
    result = visitor.post(step=2, cart=["apple"] * 30)
    assert result.status == "stored"
    assert result.node != "n1"
    cluster.proxies["n1"].heal()
    with cluster.servers["n1"].client() as client:
        assert client.get(str(old).split("-")[0]) is not None  # as it was, not gone and not half
    wait_until(lambda: is_normal(worker))
    visitor.cookie = old
    assert visitor.get() == {"step": 2, "cart": ["apple"] * 30}


def test_row_12_a_node_killed_during_an_upload_costs_nothing_but_its_copy(cluster: Cluster) -> None:
    worker = cluster.worker()
    visitor = cluster.visitor_at_home_on("n1", worker, step=1)

    def kill(data: bytes) -> bytes:
        cluster.servers["n1"].kill()
        cluster.proxies["n1"].stop_listening()
        return data

    cluster.proxies["n1"].requests = Faults(only=once(is_store), edit=kill)
    result = visitor.post(large="x" * 500_000)
    assert result.status == "stored"
    assert result.node != "n1"
    assert len(result.backups) == 1
    assert visitor.get() == {"step": 1, "large": "x" * 500_000}


@pytest.mark.parametrize("ways_to_lose", [{"resets": 1}, {"cuts_after": 0}], ids=["reset", "closed"])
def test_row_13_a_save_whose_reply_was_lost_is_recognised_as_done(
    cluster: Cluster, ways_to_lose: dict[str, int]
) -> None:
    worker = cluster.worker()
    visitor = cluster.visitor_at_home_on("n1", worker, step=1)
    n_stores = 0

    def count(data: bytes) -> bool:
        nonlocal n_stores
        n_stores += is_store(data)
        return False

    cluster.proxies["n1"].requests = Faults(only=count)
    cluster.proxies["n1"].replies = Faults(only=once(is_stored), **ways_to_lose)  # type: ignore[arg-type]
    assert visitor.post(step=2).status == "stored"
    assert n_stores == 2  # the one whose reply was lost, and the one that found it done
    assert worker.statistics().retries == 1
    assert worker.statistics().conflicts == 0
    session = worker.load(str(visitor.cookie))
    assert session is not None
    assert (session.generation, home_of(session.id), dict(session)) == (2, "n1", {"step": 2})


def test_row_13_a_change_of_another_worker_is_not_taken_for_the_lost_one(cluster: Cluster) -> None:
    worker, neighbour = cluster.worker(), cluster.worker(is_direct=True)
    visitor = cluster.visitor_at_home_on("n1", worker, step=1)
    cookie = visitor.cookie
    other = cluster.visitor(neighbour)
    other.cookie = cookie

    def let_the_other_be_first(data: bytes) -> bool:
        return is_store(data) and other.post(theirs=True).status == "stored"

    cluster.proxies["n1"].requests = Faults(only=once(let_the_other_be_first), resets=1)  # and nothing is written
    assert visitor.post(mine=True).status in (
        "merged",
        "stored",
    )  # stored: the other has built on the copy at the backup
    assert visitor.get() == {"step": 1, "mine": True, "theirs": True}


def test_row_14_a_new_session_whose_reply_was_lost_is_stored_once_under_its_id(cluster: Cluster) -> None:
    worker = cluster.worker()
    cluster.visitor_at_home_on("n1", worker, warm=True)
    for proxy in cluster.proxies.values():
        proxy.replies = Faults(only=is_stored, resets=1)
    visitor = cluster.visitor(worker)
    assert visitor.post(user="ada").status == "stored"
    session = worker.load(str(visitor.cookie))
    assert session is not None
    assert (session.generation, dict(session)) == (1, {"user": "ada"})
    assert worker.statistics().conflicts == 0


# -- pipelines


def exchange(cluster: Cluster, commands: list[wire.Command]) -> Outcome:
    """Send one batch to n1 through its proxy."""
    manager = cluster.worker()
    driver = BlockingDriver({"n1": manager.settings.nodes[0]}, UNHURRIED)

    def flow() -> Flow[list[Outcome]]:
        outcomes: list[Outcome] = yield Exchange([Batch("n1", commands)])
        return outcomes

    try:
        return driver.run(flow(), time.monotonic() + UNHURRIED.request)[0]
    finally:
        driver.close()


def test_row_21_a_long_pipeline_of_large_values_both_ways_does_not_lock_up(cluster: Cluster) -> None:
    value = b"v" * 900_000
    commands = [wire.store(b"k", value, 1, 0)]
    for n in range(20):  # 18 MB each way: more than the buffers of the four sockets in between
        commands += [wire.get(b"k"), wire.store(b"k%d" % n, value, 1, 0)]
    outcome = exchange(cluster, commands)
    assert not isinstance(outcome, NodeFailure), outcome
    assert [reply.status for reply in outcome] == ["HD"] + ["VA", "HD"] * 20
    assert all(reply.value == value for reply in outcome if reply.status == "VA")


@pytest.mark.parametrize("error", [b"CLIENT_ERROR bad data chunk\r\n", b"ERROR\r\n"])
def test_row_22_an_error_in_the_middle_of_a_pipeline_answers_nothing_after_it(cluster: Cluster, error: bytes) -> None:
    commands = [wire.store(b"a", b"1", 1, 0), wire.store(b"b", b"2", 2, 0), wire.get(b"a"), wire.get(b"b")]

    def replace_second(data: bytes) -> bytes:
        first, _, rest = data.split(b"\r\n", 2)
        return first + b"\r\n" + error + rest

    exchange(cluster, [wire.noop()])  # leaves the token of the node's life there, so that no other greeting stores it
    cluster.proxies["n1"].replies = Faults(only=is_stored, edit=replace_second)
    outcome = exchange(cluster, commands)
    assert isinstance(outcome, NodeFailure)
    assert (outcome.kind, outcome.sent) == ("protocol", True)


def test_row_22_a_save_that_a_node_answers_with_an_error_is_stored_elsewhere(cluster: Cluster) -> None:
    worker = cluster.worker()
    visitor = cluster.visitor_at_home_on("n1", worker, step=1)
    cluster.proxies["n1"].replies = Faults(only=is_stored, edit=lambda data: b"CLIENT_ERROR bad data chunk\r\n")
    result = visitor.post(step=2)
    assert result.status == "stored"
    assert result.node != "n1"
    cluster.proxies["n1"].heal()
    assert visitor.get() == {"step": 2}
