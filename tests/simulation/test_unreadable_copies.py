"""Sessions that other workers have stored in a form that this one cannot read: they are left alone, and as they are."""

from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import DistributionState, Event, NearCacheSettings, SessionUnavailable, UnknownFormat
from msm_fast.engine.exchanging import probe
from msm_fast.local_store import MemoryStore
from tests.simulation.driver import SimulatedDriver
from tests.simulation.sticky_worker import StickyWorker
from tests.simulation.test_falling_back import LOCAL, REPLAY, change, heal, lose
from tests.simulation.test_loading import backup_of, holders, home_of, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]

OLD, NEW = "an old secret of some length", "a new secret of some length"
BEHIND: dict[str, Any] = {"secrets": OLD}
AHEAD: dict[str, Any] = {"secrets": (NEW, OLD)}
FORTNIGHT_S = 14 * 86_400


def leave_one_behind(driver: SimulatedDriver, session_id: str, worker: Worker) -> str:
    """Let the third node keep a copy from a time when the backup was away; return that node."""
    backup = backup_of(driver, session_id)
    (third,) = driver.nodes.keys() - holders(driver, session_id)
    driver.nodes[backup].fault = "refused"
    change(worker, session_id, color="red")
    driver.nodes[backup].fault = None
    worker.probe(backup)
    assert third in holders(driver, session_id)
    return third


def values_of(driver: SimulatedDriver, session_id: str) -> dict[str, bytes]:
    items = {name: node.server.peek(key_of(session_id)) for name, node in driver.nodes.items()}
    return {name: item.value for name, item in items.items() if item is not None}


def store_for_a_fortnight(worker: Worker, lifetime_s: int | None = FORTNIGHT_S) -> str:
    session = worker.create(user="ada")
    session.max_inactive = lifetime_s
    worker.save(session)
    return session.id


def live_for_a_fortnight(worker: Worker, session_id: str) -> None:
    session = loaded(worker, session_id)
    session.max_inactive = FORTNIGHT_S
    worker.save(session)


@pytest.fixture
def make_sticky_worker(driver: SimulatedDriver) -> Callable[..., StickyWorker]:
    """Return a function that makes workers that serve sessions from their memory."""
    seeds = iter(range(1, 1000))

    def make(**settings: Any) -> StickyWorker:
        return StickyWorker(driver, make_settings(sticky=True, backup="async", **settings), seed=next(seeds))

    return make


