"""Sessions that stay on one host since they cannot be stored end as all others do: for every worker, and for good."""

from collections.abc import Callable

import pytest

from msm_fast import Session
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_falling_back import heal, lose
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]


class Unstorable:
    """A type that no serializer knows."""


@pytest.fixture
def worker(make_worker: MakeWorker) -> Worker:
    return make_worker(on_unserializable="local_session", on_cluster_lost="local")


@pytest.fixture
def other(make_worker: MakeWorker) -> Worker:
    return make_worker(on_cluster_lost="local")


def tag(worker: Worker) -> str:
    """Store a session, then give it what cannot be stored."""
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session["handle"] = Unstorable()
    assert worker.save(session).status == "local"
    return session_id


def log_out(worker: Worker, session: Session) -> None:
    session.invalidate()
    assert worker.save(session).status == "invalidated"


def test_a_logout_ends_it_here_and_what_the_cluster_has_of_it(worker: Worker, other: Worker) -> None:
    session_id = tag(worker)
    slow = loaded(worker, session_id)
    log_out(worker, loaded(worker, session_id))
    assert worker.load(session_id) is None
    assert other.load(session_id) is None
    slow["late"] = True
    assert worker.save(slow).status == "invalidated"
    assert worker.load(session_id) is None


def test_a_logout_elsewhere_ends_it(worker: Worker, other: Worker) -> None:
    session_id = tag(worker)
    log_out(other, loaded(other, session_id))
    assert worker.load(session_id) is None


def test_its_former_id_ends_everywhere_when_it_gets_a_new_one(worker: Worker, other: Worker) -> None:
    session_id = tag(worker)
    session = loaded(worker, session_id)
    session.rotate_id()
    assert worker.save(session).status == "local"
    assert other.load(session_id) is None
    assert worker.load(session_id) is None
    assert set(read(worker, session.id)) == {"user", "handle"}


def test_a_session_that_was_ended_meanwhile_does_not_become_one(worker: Worker, other: Worker) -> None:
    session_id = worker.store(user="ada")
    slow = loaded(worker, session_id)
    log_out(other, loaded(other, session_id))
    slow["handle"] = Unstorable()
    assert worker.save(slow).status == "invalidated"
    assert worker.load(session_id) is None


def test_it_is_served_while_the_cluster_is_away_and_lives_on_when_its_copies_are_gone(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = tag(worker)
    for node in driver.nodes.values():
        node.server.flush()
    assert set(read(worker, session_id)) == {"user", "handle"}
    lose(driver, worker)
    assert set(read(worker, session_id)) == {"user", "handle"}
    heal(driver, worker)
    assert set(read(worker, session_id)) == {"user", "handle"}
