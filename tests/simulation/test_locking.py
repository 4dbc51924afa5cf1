"""Requests that have their session for themselves, and what becomes of their locks. FAULTS.md rows 9, 42, 43."""

from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import CorruptRecord, LockTimeout, Retry, Session, SessionId, Timeouts
from msm_fast.engine.effects import Exchange, FailureKind, Sleep
from msm_fast.engine.locking import LOCK_PREFIX, new_lock, wait_for_lock
from msm_fast.session import UNKNOWN
from tests.simulation.driver import ROUND_TRIP_S, SimulatedDriver
from tests.simulation.locking_worker import LockedRequest, LockingWorker
from tests.simulation.test_loading import home_of, key_of
from tests.simulation.worker import make_settings

MakeLockingWorker = Callable[..., LockingWorker]


@pytest.fixture
def make_worker(driver: SimulatedDriver) -> MakeLockingWorker:
    """Return a function that makes workers which lock, each with its own view of the nodes' health."""
    seeds = iter(range(1, 1000))

    def make(**settings: Any) -> LockingWorker:
        return LockingWorker(driver, make_settings(locking="all", **settings), seed=next(seeds))

    return make


def lock_holders(driver: SimulatedDriver, session_id: str) -> set[str]:
    """Return the nodes that have a lock of the session."""
    key = LOCK_PREFIX + key_of(session_id)
    return {name for name, node in driver.nodes.items() if node.server.peek(key)}


def begun(worker: LockingWorker, session_id: str) -> LockedRequest:
    request = worker.begin(session_id)
    assert request is not None
    return request


def at_exchange(driver: SimulatedDriver, n: int, act: Callable[[], object]) -> None:
    """Let act happen before the n-th exchange from now."""
    left = n

    def count(exchange: Exchange) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            driver.before_exchange = None
            act()

    driver.before_exchange = count


def fail_once(driver: SimulatedDriver, node: str, fault: FailureKind, *, is_carried_out: bool) -> None:
    """Let the node's next exchange fail."""
    simulated = driver.nodes[node]
    simulated.fault, simulated.carries_out_before_failing = fault, is_carried_out

    def heal() -> None:
        simulated.fault, simulated.carries_out_before_failing = None, False

    at_exchange(driver, 2, heal)


def other_session(worker: LockingWorker, session_id: str) -> Session:
    session = worker.load(session_id)
    assert session is not None
    return session


# -- one request after the other


def test_a_lock_costs_no_round_trip_of_its_own(driver: SimulatedDriver, make_worker: MakeLockingWorker) -> None:
    session_id = make_worker().store(n=1)
    sent: list[list[tuple[str, bool]]] = []

    def note(exchange: Exchange) -> None:
        (batch,) = (batch for batch in exchange.batches if batch.node == home_of(session_id))
        sent.append([(command.verb, command.key.startswith(LOCK_PREFIX)) for command in batch.commands])

    driver.before_exchange = note
    request = begun(make_worker(), session_id)
    assert request.lock.is_held
    assert lock_holders(driver, session_id) == {home_of(session_id)}
    request.session["n"] = 2
    assert request.save().status == "stored"
    assert lock_holders(driver, session_id) == set()
    assert not request.lock.is_held
    # The lock is had before the session is read, and let go after it was written.
    assert sent == [[("ms", True), ("mg", False)], [("ms", False), ("md", True)]]


def test_the_key_of_the_lock_has_the_prefix(driver: SimulatedDriver, make_worker: MakeLockingWorker) -> None:
    worker = make_worker(key_prefix="shop:")
    session_id = worker.store(n=1)
    begun(worker, session_id)
    assert driver.nodes[home_of(session_id)].server.peek(LOCK_PREFIX + b"shop:" + key_of(session_id))


def test_the_longest_prefix_leaves_room_for_a_lock(driver: SimulatedDriver) -> None:
    worker = LockingWorker(driver, make_settings(key_prefix="p" * 80))
    assert worker.begin(str(SessionId.generate("n1"))) is None
    assert worker.ctx.counters.snapshot().locks == 1


