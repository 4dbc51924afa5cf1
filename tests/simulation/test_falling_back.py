"""The cluster is lost, or cannot serve one session: what this host serves meanwhile, and what comes of it."""

from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import (
    CorruptRecord,
    DistributionState,
    Event,
    NearCacheSettings,
    Reconnect,
    Session,
    SessionId,
    SessionUnavailable,
)
from msm_fast.engine.effects import Exchange
from msm_fast.policies import Breaker
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]

LOCAL: dict[str, Any] = {"on_cluster_lost": "local", "on_corrupt": "local"}
REPLAY: dict[str, Any] = {**LOCAL, "reconnect": Reconnect(on_reconnect="replay")}


def lose(driver: SimulatedDriver, *workers: Worker, how: str = "refused") -> None:
    """Let every node refuse, and let the workers notice."""
    for node in driver.nodes.values():
        node.fault = how  # type: ignore[assignment]
    for worker in workers:
        while worker.ctx.state() is not DistributionState.LOCAL:
            worker.load(str(SessionId.generate("n1")))
            worker.load(str(SessionId.generate("n2")))


def heal(driver: SimulatedDriver, *workers: Worker) -> None:
    for node in driver.nodes.values():
        node.fault = None
    for worker in workers:
        for node in worker.ctx.health.down():
            worker.probe(node)


def change(worker: Worker, session_id: str, **attributes: Any) -> str:
    session = loaded(worker, session_id)
    session.update(attributes)
    return worker.save(session).status


# -- connectivity lost


def test_a_session_that_was_seen_before_is_served_as_it_was_last_seen(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**LOCAL)
    session_id = worker.store(user="ada")
    read(worker, session_id)
    lose(driver, worker)
    session = loaded(worker, session_id)
    assert dict(session) == {"user": "ada"}
    assert session.is_local
    assert not session.id_changed
    assert not session.is_new


def test_a_session_that_is_only_read_lives_on_for_as_long_as_it_is_used(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**LOCAL)
    session_id = worker.store(user="ada")
    lose(driver, worker)
    for _ in range(3):
        driver.clock.advance(1700)
        assert read(worker, session_id) == {"user": "ada"}
    driver.clock.advance(1801)
    assert read(worker, session_id) == {}


def test_a_logout_is_not_forgotten_before_the_cluster_forgets_the_session(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**LOCAL)
    session = worker.create(user="ada")
    session.max_inactive = 24 * 3600
    worker.save(session)
    lose(driver, worker)
    logout = loaded(worker, session.id)
    logout.invalidate()
    assert worker.save(logout).status == "invalidated"
    driver.clock.advance(3600)
    heal(driver, worker)
    assert worker.load(session.id) is None


