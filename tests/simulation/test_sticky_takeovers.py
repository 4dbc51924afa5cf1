"""Sticky sessions of which more than one worker has a copy: taken over, changed and ended elsewhere."""

from __future__ import annotations

import pytest

from msm_fast import Session
from msm_fast.engine.effects import Exchange
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import holders
from tests.simulation.test_sticky import MakeWorker, change, loaded, make_worker

__all__ = ["make_worker"]


def test_another_worker_takes_over_under_its_own_route(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    one, two = make_worker(route="w1"), make_worker(route="w2")
    session_id = one.store(user="ada")
    assert session_id.endswith(".w1")
    one.catch_up()
    session = loaded(two, session_id)
    assert dict(session) == {"user": "ada"}
    assert session.id_changed
    assert session.id == session_id.replace(".w1", ".w2")
    session["page"] = 1
    assert two.save(session).status == "queued"
    assert loaded(two, session.id)["page"] == 1
    two.catch_up()
    assert len(holders(driver, session.id)) == 2


def test_takeovers_at_once_get_one_session(make_worker: MakeWorker) -> None:
    one, two = make_worker(route="w1"), make_worker(route="w2")
    session_id = one.store(user="ada")
    one.catch_up()
    first, second = loaded(two, session_id), loaded(two, session_id)
    assert first.state is second.state


@pytest.mark.parametrize("is_changed_first", [False, True])
def test_a_takeover_that_fails_has_the_session_of_one_that_was_quicker(
    driver: SimulatedDriver, make_worker: MakeWorker, is_changed_first: bool
) -> None:
    one, two = make_worker(route="w1"), make_worker(route="w2")
    session_id = one.store(start=True)
    one.catch_up()
    quick: list[Session] = []

    def be_quicker(effect: Exchange) -> None:
        driver.before_exchange = None
        quick.append(loaded(two, session_id))
        if is_changed_first:
            quick[0]["quick"] = 1
            assert two.save(quick[0]).status == "queued"
        for node in driver.nodes.values():
            node.fault = "timeout"

    driver.before_exchange = be_quicker
    slow = loaded(two, session_id)
    for node in driver.nodes.values():
        node.fault = None
    assert slow.state is quick[0].state
    slow["slow"] = 2
    assert two.save(slow).status == "queued"
    two.catch_up()
    changed = {"start": True, "slow": 2, **({"quick": 1} if is_changed_first else {})}
    assert dict(loaded(two, slow.id)) == dict(loaded(make_worker(route="w3"), slow.id)) == changed
    assert len(two.ctx.local) == 0


def test_a_client_that_comes_back_finds_what_it_did_elsewhere(make_worker: MakeWorker) -> None:
    one, two = make_worker(route="w1"), make_worker(route="w2")
    session_id = one.store(a=0, b=0)
    one.catch_up()
    elsewhere = loaded(two, session_id)
    elsewhere["a"] = 1
    two.save(elsewhere)
    two.catch_up()
    back = loaded(one, elsewhere.id)
    assert dict(back) == {"a": 1, "b": 0}
    assert back.id.endswith(".w1")
    assert not back.is_new


def test_what_was_not_written_yet_is_laid_over_what_was_done_elsewhere(make_worker: MakeWorker) -> None:
    one, two = make_worker(route="w1"), make_worker(route="w2")
    session_id = one.store(a=0, b=0)
    one.catch_up()
    change(one, session_id, b=2)
    elsewhere = loaded(two, session_id)
    elsewhere["a"] = 1
    two.save(elsewhere)
    two.catch_up()
    assert dict(loaded(one, elsewhere.id)) == {"a": 1, "b": 2}
    one.save(loaded(one, elsewhere.id))
    one.catch_up()
    assert dict(loaded(two, session_id)) == {"a": 1, "b": 2}


def test_writes_of_two_workers_are_merged_in_memory_too(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(a=0, b=0)
    one.catch_up()
    loaded(two, session_id)
    change(one, session_id, a=1)
    change(two, session_id, b=2)
    one.catch_up()
    two.catch_up()
    assert dict(loaded(two, session_id)) == {"a": 1, "b": 2}
    assert change(two, session_id, c=3) == "queued"
    two.catch_up()
    assert dict(loaded(make_worker(), session_id)) == {"a": 1, "b": 2, "c": 3}


def test_without_routes_an_old_copy_is_dropped_when_it_is_touched(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(max_inactive=100), make_worker(max_inactive=100)
    session_id = one.store(n=0)
    one.catch_up()
    change(two, session_id, n=1)
    two.catch_up()
    driver.clock.advance(20)
    assert loaded(one, session_id)["n"] == 0
    one.catch_up()
    assert loaded(one, session_id)["n"] == 1


def test_a_logout_at_another_worker_ends_the_live_session(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(n=0)
    one.catch_up()
    logout = loaded(two, session_id)
    logout.invalidate()
    assert two.save(logout).status == "invalidated"
    assert two.load(session_id) is None
    change(one, session_id, n=1)
    one.catch_up()
    assert one.load(session_id) is None


def test_nor_does_a_new_id_bring_it_back(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(user="ada")
    one.catch_up()
    logout = loaded(two, session_id)
    logout.invalidate()
    two.save(logout)
    login = loaded(one, session_id)
    login.rotate_id()
    login["user"] = "bob"
    for _ in range(2):
        assert one.save(login).status == "invalidated"
    assert holders(driver, login.id) == set()
    assert one.load(session_id) is None


def test_lifetimes_that_another_worker_has_set_are_taken_over(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    one, two = make_worker(route="w1"), make_worker(route="w2")
    session_id = one.store(user="ada")
    one.catch_up()
    session = loaded(two, session_id)
    session["admin"] = True
    session.max_inactive, session.absolute_lifetime = 100, 300
    two.save(session)
    two.catch_up()
    back = loaded(one, session.id)
    assert (back.max_inactive, back.absolute_lifetime) == (100, 300)
    assert change(one, back.id, n=1) == "queued"
    one.catch_up()
    found = loaded(make_worker(route="w3"), back.id)
    assert (found.max_inactive, found.absolute_lifetime) == (100, 300)


def test_a_lifetime_that_is_set_while_another_worker_stores_the_session_is_not_lost(make_worker: MakeWorker) -> None:
    one, two = make_worker(route="w1"), make_worker(route="w2")
    session_id = one.store(user="ada")
    one.catch_up()
    session = loaded(two, session_id)
    session["n"] = 1
    session.absolute_lifetime = 300
    mine = loaded(one, session_id)
    mine.max_inactive = 100
    one.save(mine)
    two.save(session)
    two.catch_up()
    one.catch_up()
    for found in (loaded(make_worker(route="w3"), session_id), loaded(one, session_id)):
        assert (found.max_inactive, found.absolute_lifetime) == (100, 300)


@pytest.mark.parametrize("value", [object(), bytes(1 << 20)], ids=["type", "size"])
def test_what_was_stored_as_null_takes_no_value_away_that_another_worker_has_stored(
    make_worker: MakeWorker, value: object
) -> None:
    worker, other = (make_worker(route=route, on_unserializable="blacklist") for route in ("w1", "w2"))
    session_id = worker.store(user="ada", handle=value)
    worker.catch_up()
    session = loaded(worker, session_id)
    assert session["handle"] is value, "here it still is"
    worker.save(session)
    change(other, session_id, handle="theirs")
    other.catch_up()
    session_id = loaded(other, session_id).id
    assert change(worker, session_id, user="grace") == "queued"
    worker.catch_up()
    assert dict(loaded(other, loaded(worker, session_id).id)) == {"user": "grace", "handle": "theirs"}
