"""Locks of sessions that move to another node, because theirs is down or drains."""

import pytest

from msm_fast import LockTimeout, Retry
from msm_fast.engine.effects import Exchange
from tests.simulation.driver import SimulatedDriver
from tests.simulation.locking_worker import LockingWorker
from tests.simulation.test_loading import backup_of, holders, home_of, key_of
from tests.simulation.test_locking import MakeLockingWorker, at_exchange, begun, lock_holders, make_worker

__all__ = ["make_worker"]


def test_a_session_whose_node_is_down_is_locked_where_all_look_for_it(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    driver.nodes[home_of(session_id)].fault = "refused"
    first = begun(make_worker(), session_id)
    assert first.session.id_changed
    assert lock_holders(driver, session_id) == {home_of(first.session.id)}
    with pytest.raises(LockTimeout):
        make_worker().begin(session_id)
    first.session["n"] = 2
    assert first.save().status == "stored"
    second = begun(make_worker(), session_id)
    assert second.session["n"] == 2
    assert second.session.id == first.session.id
    second.save()
    before = driver.exchanges
    assert begun(second.worker, session_id).lock.is_held
    assert driver.exchanges == before + 1


def test_a_waiter_follows_a_session_whose_node_fails_while_it_is_locked(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    holder, waiter = begun(make_worker(), session_id), make_worker()
    holder.session["n"] = 2

    def fail_and_move() -> None:
        driver.nodes[home_of(session_id)].fault = "refused"
        assert holder.save().status == "stored"

    at_exchange(driver, 4, fail_and_move)
    request = begun(waiter, session_id)
    assert request.session["n"] == 2
    assert request.lock.node == home_of(holder.session.id) != home_of(session_id)
    request.save()
    driver.nodes[home_of(session_id)].fault = None
    assert lock_holders(driver, session_id) <= {home_of(session_id)}  # the holder's: it dies by its lifetime


def test_an_id_from_before_a_move_leads_to_the_same_lock(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    old_id = make_worker().store(n=1)
    draining = make_worker()
    draining.ctx.change_topology(draining.ctx.settings, {home_of(old_id)})
    mover = begun(draining, old_id)
    mover.save()
    new_id = mover.session.id
    holder = begun(make_worker(), new_id)
    with pytest.raises(LockTimeout):
        make_worker().begin(old_id)
    holder.give_up()
    assert begun(make_worker(), old_id).lock.node == home_of(new_id)


def test_so_does_one_from_an_outage_that_names_no_node(driver: SimulatedDriver, make_worker: MakeLockingWorker) -> None:
    for _ in range(5):
        session_id = make_worker().store(n=1)
        begun(make_worker(), session_id)
        with pytest.raises(LockTimeout):
            make_worker().begin(session_id.partition("-")[0])


def while_its_home_drains(make_worker: MakeLockingWorker, *, knows: bool) -> tuple[str, LockingWorker, LockingWorker]:
    """Return the id of a session, a worker that has been told that its home drains, and one that knows, or not yet."""
    session_id = make_worker().store(n=1)
    draining, other = make_worker(), make_worker()
    for worker in (draining, other) if knows else (draining,):
        worker.ctx.change_topology(worker.ctx.settings, {home_of(session_id)})
    return session_id, draining, other


@pytest.mark.parametrize("knows", [True, False])
def test_an_id_from_before_a_move_leads_to_the_lock_of_a_session_that_leaves_a_draining_node(
    driver: SimulatedDriver, make_worker: MakeLockingWorker, knows: bool
) -> None:
    """The other way round, too: it is the id's node that the session goes back to."""
    session_id, draining, other = while_its_home_drains(make_worker, knows=knows)
    former_id = f"{session_id.rpartition('-')[0]}-{backup_of(driver, session_id)}"
    holder = begun(draining, session_id)
    assert holder.session.id == former_id
    with pytest.raises(LockTimeout):
        other.begin(former_id)
    holder.give_up()
    late = begun(other, former_id)
    assert late.lock.node == home_of(session_id)
    with pytest.raises(LockTimeout):
        draining.begin(session_id)
    late.give_up()
    assert lock_holders(driver, session_id) == set()


@pytest.mark.parametrize("knows", [True, False])
def test_a_session_that_leaves_a_draining_node_is_locked_there_until_it_has_left(
    driver: SimulatedDriver, make_worker: MakeLockingWorker, knows: bool
) -> None:
    session_id, draining, other = while_its_home_drains(make_worker, knows=knows)
    request = begun(draining, session_id)
    assert request.lock.node == home_of(session_id) != home_of(request.session.id)
    with pytest.raises(LockTimeout):
        other.begin(session_id)
    request.session["n"] = 2
    request.save()
    assert lock_holders(driver, session_id) == set()
    after = begun(other, session_id)
    assert after.session["n"] == 2
    assert after.lock.node == home_of(request.session.id)


def test_it_is_locked_there_also_where_its_new_home_is_written_later(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    """As where that has no copy: the old home, which still has one, decides between writers."""
    session_id = make_worker().store(n=1)
    driver.nodes[backup_of(driver, session_id)].server.evict(key_of(session_id))
    worker = make_worker()
    worker.ctx.change_topology(worker.ctx.settings, {home_of(session_id)})
    request = begun(worker, session_id)
    locked_on = []

    def look(_: Exchange) -> None:
        if home_of(request.session.id) not in holders(driver, session_id):
            locked_on.append(lock_holders(driver, session_id))

    driver.before_exchange = look
    request.session["n"] = 2
    request.save()
    assert locked_on == [{home_of(session_id)}] * len(locked_on) != []
    assert lock_holders(driver, session_id) == set()


def test_the_lock_of_a_session_that_leaves_a_draining_node_that_fails_is_had_where_it_goes(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    worker = make_worker(retry=Retry(attempts=0))
    worker.ctx.change_topology(worker.ctx.settings, {home_of(session_id)})
    driver.nodes[home_of(session_id)].fault = "timeout"
    request = begun(worker, session_id)
    assert request.lock.is_held
    assert request.lock.node == home_of(request.session.id) != home_of(session_id)
    assert worker.ctx.counters.snapshot().lock_waits == 0
