"""Whether to believe a node that was away, or one while most others are."""

from collections.abc import Callable

import pytest

from msm_fast import SessionUnavailable
from msm_fast.engine.exchanging import ask
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import backup_of, home_of
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]


def test_a_node_that_is_back_for_one_worker_while_another_stores_sessions_without_it_serves_no_old_copy(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    writer, reader = make_worker(), make_worker()
    session_id = writer.store(step=1)
    home = home_of(session_id)
    driver.nodes[home].fault = "refused"
    for each in (writer, reader):
        each.load(session_id)
    driver.nodes[home].fault = None
    assert reader.probe(home)
    for step in (2, 3):
        assert reader.load(session_id, expect_write=False)["step"] == step - 1  # type: ignore[index]
        session = writer.load(session_id)
        assert session is not None
        session["step"] = step
        assert writer.save(session).status == "stored"
    assert reader.load(session_id, expect_write=False)["step"] == 3  # type: ignore[index]


def test_what_one_has_from_before_does_not_count_while_more_are_away_than_a_session_has_backups(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = worker.store(step=1)
    backup = backup_of(driver, session_id)
    session = worker.load(session_id)
    assert session is not None
    session["step"] = 2
    driver.nodes[backup].fault = "refused"
    worker.save(session)
    driver.nodes[backup].fault = None
    assert worker.probe(backup)
    for node in driver.nodes.keys() - {backup}:
        driver.nodes[node].fault = "refused"
    with pytest.raises(SessionUnavailable):
        worker.load(session_id)


def test_while_no_more_are_away_it_counts(driver: SimulatedDriver, worker: Worker) -> None:
    """Else no session could be had for as long as it lives when nodes are restarted one by one and another fails."""
    session_id = worker.store(step=1)
    backup = backup_of(driver, session_id)
    driver.nodes[backup].fault = "refused"
    assert worker.load(session_id) is not None
    driver.nodes[backup].fault = None
    assert worker.probe(backup)
    driver.nodes[home_of(session_id)].fault = "refused"
    assert worker.load(session_id)["step"] == 1  # type: ignore[index]


@pytest.mark.parametrize("is_home", [True, False], ids=["home", "backup"])
def test_what_one_has_that_was_not_away_counts_although_all_others_are(
    driver: SimulatedDriver, worker: Worker, is_home: bool
) -> None:
    session_id = worker.store(step=1)
    left = home_of(session_id) if is_home else backup_of(driver, session_id)
    driver.clock.advance(60)
    assert worker.load(session_id) is not None
    for node in driver.nodes.keys() - {left}:
        driver.nodes[node].fault = "refused"
    worker.driver.run(ask(worker.ctx))
    assert worker.load(session_id)["step"] == 1  # type: ignore[index]
