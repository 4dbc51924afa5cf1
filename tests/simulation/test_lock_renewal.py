"""Locks that are renewed, lost, or taken for another."""

from collections.abc import Callable

import pytest

from msm_fast import LockTimeout
from msm_fast.engine.effects import FailureKind, Flow
from msm_fast.engine.events import Event
from msm_fast.engine.locking import store_locked
from msm_fast.engine.versions import cas_of
from tests.simulation.driver import SimulatedDriver
from tests.simulation.locking_worker import LockedRequest
from tests.simulation.test_loading import home_of
from tests.simulation.test_locking import (
    MakeLockingWorker,
    at_exchange,
    begun,
    fail_once,
    lock_holders,
    make_worker,
    other_session,
)

__all__ = ["make_worker"]


def test_a_renewed_lock_keeps_others_out_beyond_its_lifetime(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    request = begun(make_worker(), session_id)
    for _ in range(4):
        driver.clock.advance(20)
        request.renew()
        assert request.lock.is_held
    with pytest.raises(LockTimeout):
        make_worker().begin(session_id)
    request.session["n"] = 2
    before = driver.exchanges
    request.save()
    assert driver.exchanges == before + 1
    assert lock_holders(driver, session_id) == set()


@pytest.mark.parametrize("fault", ["reset", "timeout"])
def test_a_renewal_of_which_no_answer_came_loses_no_lock(
    driver: SimulatedDriver, make_worker: MakeLockingWorker, fault: FailureKind
) -> None:
    session_id = make_worker().store(n=1)
    request = begun(make_worker(), session_id)
    fail_once(driver, home_of(session_id), fault, is_carried_out=True)
    request.renew()
    assert request.lock.is_held
    request.save()
    assert lock_holders(driver, session_id) == set()


def test_nor_does_one_for_which_its_node_cannot_be_reached_while_its_lifetime_lasts(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    worker = make_worker()
    request = begun(worker, session_id)
    driver.clock.advance(10)
    home = home_of(session_id)
    driver.nodes[home].fault = "refused"
    for _ in range(2):
        request.renew()
        assert request.lock.is_held
    driver.nodes[home].fault = None
    assert worker.probe(home)
    request.save()
    assert lock_holders(driver, session_id) == set()


@pytest.mark.parametrize("loss", ["restarted", "full", "too late", "somebody else's", "out of reach"])
def test_a_lock_that_was_lost_is_noticed_and_told(
    driver: SimulatedDriver, make_worker: MakeLockingWorker, loss: str
) -> None:
    session_id = make_worker().store(n=1)
    worker = make_worker()
    told: list[Event] = []
    worker.ctx.events.subscribe(told.append)
    request = begun(worker, session_id)
    home = driver.nodes[home_of(session_id)]
    match loss:
        case "restarted":
            home.server.restart()
        case "full":
            home.server.room = 0
        case "too late":
            driver.clock.advance(32)
        case "somebody else's":
            driver.clock.advance(32)
            begun(make_worker(), session_id)
        case "out of reach":
            driver.clock.advance(32)
            home.fault = "refused"
    request.renew()
    assert not request.lock.is_held
    (event,) = [event for event in told if event.kind == "lock_lost"]
    assert event.session is not None
    assert session_id not in event.detail
    assert "its node was restarted, or is full" in event.detail
    assert worker.ctx.counters.snapshot().locks_lost == 1
    if loss == "somebody else's":
        assert request.save().status == "unchanged"
        assert lock_holders(driver, session_id) == {home_of(session_id)}


def test_a_renewal_that_comes_too_late_for_a_released_lock_tells_nothing(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    worker = make_worker()
    request = begun(worker, session_id)
    request.session["n"] = 2

    def storing() -> Flow[None]:
        flow = store_locked(worker.ctx, request.session.state, request.lock)
        outcomes = yield next(flow)
        request.renew()  # the node has deleted the lock, and the request does not know yet
        with pytest.raises(StopIteration):
            flow.send(outcomes)

    driver.run(storing())
    assert worker.ctx.counters.snapshot().locks_lost == 0
    assert lock_holders(driver, session_id) == set()


def test_a_lock_renewed_while_the_session_is_stored_is_let_go_all_the_same(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    request = begun(make_worker(), session_id)
    request.session["n"] = 2

    def renew_meanwhile() -> None:
        request.lock.is_held = True  # as when the renewal had begun before
        request.renew()

    at_exchange(driver, 1, renew_meanwhile)
    request.save()
    assert lock_holders(driver, session_id) == set()


def invalidate(request: LockedRequest) -> None:
    request.session.invalidate()
    request.save()


@pytest.mark.parametrize("act", [LockedRequest.renew, LockedRequest.give_up, LockedRequest.save, invalidate])
def test_a_lock_from_before_a_restart_is_not_taken_for_another_with_the_same_cas(
    driver: SimulatedDriver, make_worker: MakeLockingWorker, act: Callable[[LockedRequest], object]
) -> None:
    session_id = make_worker().store(n=1)
    first = begun(make_worker(), session_id)
    server = driver.nodes[home_of(session_id)].server
    server.restart()
    second = begun(make_worker(), session_id)
    of_second = server.peek(second.lock.key)
    assert of_second is not None
    of_second.cas = cas_of(first.lock.items[home_of(session_id)])
    first.session["n"] = 2
    act(first)
    assert server.peek(second.lock.key) is of_second
    assert of_second.value == second.lock.token


def test_a_restart_of_the_node_drops_its_locks_and_loses_no_change(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    first = begun(make_worker(), session_id)
    driver.nodes[home_of(session_id)].server.restart()
    second = begun(make_worker(), session_id)
    first.session["first"] = True
    second.session["second"] = True
    first.save()
    second.save()
    assert dict(other_session(make_worker(), session_id)) == {"n": 1, "first": True, "second": True}