def test_a_session_that_was_seen_to_be_gone_is_not_served(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker, other = make_worker(**LOCAL), make_worker(**LOCAL)
    session_id = worker.store(user="ada")
    logout = loaded(other, session_id)
    logout.invalidate()
    other.save(logout)
    assert worker.load(session_id) is None
    lose(driver, worker)
    assert read(worker, session_id) == {}


@pytest.mark.parametrize("end", [Session.invalidate, Session.rotate_id])
def test_nor_is_one_served_that_another_request_saw_while_it_was_being_ended(
    driver: SimulatedDriver, make_worker: MakeWorker, end: Callable[[Session], None]
) -> None:
    worker = make_worker(**LOCAL)
    session_id = worker.store(user="ada")
    ending = loaded(worker, session_id)
    end(ending)

    def read_first(exchange: Exchange) -> None:
        driver.before_exchange = None
        assert read(worker, session_id) == {"user": "ada"}
        driver.before_exchange = read_first

    driver.before_exchange = read_first
    worker.save(ending)
    driver.before_exchange = None
    lose(driver, worker)
    assert read(worker, session_id) == {}


def test_what_is_written_meanwhile_is_read_meanwhile(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(**LOCAL)
    session_id = worker.store(n=0)
    lose(driver, worker)
    before = driver.exchanges
    for n in range(1, 4):
        assert change(worker, session_id, n=n) == "local"
        assert read(worker, session_id) == {"n": n}
    assert driver.exchanges == before


def test_a_session_that_was_never_seen_gets_a_provisional_one_under_its_id(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    other, worker = make_worker(**LOCAL), make_worker(**LOCAL)
    session_id = other.store(user="ada")
    lose(driver, worker)
    session = loaded(worker, session_id)
    assert dict(session) == {}
    assert session.is_local
    assert not session.id_changed
    assert worker.save(session).status == "unchanged"
    assert change(worker, session_id, page=1) == "local"
    assert read(worker, session_id) == {"page": 1}


@pytest.mark.parametrize("policy", ["discard", "replay"])
def test_a_provisional_session_never_replaces_the_original(
    driver: SimulatedDriver, make_worker: MakeWorker, policy: Any
) -> None:
    other = make_worker(**LOCAL)
    worker = make_worker(**LOCAL, reconnect=Reconnect(on_reconnect=policy))
    session_id = other.store(user="ada")
    lose(driver, worker)
    slow = loaded(worker, session_id)
    change(worker, session_id, page=1)
    heal(driver, worker)
    slow["late"] = True
    assert worker.save(slow).status == "failed"
    assert read(worker, session_id) == {"user": "ada"}
    assert read(other, session_id) == {"user": "ada"}


@pytest.mark.parametrize("text", ["chosen", "0123456789abcdef" * 2 + "-n9", "0123456789abcdef" * 2 + "x"])
def test_an_id_that_was_not_issued_here_is_not_adopted_either(
    driver: SimulatedDriver, make_worker: MakeWorker, text: str
) -> None:
    worker = make_worker(**LOCAL)
    lose(driver, worker)
    assert worker.load(text) is None


def test_a_session_made_meanwhile_has_an_id_without_a_node(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(**LOCAL)
    lose(driver, worker)
    session = worker.create(user="ada")
    assert worker.save(session).status == "local"
    assert "-" not in session.id
    assert read(worker, session.id) == {"user": "ada"}


def test_idle_and_absolute_limits_hold_meanwhile(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(**LOCAL, max_inactive=100, absolute_lifetime=250)
    lose(driver, worker)
    idle, busy = worker.create(n=1), worker.create(n=1)
    worker.save(idle)
    worker.save(busy)
    for _ in range(3):
        driver.clock.advance(80)
        assert read(worker, busy.id) == {"n": 1}
    assert read(worker, idle.id) == {}  # it may be in the cluster
    driver.clock.advance(80)
    assert read(worker, busy.id) == {}


def test_so_they_do_for_a_session_that_is_served_as_it_was_last_seen(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**LOCAL, max_inactive=100, absolute_lifetime=250)
    idle, busy = worker.store(n=1), worker.store(n=1)
    lose(driver, worker)
    for _ in range(3):
        driver.clock.advance(80)
        assert read(worker, busy) == {"n": 1}
    assert read(worker, idle) == {}
    driver.clock.advance(80)
    assert read(worker, busy) == {}


def test_what_was_changed_meanwhile_is_not_back_as_it_was_when_a_lifetime_that_was_set_then_is_over(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**LOCAL)
    session_id = worker.store(user="ada")
    lose(driver, worker)
    session = loaded(worker, session_id)
    session.max_inactive = 60
    session["user"] = None
    worker.save(session)
    driver.clock.advance(90)
    assert read(worker, session_id) == {}


def test_nor_when_there_is_no_more_room_for_it(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(**LOCAL, near_cache=NearCacheSettings(max_sessions=3))
    session_id = worker.store(user="ada")
    lose(driver, worker)
    change(worker, session_id, user=None)
    for n in range(3):
        worker.save(worker.create(n=n))
    assert read(worker, session_id) == {}


def test_nothing_is_asked_for_while_the_cluster_is_known_to_be_lost(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**LOCAL)
    session_id = worker.store(n=0)
    lose(driver, worker, how="timeout")
    before, exchanges = driver.clock.elapsed, driver.exchanges
    for _ in range(100):
        read(worker, session_id)
    assert driver.exchanges == exchanges
    assert driver.clock.elapsed == before


def test_with_the_policy_error_nothing_is_served_from_this_host(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker()
    session_id = worker.store(n=0)
    for node in driver.nodes.values():
        node.fault = "refused"
    for _ in range(3):
        with pytest.raises(SessionUnavailable):
            worker.load(session_id)
        with pytest.raises(SessionUnavailable):
            worker.save(worker.create(n=1))
    assert worker.ctx.state() is DistributionState.LOCAL
    heal(driver, worker)
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    assert read(worker, session_id) == {"n": 0}


# -- corrupt data


def spoil(driver: SimulatedDriver, session_id: str) -> None:
    """Flip a bit in every copy."""
    for node in driver.nodes.values():
        item = node.server.peek(key_of(session_id))
        if item is not None:
            item.value = item.value[:-20] + bytes([item.value[-20] ^ 1]) + item.value[-19:]


def test_of_a_session_that_nobody_can_read_what_was_last_seen_is_served(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**LOCAL)
    session_id = worker.store(user="ada")
    spoil(driver, session_id)
    session = loaded(worker, session_id)
    assert dict(session) == {"user": "ada"}
    assert session.is_local
    assert worker.ctx.counters.snapshot().corrupt >= 1


def test_where_it_was_never_seen_it_is_no_session_and_the_corrupt_item_is_left(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    session_id = make_worker(**LOCAL).store(user="ada")
    spoil(driver, session_id)
    items = [node.server.peek(key_of(session_id)) for node in driver.nodes.values()]
    worker = make_worker(**LOCAL)
    assert worker.load(session_id) is None
    assert [node.server.peek(key_of(session_id)) for node in driver.nodes.values()] == items
    with pytest.raises(CorruptRecord):
        make_worker(on_corrupt="error").load(session_id)


# -- suspicion of ourselves


def test_most_nodes_silent_means_that_this_host_is_cut_off(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(**LOCAL)
    for name in ("n1", "n2"):
        driver.nodes[name].fault = "unreachable"
        worker.load(str(SessionId.generate(name)))
    assert worker.ctx.state() is DistributionState.LOCAL
    assert worker.save(worker.create(n=1)).status == "local"
    driver.nodes["n1"].fault = None
    worker.probe("n1")
    assert worker.ctx.state() is DistributionState.DEGRADED


@pytest.mark.parametrize("how", ["refused", "not suspected"])
def test_most_nodes_dead_by_their_hosts_word_leaves_the_others_in_use(
    driver: SimulatedDriver, make_worker: MakeWorker, how: str
) -> None:
    worker = make_worker(**LOCAL, breaker=Breaker(suspect_self=how == "refused"))
    for name in ("n1", "n2"):
        driver.nodes[name].fault = "refused" if how == "refused" else "unreachable"
        worker.load(str(SessionId.generate(name)))
    assert worker.ctx.state() is DistributionState.DEGRADED
    assert worker.save(worker.create(n=1)).node == "n3"


# -- stopped by an operator


def test_distribution_can_be_stopped_and_started_while_requests_are_served(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**LOCAL)
    session_id = worker.store(n=0)
    worker.ctx.distribution.stop("maintenance")
    assert worker.ctx.state() is DistributionState.STOPPED
    before = driver.exchanges
    assert change(worker, session_id, n=1) == "local"
    made_meanwhile = worker.create(n=5)
    worker.save(made_meanwhile)
    assert "-" not in made_meanwhile.id
    assert driver.exchanges == before
    worker.ctx.distribution.start()
    assert worker.ctx.state() is DistributionState.LOCAL
    assert worker.reconnect()
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    assert read(worker, session_id) == {"n": 0}


def test_a_node_that_comes_back_does_not_start_what_an_operator_stopped(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**LOCAL)
    lose(driver, worker)
    worker.ctx.distribution.stop("maintenance")
    heal(driver, worker)
    assert worker.ctx.state() is DistributionState.STOPPED
    worker.ctx.distribution.start()
    assert worker.reconnect()
    assert worker.ctx.state() is DistributionState.DISTRIBUTED


# -- no more room


def test_that_there_is_no_room_is_told_once_a_minute_and_how_many_are_gone_by_then(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**LOCAL, near_cache=NearCacheSettings(max_sessions=3))
    events: list[Event] = []
    worker.ctx.events.subscribe(events.append)
    lose(driver, worker)
    for n in range(8):
        assert worker.save(worker.create(n=n)).status == "local"
    driver.clock.advance(61)
    assert worker.save(worker.create(n=8)).status == "local"
    gone = [event.detail.split()[5] for event in events if event.kind == "dropped"]
    assert gone == ["1", "6"]
    assert worker.ctx.counters.snapshot().dropped == 6