def test_a_waiter_gets_in_when_the_holder_has_stored_and_sees_what_it_wrote(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    first, waiter = begun(make_worker(), session_id), make_worker()
    first.session["n"] += 1
    at_exchange(driver, 5, first.save)
    second = begun(waiter, session_id)
    assert second.session["n"] == 2
    second.session["n"] += 1
    assert second.save().status == "stored"
    assert dict(other_session(waiter, session_id)) == {"n": 3}
    assert waiter.ctx.counters.snapshot().lock_waits == 1
    assert lock_holders(driver, session_id) == set()


def test_who_waits_in_vain_gets_an_error_and_leaves_the_lock_alone(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    begun(make_worker(), session_id)
    waiter = make_worker(timeouts=Timeouts(lock=2.0))
    started = driver.clock.monotonic()
    with pytest.raises(LockTimeout, match=r"2 seconds"):
        waiter.begin(session_id)
    assert 2.0 <= driver.clock.monotonic() - started <= 2.0 + 5 * ROUND_TRIP_S
    assert lock_holders(driver, session_id) == {home_of(session_id)}
    assert waiter.ctx.counters.snapshot().lock_timeouts == 1


def test_waits_are_random_and_bounded_so_that_waiters_do_not_ask_in_step(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    begun(make_worker(), session_id)
    waits = []
    for worker in (make_worker(), make_worker()):
        lock = new_lock(worker.ctx)
        parsed = SessionId.parse(session_id)
        assert parsed is not None
        lock.wait_until = driver.clock.monotonic() + 5
        lock.node, lock.key = parsed.node, LOCK_PREFIX + key_of(session_id)
        waits.append(_sleeps(driver, worker, lock))
    for slept in waits:
        assert len(slept) < 250
        assert all(0 <= seconds <= min(0.005 * 2**i, 0.1) for i, seconds in enumerate(slept))
        assert max(slept) > 0.05
        assert len(set(slept)) > len(slept) / 2
    assert waits[0] != waits[1]


def _sleeps(driver: SimulatedDriver, worker: LockingWorker, lock: Any) -> list[float]:
    slept = []

    def noting() -> Any:
        flow = wait_for_lock(worker.ctx, lock)
        result = None
        while True:
            effect = flow.send(result)
            if isinstance(effect, Sleep):
                slept.append(effect.seconds)
            result = yield effect

    with pytest.raises(LockTimeout):
        driver.run(noting(), lock.wait_until)
    return slept


def test_a_request_that_changes_nothing_lets_its_lock_go(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    request = begun(make_worker(), session_id)
    assert request.save().status == "unchanged"
    assert lock_holders(driver, session_id) == set()


def test_so_does_one_that_stores_nothing(driver: SimulatedDriver, make_worker: MakeLockingWorker) -> None:
    session_id = make_worker().store(n=1)
    request = begun(make_worker(), session_id)
    request.give_up()
    assert lock_holders(driver, session_id) == set()
    before = driver.exchanges
    request.give_up()
    assert driver.exchanges == before


@pytest.mark.parametrize("end", [Session.invalidate, Session.rotate_id])
def test_no_lock_outlives_its_id(
    driver: SimulatedDriver, make_worker: MakeLockingWorker, end: Callable[[Session], None]
) -> None:
    session_id = make_worker().store(n=1)
    request = begun(make_worker(), session_id)
    end(request.session)
    request.save()
    assert lock_holders(driver, session_id) == set()
    assert make_worker().begin(session_id) is None


def test_a_lock_is_let_go_when_there_is_no_session(driver: SimulatedDriver, make_worker: MakeLockingWorker) -> None:
    session_id = str(SessionId.generate("n1"))
    assert make_worker().begin(session_id) is None
    assert lock_holders(driver, session_id) == set()


def test_a_lock_is_let_go_when_the_session_cannot_be_read(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    for node in driver.nodes.values():
        item = node.server.peek(key_of(session_id))
        if item is not None:
            item.value = item.value[:-1] + bytes([item.value[-1] ^ 1])
    with pytest.raises(CorruptRecord):
        make_worker().begin(session_id)
    assert lock_holders(driver, session_id) == set()


def test_nothing_is_locked_while_the_cluster_is_not_used(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    worker = make_worker()
    session_id = worker.store(n=1)
    worker.ctx.distribution.stop("by the operator")
    before = driver.exchanges
    assert worker.begin(session_id) is not None
    assert driver.exchanges == before


# -- when something fails


@pytest.mark.parametrize("fault", ["reset", "timeout"])
@pytest.mark.parametrize("is_carried_out", [True, False])
def test_row_09_whose_lock_it_is_after_a_lost_answer_is_read_from_the_lock(
    driver: SimulatedDriver, make_worker: MakeLockingWorker, fault: FailureKind, is_carried_out: bool
) -> None:
    session_id = make_worker().store(n=1)
    worker = make_worker(replicas=0)
    holder = worker.begin(session_id)
    assert holder is not None
    holder.give_up()
    fail_once(driver, home_of(session_id), fault, is_carried_out=is_carried_out)
    request = begun(worker, session_id)
    assert request.lock.is_held
    assert request.lock.node in lock_holders(driver, session_id)
    request.session["n"] = 2
    request.save()
    assert request.lock.node not in lock_holders(driver, session_id)
    assert dict(other_session(make_worker(), session_id)) == {"n": 2}


def test_row_09_a_waiter_whose_answer_was_lost_finds_that_the_lock_is_its_own(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    holder, waiter = begun(make_worker(), session_id), make_worker(retry=Retry(attempts=0))

    def let_go_and_lose_the_answer() -> None:
        holder.give_up()
        fail_once(driver, home_of(session_id), "timeout", is_carried_out=True)

    at_exchange(driver, 3, let_go_and_lose_the_answer)
    request = begun(waiter, session_id)
    assert request.lock.is_held
    request.save()
    assert lock_holders(driver, session_id) == set()


def test_a_lock_that_could_not_be_let_go_is_let_go_when_its_node_can_be_asked(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    worker = make_worker()
    request = begun(worker, session_id)
    home = driver.nodes[home_of(session_id)]
    home.fault = "timeout"
    request.give_up()
    assert request.lock.items == {home_of(session_id): UNKNOWN}
    home.fault = None
    worker.load(session_id)
    request.give_up()
    assert request.lock.items == {}
    assert lock_holders(driver, session_id) == set()


def test_row_42_the_next_gets_in_when_the_lifetime_of_a_dead_holders_lock_is_over(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    begun(make_worker(), session_id)  # and nothing more is heard of it
    started = driver.clock.monotonic()
    request = begun(make_worker(timeouts=Timeouts(lock=60, lock_ttl=30)), session_id)
    assert request.lock.is_held
    assert 29 < driver.clock.monotonic() - started < 32


def test_row_43_a_holder_that_overran_its_lock_merges_and_leaves_the_next_ones_lock_alone(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    slow = begun(make_worker(), session_id)
    driver.clock.advance(32)
    next_one = begun(make_worker(), session_id)
    slow.session["slow"] = True
    assert slow.save().status == "stored"
    assert lock_holders(driver, session_id) == {home_of(session_id)}
    next_one.session["next"] = True
    assert next_one.save().status == "merged"
    assert lock_holders(driver, session_id) == set()
    assert dict(other_session(make_worker(), session_id)) == {"n": 1, "slow": True, "next": True}


def test_a_lock_that_is_deleted_since_its_node_has_no_memory_for_another_loses_no_change(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    first = begun(make_worker(), session_id)
    driver.nodes[home_of(session_id)].server.room = 0
    second = begun(make_worker(), session_id)
    assert not second.lock.is_held
    assert lock_holders(driver, session_id) == set()
    first.session["first"] = True
    second.session["second"] = True
    assert first.save().status == "stored"
    assert second.save().status == "merged"
    assert dict(other_session(make_worker(), session_id)) == {"n": 1, "first": True, "second": True}
    assert lock_holders(driver, session_id) == set()


def test_a_holder_whose_session_another_stored_without_a_lock_merges(
    driver: SimulatedDriver, make_worker: MakeLockingWorker
) -> None:
    session_id = make_worker().store(n=1)
    request, other = begun(make_worker(), session_id), make_worker()
    intruder = other_session(other, session_id)
    intruder["intruder"] = True
    other.save(intruder)
    request.session["n"] = 2
    assert request.save().status == "merged"
    assert dict(other_session(other, session_id)) == {"n": 2, "intruder": True}
    assert lock_holders(driver, session_id) == set()
