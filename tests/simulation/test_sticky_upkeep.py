"""What keeps the copies of a live session alive, and it where it belongs."""

from collections.abc import Callable

import pytest

from msm_fast import Settings
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.sticky_worker import StickyWorker, fail, heal, lose
from tests.simulation.test_loading import holders, home_of
from tests.simulation.test_sticky import LOCAL, change, loaded, make_worker, worker

__all__ = ["make_worker", "worker"]

MakeWorker = Callable[..., StickyWorker]


@pytest.fixture
def touching(make_worker: MakeWorker) -> StickyWorker:
    """Return a worker that touches copies every ten seconds."""
    return make_worker(max_inactive=100)


def test_copies_are_touched_once_for_each_tenth_of_the_lifetime_however_often_the_session_is_read(
    driver: SimulatedDriver, touching: StickyWorker
) -> None:
    session_id = touching.store(n=0)
    touching.catch_up()
    before = driver.exchanges
    for _ in range(35):
        driver.clock.advance(1)
        touching.save(loaded(touching, session_id))
        touching.catch_up()
    assert driver.exchanges - before == 3


def test_they_are_not_touched_where_they_were_just_written(driver: SimulatedDriver, touching: StickyWorker) -> None:
    session_id = touching.store(n=0)
    touching.catch_up()
    before = driver.exchanges
    for n in range(10):
        driver.clock.advance(8)
        change(touching, session_id, n=n + 1)
        touching.catch_up()
        driver.clock.advance(4)
        touching.save(loaded(touching, session_id))
        touching.catch_up()
    assert driver.exchanges - before == 10


def test_that_another_worker_has_ended_the_session_is_noticed_when_they_are_touched(
    driver: SimulatedDriver, touching: StickyWorker, make_worker: MakeWorker
) -> None:
    session_id = touching.store(n=0)
    touching.catch_up()
    other = make_worker(max_inactive=100)
    logout = loaded(other, session_id)
    logout.invalidate()
    other.save(logout)
    driver.clock.advance(20)
    touching.save(loaded(touching, session_id))
    touching.catch_up()
    assert touching.load(session_id) is None


def test_copies_are_kept_alive_by_a_shorter_lifetime_that_another_worker_has_set(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(max_inactive=10_000), make_worker(max_inactive=10_000)
    session_id = one.store(n=0)
    one.catch_up()
    driver.clock.advance(990)
    session = loaded(two, session_id)
    session.max_inactive = 60
    two.save(session)
    two.catch_up()
    for _ in range(10):
        driver.clock.advance(20)
        loaded(one, session_id)
        one.catch_up()
    assert len(holders(driver, session_id)) == 2


def test_a_session_with_an_absolute_lifetime_is_served_from_memory_until_that_is_over(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(absolute_lifetime=150)
    session_id = worker.store(n=0)
    driver.clock.advance(140)
    assert loaded(worker, session_id)["n"] == 0
    assert driver.exchanges == 0


def test_a_session_of_a_single_node_without_a_name_stays_there() -> None:
    driver = SimulatedDriver([""], VirtualClock())
    worker = StickyWorker(driver, Settings.build("127.0.0.1:11001", sticky=True, max_inactive=100, **LOCAL))
    session_id = worker.store(n=0)
    worker.catch_up()
    driver.clock.advance(20)
    session = loaded(worker, session_id)
    assert not session.id_changed
    assert worker.save(session).status == "unchanged"


def test_once_a_session_has_left_its_node_its_generations_count_on_by_one(
    driver: SimulatedDriver, worker: StickyWorker
) -> None:
    session_id = worker.store(n=0)
    worker.catch_up()
    driver.nodes[home_of(session_id)].fault = "refused"
    change(worker, session_id, n=1)
    worker.catch_up()
    moved = loaded(worker, session_id)
    generation = moved.generation
    for n in range(3):
        change(worker, moved.id, n=n + 2)
        worker.catch_up()
    assert loaded(worker, moved.id).generation == generation + 3


def test_a_session_that_another_worker_has_moved_stays_there_when_its_client_comes_back(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(route="w1"), make_worker(route="w2")
    session_id = one.store(n=0)
    one.catch_up()
    home = driver.nodes[home_of(session_id)]
    home.fault = "refused"
    elsewhere = loaded(two, session_id)
    two.save(elsewhere)
    two.catch_up()
    home.fault = None
    assert home_of(elsewhere.id) != home_of(session_id)
    assert home_of(loaded(one, elsewhere.id).id) == home_of(elsewhere.id)


def test_a_copy_that_is_found_missing_when_a_client_comes_back_from_another_worker_is_stored_again(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(route="w1"), make_worker(route="w2")
    session_id = one.store(n=0)
    one.catch_up()
    elsewhere = loaded(two, session_id)
    two.save(elsewhere)
    two.catch_up()
    one.save(loaded(one, elsewhere.id))
    one.catch_up()
    driver.nodes[home_of(session_id)].server.restart()
    one.save(loaded(one, elsewhere.id))
    one.catch_up()
    assert len(holders(driver, session_id)) == 2


def test_what_stands_for_a_session_that_cannot_be_reached_does_not_stay_in_memory(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(n=0)
    one.catch_up()
    away = [driver.nodes[node] for node in holders(driver, session_id)]
    for node in away:
        node.fault = "refused"
    assert dict(loaded(two, session_id)) == {}
    for node in away:
        node.fault = None
    for name in two.ctx.health.down():
        two.probe(name)
    assert dict(loaded(two, session_id)) == {"n": 0}


def test_a_new_id_under_which_the_session_could_only_be_kept_here_ends_the_old_one(
    driver: SimulatedDriver, worker: StickyWorker
) -> None:
    session_id = worker.store(user=None)
    worker.catch_up()
    login = loaded(worker, session_id)
    login.rotate_id()
    login["user"] = "ada"
    fail(driver, "timeout")
    assert worker.save(login).status == "local"
    fail(driver, None)
    assert worker.load(session_id) is None
    assert dict(loaded(worker, login.id)) == {"user": "ada"}


def test_after_an_outage_a_session_that_was_only_read_in_it_is_what_others_have_made_of_it_meanwhile(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(n=0)
    one.catch_up()
    lose(driver, one)
    loaded(one, session_id)
    fail(driver, None)
    change(two, session_id, n=1)
    two.catch_up()
    heal(driver, one)
    assert loaded(one, session_id)["n"] == 1
