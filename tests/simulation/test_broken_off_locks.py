"""Locks of requests that were broken off before the answer came: by a cancelled task, by gevent.Timeout, by Ctrl-C."""

from typing import Any

import pytest

from msm_fast._core.session_id import SessionId
from msm_fast.engine.effects import Exchange, Flow, Outcome, Sleep, carry_out
from msm_fast.engine.locking import SessionLock, find_locked, new_lock, release, store_locked, wait_for_lock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_locking import MakeLockingWorker, begun, lock_holders, make_worker

__all__ = ["make_worker"]


class BrokenOff(BaseException):
    """What nobody who catches Exception sees."""


def break_off(driver: SimulatedDriver, flow: Flow[Any]) -> None:
    """Carry a flow out until its first exchange, which the nodes carry out as well, and no further."""

    def exchange(effect: Exchange, deadline: float) -> list[Outcome]:
        driver._exchange(effect, driver.clock.monotonic() + 1)
        raise BrokenOff

    def sleep(effect: Sleep, deadline: float) -> bool:
        driver.clock.advance(effect.seconds)
        return True

    with pytest.raises(BrokenOff):
        carry_out(flow, exchange, sleep, 0)


def parsed(session_id: str) -> SessionId:
    return SessionId(session_id)


def test_a_request_that_is_broken_off_while_it_asks_for_its_lock_can_let_it_go(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    worker = make_worker()
    session_id = worker.store(n=1)
    lock = new_lock(worker.ctx)
    break_off(driver, find_locked(worker.ctx, parsed(session_id), True, lock))
    assert lock_holders(driver, session_id)
    driver.run(release(worker.ctx, lock))
    assert not lock_holders(driver, session_id)


def test_a_request_that_is_broken_off_while_it_waits_for_its_lock_can_let_it_go(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    worker = make_worker()
    session_id = worker.store(n=1)
    holder = begun(make_worker(), session_id)
    lock: SessionLock = new_lock(worker.ctx)
    driver.run(find_locked(worker.ctx, parsed(session_id), True, lock))
    assert lock.is_wanted
    holder.give_up()
    break_off(driver, wait_for_lock(worker.ctx, lock))
    assert lock_holders(driver, session_id)
    driver.run(release(worker.ctx, lock))
    assert not lock_holders(driver, session_id)


def test_a_request_that_is_broken_off_while_it_waits_leaves_the_lock_of_another_alone(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    worker = make_worker()
    session_id = worker.store(n=1)
    holder = begun(make_worker(), session_id)
    lock = new_lock(worker.ctx)
    driver.run(find_locked(worker.ctx, parsed(session_id), True, lock))
    break_off(driver, wait_for_lock(worker.ctx, lock))
    driver.run(release(worker.ctx, lock))
    assert lock_holders(driver, session_id)
    holder.give_up()
    assert not lock_holders(driver, session_id)


def test_a_request_that_is_broken_off_while_it_is_stored_has_nothing_left_to_let_go(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    worker = make_worker()
    session_id = worker.store(n=1)
    request = begun(worker, session_id)
    request.session["n"] = 2
    break_off(driver, store_locked(worker.ctx, request.session.state, request.lock))
    driver.run(release(worker.ctx, request.lock))
    assert not request.lock.items
    assert not lock_holders(driver, session_id)
