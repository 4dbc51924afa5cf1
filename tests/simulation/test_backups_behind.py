"""Without sticky sessions backup="async" writes backups behind the requests; they stand in for a home all the same."""

import math

import pytest

from msm_fast import Session
from msm_fast.engine.effects import Exchange
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import backup_of, corrupt, holders, home_of, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker, make_settings


@pytest.fixture
def worker(driver: SimulatedDriver) -> Worker:
    return Worker(driver, make_settings(backup="async"), seed=1)


def catch_up(worker: Worker) -> None:
    """Write what requests have left to be written behind them."""
    for job in worker.ctx.behind.take(math.inf):
        assert worker.driver.run(job.run())


def stored_on_two(worker: Worker) -> str:
    session_id = worker.store(user="ada")
    catch_up(worker)
    assert len(holders(worker.driver, session_id)) == 2
    return session_id


def test_a_session_is_put_back_on_a_home_that_was_restarted(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = stored_on_two(worker)
    driver.nodes[home_of(session_id)].server.restart()
    session = loaded(Worker(driver, worker.ctx.settings), session_id)
    session["page"] = 1
    assert worker.save(session).status == "stored"
    assert home_of(session_id) in holders(driver, session_id)
    assert read(worker, session_id) == {"user": "ada", "page": 1}


def test_a_home_that_loses_a_session_during_a_request_gets_it_back(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = stored_on_two(worker)
    session = loaded(worker, session_id)
    session["page"] = 1
    driver.nodes[home_of(session_id)].server.evict(key_of(session_id))
    assert worker.save(session).status == "stored"
    assert home_of(session_id) in holders(driver, session_id)
    assert read(worker, session_id) == {"user": "ada", "page": 1}


def test_what_another_stored_is_on_the_backup_still_where_the_home_cannot_read_its_copy_any_more(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = stored_on_two(worker)
    mine, theirs = loaded(Worker(driver, worker.ctx.settings), session_id), loaded(worker, session_id)
    theirs["theirs"] = 1
    assert worker.save(theirs).status == "stored"
    catch_up(worker)
    corrupt(driver, home_of(session_id), session_id)
    mine["mine"] = 2
    assert worker.save(mine).status == "merged"
    assert read(worker, session_id) == {"user": "ada", "theirs": 1, "mine": 2}


def test_a_session_that_was_ended_meanwhile_is_not_put_back(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = stored_on_two(worker)
    session, logout = loaded(worker, session_id), loaded(worker, session_id)
    logout.invalidate()
    worker.save(logout)
    driver.nodes[home_of(session_id)].server.restart()
    session["page"] = 1
    assert worker.save(session).status == "invalidated"
    assert worker.load(session_id) is None


def test_a_session_of_which_no_copy_is_left_is_not_put_back(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = stored_on_two(worker)
    session = loaded(worker, session_id)
    session["page"] = 1
    for node in (home_of(session_id), backup_of(driver, session_id)):
        driver.nodes[node].server.evict(key_of(session_id))
    assert worker.save(session).status == "invalidated"
    assert holders(driver, session_id) == set()


def test_while_a_home_is_drained_worker_by_worker_what_the_old_and_the_new_one_took_is_joined(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = stored_on_two(worker)
    told, told_too = Worker(driver, worker.ctx.settings, seed=2), Worker(driver, worker.ctx.settings, seed=3)
    for other in (told, told_too):
        other.ctx.change_topology(other.ctx.settings, [home_of(session_id)])
    moving, staying = loaded(told, session_id), loaded(worker, session_id)
    staying["staying"] = 1
    assert worker.save(staying).status == "stored"
    meanwhile: list[Session] = []

    def load_once_the_new_home_was_written(exchange: Exchange) -> None:
        if len(holders_of(driver, session_id, b"moving")) == 1:
            driver.before_exchange = None
            meanwhile.append(loaded(told_too, session_id))

    moving["moving"] = 2
    driver.before_exchange = load_once_the_new_home_was_written
    told.save(moving)
    (session,) = meanwhile
    session["meanwhile"] = 3
    told_too.save(session)
    for each in (worker, told, told_too):
        catch_up(each)
    expected = {"user": "ada", "staying": 1, "moving": 2, "meanwhile": 3}
    assert [read(Worker(driver, worker.ctx.settings), id_) for id_ in (moving.id, session.id)] == [expected, expected]


def holders_of(driver: SimulatedDriver, session_id: str, content: bytes) -> set[str]:
    """Return the nodes whose copy has that content."""
    found = {name: node.server.peek(key_of(session_id)) for name, node in driver.nodes.items()}
    return {name for name, item in found.items() if item is not None and content in item.value}
