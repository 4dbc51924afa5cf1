"""The way back to the cluster: what was ended meanwhile first, then what was kept here, then as if new."""

from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import DistributionState, NearCacheSettings, SessionId
from msm_fast.engine.events import Event
from msm_fast.engine.exchanging import ask, probe
from msm_fast.local_store import LocalRecord, MemoryStore
from msm_fast.session import LocalKind
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_falling_back import LOCAL, REPLAY, change, heal, lose
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]


def test_what_was_kept_here_is_dumped_when_the_cluster_is_back(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    events: list[Event] = []
    worker = make_worker(**LOCAL)
    worker.ctx.events.subscribe(events.append)
    session_id = worker.store(n=0)
    lose(driver, worker)
    change(worker, session_id, n=1)
    made_meanwhile = worker.create(n=5)
    worker.save(made_meanwhile)
    heal(driver, worker)
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    assert len(worker.ctx.local) == 0
    assert read(worker, session_id) == {"n": 0}
    assert worker.load(made_meanwhile.id) is None
    assert [event.kind for event in events if event.kind in ("state_changed", "reset")].count("reset") == 1
    assert worker.ctx.counters.snapshot().dropped == 2


@pytest.mark.parametrize("bounds", [{"max_sessions": 2}, {"max_bytes": 1}])
def test_what_was_ended_is_ended_there_however_little_can_be_kept_here(
    driver: SimulatedDriver, make_worker: MakeWorker, bounds: dict[str, int]
) -> None:
    worker = make_worker(**LOCAL, near_cache=NearCacheSettings(**bounds))
    session_id = worker.store(n=0)
    lose(driver, worker)
    session = loaded(worker, session_id)
    session.invalidate()
    assert worker.save(session).status == "invalidated"
    for n in range(5):
        worker.save(worker.create(n=n))
    assert worker.load(session_id) is None
    heal(driver, worker)
    assert make_worker().load(session_id) is None
    assert len(worker.ctx.local) == 0


def test_with_the_policy_replay_it_is_stored_first(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker, other = make_worker(**REPLAY), make_worker(**LOCAL)
    session_id = worker.store(a=0, b=0)
    lose(driver, worker)
    change(worker, session_id, a=1)
    made_meanwhile = worker.create(n=5)
    worker.save(made_meanwhile)
    heal(driver)
    change(other, session_id, b=2)
    heal(driver, worker)
    assert read(other, session_id) == {"a": 1, "b": 2}
    session = loaded(other, made_meanwhile.id)
    assert dict(session) == {"n": 5}
    assert session.id_changed
    assert session.id.startswith(made_meanwhile.id + "-n")
    assert len(worker.ctx.local) == 0
    assert worker.ctx.counters.snapshot().replayed == 2


def make_worker_on_its_way_back(driver: SimulatedDriver) -> tuple[Worker, Worker, str, str]:
    """Return two workers of one host, and two sessions of an outage that only the first of them has replayed so far.

    The nodes answer both. The second one has seen the first session before the outage.
    """
    store = MemoryStore(NearCacheSettings(), clock=driver.clock.monotonic)
    back, behind = (Worker(driver, make_settings(**REPLAY), seed, store) for seed in (1, 2))
    seen_before = behind.store(n=0)
    lose(driver, back, behind)
    change(behind, seen_before, n=1)
    session = back.create(n=5)
    back.save(session)
    heal(driver, back)
    for node in behind.ctx.health.down():
        driver.run(probe(behind.ctx, node))
    assert behind.ctx.state() is DistributionState.LOCAL
    return back, behind, seen_before, session.id


def test_what_another_worker_of_the_host_has_replayed_is_found_by_one_that_is_still_on_its_way_back(
    driver: SimulatedDriver,
) -> None:
    back, behind, seen_before, made_meanwhile = make_worker_on_its_way_back(driver)
    assert read(behind, seen_before) == {"n": 1}
    assert read(behind, made_meanwhile) == {"n": 5}
    for session_id in (seen_before, made_meanwhile):
        assert change(behind, session_id, m=2) == "local"
    behind.reconnect()
    assert read(back, seen_before) == {"n": 1, "m": 2}
    assert read(back, made_meanwhile) == {"n": 5, "m": 2}


def test_if_the_cluster_is_lost_again_on_the_way_back_it_is_served_as_it_was_last_seen(driver: SimulatedDriver) -> None:
    _, behind, seen_before, made_meanwhile = make_worker_on_its_way_back(driver)
    for node in driver.nodes.values():
        node.fault = "refused"
    assert read(behind, seen_before) == {"n": 0}
    assert read(behind, made_meanwhile) == {}


def test_so_are_lifetimes_that_were_set_here(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(**REPLAY)
    session_id = worker.store(user="ada")
    lose(driver, worker)
    for absolute_lifetime in (300, 400):
        session = loaded(worker, session_id)
        session.max_inactive, session.absolute_lifetime = 100, absolute_lifetime
        assert worker.save(session).status == "local"
    assert change(worker, session_id, n=1) == "local"
    heal(driver, worker)
    session = loaded(make_worker(), session_id)
    assert (session.max_inactive, session.absolute_lifetime) == (100, 400)


def test_lifetimes_that_another_worker_has_set_meanwhile_stay(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker, other = make_worker(**REPLAY), make_worker()
    session_id = worker.store(user="ada")
    lose(driver, worker)
    change(worker, session_id, n=1)
    change(worker, session_id, n=2)
    for node in driver.nodes.values():
        node.fault = None
    session = loaded(other, session_id)
    session.max_inactive, session.absolute_lifetime = 100, 300
    other.save(session)
    heal(driver, worker)
    session = loaded(make_worker(), session_id)
    assert session["n"] == 2
    assert (session.max_inactive, session.absolute_lifetime) == (100, 300)


def test_a_replay_goes_on_when_the_nodes_of_more_sessions_are_back(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**REPLAY)
    lose(driver, worker)
    sessions = [worker.create(n=n) for n in range(10)]
    for session in sessions:
        worker.save(session)
    for name in ("n1", "n2", "n3"):
        driver.nodes[name].fault = None
        worker.probe(name)
    assert len(worker.ctx.local) == 0
    other = make_worker(**LOCAL)
    for n, session in enumerate(sessions):
        assert read(other, session.id) == {"n": n}


def test_so_it_does_where_there_is_more_here_that_stays(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(on_unserializable="local_session", **REPLAY)
    ids = [worker.store(n=0) for _ in range(10)]
    assert worker.save(worker.create(thing=object())).status == "local"
    lose(driver, worker)
    for session_id in ids:
        assert change(worker, session_id, n=1) == "local"
    for name in ("n1", "n2", "n3"):
        driver.nodes[name].fault = None
        worker.probe(name)
    other = make_worker(**LOCAL)
    for session_id in ids:
        assert read(other, session_id) == {"n": 1}


def test_when_nothing_is_left_a_node_that_comes_back_resets_nothing(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    events: list[Event] = []
    worker = make_worker(**LOCAL)
    worker.ctx.events.subscribe(events.append)
    lose(driver, worker)
    heal(driver, worker)
    driver.nodes["n1"].fault = "refused"
    worker.driver.run(ask(worker.ctx))
    heal(driver, worker)
    assert [event.kind for event in events].count("node_up") == 3 + 1
    assert [event.kind for event in events].count("reset") == 1


def test_what_the_cluster_lost_is_not_brought_back_by_a_replay(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker, other = make_worker(**REPLAY), make_worker(**LOCAL)
    session_id = worker.store(n=0)
    lose(driver, worker)
    change(worker, session_id, n=1)
    heal(driver)
    logout = loaded(other, session_id)
    logout.invalidate()
    other.save(logout)
    heal(driver, worker)
    assert worker.load(session_id) is None
    assert other.load(session_id) is None


def test_that_a_replay_dropped_what_the_cluster_had_lost_is_told_and_counted(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    events: list[Event] = []
    worker = make_worker(**REPLAY)
    worker.ctx.events.subscribe(events.append)
    session_ids = [worker.store(n=0) for _ in range(3)]
    lose(driver, worker)
    for session_id in session_ids:
        change(worker, session_id, n=1)
    for node in driver.nodes.values():
        node.server.restart()
    heal(driver, worker)
    assert [worker.load(session_id) for session_id in session_ids] == [None] * 3
    assert worker.ctx.counters.snapshot().dropped == 3
    assert [event.detail.partition("; ")[2].split()[0] for event in events if event.kind == "reset"] == ["3"]


def test_of_a_session_with_a_value_that_stopped_distribution_the_rest_is_replayed(make_worker: MakeWorker) -> None:
    worker = make_worker(**REPLAY, on_unserializable="stop_distribution")
    session_id = worker.store(user="ada")
    assert change(worker, session_id, cart=[1], handle=object()) == "local"
    new = worker.create(user="grace", handle=object())
    assert worker.save(new).status == "local"
    told: list[Event] = []
    worker.ctx.events.subscribe(told.append)
    worker.ctx.distribution.start()
    assert worker.reconnect()
    other = make_worker()
    assert read(other, session_id) == {"user": "ada", "cart": [1]}
    assert read(other, new.id) == {"user": "grace"}
    assert [event.kind for event in told] == ["state_changed", "dropped", "dropped", "reset", "state_changed"]
    assert worker.ctx.counters.snapshot().replayed == 2


@pytest.mark.parametrize("settings", [LOCAL, REPLAY])
def test_a_session_that_was_ended_meanwhile_is_ended_before_anything_is_read(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any]
) -> None:
    worker, other = make_worker(**settings), make_worker(**LOCAL)
    session_id = worker.store(user="ada")
    lose(driver, worker)
    slow, logout = loaded(worker, session_id), loaded(worker, session_id)
    logout.invalidate()
    assert worker.save(logout).status == "invalidated"
    slow["late"] = True
    assert worker.save(slow).status == "invalidated"
    assert worker.load(session_id) is None
    heal(driver, worker)
    assert worker.load(session_id) is None
    assert other.load(session_id) is None


@pytest.mark.parametrize("of_others", [{"key_prefix": "shop:"}, {"hash_ids": True}], ids=["key_prefix", "hash_ids"])
@pytest.mark.parametrize("settings", [LOCAL, REPLAY], ids=["discard", "replay"])
def test_what_workers_with_other_keys_have_kept_in_the_same_file_is_theirs(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any], of_others: dict[str, Any]
) -> None:
    """As other applications do: under the keys of this one the cluster cannot be told of the end of their sessions."""
    worker, other = make_worker(**settings), make_worker(**settings, **of_others)
    other.ctx.local = worker.ctx.local
    ended, kept = worker.store(user="ada"), worker.store(user="grace")
    lose(driver, worker, other)
    logout = loaded(worker, ended)
    logout.invalidate()
    worker.save(logout)
    change(worker, kept, cart=["pear"])
    events: list[Event] = []
    other.ctx.events.subscribe(events.append)
    heal(driver, other)
    assert other.ctx.state() is DistributionState.DISTRIBUTED
    assert not [event for event in events if event.kind in ("corrupt", "dropped")]
    assert read(worker, kept) == {"user": "grace", "cart": ["pear"]}
    heal(driver, worker)
    assert make_worker().load(ended) is None
    assert read(worker, kept) == {"user": "grace", **({"cart": ["pear"]} if settings is REPLAY else {})}


def stored_on(driver: SimulatedDriver, worker: Worker, home: str, **attributes: Any) -> str:
    """Store a session on a node that need not be the first that it would be given, and return its id."""
    for name in driver.nodes.keys() - {home}:
        driver.nodes[name].fault = "refused"
        worker.load(str(SessionId.generate(name)))
    session_id = worker.store(**attributes)
    assert session_id.endswith(f"-{home}")
    heal(driver, worker)
    return session_id


@pytest.mark.parametrize("home", ["n1", "n2", "n3"])
@pytest.mark.parametrize("settings", [LOCAL, REPLAY], ids=["discard", "replay"])
def test_wherever_a_session_lives_its_end_and_its_changes_find_it_there(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any], home: str
) -> None:
    worker, other = make_worker(**settings), make_worker(replicas=0, **LOCAL)
    ended = [stored_on(driver, worker, home, user="ada") for _ in range(4)]
    changed = [stored_on(driver, worker, home, a=0) for _ in range(4)]
    lose(driver, worker)
    for session_id in ended:
        logout = loaded(worker, session_id)
        logout.invalidate()
        assert worker.save(logout).status == "invalidated"
    for session_id in changed:
        assert change(worker, session_id, a=1) == "local"
    heal(driver, worker)
    for session_id in ended:
        assert other.load(session_id) is None
    for session_id in changed:
        assert read(other, session_id) == {"a": 1 if settings is REPLAY else 0}


@pytest.mark.parametrize("kind", ["local", "ended"])
@pytest.mark.parametrize("settings", [LOCAL, REPLAY], ids=["discard", "replay"])
def test_a_damaged_record_in_the_local_store_does_not_bar_the_way_back(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any], kind: LocalKind
) -> None:
    worker = make_worker(**settings)
    lose(driver, worker)
    record = LocalRecord(1, b"damaged", worker.ctx.now_ms(), kind, plain="0" * 32)
    assert worker.ctx.local.swap(b"0" * 32, 0, record, 60)
    heal(driver, worker)
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    assert len(worker.ctx.local) == 0


def test_a_replay_that_loses_the_cluster_again_loses_nothing(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(**REPLAY)
    lose(driver, worker)
    sessions = [worker.create(n=n) for n in range(5)]
    for session in sessions:
        worker.save(session)
    heal(driver)
    exchanges = 0

    def lose_again(_: object) -> None:
        nonlocal exchanges
        exchanges += 1
        if exchanges == 6:
            for node in driver.nodes.values():
                node.fault = "refused"

    driver.before_exchange = lose_again
    for node in worker.ctx.health.down():
        worker.probe(node)
    driver.before_exchange = None
    assert worker.ctx.state() is DistributionState.LOCAL
    for n, session in enumerate(sessions):
        assert read(worker, session.id) == {"n": n}
    heal(driver, worker)
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    for n, session in enumerate(sessions):
        assert read(worker, session.id) == {"n": n}
