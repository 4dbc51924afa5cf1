"""How long sessions live, under virtual time."""

from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import Session
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import backup_of, holders, home_of, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]
Mode = dict[str, Any]

THIRTY_DAYS = 30 * 24 * 3600


def expires_at(driver: SimulatedDriver, node: str, session_id: str) -> float | None:
    item = driver.nodes[node].server.peek(key_of(session_id))
    assert item is not None
    return item.expires_at


def test_msm_088_a_session_that_never_expires_has_copies_that_never_expire(
    driver: SimulatedDriver, make_worker: MakeWorker, mode: Mode
) -> None:
    worker = make_worker(max_inactive=None, **mode)
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session["user"] = "grace"
    worker.save(session)
    assert len(holders(driver, session_id)) == 2
    for node in holders(driver, session_id):
        assert expires_at(driver, node, session_id) is None


def test_msm_089_a_session_that_never_expires_needs_no_request_to_stay(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    session_id = make_worker(max_inactive=None).store(user="ada")
    driver.clock.advance(3 * 365 * 24 * 3600)
    assert read(make_worker(max_inactive=None), session_id) == {"user": "ada"}
    for node in holders(driver, session_id):
        assert expires_at(driver, node, session_id) is None


def test_msm_104_when_a_session_has_expired_its_keys_are_gone(
    driver: SimulatedDriver, make_worker: MakeWorker, mode: Mode
) -> None:
    session_id = make_worker(**mode).store(user="ada")
    assert len(holders(driver, session_id)) == 2
    driver.clock.advance(1800 + 2)
    assert holders(driver, session_id) == set()


def test_msm_106_a_client_with_an_expired_id_gets_another(
    driver: SimulatedDriver, make_worker: MakeWorker, mode: Mode
) -> None:
    worker = make_worker(max_inactive=1, **mode)
    session_id = worker.store(user="ada")
    driver.clock.advance(2.1)
    assert worker.load(session_id) is None
    assert key_of(worker.store(user="ada")) != key_of(session_id)


@pytest.mark.parametrize(
    ("reads_at", "lives_at", "is_over_at"),
    [
        pytest.param([2], 5, 7.5, id="msm-107"),
        pytest.param([3, 6], 9.5, 11.5, id="msm-108"),
    ],
)
def test_msm_107_to_108_a_session_that_is_only_read_lives_on_from_each_read(
    driver: SimulatedDriver,
    make_worker: MakeWorker,
    mode: Mode,
    reads_at: list[float],
    lives_at: float,
    is_over_at: float,
) -> None:
    worker = make_worker(max_inactive=4, **mode)
    session_id = worker.store(user="ada")
    home, backup = home_of(session_id), backup_of(driver, session_id)
    for moment in reads_at:
        driver.clock.elapsed = moment
        session = loaded(worker, session_id, expect_write=False)
        assert worker.save(session).status == "unchanged"
    driver.clock.elapsed = lives_at
    assert holders(driver, session_id) == {home, backup}
    driver.clock.elapsed = is_over_at
    assert holders(driver, session_id) == set()
    assert worker.load(session_id) is None


@pytest.mark.parametrize("max_inactive", [None, THIRTY_DAYS // 2 + 1, THIRTY_DAYS, THIRTY_DAYS + 1])
def test_msm_130_to_131_a_long_lived_session_outlives_its_node(
    driver: SimulatedDriver, make_worker: MakeWorker, max_inactive: Any
) -> None:
    session_id = make_worker(max_inactive=max_inactive).store(user="ada")
    driver.clock.advance((max_inactive or 400 * 24 * 3600) - 60)
    assert read(make_worker(max_inactive=max_inactive), session_id) == {"user": "ada"}
    home, backup = home_of(session_id), backup_of(driver, session_id)
    driver.nodes[home].fault = "refused"
    session: Session = loaded(make_worker(max_inactive=max_inactive), session_id)
    assert session.id == session_id.replace(f"-{home}", f"-{home_of(session.id)}")
    assert home_of(session.id) == backup
    assert dict(session) == {"user": "ada"}


def test_msm_138_read_only_requests_keep_a_session_alive(
    driver: SimulatedDriver, make_worker: MakeWorker, mode: Mode
) -> None:
    worker = make_worker(max_inactive=1, **mode)
    session_id = worker.store(user="ada")
    for _ in range(20):
        driver.clock.advance(0.5)
        session = loaded(worker, session_id, expect_write=False)
        assert session.id == session_id
        assert worker.save(session).status == "unchanged"
