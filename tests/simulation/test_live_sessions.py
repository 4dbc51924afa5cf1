"""What is special about sessions that live in a worker: one object each, memory first."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import pytest

from msm_fast import AttributeMap, NearCacheSettings, Reconnect, SessionId, SessionUnavailable
from msm_fast.engine import keeping
from msm_fast.engine.effects import Exchange
from msm_fast.session import SessionState
from tests.simulation.driver import SimulatedDriver
from tests.simulation.sticky_worker import StickyWorker, fail, heal, lose, stored
from tests.simulation.test_loading import holders, home_of, key_of
from tests.simulation.test_reconnecting_under_requests import when_first_kept
from tests.simulation.test_sticky import change, loaded, make_worker, worker
from tests.simulation.worker import Worker

__all__ = ["make_worker", "worker"]

MakeWorker = Callable[..., StickyWorker]


# -- one object


def test_a_session_that_was_evicted_before_it_was_written_is_found_all_the_same(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(near_cache=NearCacheSettings(max_sessions=1))
    worker.ctx.behind.max_jobs = 10
    first = worker.store(n=1)
    worker.store(n=2)
    assert loaded(worker, first)["n"] == 1
    assert driver.exchanges == 0


def test_a_session_that_was_evicted_while_requests_have_it_is_still_one(make_worker: MakeWorker) -> None:
    worker = make_worker(near_cache=NearCacheSettings(max_sessions=1))
    worker.ctx.behind.max_jobs = 10
    session_id = worker.store(n=1)
    worker.catch_up()
    slow = loaded(worker, session_id)
    worker.store(n=2)
    worker.catch_up()
    assert loaded(worker, session_id).state is slow.state


def test_a_session_that_is_ended_while_it_is_found_again_is_not_served_afterwards(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker(near_cache=NearCacheSettings(max_sessions=1), on_unserializable="local_session")
    session_id = worker.store(user="ada")
    worker.catch_up()
    slow, logout = loaded(worker, session_id), loaded(worker, session_id)
    logout.invalidate()
    worker.store(user="bob")  # whose session takes its place in memory
    ending = threading.Thread(target=worker.save, args=(logout,))
    live = worker.sticky._live

    class FoundThen(WeakValueDictionary[bytes, SessionState]):
        def get(self, key: bytes, default: Any = None) -> Any:  # type: ignore[override]
            found = super().get(key, default)
            if not ending.ident:
                ending.start()
                ending.join(0.05)
            return found

    monkeypatch.setattr(live, "_alive", FoundThen(live._alive))
    worker.load(session_id)
    ending.join()
    assert worker.load(session_id) is None
    assert worker.save(slow).status == "invalidated"


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_what_lives_here_stays_within_its_bytes_however_sessions_grow(
    driver: SimulatedDriver, make_worker: MakeWorker, n_steps: int, is_lost: bool
) -> None:
    worker = make_worker(near_cache=NearCacheSettings(max_bytes=10_000), on_cluster_lost="local")
    session_ids = [worker.store(n=n) for n in range(30)]
    worker.catch_up()
    if is_lost:
        lose(driver, worker)
    for step in range(n_steps):
        for session_id in session_ids:
            change(worker, session_id, **{f"step {step}": "x" * (1000 // n_steps)})
        worker.catch_up()
    bodies = [live.body for live in worker.sticky._live._alive.values()]
    assert len(bodies) >= 8
    assert sum(map(len, bodies)) <= 10_000


def test_so_it_does_where_it_is_merged_with_what_others_have_stored(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker, other = make_worker(near_cache=NearCacheSettings(max_bytes=10_000)), make_worker(route="w2")
    for _ in range(30):
        session_id = worker.store(n=0)
        worker.catch_up()
        change(other, session_id, text="x" * 1000)
        other.catch_up()
        change(worker, session_id, n=1)
        worker.catch_up()
        assert stored(driver, worker, session_id) == {"n": 1, "text": "x" * 1000}
    assert sum(len(live.body) for live in worker.sticky._live._alive.values()) <= 10_000


def test_requests_that_find_a_session_which_stays_on_this_host_after_it_was_dropped_share_it(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(on_unserializable="local_session", on_cluster_lost="local")
    session = worker.create(user="ada", handle=object())
    assert worker.save(session).status == "local"
    lose(driver, worker)
    heal(driver, worker)  # which drops what lives here
    one, two = loaded(worker, session.id), loaded(worker, session.id)
    one["first"], two["second"] = 1, 2
    assert [worker.save(each).status for each in (one, two)] == ["local", "local"]
    assert set(loaded(worker, session.id)) == {"user", "handle", "first", "second"}


def test_a_value_that_cannot_be_stored_may_be_deleted_while_another_request_saves_the_session(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker(on_unserializable="local_session")
    session = worker.create(user="ada", handle=object(), other=object())
    assert worker.save(session).status == "local"
    one, two = loaded(worker, session.id), loaded(worker, session.id)
    one["first"] = 1

    class DeletedThen(dict[str, Any]):
        def __contains__(self, name: object) -> bool:
            two.pop("handle", None)
            return super().__contains__(name)

    def decode(body: bytes, serializer: object) -> DeletedThen:
        monkeypatch.undo()
        return DeletedThen(AttributeMap.decode(body, serializer=serializer))

    monkeypatch.setattr(keeping, "AttributeMap", SimpleNamespace(decode=decode))
    assert worker.save(one).status == "local"
    assert worker.save(two).status in ("local", "unchanged")
    assert set(loaded(worker, session.id)) == {"user", "other", "first"}


def test_what_a_request_from_before_the_reconnection_stores_is_in_the_session_that_came_since(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(on_cluster_lost="local", reconnect=Reconnect(on_reconnect="replay"))
    lose(driver, worker)
    session = worker.create(user="ada")
    worker.save(session)
    slow = loaded(worker, session.id)
    heal(driver, worker)
    session_id = loaded(worker, session.id).id
    slow["late"] = True
    worker.save(slow)
    assert dict(loaded(worker, session_id)) == {"user": "ada", "late": True}


def test_a_session_that_stays_on_this_host_is_still_one_when_it_could_not_get_a_new_id(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(on_unserializable="local_session")
    session_id = worker.store(user="ada")
    worker.catch_up()
    change(worker, session_id, handle=object())
    page, login = loaded(worker, session_id), loaded(worker, session_id)
    login.rotate_id()
    met = []

    def break_off(exchange: Exchange) -> None:
        driver.before_exchange = None
        met.append(worker.load(session_id))
        raise KeyboardInterrupt

    driver.before_exchange = break_off
    with pytest.raises(KeyboardInterrupt):
        worker.save(login)
    assert met == [None], "as one that lives in the cluster, while it gets a new id"
    page["late"] = True
    assert worker.save(page).status == "local"
    assert set(loaded(worker, session_id)) == {"user", "handle", "late"}


def test_what_a_request_saves_of_a_dropped_session_is_laid_over_the_one_that_came_since(
    driver: SimulatedDriver, worker: StickyWorker
) -> None:
    session_id = worker.store(a=0, b=0)
    worker.catch_up()
    slow = loaded(worker, session_id)
    worker.sticky._live.clear()
    change(worker, session_id, a=1)
    slow["b"] = 2
    assert worker.save(slow).status == "queued"
    assert dict(loaded(worker, session_id)) == {"a": 1, "b": 2}
    worker.catch_up()
    assert stored(driver, worker, session_id) == {"a": 1, "b": 2}


def test_a_new_id_at_login_is_not_told_to_a_request_that_came_with_the_old_one(worker: StickyWorker) -> None:
    session_id = worker.store(cart=["apple"])
    worker.catch_up()
    other, login = loaded(worker, session_id), loaded(worker, session_id)
    login.rotate_id()
    login["user"] = "ada"
    assert other.id == session_id
    assert loaded(worker, session_id).id == session_id
    assert "user" not in loaded(worker, session_id)
    worker.save(login)
    other["late"] = True
    assert worker.save(other).status == "invalidated"
    assert dict(loaded(worker, login.id)) == {"cart": ["apple"], "user": "ada"}


@pytest.mark.parametrize("is_written", [True, False])
def test_a_new_id_that_could_not_be_stored_leaves_the_session_under_the_old_one(
    driver: SimulatedDriver, make_worker: MakeWorker, is_written: bool
) -> None:
    worker = make_worker(on_cluster_lost="error")
    session_id = worker.store(n=0)
    if is_written:
        worker.catch_up()
    login = loaded(worker, session_id)
    login.rotate_id()
    login["user"] = "ada"
    fail(driver, "timeout")
    with pytest.raises(SessionUnavailable):
        worker.save(login)
    fail(driver, None)
    assert dict(loaded(worker, session_id)) == {"n": 0}
    worker.catch_up()
    assert stored(driver, worker, session_id) == {"n": 0}
    assert change(worker, session_id, n=1) == "queued"
    worker.catch_up()
    assert stored(driver, worker, session_id) == {"n": 1}


def test_nor_does_it_bring_back_what_another_request_has_ended_meanwhile(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(on_cluster_lost="error")
    session_id = worker.store(n=0)
    worker.catch_up()
    login, logout = loaded(worker, session_id), loaded(worker, session_id)
    login.rotate_id()
    logout.invalidate()
    fail(driver, "timeout")

    def log_out(exchange: Exchange) -> None:
        driver.before_exchange = None
        with pytest.raises(SessionUnavailable):
            worker.save(logout)

    driver.before_exchange = log_out
    with pytest.raises(SessionUnavailable):
        worker.save(login)
    assert worker.sticky.find_at_once(SessionId.parse(session_id)) is None  # type: ignore[arg-type]


def test_a_session_that_was_being_loaded_while_it_was_ended_does_not_come_to_life(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(n=0)
    one.catch_up()
    found = Worker(driver, two.ctx.settings).load(session_id)
    assert found is not None
    logout = loaded(two, session_id)
    logout.invalidate()
    two.save(logout)
    assert two.sticky._adopt(found.state) is None
    assert two.load(session_id) is None


def test_requests_that_save_at_once_lose_nothing_of_each_other(worker: StickyWorker, monkeypatch: Any) -> None:
    session_id = worker.store(n=0)
    one, two = loaded(worker, session_id), loaded(worker, session_id)
    one["a"] = 1
    lock = worker.sticky._live.lock

    def save_the_other_first(key: bytes) -> Any:
        monkeypatch.setattr(worker.sticky._live, "lock", lock)
        two["b"] = 2
        worker.save(two)
        return lock(key)

    monkeypatch.setattr(worker.sticky._live, "lock", save_the_other_first)
    worker.save(one)
    assert worker.sticky._live.get(key_of(session_id)).body == one.state.attributes.encode()[0]  # type: ignore[union-attr]


# -- lifetimes


def test_a_copy_that_is_older_than_memory_is_stored_again_not_taken_for_newer(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(max_inactive=100)
    session_id = worker.store(n=0)
    worker.catch_up()
    (backup,) = holders(driver, session_id) - {home_of(session_id)}
    server = driver.nodes[backup].server
    old = dict(server._items)
    change(worker, session_id, n=1)
    worker.catch_up()
    server._items.update(old)
    driver.nodes[home_of(session_id)].server.restart()
    driver.clock.advance(20)
    assert loaded(worker, session_id)["n"] == 1
    worker.catch_up()
    assert loaded(worker, session_id)["n"] == 1
    assert stored(driver, worker, session_id) == {"n": 1}
    assert len(holders(driver, session_id)) == 2


def test_sessions_that_nobody_uses_leave_the_memory(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(max_inactive=100)
    for n in range(5):
        worker.store(n=n)
    worker.catch_up()
    driver.clock.advance(60)
    fresh = worker.store(n=5)
    driver.clock.advance(60)
    worker.sticky.sweep(3)
    worker.sticky.sweep(3)  # too soon
    assert len(worker.sticky._live) > 1
    driver.clock.advance(1)
    worker.sticky.sweep(3)
    assert len(worker.sticky._live) == 1
    assert loaded(worker, fresh)["n"] == 5


@pytest.mark.parametrize("look_at_all", ["sweep", "forget_local"])
def test_sessions_that_begin_while_all_are_looked_at_disturb_nothing(worker: StickyWorker, look_at_all: str) -> None:
    for n in range(3):
        worker.store(n=n)
    begun: list[str] = []

    def begin_one(frame: Any, event: str, _: object) -> Any:
        """Be another thread that has its turn somewhere in the loop over the sessions."""
        if frame.f_code.co_filename.endswith("weakref.py") and event == "line" and len(begun) < 50:
            sys.settrace(None)
            begun.append(worker.store(n=len(begun)))
            sys.settrace(begin_one)
        return begin_one

    sys.settrace(begin_one)
    try:
        worker.sticky.sweep() if look_at_all == "sweep" else worker.sticky._live.forget_local()
    finally:
        sys.settrace(None)
    assert begun
    assert [loaded(worker, session_id)["n"] for session_id in begun] == list(range(len(begun)))


def test_an_expired_session_is_not_served_from_memory(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(max_inactive=100)
    session_id = worker.store(n=0)
    worker.catch_up()
    driver.clock.advance(101)
    assert worker.load(session_id) is None
    assert worker.load(session_id.replace("-", ".other-") if "." in session_id else session_id + ".other") is None


# -- requests that the reconnection overtakes


@pytest.mark.parametrize("on_reconnect", ["discard", "replay"])
def test_a_logout_that_the_reconnection_overtakes_reaches_the_cluster(
    driver: SimulatedDriver, make_worker: MakeWorker, on_reconnect: Any
) -> None:
    worker = make_worker(route="w1", reconnect=Reconnect(on_reconnect=on_reconnect))
    session_id = worker.store(user="ada")
    worker.catch_up()
    lose(driver, worker)
    logout = loaded(worker, session_id)
    logout.invalidate()
    when_first_kept(worker, lambda: heal(driver, worker))
    assert worker.save(logout).status == "invalidated"
    assert Worker(driver, worker.ctx.settings).load(session_id) is None
    assert worker.load(session_id) is None


@pytest.mark.parametrize("on_reconnect", ["discard", "replay"])
def test_what_a_request_changes_that_the_reconnection_overtakes_is_stored(
    driver: SimulatedDriver, make_worker: MakeWorker, on_reconnect: Any
) -> None:
    worker = make_worker(route="w1", reconnect=Reconnect(on_reconnect=on_reconnect))
    session_id = worker.store(n=0)
    worker.catch_up()
    lose(driver, worker)
    slow = loaded(worker, session_id)
    slow["n"] = 1
    when_first_kept(worker, lambda: heal(driver, worker))
    assert worker.save(slow).status in ("stored", "queued")
    worker.catch_up()
    assert loaded(worker, session_id)["n"] == 1
    assert stored(driver, worker, session_id) == {"n": 1}
    assert len(worker.ctx.local) == 0