def test_what_was_left_behind_on_a_third_node_does_not_stand_in_for_it(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    behind, ahead = make_worker(**BEHIND), make_worker(**AHEAD)
    session_id = behind.store(user="ada")
    leave_one_behind(driver, session_id, behind)
    change(ahead, session_id, paid=True)
    before = values_of(driver, session_id)
    for worker in (behind, make_worker(**BEHIND)):
        with pytest.raises(UnknownFormat):
            worker.load(session_id)
    assert values_of(driver, session_id) == before
    assert read(ahead, session_id) == {"user": "ada", "color": "red", "paid": True}


def test_what_was_left_behind_does_not_stand_in_for_it_either_when_its_home_is_away(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    behind, ahead = make_worker(**BEHIND), make_worker(**AHEAD)
    session_id = behind.store(user="ada")
    leave_one_behind(driver, session_id, behind)
    change(ahead, session_id, paid=True)
    driver.nodes[session_id.rpartition("-")[2]].fault = "refused"
    with pytest.raises(UnknownFormat):
        make_worker(**BEHIND).load(session_id)


def test_a_copy_that_stands_on_what_cannot_be_read_is_served(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    """It was stored after that, by a worker that reads both, while the home was away."""
    behind, both = make_worker(**BEHIND), make_worker(secrets=(OLD, NEW))
    session_id = make_worker(**AHEAD).store(user="ada")
    home = session_id.rpartition("-")[2]
    driver.nodes[home].fault = "refused"
    change(both, session_id, paid=True)
    driver.nodes[home].fault = None
    assert read(behind, session_id) == {"user": "ada", "paid": True}


def test_a_save_does_not_move_the_session_away_from_it(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    behind, ahead = make_worker(**BEHIND), make_worker(**AHEAD)
    events: list[Event] = []
    behind.ctx.events.subscribe(events.append)
    session_id = behind.store(user="ada")
    leave_one_behind(driver, session_id, behind)
    mine = loaded(behind, session_id)
    mine["seen"] = True
    change(ahead, session_id, paid=True)
    before = values_of(driver, session_id)
    with pytest.raises(SessionUnavailable, match="cannot read"):
        behind.save(mine)
    assert "unreadable" in [event.kind for event in events]
    assert values_of(driver, session_id) == before
    assert read(ahead, session_id) == {"user": "ada", "color": "red", "paid": True}


@pytest.mark.parametrize("lifetime_s", [FORTNIGHT_S, None])
def test_it_keeps_a_lifetime_of_its_own(
    driver: SimulatedDriver, make_worker: MakeWorker, lifetime_s: int | None
) -> None:
    session_id = store_for_a_fortnight(make_worker(**AHEAD), lifetime_s)
    with pytest.raises(UnknownFormat):
        make_worker(**BEHIND).load(session_id)
    driver.clock.advance(FORTNIGHT_S - 60)
    assert len(holders(driver, session_id)) == 2


@pytest.mark.parametrize("is_lost", [False, True], ids=["refused", "lost"])
def test_so_it_does_where_its_backup_was_only_peeked_at_before_its_home_had_no_answer(
    driver: SimulatedDriver, make_worker: MakeWorker, is_lost: bool
) -> None:
    session_id = store_for_a_fortnight(make_worker(**AHEAD))
    home, backup = driver.nodes[home_of(session_id)], backup_of(driver, session_id)
    if is_lost:
        home.server.evict(key_of(session_id))
    else:
        home.fault = "refused"
    with pytest.raises(UnknownFormat):
        make_worker(**BEHIND).load(session_id)
    driver.clock.advance(FORTNIGHT_S - 60)
    assert backup in holders(driver, session_id)


def test_so_it_does_where_it_is_too_large_to_be_transferred_unseen(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    behind, ahead = make_worker(**BEHIND, near_cache=NearCacheSettings(validate_over=1000)), make_worker(**AHEAD)
    session_id = behind.store(photo="x" * 2000)
    live_for_a_fortnight(ahead, session_id)
    with pytest.raises(UnknownFormat):
        behind.load(session_id)
    driver.clock.advance(FORTNIGHT_S - 60)
    assert len(holders(driver, session_id)) == 2


def test_so_it_does_where_a_save_meets_it(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    behind, ahead = make_worker(**BEHIND), make_worker(**AHEAD)
    session_id = behind.store(user="ada")
    mine = loaded(behind, session_id)
    mine["seen"] = True
    live_for_a_fortnight(ahead, session_id)
    with pytest.raises(SessionUnavailable):
        behind.save(mine)
    driver.clock.advance(FORTNIGHT_S - 60)
    assert len(holders(driver, session_id)) == 2


def test_so_it_does_where_a_sticky_worker_still_has_it_in_memory_and_changes_it(
    driver: SimulatedDriver, make_sticky_worker: Callable[..., StickyWorker]
) -> None:
    """Its attempts to write, of which there is no end, let it live no longer and no shorter."""
    behind, ahead = make_sticky_worker(**BEHIND, route="a"), make_sticky_worker(**AHEAD, route="b")
    session_id = behind.store(user="ada")
    behind.catch_up()
    live_for_a_fortnight(ahead, session_id)
    ahead.catch_up()
    change(behind, session_id, seen=True)
    for _ in range(60):
        job = behind.next_job()
        assert job is not None
        assert not behind.do(job)
        driver.clock.advance(60)
    driver.clock.advance(FORTNIGHT_S - 2 * 3600)
    assert len(holders(driver, session_id)) == 2


def test_what_this_worker_has_seen_before_does_not_stand_in_for_it(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    """The session may have been ended since."""
    behind, ahead = make_worker(**BEHIND, **LOCAL), make_worker(**AHEAD)
    session_id = behind.store(user="ada")
    session = loaded(ahead, session_id)
    session.invalidate()
    ahead.save(session)
    session = loaded(behind, session_id)
    assert (session.id, dict(session)) == (session_id, {})
    session["page"] = 2
    assert behind.save(session).status == "local"
    assert read(behind, session_id) == {"page": 2}


def test_nor_does_it_on_the_way_back_from_an_outage(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    shared = MemoryStore(NearCacheSettings(), clock=driver.clock.monotonic)
    behind, ahead = Worker(driver, make_settings(**BEHIND, **LOCAL), 1, shared), make_worker(**AHEAD)
    session_id = behind.store(user="ada")
    lose(driver, behind)
    for node in driver.nodes.values():
        node.fault = None
    session = loaded(ahead, session_id)
    session.invalidate()
    ahead.save(session)
    for name in behind.ctx.health.down():
        driver.run(probe(behind.ctx, name))
    assert behind.ctx.state() is DistributionState.LOCAL
    assert read(behind, session_id) == {}


@pytest.mark.parametrize("settings", [{}, LOCAL], ids=["error", "local"])
def test_nor_does_what_a_sticky_worker_has_in_memory_where_others_have_served_it_since(
    make_sticky_worker: Callable[..., StickyWorker], settings: dict[str, Any]
) -> None:
    behind, ahead = make_sticky_worker(**BEHIND, **settings, route="a"), make_sticky_worker(**AHEAD, route="b")
    session_id = behind.store(user="ada")
    behind.catch_up()
    session = loaded(ahead, session_id)
    session["seen"] = True
    ahead.save(session)
    ahead.catch_up()
    session_id = session.id
    session.invalidate()
    ahead.save(session)
    if settings:
        assert read(behind, session_id) == {}
    else:
        with pytest.raises(UnknownFormat):
            behind.load(session_id)


def test_nor_does_that_when_the_copies_are_touched(
    driver: SimulatedDriver, make_sticky_worker: Callable[..., StickyWorker]
) -> None:
    behind, ahead = make_sticky_worker(**BEHIND, route="a"), make_sticky_worker(**AHEAD, route="b")
    session_id = behind.store(user="ada")
    behind.catch_up()
    live_for_a_fortnight(ahead, session_id)
    ahead.catch_up()
    driver.clock.advance(200)
    assert read(behind, session_id) == {"user": "ada"}
    assert behind.catch_up() == 1
    with pytest.raises(UnknownFormat):
        behind.load(session_id)
    driver.clock.advance(FORTNIGHT_S - 600)
    assert len(holders(driver, session_id)) == 2


# -- kept on a host that both share


@pytest.fixture
def pair(driver: SimulatedDriver, make_worker: MakeWorker) -> Callable[..., tuple[Worker, Worker]]:
    """Return a function that makes a worker that cannot read what the other has kept, and that one."""

    def make(**settings: Any) -> tuple[Worker, Worker]:
        behind, ahead = make_worker(**BEHIND, **settings), make_worker(**AHEAD, **settings)
        ahead.ctx.local = behind.ctx.local
        return behind, ahead

    return make


def test_in_an_outage_it_is_stood_in_for_under_its_id_and_what_was_kept_stays(
    driver: SimulatedDriver, pair: Callable[..., tuple[Worker, Worker]]
) -> None:
    behind, ahead = pair(**LOCAL)
    session_id = ahead.store(user="ada")
    lose(driver, behind, ahead)
    change(ahead, session_id, cart=["pear"])
    events: list[Event] = []
    behind.ctx.events.subscribe(events.append)
    for _ in range(2):
        session = loaded(behind, session_id)
        assert (session.id, dict(session)) == (session_id, {})
    assert [event.kind for event in events] == ["unreadable"]
    session["page"] = 2
    assert behind.save(session).status == "failed"
    assert read(ahead, session_id) == {"user": "ada", "cart": ["pear"]}


def test_with_on_corrupt_error_it_is_an_error_in_an_outage_too(
    driver: SimulatedDriver, pair: Callable[..., tuple[Worker, Worker]]
) -> None:
    behind, ahead = pair(on_cluster_lost="local", on_corrupt="error")
    session_id = ahead.store(user="ada")
    lose(driver, behind, ahead)
    change(ahead, session_id, cart=["pear"])
    with pytest.raises(UnknownFormat):
        behind.load(session_id)


def test_a_replay_leaves_it_to_the_workers_that_can_read_it(
    driver: SimulatedDriver, pair: Callable[..., tuple[Worker, Worker]]
) -> None:
    behind, ahead = pair(**REPLAY)
    session_id = behind.store(user="ada")
    read(ahead, session_id)
    lose(driver, behind, ahead)
    change(ahead, session_id, cart=["pear"])
    heal(driver, behind)
    assert read(behind, session_id) == {"user": "ada"}
    heal(driver, ahead)
    assert read(ahead, session_id) == {"user": "ada", "cart": ["pear"]}
