"""Live sessions in an outage and after it: served and changed in memory, then dropped or written as the policy says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from msm_fast import Reconnect, SessionUnavailable
from msm_fast.drivers.sqlite_store import SqliteStore
from msm_fast.engine.effects import Exchange
from tests.simulation.driver import SimulatedDriver
from tests.simulation.sticky_worker import StickyWorker, fail, heal, lose, stored
from tests.simulation.test_loading import key_of
from tests.simulation.test_sticky import MakeWorker, change, loaded, make_worker, worker
from tests.simulation.worker import Worker

__all__ = ["make_worker", "worker"]


def test_in_an_outage_requests_go_on_from_memory(driver: SimulatedDriver, worker: StickyWorker) -> None:
    session_id = worker.store(n=0)
    worker.catch_up()
    lose(driver, worker)
    before = driver.exchanges
    for n in range(1, 4):
        assert change(worker, session_id, n=n) == "local"
        assert loaded(worker, session_id)["n"] == n
    login = worker.create(user="ada")
    assert worker.save(login).status == "local"
    assert dict(loaded(worker, login.id)) == {"user": "ada"}
    assert driver.exchanges == before


def test_after_it_what_was_kept_is_dumped(driver: SimulatedDriver, worker: StickyWorker) -> None:
    session_id, untouched = worker.store(n=0), worker.store(n=7)
    worker.catch_up()
    lose(driver, worker)
    change(worker, session_id, n=1)
    heal(driver, worker)
    assert loaded(worker, session_id)["n"] == 0
    assert loaded(worker, untouched)["n"] == 7


def test_after_it_what_was_kept_is_stored_with_the_policy_replay(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(route="w1", reconnect=Reconnect(on_reconnect="replay"))
    session_id, unwritten = worker.store(n=0), worker.store(n=7)
    (job,) = worker.ctx.behind.take(math.inf, 1)
    driver.run(job.run())
    worker.ctx.behind.finish(job, None)
    lose(driver, worker)
    change(worker, session_id, n=1)
    login = worker.create(user="ada")
    worker.save(login)
    heal(driver, worker)
    worker.catch_up()
    for id_, expected in ((session_id, {"n": 1}), (unwritten, {"n": 7}), (login.id, {"user": "ada"})):
        assert dict(loaded(worker, id_)) == expected
        assert dict(Worker(driver, worker.ctx.settings).load(id_)) == expected  # type: ignore[arg-type]


def test_a_session_that_a_request_changed_during_its_replay_is_still_there_when_the_cluster_is_lost_again_at_once(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(route="w1", reconnect=Reconnect(on_reconnect="replay"))
    session_id = worker.store(n=0)
    worker.catch_up()
    change(worker, session_id, n=1)
    fail(driver, "timeout")
    job = worker.next_job()
    assert job is not None
    assert not worker.do(job)  # its outcome is unknown, so the replay tries it again before anything newer
    lose(driver, worker)
    assert change(worker, session_id, n=2) == "local"

    def meanwhile(exchange: Exchange) -> None:
        if any(command.verb == "ms" for batch in exchange.batches for command in batch.commands):
            driver.before_exchange = None
            assert change(worker, session_id, n=3) == "local"

    driver.before_exchange = meanwhile
    heal(driver, worker)
    assert driver.before_exchange is None
    lose(driver, worker)
    assert loaded(worker, session_id)["n"] == 3
    assert change(worker, session_id, n=4) == "local"
    heal(driver, worker)
    assert stored(driver, worker, session_id) == {"n": 4}


def test_what_was_queued_before_an_outage_and_only_read_in_it_is_written_after_it(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(reconnect=Reconnect(on_reconnect="replay"))
    session_id = worker.store(n=0)
    worker.catch_up()
    change(worker, session_id, n=1)
    lose(driver, worker)
    assert worker.save(loaded(worker, session_id)).status == "unchanged"
    heal(driver, worker)
    assert loaded(worker, session_id)["n"] == 1
    driver.clock.advance(60)
    worker.catch_up()
    assert stored(driver, worker, session_id) == {"n": 1}


def test_a_live_session_outlives_a_cluster_that_comes_back_empty(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(reconnect=Reconnect(on_reconnect="replay"))
    session_id = worker.store(n=0)
    worker.catch_up()
    lose(driver, worker)
    assert change(worker, session_id, n=1) == "local"
    for node in driver.nodes.values():
        node.server.restart()
    heal(driver, worker)
    assert loaded(worker, session_id)["n"] == 1
    worker.catch_up()
    assert stored(driver, worker, session_id) == {"n": 1}
    assert len(worker.ctx.local) == 0


def test_what_a_request_keeps_here_while_its_session_is_replayed_is_replayed_too(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(reconnect=Reconnect(on_reconnect="replay"))
    session_id = worker.store(n=0)
    worker.catch_up()
    lose(driver, worker)
    assert change(worker, session_id, n=1) == "local"

    def change_once_more(exchange: Exchange) -> None:
        if any(batch.commands[0].verb == "ms" for batch in exchange.batches):
            driver.before_exchange = None
            assert change(worker, session_id, n=2) == "local"

    driver.before_exchange = change_once_more
    heal(driver, worker)
    assert loaded(worker, session_id)["n"] == 2
    worker.catch_up()
    assert stored(driver, worker, session_id) == {"n": 2}
    assert len(worker.ctx.local) == 0


def test_a_live_session_that_was_ended_in_the_cluster_while_this_worker_was_cut_off_is_not_brought_back(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker, other = make_worker(reconnect=Reconnect(on_reconnect="replay")), make_worker()
    session_id = worker.store(n=0)
    worker.catch_up()
    lose(driver, worker)
    assert change(worker, session_id, n=1) == "local"
    fail(driver, None)
    logout = loaded(other, session_id)
    logout.invalidate()
    other.save(logout)
    heal(driver, worker)
    worker.catch_up()
    assert worker.load(session_id) is None
    assert len(worker.ctx.local) == 0


def test_what_was_kept_in_an_outage_is_not_laid_over_what_came_after(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(reconnect=Reconnect(on_reconnect="replay"))
    session_id = worker.store(n=0)
    worker.catch_up()
    lose(driver, worker)
    assert change(worker, session_id, n=1) == "local"
    heal(driver, worker)
    assert change(worker, session_id, n=2) == "queued"
    driver.clock.advance(60)
    worker.catch_up()
    worker.sticky._live.clear()
    assert loaded(worker, session_id)["n"] == 2
    assert len(worker.ctx.local) == 0


def test_a_session_that_is_only_read_for_the_rest_of_a_long_outage_is_replayed(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(max_inactive=100, reconnect=Reconnect(on_reconnect="replay"))
    session_id = worker.store(n=0)
    worker.catch_up()
    lose(driver, worker)
    assert change(worker, session_id, n=1) == "local"
    for _ in range(4):
        driver.clock.advance(40)
        assert worker.save(loaded(worker, session_id)).status == "unchanged"
    heal(driver, worker)
    assert loaded(worker, session_id)["n"] == 1
    worker.catch_up()
    assert stored(driver, worker, session_id) == {"n": 1}


def test_a_session_that_once_held_what_cannot_be_stored_lives_while_it_is_read(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(max_inactive=100, on_unserializable="local_session")
    session = worker.create(n=0, handle=object())
    assert worker.save(session).status == "local"
    back = loaded(worker, session.id)
    del back["handle"]
    assert worker.save(back).status == "local"
    for _ in range(4):
        driver.clock.advance(40)
        assert worker.save(loaded(worker, session.id)).status == "unchanged"
    assert change(worker, session.id, n=1) == "local"
    assert loaded(worker, session.id)["n"] == 1


def test_a_logout_in_an_outage_holds_after_it(driver: SimulatedDriver, worker: StickyWorker) -> None:
    session_id = worker.store(n=0)
    worker.catch_up()
    lose(driver, worker)
    slow, logout = loaded(worker, session_id), loaded(worker, session_id)
    logout.invalidate()
    assert worker.save(logout).status == "invalidated"
    slow["n"] = 1
    assert worker.save(slow).status == "invalidated"
    assert worker.load(session_id) is None
    heal(driver, worker)
    assert worker.load(session_id) is None


def test_a_logout_that_no_node_could_be_told_holds_in_this_worker(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(on_cluster_lost="error")
    session_id = worker.store(n=0)
    worker.catch_up()
    logout = loaded(worker, session_id)
    logout.invalidate()
    fail(driver, "timeout")
    with pytest.raises(SessionUnavailable):
        worker.save(logout)
    assert worker.sticky._live.get(key_of(session_id)) is None


def test_in_an_outage_a_client_who_comes_from_another_worker_of_the_host_finds_what_that_one_kept(
    driver: SimulatedDriver, make_worker: MakeWorker, tmp_path: Any
) -> None:
    one, two = make_worker(route="w1"), make_worker(route="w2")
    for each in (one, two):
        each.ctx.local = SqliteStore(str(tmp_path / "sessions.db"), each.ctx.settings.near_cache)
    session_id = one.store(n=0)
    one.catch_up()
    elsewhere = loaded(two, session_id).id
    lose(driver, one)
    lose(driver, two)
    assert change(one, session_id, n=1) == "local"
    assert change(two, session_id, n=2) == "local"
    assert loaded(one, elsewhere)["n"] == 2
    for each in (one, two):
        each.ctx.local.close()


def test_while_distribution_is_stopped_requests_are_served_from_memory(
    driver: SimulatedDriver, worker: StickyWorker
) -> None:
    session_id = worker.store(n=0)
    worker.catch_up()
    worker.ctx.distribution.stop("a test")
    exchanges = driver.exchanges
    assert change(worker, session_id, n=1) == "local"
    assert loaded(worker, session_id)["n"] == 1
    assert driver.exchanges == exchanges
