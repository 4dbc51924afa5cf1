"""How the changes of live sessions are written: late, and again if need be."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from msm_fast import ConflictError, Session, SessionUnavailable
from msm_fast.engine.effects import Exchange, Sleep
from tests.simulation.driver import SimulatedDriver
from tests.simulation.sticky_worker import StickyWorker, fail, stored
from tests.simulation.test_loading import holders, home_of
from tests.simulation.test_sticky import change, loaded, make_worker, worker
from tests.simulation.worker import Worker

__all__ = ["make_worker", "worker"]

MakeWorker = Callable[..., StickyWorker]


# -- writes whose outcome is not known


@pytest.mark.parametrize("is_first", [True, False])
def test_a_write_that_arrived_though_nobody_answered_is_no_conflict_when_it_is_tried_again(
    driver: SimulatedDriver, make_worker: MakeWorker, is_first: bool
) -> None:
    worker = make_worker(on_conflict="error")
    session_id = worker.store(n=0, gone=1)
    if not is_first:
        worker.catch_up()
        change(worker, session_id, n=1)
    for node in driver.nodes.values():
        node.carries_out_before_failing = True
    fail(driver, "timeout")
    worker.catch_up()
    fail(driver, None)
    session = loaded(worker, session_id)
    del session["gone"]
    session["n"] = 2
    worker.save(session)
    driver.clock.advance(2)
    worker.catch_up()
    assert worker.ctx.counters.snapshot().conflicts == 0
    assert stored(driver, worker, session_id) == {"n": 2}


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_lifetime_that_is_set_back_while_another_is_on_its_way_stays_as_it_was_set_last(
    driver: SimulatedDriver, worker: StickyWorker, is_answered: bool
) -> None:
    session_id = worker.store(n=0)
    worker.catch_up()
    usual = (loaded(worker, session_id).max_inactive, None)

    def set_lifetimes(lifetimes: tuple[float | None, float | None]) -> None:
        session = loaded(worker, session_id)
        session.max_inactive, session.absolute_lifetime = lifetimes
        assert worker.save(session).status == "queued"

    set_lifetimes((30 * 86400, 60 * 86400))
    if is_answered:

        def set_back(_: Exchange) -> None:
            driver.before_exchange = None
            set_lifetimes(usual)

        driver.before_exchange = set_back
        worker.catch_up()
    else:
        fail(driver, "timeout")
        worker.catch_up()
        fail(driver, None)
        set_lifetimes(usual)
    driver.clock.advance(2)
    worker.catch_up()
    found = Worker(driver, worker.ctx.settings).load(session_id)
    for session in (loaded(worker, session_id), found):
        assert session is not None
        assert (session.max_inactive, session.absolute_lifetime) == usual


def test_the_life_of_a_copy_counts_from_the_last_request_not_from_a_late_write(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(max_inactive=100)
    session_id = worker.store(n=0)
    driver.clock.advance(60)
    worker.catch_up()
    driver.clock.advance(42)
    assert holders(driver, session_id) == set()


def test_nor_is_it_shorter_where_the_session_is_about_to_reach_its_absolute_lifetime(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(max_inactive=1800, absolute_lifetime=2000)
    session_id = worker.store(n=0)
    worker.catch_up()
    driver.clock.advance(1400)
    assert change(worker, session_id, n=1) == "queued"
    driver.clock.advance(290)
    worker.catch_up()
    driver.clock.advance(300)
    assert len(holders(driver, session_id)) == 2


def test_a_write_waits_for_the_one_before_it_of_the_same_session(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(backup="sync")
    session = worker.create(n=0)
    worker.save(session)
    session["n"] = 1
    flow = worker.sticky._writer.write(session.state)
    session.state.turn = object()
    session.state.revision += 1
    waits = [next(flow), flow.send(True)]
    assert [type(effect) for effect in waits] == [Sleep, Sleep]
    session.state.turn = None
    assert isinstance(flow.send(True), Exchange)


def test_a_write_that_waited_all_its_time_for_the_one_before_it_is_left_to_the_background(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(backup="sync")
    session = worker.create(n=0)
    worker.save(session)
    session["n"] = 1
    session.state.turn = object()
    started = driver.clock.monotonic()
    assert worker.save(session).status == "queued"
    assert driver.clock.monotonic() - started == pytest.approx(worker.ctx.settings.timeouts.request)
    session.state.turn = None
    worker.catch_up()
    assert stored(driver, worker, session.id) == {"n": 1}


def test_a_synchronous_write_that_fails_is_left_to_the_background(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(backup="sync")
    session = worker.create(n=0)
    fail(driver, "timeout")
    assert worker.save(session).status == "queued"
    assert loaded(worker, session.id)["n"] == 0
    fail(driver, None)
    driver.clock.advance(2)
    worker.catch_up()
    assert len(holders(driver, session.id)) == 2


def test_with_on_cluster_lost_error_it_is_told_and_still_written_later(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(backup="sync", on_cluster_lost="error")
    session = worker.create(n=0)
    fail(driver, "timeout")
    with pytest.raises(SessionUnavailable):
        worker.save(session)
    fail(driver, None)
    driver.clock.advance(2)
    worker.catch_up()
    assert len(holders(driver, session.id)) == 2


def test_what_neither_the_queue_nor_the_nodes_take_is_kept_on_this_host_and_stored_by_the_next_request(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker()
    session_id = worker.store(n=0)
    worker.catch_up()
    worker.ctx.behind.max_jobs = 0
    fail(driver, "timeout")
    assert change(worker, session_id, n=1) == "local"
    fail(driver, None)
    worker.ctx.behind.max_jobs = 10
    back = loaded(worker, session_id)
    assert back["n"] == 1
    assert worker.save(back).status == "queued"
    worker.catch_up()
    assert stored(driver, worker, session_id) == {"n": 1}
    assert len(worker.ctx.local) == 0


def test_with_on_cluster_lost_error_that_is_told_and_stored_by_the_next_request_too(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(on_cluster_lost="error")
    session_id = worker.store(n=0)
    worker.catch_up()
    worker.ctx.behind.max_jobs = 0
    fail(driver, "timeout")
    with pytest.raises(SessionUnavailable):
        change(worker, session_id, n=1)
    fail(driver, None)
    worker.ctx.behind.max_jobs = 10
    assert worker.save(loaded(worker, session_id)).status == "queued"
    worker.catch_up()
    assert stored(driver, worker, session_id) == {"n": 1}


def test_a_conflict_in_a_synchronous_write_drops_the_live_session(make_worker: MakeWorker) -> None:
    one, two = (make_worker(backup="sync", on_conflict="error") for _ in range(2))
    session = one.create(n=0)
    one.save(session)
    loaded(two, session.id)
    change(one, session.id, n=1)
    late = loaded(two, session.id)
    late["n"] = 2
    with pytest.raises(ConflictError):
        two.save(late)
    assert loaded(two, session.id)["n"] == 1


def test_an_item_that_a_node_turns_out_not_to_take_keeps_the_session_here(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(on_unserializable="local_session")
    session_id = worker.store(text="x" * 5000)
    worker.ctx.item_limits.learn("n1", 4096)
    worker.catch_up()
    session = loaded(worker, session_id)
    assert session.is_local
    assert session["text"] == "x" * 5000
    assert holders(driver, session_id) == set()
    assert worker.catch_up() == 0


def test_copies_that_could_not_be_touched_nor_stored_again_once_are_kept_alive_later(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(max_inactive=100)
    session_id = worker.store(n=0)
    worker.catch_up()
    driver.clock.advance(20)
    loaded(worker, session_id)
    fail(driver, "timeout")
    worker.catch_up()
    fail(driver, None)
    for _ in range(20):
        driver.clock.advance(10)
        loaded(worker, session_id)
        worker.catch_up()
    assert len(holders(driver, session_id)) == 2
    assert worker.catch_up() == 0


def test_what_was_still_to_be_written_is_not_written_after_a_logout(
    driver: SimulatedDriver, worker: StickyWorker
) -> None:
    session_id = worker.store(n=0)
    worker.catch_up()
    assert change(worker, session_id, n=1) == "queued"
    logout = loaded(worker, session_id)
    logout.invalidate()
    worker.save(logout)
    for node in driver.nodes.values():
        node.server.flush()
    worker.catch_up()
    assert holders(driver, session_id) == set()


def test_nor_is_what_was_being_written_just_then_tried_again(driver: SimulatedDriver, worker: StickyWorker) -> None:
    session_id = worker.store(n=0)
    worker.catch_up()
    change(worker, session_id, n=1)
    job = worker.next_job()
    assert job is not None
    logout = loaded(worker, session_id)
    logout.invalidate()
    worker.save(logout)
    fail(driver, "timeout")
    worker.do(job)
    fail(driver, None)
    for node in driver.nodes.values():
        node.server.flush()
    driver.clock.advance(2)
    worker.catch_up()
    assert holders(driver, session_id) == set()


# -- not sticky


def test_without_sticky_sessions_asynchronous_backups_follow_the_request(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(sticky=False, backup="async")
    plain = Worker(driver, worker.ctx.settings)
    session = plain.create(n=0)
    assert plain.save(session).backups == ()
    assert holders(driver, session.id) == {home_of(session.id)}
    (job,) = plain.ctx.behind.take(math.inf)
    assert driver.run(job.run())
    assert len(holders(driver, session.id)) == 2
    again = plain.load(session.id)
    assert isinstance(again, Session)
    again["n"] = 1
    plain.save(again)
    (job,) = plain.ctx.behind.take(math.inf)
    driver.run(job.run())
    driver.nodes[home_of(session.id)].fault = "refused"
    assert stored(driver, worker, session.id) == {"n": 1}
