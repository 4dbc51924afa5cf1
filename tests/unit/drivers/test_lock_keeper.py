"""The thread that looks after locks, on simulated nodes; its time is virtual but for the thread's own ticks."""

import gc
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from msm_fast import Timeouts
from msm_fast.drivers.lock_keeper import LockKeeper
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.locking_worker import LockedRequest, LockingWorker
from tests.simulation.test_loading import home_of
from tests.simulation.worker import make_settings


@pytest.fixture
def driver() -> SimulatedDriver:
    return SimulatedDriver(["n1", "n2", "n3"], VirtualClock())


@pytest.fixture
def worker(driver: SimulatedDriver) -> LockingWorker:
    return LockingWorker(driver, make_settings(timeouts=Timeouts(lock_ttl=1)))


@pytest.fixture
def keeper(worker: LockingWorker) -> Iterator[LockKeeper]:
    keeper = LockKeeper(worker.ctx, worker.driver.run)
    yield keeper
    keeper.close(5)


def begun(worker: LockingWorker) -> LockedRequest:
    request = worker.begin(worker.store(n=1))
    assert request is not None
    return request


def has_item(request: LockedRequest) -> bool:
    assert request.lock.node is not None
    return request.worker.driver.nodes[request.lock.node].server.peek(request.lock.key) is not None


def comes_true(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


def thread_of(keeper: LockKeeper) -> threading.Thread | None:
    return keeper._worker.thread


def test_a_held_lock_is_renewed_at_a_third_of_its_lifetime(
    driver: SimulatedDriver, worker: LockingWorker, keeper: LockKeeper
) -> None:
    request = begun(worker)
    keeper.close(5)  # ticks by hand
    keeper.keep(request.lock)
    first = request.lock.renewed_at
    driver.clock.advance(0.3)
    keeper.tick()
    assert request.lock.renewed_at == first
    for _ in range(10):
        driver.clock.advance(0.6)
        keeper.tick()
    assert has_item(request)
    assert request.lock.is_held


def test_the_thread_renews_it(driver: SimulatedDriver, worker: LockingWorker, keeper: LockKeeper) -> None:
    request = begun(worker)
    first = request.lock.renewed_at
    driver.clock.advance(0.5)
    keeper.keep(request.lock)
    assert comes_true(lambda: request.lock.renewed_at > first)


def test_a_lock_that_was_let_go_is_left_alone(
    driver: SimulatedDriver, worker: LockingWorker, keeper: LockKeeper
) -> None:
    request = begun(worker)
    keeper.keep(request.lock)
    request.save()
    driver.clock.advance(0.5)
    before = driver.exchanges
    keeper.tick()
    assert driver.exchanges == before


def test_a_lock_whose_request_was_forgotten_without_an_end_is_renewed_no_more(
    driver: SimulatedDriver, worker: LockingWorker, keeper: LockKeeper
) -> None:
    request = begun(worker)
    keeper.keep(request.lock)
    del request
    gc.collect()
    driver.clock.advance(0.5)
    before = driver.exchanges
    keeper.tick()
    assert driver.exchanges == before


def test_a_lock_that_could_not_be_let_go_in_time_is_let_go_in_the_background(
    driver: SimulatedDriver, worker: LockingWorker, keeper: LockKeeper
) -> None:
    request = begun(worker)
    keeper.release(request.lock)
    assert comes_true(lambda: not has_item(request))


def test_what_cannot_be_let_go_is_tried_again_until_its_lifetime_is_over(
    driver: SimulatedDriver, worker: LockingWorker, keeper: LockKeeper
) -> None:
    request = begun(worker)
    keeper.close(5)  # ticks by hand
    driver.nodes[home_of(request.session.id)].fault = "timeout"
    keeper.release(request.lock)
    keeper.tick()
    assert request.lock.items
    driver.clock.advance(1.1)
    keeper.tick()
    before = driver.exchanges
    keeper.tick()
    assert driver.exchanges == before


def test_the_thread_ends_when_there_is_nothing_to_do_and_starts_again(
    worker: LockingWorker, keeper: LockKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msm_fast.drivers.lock_keeper._LINGERS_TICKS", 0)
    request = begun(worker)
    keeper.keep(request.lock)
    assert thread_of(keeper) is not None
    request.save()
    assert comes_true(lambda: thread_of(keeper) is None)
    keeper.keep(begun(worker).lock)
    assert thread_of(keeper) is not None


def test_a_failure_does_not_end_the_thread(
    driver: SimulatedDriver, worker: LockingWorker, caplog: pytest.LogCaptureFixture
) -> None:
    fails = True

    def run(flow: object) -> object:
        if fails:
            raise RuntimeError("no descriptor left")
        return driver.run(flow)  # type: ignore[arg-type]

    keeper = LockKeeper(worker.ctx, run)
    request = begun(worker)
    keeper.release(request.lock)
    assert comes_true(lambda: "no descriptor left" in caplog.text)
    fails = False
    assert comes_true(lambda: not has_item(request))
    keeper.close(5)


def test_a_forked_child_looks_after_no_lock_of_its_parent(worker: LockingWorker, keeper: LockKeeper) -> None:
    request = begun(worker)
    keeper.close(5)
    keeper.keep(request.lock)
    keeper.renew_after_fork()
    assert thread_of(keeper) is None
    worker.driver.clock.advance(0.5)
    before = worker.driver.exchanges
    keeper.tick()
    assert worker.driver.exchanges == before
