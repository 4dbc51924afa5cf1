"""Logout and new ids: what is ended stays ended."""

from collections.abc import Callable

import pytest

from msm_fast import Breaker, Session, SessionUnavailable
from msm_fast._core.record import decode_record
from msm_fast.engine.effects import Exchange
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import backup_of, holders, home_of, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]


def test_an_invalidated_session_is_gone(worker: Worker) -> None:
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session.invalidate()
    assert dict(session) == {}
    assert worker.save(session).status == "invalidated"
    assert worker.load(session_id) is None


def test_a_slower_request_cannot_bring_it_back(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(user="ada")
    slow = loaded(two, session_id)
    slow["page"] = 2
    logout = loaded(one, session_id)
    logout.invalidate()
    one.save(logout)
    assert two.save(slow).status == "invalidated"
    assert one.load(session_id) is None
    assert two.load(session_id) is None


@pytest.mark.parametrize("unreachable", ["home", "backup"])
def test_not_even_when_a_copy_was_out_of_reach_at_logout(
    driver: SimulatedDriver, make_worker: MakeWorker, unreachable: str
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(user="ada")
    home, backup = home_of(session_id), backup_of(driver, session_id)
    slow, logout = loaded(two, session_id), loaded(one, session_id)
    away = driver.nodes[home if unreachable == "home" else backup]
    away.fault = "refused"
    logout.invalidate()
    one.save(logout)
    away.fault = None
    slow["page"] = 2
    assert two.save(slow).status == "invalidated"
    for lost in driver.nodes.values():
        lost.fault = "refused"
        assert make_worker().load(session_id) is None
        lost.fault = None


def test_a_node_that_could_not_be_told_is_not_asked_before_it_was(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(breaker=Breaker(timeouts=100))
    session_id = worker.store(user="ada")
    home = driver.nodes[home_of(session_id)]
    logout = loaded(worker, session_id)
    logout.invalidate()
    home.fault = "timeout"
    worker.save(logout)
    home.fault = None
    assert worker.ctx.health.down() == [home_of(session_id)]
    assert worker.load(session_id) is None
    assert worker.probe(home_of(session_id))
    assert worker.load(session_id, expect_write=False) is None


def test_nor_when_the_node_is_lost_again_while_it_is_told_of_that(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    home = driver.nodes[home_of(session_id)]
    logout = loaded(worker, session_id)
    home.fault = "refused"
    logout.invalidate()
    worker.save(logout)
    home.fault = "reset"
    assert not worker.probe(home_of(session_id))
    home.fault = None
    assert worker.probe(home_of(session_id))
    item = home.server.peek(key_of(session_id))
    assert item is not None
    assert decode_record(item.value, key_of(session_id)).is_tombstone


def test_a_backup_on_a_node_that_stood_in_for_another_is_ended_too(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    name = backup_of(driver, session_id)
    driver.nodes[name].fault = "refused"
    session = loaded(worker, session_id)
    session["page"] = 2
    worker.save(session)
    driver.nodes[name].fault = None
    assert worker.probe(name)
    assert holders(driver, session_id) == driver.nodes.keys()
    session.invalidate()
    worker.save(session)
    for node in driver.nodes.values():
        item = node.server.peek(key_of(session_id))
        assert item is not None
        assert decode_record(item.value, key_of(session_id)).is_tombstone


def test_a_tombstone_outlives_the_copy_of_a_node_that_has_missed_it(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one = make_worker()
    session_id = one.store(user="ada")
    away = driver.nodes[home_of(session_id)]
    away.server.early_s = 0
    logout = loaded(one, session_id)
    logout.invalidate()
    away.fault = "refused"
    one.save(logout)
    away.fault = None
    driver.clock.advance(1800 + 1.5)
    assert away.server.peek(key_of(session_id)) is not None
    assert make_worker().load(session_id) is None


@pytest.mark.parametrize("shortens", [False, True], ids=["as it was", "shortened"])
@pytest.mark.parametrize("ends", [Session.invalidate, Session.rotate_id])
def test_it_does_so_also_where_the_session_has_a_lifetime_of_its_own(
    driver: SimulatedDriver, make_worker: MakeWorker, ends: Callable[[Session], None], shortens: bool
) -> None:
    one = make_worker()
    session = one.create(user="ada")
    session.max_inactive = 29 * 24 * 3600
    one.save(session)
    session_id = session.id
    away = driver.nodes[home_of(session_id)]
    session = loaded(one, session_id)
    if shortens:
        session.max_inactive = 60
    ends(session)
    away.fault = "refused"
    one.save(session)
    away.fault = None
    driver.clock.advance(28 * 24 * 3600)
    assert away.server.peek(key_of(session_id)) is not None
    assert make_worker().load(session_id) is None


def test_it_does_so_also_when_a_slower_request_that_shortens_the_lifetime_finds_the_session_ended(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(user="ada")
    away = driver.nodes[home_of(session_id)]
    slow, logout = loaded(two, session_id), loaded(one, session_id)
    slow.max_inactive = 60
    logout.invalidate()
    away.fault = "refused"
    one.save(logout)
    assert two.save(slow).status == "invalidated"
    away.fault = None
    driver.clock.advance(120)
    assert away.server.peek(key_of(session_id)) is not None
    assert make_worker().load(session_id) is None


@pytest.mark.parametrize("max_inactive", [29 * 24 * 3600, None])
@pytest.mark.parametrize("is_login", [False, True])
def test_it_does_so_also_when_a_slower_request_does_not_know_of_a_longer_lifetime(
    driver: SimulatedDriver, make_worker: MakeWorker, max_inactive: int | None, is_login: bool
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(user="ada")
    away = driver.nodes[home_of(session_id)]
    slow, other = loaded(two, session_id), loaded(one, session_id)
    other.max_inactive = max_inactive
    one.save(other)
    away.fault = "refused"
    if is_login:
        slow.rotate_id()
        assert two.save(slow).status == "stored"
    else:
        slow["n"] = 1
        other.invalidate()
        one.save(other)
        assert two.save(slow).status == "invalidated"
    away.fault = None
    driver.clock.advance(28 * 24 * 3600)
    assert away.server.peek(key_of(session_id)) is not None
    assert make_worker().load(session_id) is None


@pytest.mark.parametrize("max_inactive", [1800, 29 * 24 * 3600, None])
def test_it_does_so_also_when_it_is_asked_for(
    driver: SimulatedDriver, make_worker: MakeWorker, max_inactive: int | None
) -> None:
    one = make_worker()
    session = one.create(user="ada")
    session.max_inactive = max_inactive
    one.save(session)
    session_id = session.id
    away = driver.nodes[home_of(session_id)]
    away.server.early_s = 0
    session = loaded(one, session_id)
    session.rotate_id()
    away.fault = "refused"
    one.save(session)
    assert one.load(session_id) is None
    assert make_worker().load(session_id) is None
    away.fault = None
    driver.clock.advance((max_inactive or 24 * 3600) + 1.5)
    assert away.server.peek(key_of(session_id)) is not None
    assert make_worker().load(session_id) is None


def test_it_does_so_also_when_only_the_version_of_that_copy_is_asked_for(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one = make_worker()
    session_id = one.store(user="ada")
    away = driver.nodes[backup_of(driver, session_id)]
    away.server.early_s = 0
    logout = loaded(one, session_id)
    logout.invalidate()
    away.fault = "refused"
    one.save(logout)
    away.fault = None
    driver.clock.advance(10)
    assert make_worker().load(session_id) is None
    driver.clock.advance(1800 + 1.5)
    assert away.server.peek(key_of(session_id)) is not None
    assert make_worker().load(session_id) is None


def test_it_does_so_also_when_its_version_was_asked_for_before_the_rest_of_it(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one = make_worker()
    session = one.create(user="ada")
    session.max_inactive = 29 * 24 * 3600
    one.save(session)
    session_id = session.id
    backup = backup_of(driver, session_id)
    away = driver.nodes[backup]
    logout = loaded(one, session_id)
    logout.invalidate()
    away.fault = "refused"
    one.save(logout)
    driver.nodes[home_of(session_id)].server.restart()
    two = make_worker()
    two.ctx.health.failed(backup, "refused", "refused", driver.clock.monotonic())
    assert two.load(session_id) is None
    away.fault = None
    driver.clock.advance(24 * 3600)
    assert away.server.peek(key_of(session_id)) is not None
    assert make_worker().load(session_id) is None


def test_asking_for_it_does_not_keep_it_for_ever(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(max_inactive=None)
    session_id = worker.store(user="ada")
    logout = loaded(worker, session_id)
    logout.invalidate()
    worker.save(logout)
    assert worker.load(session_id) is None
    driver.clock.advance(30 * 24 * 3600 + 1)
    assert not holders(driver, session_id)


def test_a_node_that_does_not_answer_for_a_moment_is_told_of_a_logout_in_the_same_request(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = worker.store(user="ada")
    home = driver.nodes[home_of(session_id)]
    logout = loaded(worker, session_id)
    logout.invalidate()
    faults = iter(["timeout"])

    def hang_once(_: Exchange) -> None:
        home.fault = next(faults, None)  # type: ignore[assignment]

    driver.before_exchange = hang_once
    assert worker.save(logout).status == "invalidated"
    assert not worker.ctx.health.down()
    item = home.server.peek(key_of(session_id))
    assert item is not None
    assert decode_record(item.value, key_of(session_id)).is_tombstone


def test_a_new_session_may_start_in_the_request_that_ended_the_old(worker: Worker) -> None:
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session.invalidate()
    session["message"] = "bye"
    assert worker.save(session).status == "stored"
    assert key_of(session.id) != key_of(session_id)
    assert worker.load(session_id) is None
    assert read(worker, session.id) == {"message": "bye"}


def test_invalidating_a_session_that_was_never_stored_costs_nothing(driver: SimulatedDriver, worker: Worker) -> None:
    session = worker.create(user="ada")
    session.invalidate()
    assert worker.save(session).status == "invalidated"
    assert driver.exchanges == 0


def test_a_logout_that_reaches_no_node_says_so(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session.invalidate()
    for node in driver.nodes.values():
        node.fault = "refused"
    with pytest.raises(SessionUnavailable):
        worker.save(session)


def test_a_rotated_session_has_a_new_id_and_the_old_one_is_dead(worker: Worker) -> None:
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session.rotate_id()
    assert session.id_changed
    assert worker.save(session).status == "stored"
    assert key_of(session.id) != key_of(session_id)
    assert worker.load(session_id) is None
    assert read(worker, session.id) == {"user": "ada"}


def test_what_was_stored_under_the_old_id_since_it_was_loaded_comes_along(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(cart=1, page=1, gone=1)
    login, other = loaded(one, session_id), loaded(two, session_id)
    other["cart"] = 2
    del other["gone"]
    two.save(other)
    login.rotate_id()
    login.update(user="ada", page=2)
    one.save(login)
    assert read(two, login.id) == {"cart": 2, "page": 2, "user": "ada"}


def test_what_was_stored_elsewhere_while_the_home_was_away_comes_along(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(cart=1)
    driver.nodes[home_of(session_id)].fault = "refused"
    moved = loaded(two, session_id)
    moved["cart"] = 2
    two.save(moved)
    driver.nodes[home_of(session_id)].fault = None
    login = one.load(session_id, expect_write=False)
    assert login is not None
    login.rotate_id()
    one.save(login)
    assert read(two, login.id) == {"cart": 2}


def test_the_new_copy_is_there_before_the_old_key_goes(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session.rotate_id()
    verbs: list[tuple[str, bool]] = []
    driver.before_exchange = lambda exchange: verbs.extend(
        (command.verb, command.key == key_of(session_id)) for batch in exchange.batches for command in batch.commands
    )
    worker.save(session)
    written = [is_old for verb, is_old in verbs if verb == "ms"]
    assert written == [False, False, *[True] * (len(written) - 2)]
    assert len(written) > 2


def test_a_slow_request_under_the_rotated_id_finds_it_ended(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(user="ada")
    slow, login = loaded(two, session_id), loaded(one, session_id)
    login.rotate_id()
    login["user"] = "root"
    one.save(login)
    slow["page"] = 2
    assert two.save(slow).status == "invalidated"
    assert read(one, login.id) == {"user": "root"}


def test_rotating_a_new_session_only_gives_it_another_id(driver: SimulatedDriver, worker: Worker) -> None:
    session = worker.create(user="ada")
    first = session.id
    session.rotate_id()
    assert session.id != first
    worker.save(session)
    assert driver.exchanges == 1


@pytest.mark.parametrize("is_another_down", [False, True])
def test_who_had_nothing_to_do_while_the_home_missed_a_logout_does_not_believe_it_afterwards(
    driver: SimulatedDriver, make_worker: MakeWorker, is_another_down: bool
) -> None:
    one, idle = make_worker(), make_worker()
    session_id = one.store(user="ada")
    loaded(idle, session_id)
    if is_another_down:
        (another,) = driver.nodes.keys() - {home_of(session_id), backup_of(driver, session_id)}
        idle.ctx.health.failed(another, "refused", "simulated", driver.clock.monotonic())
    home = driver.nodes[home_of(session_id)]
    home.fault = "unreachable"
    logout = loaded(one, session_id)
    logout.invalidate()
    assert one.save(logout).status == "invalidated"
    driver.clock.advance(60)
    home.fault = None  # and the worker that has to tell it of the logout waits for its next probe
    for _ in range(2):
        assert idle.load(session_id, expect_write=False) is None


def test_nor_does_who_asks_the_home_for_another_session_first(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    one, idle = make_worker(), make_worker()
    session_id = one.store(user="ada")
    other = next(other for other in iter(lambda: one.store(user="eve"), "") if home_of(other) == home_of(session_id))
    for known in (session_id, other):
        loaded(idle, known)
    home = driver.nodes[home_of(session_id)]
    home.fault = "unreachable"
    logout = loaded(one, session_id)
    logout.invalidate()
    one.save(logout)
    driver.clock.advance(60)
    home.fault = None
    assert idle.load(other, expect_write=False) is not None
    assert idle.load(session_id, expect_write=False) is None


def test_a_lifetime_that_is_set_under_the_old_id_while_a_new_one_is_given_comes_along(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(user="ada")
    login = loaded(one, session_id)
    other = loaded(two, session_id)
    other.absolute_lifetime = 300
    two.save(other)
    login.rotate_id()
    one.save(login)
    assert loaded(two, login.id).absolute_lifetime == 300
