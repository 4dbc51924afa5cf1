"""Sticky mode: the worker's memory is the truth, the cluster the backup."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import Reconnect, SaveResult, Session
from msm_fast.engine import sticky
from msm_fast.engine.context import Context
from msm_fast.engine.effects import Flow
from msm_fast.engine.serialization import encode_attributes
from msm_fast.engine.serving import store
from msm_fast.session import SessionState
from tests.simulation.driver import SimulatedDriver
from tests.simulation.sticky_worker import StickyWorker
from tests.simulation.test_loading import holders, home_of, key_of
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., StickyWorker]
LOCAL = {"on_cluster_lost": "local", "on_corrupt": "local"}


@pytest.fixture
def make_worker(driver: SimulatedDriver) -> MakeWorker:
    seeds = iter(range(1, 1000))

    def make(**settings: Any) -> StickyWorker:
        return StickyWorker(driver, make_settings(**{"sticky": True, **LOCAL, **settings}), seed=next(seeds))

    return make


@pytest.fixture
def worker(make_worker: MakeWorker) -> StickyWorker:
    return make_worker(route="w1")


def loaded(worker: StickyWorker, session_id: str) -> Session:
    session = worker.load(session_id)
    assert session is not None
    return session


def change(worker: StickyWorker, session_id: str, **attributes: Any) -> str:
    session = loaded(worker, session_id)
    session.update(attributes)
    return worker.save(session).status


# -- requests


def test_a_request_costs_no_round_trip(driver: SimulatedDriver, worker: StickyWorker) -> None:
    session_id = worker.store(n=0)
    for n in range(3):
        assert change(worker, session_id, n=n + 1) == "queued"
        assert loaded(worker, session_id)["n"] == n + 1
    assert driver.exchanges == 0


def test_what_changed_is_written_behind_once_however_often_it_changed(
    driver: SimulatedDriver, worker: StickyWorker
) -> None:
    session_id = worker.store(n=0)
    for n in range(5):
        change(worker, session_id, n=n)
    assert worker.catch_up() == 1
    assert len(holders(driver, session_id)) == 2
    assert driver.exchanges == 1
    assert worker.catch_up() == 0


def test_a_request_that_changed_nothing_queues_nothing(worker: StickyWorker) -> None:
    session_id = worker.store(cart=["apple"])
    worker.catch_up()
    session = loaded(worker, session_id)
    assert session["cart"] == ["apple"]
    assert worker.save(session).status == "unchanged"
    session["cart"].append("pear")
    assert worker.save(session).status == "queued"


def test_requests_at_once_share_the_live_session(worker: StickyWorker) -> None:
    session_id = worker.store(n=0)
    one, two = loaded(worker, session_id), loaded(worker, session_id)
    one["a"] = 1
    assert two["a"] == 1
    two["b"] = 2
    worker.save(one)
    worker.save(two)
    assert dict(loaded(worker, session_id)) == {"n": 0, "a": 1, "b": 2}


def test_what_changes_while_it_is_written_is_written_too(driver: SimulatedDriver, worker: StickyWorker) -> None:
    session_id = worker.store(n=0)
    driver.before_exchange = lambda effect: change(worker, session_id, late=True) and None  # type: ignore[func-returns-value]
    (job,) = worker.ctx.behind.take(0)
    worker.driver.run(job.run())
    worker.ctx.behind.finish(job, None)
    driver.before_exchange = None
    assert worker.catch_up() == 1
    assert Worker(driver, worker.ctx.settings).load(session_id)["late"] is True  # type: ignore[index]


def test_with_synchronous_backups_it_is_stored_when_the_request_ends(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(backup="sync")
    session = worker.create(n=0)
    assert worker.save(session).status == "stored"
    assert len(holders(driver, session.id)) == 2


def test_a_request_whose_changes_another_has_written_is_told_of_all_copies(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(backup="sync")
    session = worker.create(a=1)
    assert worker.save(session).backups
    one, two = loaded(worker, session.id), loaded(worker, session.id)
    one["a"] = 2

    def change_it_too(_: object) -> None:
        driver.before_exchange = None
        two["b"] = 2
        assert worker.sticky.store_at_once(two.state) is None

    driver.before_exchange = change_it_too
    worker.save(one)
    exchanges = driver.exchanges
    result = worker.driver.run(worker.sticky.store(two.state))
    assert driver.exchanges == exchanges
    assert (result.status, len(result.backups)) == ("stored", 1)


def test_a_full_queue_makes_the_request_write_itself(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.ctx.behind.max_jobs = 2
    statuses = [worker.save(worker.create(n=n)).status for n in range(3)]
    assert statuses == ["queued", "queued", "stored"]


# -- lifetimes


def test_a_session_that_is_only_read_stays_in_the_cluster(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(max_inactive=100)
    session_id = worker.store(n=0)
    worker.catch_up()
    for _ in range(40):
        driver.clock.advance(9)
        worker.save(loaded(worker, session_id))
        worker.catch_up()
    assert len(holders(driver, session_id)) == 2
    driver.clock.advance(102)
    assert holders(driver, session_id) == set()
    assert worker.load(session_id) is None


def test_a_session_lives_on_from_each_save_of_a_request_that_outlasts_its_lifetime(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(max_inactive=100)
    session_id = worker.store(n=0)
    of_a_websocket = loaded(worker, session_id)
    for n in range(5):
        driver.clock.advance(60)
        of_a_websocket["n"] = n
        worker.save(of_a_websocket)
        worker.catch_up()
    driver.clock.advance(60)
    assert len(holders(driver, session_id)) == 2
    assert loaded(worker, session_id).state is of_a_websocket.state


def test_the_absolute_limit_holds_in_memory_too(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(max_inactive=100, absolute_lifetime=150)
    session_id = worker.store(n=0)
    worker.catch_up()
    for _ in range(2):
        driver.clock.advance(60)
        loaded(worker, session_id)
        worker.catch_up()
    driver.clock.advance(40)
    assert worker.load(session_id) is None


@pytest.mark.parametrize("loss", ["evict", "flush", "restart"])
def test_a_copy_that_is_gone_is_stored_again_from_memory(
    driver: SimulatedDriver, make_worker: MakeWorker, loss: str
) -> None:
    worker = make_worker(max_inactive=100)
    session_id = worker.store(n=0)
    worker.catch_up()
    for node in driver.nodes.values():
        {
            "evict": lambda s: s.evict(key_of(session_id)),
            "flush": lambda s: s.flush(),
            "restart": lambda s: s.restart(),
        }[loss](node.server)
    driver.clock.advance(20)
    loaded(worker, session_id)
    worker.catch_up()
    assert len(holders(driver, session_id)) == 2
    assert change(worker, session_id, n=1) == "queued"
    for node in driver.nodes.values():
        node.server.flush()
    worker.catch_up()
    assert Worker(driver, worker.ctx.settings).load(session_id)["n"] == 1  # type: ignore[index]


def test_a_session_that_is_only_read_outlives_its_nodes_being_restarted_one_by_one(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(route="w1", reconnect=Reconnect(first=0.1))
    session_id, others = worker.store(n=0), [worker.store(seen=0) for _ in range(20)]
    worker.catch_up()
    for node in driver.nodes.values():
        node.server.restart()
        node.fault = "refused"
        for other in others:
            change(worker, other, seen=node.server.life)
        worker.catch_up()
        node.fault = None
        driver.clock.advance(1)
        assert all(worker.probe(down) for down in worker.ctx.health.down())
        driver.clock.advance(0.1)
        session_id = loaded(worker, session_id).id
        worker.catch_up()
        exchanges = driver.exchanges
        loaded(worker, session_id)
        worker.catch_up()
        assert driver.exchanges == exchanges, "once is enough"
    assert len(holders(driver, session_id)) == 2
    assert dict(loaded(make_worker(route="w2"), session_id)) == {"n": 0}


# -- logins and logouts


@pytest.mark.parametrize("begins_late", [True, False])
def test_of_two_logins_at_once_at_one_worker_neither_ends_the_other(
    driver: SimulatedDriver, worker: StickyWorker, begins_late: bool
) -> None:
    session_id = worker.store(cart=1)
    worker.catch_up()
    one, two = loaded(worker, session_id), loaded(worker, session_id)
    for login in (one, two):
        login.rotate_id()

    def be_first(_: object) -> None:
        driver.before_exchange = None
        assert worker.save(one).status == "stored"

    if begins_late:
        be_first(None)
    else:
        driver.before_exchange = be_first
    assert worker.save(two).status == "stored"
    assert dict(loaded(worker, one.id)) == dict(loaded(worker, two.id)) == {"cart": 1}


def test_a_request_that_shares_an_ended_session_stores_nothing(driver: SimulatedDriver, worker: StickyWorker) -> None:
    session_id = worker.store(n=0)
    worker.catch_up()
    slow, logout = loaded(worker, session_id), loaded(worker, session_id)
    logout.invalidate()
    worker.save(logout)
    slow["n"] = 1
    assert worker.save(slow).status == "invalidated"
    worker.catch_up()
    assert worker.load(session_id) is None


@pytest.mark.parametrize("value", [1, object()], ids=["storable", "not"])
@pytest.mark.parametrize("end", [Session.invalidate, Session.rotate_id])
def test_a_session_that_another_request_ends_while_it_is_being_saved_stays_ended(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch, end: Callable[[Session], None], value: object
) -> None:
    worker = make_worker(route="w1", on_unserializable="local_session")
    session_id = worker.store(user="ada")
    worker.catch_up()
    slow, other = loaded(worker, session_id), loaded(worker, session_id)
    end(other)
    slow["n"] = value

    def encode_after_that(ctx: Context, state: SessionState) -> bytes:
        monkeypatch.undo()
        assert worker.save(other).status in ("invalidated", "stored")
        return encode_attributes(ctx, state)

    monkeypatch.setattr(sticky, "encode_attributes", encode_after_that)
    assert worker.save(slow).status == "invalidated"
    assert worker.load(session_id) is None
    worker.catch_up()
    assert worker.load(session_id) is None


@pytest.mark.parametrize("change", [{}, {"n": 1}], ids=["reads", "writes"])
@pytest.mark.parametrize("end", [Session.invalidate, Session.rotate_id])
def test_nor_does_one_come_back_that_stays_on_this_host(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch, end: Callable[[Session], None], change: dict[str, int]
) -> None:
    worker = make_worker(route="w1", on_unserializable="local_session")
    session = worker.create(user="ada", handle=object())
    assert worker.save(session).status == "local"
    slow, other = loaded(worker, session.id), loaded(worker, session.id)
    end(other)
    slow.update(change)

    def store_before_that(ctx: Context, state: SessionState) -> Flow[SaveResult]:
        monkeypatch.undo()
        result = yield from store(ctx, state)
        assert worker.save(other).status in ("invalidated", "local")
        return result

    monkeypatch.setattr(sticky, "store", store_before_that)
    assert worker.save(slow).status == "invalidated"
    assert worker.load(session.id) is None


def test_a_new_id_at_login_ends_the_old_one(driver: SimulatedDriver, worker: StickyWorker) -> None:
    session_id = worker.store(cart=["apple"])
    worker.catch_up()
    login = loaded(worker, session_id)
    login.rotate_id()
    login["user"] = "ada"
    assert worker.save(login).status == "stored"
    assert worker.load(session_id) is None
    assert dict(loaded(worker, login.id)) == {"cart": ["apple"], "user": "ada"}


def save_and_at_line(worker: StickyWorker, session: Session, n: int, act: Callable[[], object]) -> bool:
    """Save a session, and act as another thread would that has its turn before the n-th line; False: there is none."""
    lines = itertools.count()
    has_acted = False

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal has_acted
        if not frame.f_code.co_filename.endswith("sticky.py"):
            return None
        if event == "line" and next(lines) == n:
            sys.settrace(None)
            act()
            has_acted = True
        return None if has_acted else trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        worker.save(session)
    finally:
        sys.settrace(before)
    return has_acted


def test_whenever_a_login_begins_what_another_thread_just_saves_comes_along(make_worker: MakeWorker) -> None:
    worker, has_met, n = make_worker(route="w1"), True, 0
    while has_met:
        session_id = worker.store(cart=[])
        worker.catch_up()
        assert change(worker, session_id, cart=["apple"]) == "queued"
        shopping, login = loaded(worker, session_id), loaded(worker, session_id)
        shopping["cart"].append("pear")
        has_met = save_and_at_line(worker, shopping, n, login.rotate_id)
        worker.catch_up()
        login.rotate_id()
        worker.save(login)
        assert dict(loaded(worker, login.id)) == {"cart": ["apple", "pear"]}
        n += 1
    assert n > 10


# -- faults


def test_a_write_that_failed_stays_to_be_written(driver: SimulatedDriver, worker: StickyWorker) -> None:
    session_id = worker.store(n=0)
    for node in driver.nodes.values():
        node.fault = "timeout"
    worker.catch_up()
    assert loaded(worker, session_id)["n"] == 0
    for node in driver.nodes.values():
        node.fault = None
    driver.clock.advance(2)
    worker.catch_up()
    assert len(holders(driver, session_id)) == 2


def test_a_session_leaves_a_node_that_died_and_says_so_in_its_id(driver: SimulatedDriver, worker: StickyWorker) -> None:
    session_id = worker.store(n=0)
    worker.catch_up()
    driver.nodes[home_of(session_id)].fault = "refused"
    change(worker, session_id, n=1)
    worker.catch_up()
    session = loaded(worker, session_id)
    assert session.id_changed
    assert home_of(session.id) != home_of(session_id)
    assert dict(session) == {"n": 1}
    assert len(holders(driver, session.id)) >= 2
    assert not loaded(worker, session.id).id_changed
