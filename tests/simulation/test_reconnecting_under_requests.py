"""Requests that run while the cluster is taken up again: what they change and end on the way back is not lost."""

from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import DistributionState
from tests.simulation.driver import SimulatedDriver
from tests.simulation.sticky_worker import StickyWorker
from tests.simulation.test_falling_back import LOCAL, REPLAY, change, heal, lose
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]


def at_exchange(driver: SimulatedDriver, n: int, act: Callable[[], object]) -> None:
    """Act before the n-th exchange from now on."""
    exchanges = 0

    def count(_: object) -> None:
        nonlocal exchanges
        exchanges += 1
        if exchanges == n:
            act()

    driver.before_exchange = count


def test_what_requests_change_while_the_rest_is_replayed_is_replayed_too(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker, other = make_worker(**REPLAY), make_worker(**LOCAL)
    lose(driver, worker)
    sessions = [worker.create(n=n) for n in range(5)]
    for session in sessions:
        worker.save(session)
    login = worker.create(user="ada")

    def change_all() -> None:
        for session in sessions:
            assert change(worker, session.id, late=True) == "local"
        assert worker.save(login).status == "local"

    heal(driver)
    at_exchange(driver, 8, change_all)
    heal(driver, worker)
    driver.before_exchange = None
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    assert len(worker.ctx.local) == 0
    for n, session in enumerate(sessions):
        assert read(other, session.id) == {"n": n, "late": True}
    assert read(other, login.id) == {"user": "ada"}


@pytest.mark.parametrize("is_sticky", [False, True], ids=["non_sticky", "sticky"])
@pytest.mark.parametrize("n_exchange", range(2, 14))
def test_of_what_one_request_after_the_other_changes_meanwhile_the_last_value_stays(
    driver: SimulatedDriver, make_worker: MakeWorker, n_exchange: int, is_sticky: bool
) -> None:
    kind = StickyWorker if is_sticky else Worker
    worker = kind(driver, make_settings(sticky=is_sticky, route="w1", **REPLAY))
    other = make_worker(**LOCAL)
    known = worker.store(n=0)
    if isinstance(worker, StickyWorker):
        worker.catch_up()
    lose(driver, worker)
    change(worker, known, n=1)
    made_meanwhile = worker.create(n=1)
    worker.save(made_meanwhile)
    acknowledged = 1

    def change_both() -> None:
        nonlocal acknowledged
        if worker.ctx.state() is DistributionState.LOCAL:
            acknowledged += 1
            for session_id in (known, made_meanwhile.id):
                assert change(worker, session_id, n=acknowledged) == "local"
            at_exchange(driver, 1, change_both)

    heal(driver)
    at_exchange(driver, n_exchange, change_both)
    heal(driver, worker)
    driver.before_exchange = None
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    for session_id in (known, made_meanwhile.id):
        change(worker, session_id, seen=True)
        if isinstance(worker, StickyWorker):
            worker.catch_up()
        assert read(worker, session_id) == {"n": acknowledged, "seen": True}
        assert read(other, session_id) == {"n": acknowledged, "seen": True}


@pytest.mark.parametrize("n_exchange", range(2, 14))
@pytest.mark.parametrize("settings", [LOCAL, REPLAY], ids=["discard", "replay"])
def test_a_logout_on_the_way_back_is_not_dropped_with_what_was_kept(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any], n_exchange: int
) -> None:
    worker, other = make_worker(**settings), make_worker(**LOCAL)
    session_ids = [worker.store(n=n) for n in range(4)]
    lose(driver, worker)
    for session_id in session_ids:
        change(worker, session_id, changed=True)
    ended = session_ids[:1]

    def log_out(session_id: str) -> None:
        session = loaded(worker, session_id)
        session.invalidate()
        assert worker.save(session).status == "invalidated"

    def log_others_out() -> None:
        if worker.ctx.state() is DistributionState.LOCAL:
            ended.extend(session_ids[1:3])
            for session_id in session_ids[1:3]:
                log_out(session_id)

    log_out(session_ids[0])
    heal(driver)
    at_exchange(driver, n_exchange, log_others_out)
    heal(driver, worker)
    driver.before_exchange = None
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    for session_id in ended:
        assert worker.load(session_id) is None
        assert other.load(session_id) is None
    assert loaded(other, session_ids[3])["n"] == 3
    assert len(worker.ctx.local) == 0


