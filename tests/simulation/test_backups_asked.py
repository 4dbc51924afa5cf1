"""When a request that may write asks the backups, too, in the round trip that finds its session."""

from collections.abc import Callable
from typing import Any

import pytest

from msm_fast.engine.exchanging import ask
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver, SimulatedNode
from tests.simulation.test_loading import backup_of, home_of, key_of
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]


def batches(driver: SimulatedDriver) -> int:
    return sum(node.batches for node in driver.nodes.values())


def request(worker: Worker, session_id: str, **changes: object) -> None:
    session = worker.load(session_id, expect_write=True)
    assert session is not None
    if changes:
        session.update(changes)
        assert worker.save(session).status == "stored"


def test_a_worker_that_has_not_seen_a_session_asks_them_so_that_it_is_stored_in_one_round_trip_more(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    session_id = make_worker().store(step=0)
    before, batches_before = driver.exchanges, batches(driver)
    request(make_worker(), session_id, step=1)
    assert driver.exchanges == before + 2
    assert batches(driver) == batches_before + 2 + 2


def test_a_worker_that_no_other_came_before_asks_them_once_and_then_no_more(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = worker.store(step=0)
    request(worker, session_id, step=1)
    for step in range(2, 6):
        before, batches_before = driver.exchanges, batches(driver)
        request(worker, session_id, step=step)
        assert driver.exchanges == before + 2
        assert batches(driver) == batches_before + 1 + 2


def test_a_worker_whose_session_others_have_stored_since_asks_them_at_the_request_after(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(step=0)
    request(one, session_id, step=1)
    request(one, session_id, step=2)
    request(two, session_id, step=3)
    request(one, session_id, step=4)  # not knowing of the other
    request(two, session_id, step=5)
    before, batches_before = driver.exchanges, batches(driver)
    request(one, session_id, step=6)
    assert driver.exchanges == before + 2
    assert batches(driver) == batches_before + 2 + 2


def test_nothing_is_lost_when_what_it_took_for_granted_was_wrong(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(step=0)
    request(one, session_id, mine=1)
    request(one, session_id, mine=2)
    request(two, session_id, theirs=1)
    request(one, session_id, mine=3)
    for worker in (one, two, make_worker()):
        session = worker.load(session_id)
        assert session is not None
        assert dict(session) == {"step": 0, "mine": 3, "theirs": 1}


def test_a_tenth_of_the_lifetime_later_they_are_asked_all_the_same(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(step=0)
    request(worker, session_id)
    request(worker, session_id)
    driver.clock.advance(181)
    before = batches(driver)
    request(worker, session_id)
    assert batches(driver) == before + 2


@pytest.mark.parametrize("was_down", [False, True])
def test_what_a_node_has_lost_is_put_back_by_the_next_request_though_it_only_reads(
    driver: SimulatedDriver, worker: Worker, was_down: bool
) -> None:
    """Else the session is gone when the other node is restarted, too, however often it was read between."""
    session_id = worker.store(step=0)
    name = backup_of(driver, session_id)
    node = driver.nodes[name]
    node.server.restart()
    if was_down:
        node.fault = "refused"
        worker.driver.run(ask(worker.ctx))
        node.fault = None
        driver.clock.advance(0.5)
        worker.probe(name)
    else:
        worker.driver.run(ask(worker.ctx))
    session = worker.load(session_id, expect_write=False)
    assert session is not None
    assert worker.save(session).status == "stored"
    assert node.server.peek(key_of(session_id)) is not None
    driver.clock.advance(0.1)
    before = batches(driver)
    assert worker.load(session_id, expect_write=False)
    assert batches(driver) == before + 1


def test_so_is_what_it_has_missed_while_it_was_away(driver: SimulatedDriver, worker: Worker) -> None:
    """Else it would serve what was before, when those that have the session now are away after it was."""
    session_id = worker.store(step=0)
    name = backup_of(driver, session_id)
    node = driver.nodes[name]
    node.fault = "refused"
    request(worker, session_id, step=1)
    node.fault = None
    driver.clock.advance(2)
    worker.probe(name)
    session = worker.load(session_id, expect_write=False)
    assert session is not None
    worker.save(session)
    home = driver.nodes[home_of(session_id)].server.peek(key_of(session_id))
    backup = node.server.peek(key_of(session_id))
    assert home is not None
    assert backup is not None
    assert backup.value == home.value


def stored_while_its_backup_hangs(driver: SimulatedDriver, worker: Worker) -> tuple[str, SimulatedNode]:
    """Store a session, and step 1 of it while its backup hangs; return its id and that node, which still does."""
    session_id = worker.store(step=0)
    worker.catch_up()
    node = driver.nodes[backup_of(driver, session_id)]
    session = worker.load(session_id)
    assert session is not None
    session["step"] = 1
    node.fault = "timeout"
    assert worker.save(session).status == "stored"
    return session_id, node


@pytest.mark.parametrize("settings", [{}, {"backup": "async"}])
def test_what_a_node_missed_that_hung_for_a_moment_is_stored_there_by_the_next_request_though_it_only_reads(
    settings: dict[str, Any],
) -> None:
    """It never was down. With two nodes no other takes the backup: only the home has what was stored last."""
    driver = SimulatedDriver(["n1", "n2"], VirtualClock())
    worker = Worker(driver, make_settings(2, **settings))
    session_id, node = stored_while_its_backup_hangs(driver, worker)
    worker.catch_up()
    node.fault = None
    keep_in_touch(driver, worker, 1)
    read = worker.load(session_id, expect_write=False)
    assert read is not None
    worker.save(read)
    worker.catch_up()
    driver.nodes[home_of(session_id)].fault = "refused"
    found = worker.load(session_id, expect_write=False)
    assert found is not None
    assert dict(found) == {"step": 1}


@pytest.mark.parametrize("settings", [{}, {"backup": "async"}])
@pytest.mark.parametrize("waits", [False, True])
def test_so_it_is_by_a_worker_that_did_not_notice_unless_it_may_be_about_to_be_stored_there(
    settings: dict[str, Any], waits: bool
) -> None:
    driver = SimulatedDriver(["n1", "n2"], VirtualClock())
    worker, other = (Worker(driver, make_settings(2, **settings), seed) for seed in (1, 2))
    session_id, node = stored_while_its_backup_hangs(driver, worker)
    node.fault = None
    driver.clock.advance(3 if waits else 0.5)
    read = other.load(session_id, expect_write=False)
    assert read is not None
    assert other.save(read).status == ("stored" if waits else "unchanged")
    other.catch_up()
    backup = node.server.peek(key_of(session_id))
    home = driver.nodes[home_of(session_id)].server.peek(key_of(session_id))
    assert backup is not None
    assert home is not None
    assert (backup.value == home.value) is waits


def test_nor_are_they_asked_later_than_that_since_another_worker_has_stored_the_session(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(step=0)
    request(two, session_id, step=1)
    keep_in_touch(driver, one, 100)
    assert one.load(session_id, expect_write=False)
    keep_in_touch(driver, one, 100)
    assert one.load(session_id, expect_write=False)
    lives = [item.expires_at - driver.clock.wall() for item in items(driver, session_id)]
    assert min(lives) > 1800 - 1


def keep_in_touch(driver: SimulatedDriver, worker: Worker, seconds: int) -> None:
    """Let so many seconds pass in which the worker hears of every node."""
    for _ in range(2 * seconds):
        driver.clock.advance(0.5)
        worker.driver.run(ask(worker.ctx))


def items(driver: SimulatedDriver, session_id: str) -> list[Any]:
    found = [node.server.peek(key_of(session_id)) for node in driver.nodes.values()]
    return [item for item in found if item is not None]