def test_a_request_that_began_before_the_reconnection_is_not_lost(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker, other = make_worker(**LOCAL), make_worker(**LOCAL)
    session_id = worker.store(a=0, b=0)
    lose(driver, worker)
    slow = loaded(worker, session_id)
    made_meanwhile = worker.create(n=5)
    heal(driver, worker)
    change(other, session_id, b=2)
    slow["a"] = 1
    assert worker.save(slow).status == "merged"
    assert read(other, session_id) == {"a": 1, "b": 2}
    assert worker.save(made_meanwhile).status == "stored"
    assert read(other, made_meanwhile.id) == {"n": 5}


@pytest.mark.parametrize("policy", [LOCAL, REPLAY], ids=["discard", "replay"])
def test_a_request_that_logged_in_during_the_outage_and_goes_on_after_it_stores_its_session(
    driver: SimulatedDriver, make_worker: MakeWorker, policy: dict[str, Any]
) -> None:
    worker, other = make_worker(**policy), make_worker(**LOCAL)
    former = worker.store(n=0)
    session = loaded(worker, former)
    lose(driver, worker)
    session.rotate_id()
    session["user"] = "ada"
    assert worker.save(session).status == "local"
    heal(driver, worker)
    session["page"] = 2
    assert worker.save(session).status in ("stored", "merged")
    assert read(other, session.id) == {"n": 0, "user": "ada", "page": 2}
    assert other.load(former) is None


@pytest.mark.parametrize("settings", [LOCAL, REPLAY], ids=["discard", "replay"])
@pytest.mark.parametrize("replicas", [0, 1])
def test_nor_is_one_of_a_session_that_was_to_be_moved_as_the_cluster_was_lost(
    driver: SimulatedDriver, make_worker: MakeWorker, replicas: int, settings: dict[str, Any]
) -> None:
    worker, other = (make_worker(replicas=replicas, **settings) for _ in range(2))
    session = loaded(worker, worker.store(n=0))
    for node in driver.nodes.values():
        node.fault = "timeout"
    session["early"] = True
    assert worker.save(session).status == "local"  # when no node had taken it
    lose(driver, worker, how="timeout")
    slow = loaded(worker, session.id)
    heal(driver, worker)
    slow["late"] = True
    assert worker.save(slow).status in ("stored", "merged")
    assert read(other, session.id)["late"] is True


@pytest.mark.parametrize("settings", [LOCAL, REPLAY], ids=["discard", "replay"])
def test_requests_of_a_session_made_in_the_outage_that_end_after_it_store_one_session(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any]
) -> None:
    worker = make_worker(**settings)
    lose(driver, worker)
    session = worker.create(user="ada")
    worker.save(session)
    session_id = session.id
    one, two, reading = (loaded(worker, session_id) for _ in range(3))
    heal(driver, worker)
    one["first"], two["second"] = 1, 2
    for session in (one, two, reading):
        assert worker.save(session).status in ("stored", "merged")
        assert session.id.startswith(session_id)
    assert read(make_worker(**LOCAL), one.id) == {"user": "ada", "first": 1, "second": 2}


def test_a_client_that_still_has_the_id_from_one_outage_is_served_across_the_next(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**REPLAY)
    lose(driver, worker)
    session = worker.create(user="ada")
    worker.save(session)
    session_id = session.id
    heal(driver, worker)
    assert read(worker, session_id) == {"user": "ada"}
    lose(driver, worker)
    slow = loaded(worker, session_id)
    heal(driver, worker)
    slow["late"] = True
    assert worker.save(slow).status == "stored"
    assert read(make_worker(**LOCAL), session_id) == {"user": "ada", "late": True}


def when_first_kept(worker: Worker, act: Callable[[], object]) -> None:
    """Act when a request is about to keep something on this host: it has seen that the cluster is not used."""
    swap = worker.ctx.local.swap

    def act_and_swap(*args: Any) -> bool:
        worker.ctx.local.swap = swap  # type: ignore[method-assign]
        act()
        return swap(*args)

    worker.ctx.local.swap = act_and_swap  # type: ignore[method-assign]


@pytest.mark.parametrize("settings", [LOCAL, REPLAY], ids=["discard", "replay"])
def test_a_logout_that_the_reconnection_overtakes_reaches_the_cluster(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any]
) -> None:
    worker, other = make_worker(**settings), make_worker(**LOCAL)
    session_id = worker.store(user="ada")
    lose(driver, worker)
    logout = loaded(worker, session_id)
    logout.invalidate()
    when_first_kept(worker, lambda: heal(driver, worker))
    assert worker.save(logout).status == "invalidated"
    assert other.load(session_id) is None
    assert worker.load(session_id) is None
    assert len(worker.ctx.local) == 0


@pytest.mark.parametrize("settings", [LOCAL, REPLAY], ids=["discard", "replay"])
def test_what_is_kept_here_when_the_reconnection_is_over_is_not_laid_over_what_is_stored_later(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any]
) -> None:
    worker, other = make_worker(**settings), make_worker(**LOCAL)
    session_id = worker.store(a=0, b=0)
    lose(driver, worker)
    slow = loaded(worker, session_id)
    slow["a"] = 1
    when_first_kept(worker, lambda: heal(driver, worker))
    assert worker.save(slow).status == "stored"
    assert read(other, session_id) == {"a": 1, "b": 0}
    assert change(other, session_id, a=2) == "stored"
    assert read(worker, session_id) == {"a": 2, "b": 0}
    assert len(worker.ctx.local) == 0


def test_what_is_kept_here_just_before_the_reconnection_is_over_is_dumped(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker, other = make_worker(**LOCAL), make_worker(**LOCAL)
    session_id = worker.store(a=0)
    lose(driver, worker)
    slow = loaded(worker, session_id)
    slow["a"] = 1
    statuses = []

    def just_behind_the_dump(_: bool) -> int:
        statuses.append(worker.save(slow).status)
        return 0

    worker.ctx.dump_live = just_behind_the_dump
    heal(driver, worker)
    assert statuses == ["local"]
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    assert change(other, session_id, a=2) == "stored"
    assert read(worker, session_id) == {"a": 2}
