"""No node can be reached, or distribution is off: what is served meanwhile, and what comes of it."""

from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import DistributionState, NearCacheSettings, Reconnect, SessionId, SessionManager, SessionUnavailable
from tests.conformance.traffic import Traffic
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import holders, home_of, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]
Mode = dict[str, Any]

LOCAL: dict[str, Any] = {"on_cluster_lost": "local", "on_corrupt": "local"}


def lose(driver: SimulatedDriver) -> None:
    for node in driver.nodes.values():
        node.fault = "refused"


def heal(driver: SimulatedDriver, worker: Worker) -> None:
    for node in driver.nodes.values():
        node.fault = None
    for name in driver.nodes:
        worker.probe(name)
    assert worker.ctx.state() is DistributionState.DISTRIBUTED


def test_msm_109_a_session_made_while_all_nodes_are_down_gets_its_node_when_one_is_up(
    driver: SimulatedDriver, make_worker: MakeWorker, mode: Mode
) -> None:
    worker = make_worker(**LOCAL, **mode, reconnect=Reconnect(on_reconnect="replay"))
    lose(driver)
    worker.save(worker.create(user="the first to notice"))
    session = worker.create(user="ada")
    assert worker.save(session).status == "local"
    assert SessionId(session.id).node is None
    heal(driver, worker)
    found = loaded(worker, session.id)
    worker.save(found)
    assert SessionId(found.id).node is not None
    assert found.id_changed
    assert dict(found) == {"user": "ada"}
    assert home_of(found.id) in holders(driver, found.id)


def test_msm_110_to_111_while_distribution_is_off_sessions_live_here_and_no_node_is_asked(
    driver: SimulatedDriver, make_worker: MakeWorker, mode: Mode, traffic: Traffic
) -> None:
    worker = make_worker(**LOCAL, **mode, max_inactive=5)
    worker.ctx.distribution.stop("switched off")
    lose(driver)
    session = worker.create(user="ada")
    assert worker.save(session).status == "local"
    assert SessionId(session.id).node is None
    driver.clock.advance(4)
    assert read(worker, session.id) == {"user": "ada"}
    driver.clock.advance(7)
    assert read(worker, session.id) == {}, "it has expired; whether the cluster has a session of this id is unknown"
    assert traffic.count() == 0


def test_msm_111_switched_on_while_it_serves_new_sessions_are_distributed(
    driver: SimulatedDriver, make_worker: MakeWorker, mode: Mode
) -> None:
    worker = make_worker(**LOCAL, **mode)
    worker.ctx.distribution.stop("off from the start")
    assert worker.save(worker.create(user="ada")).status == "local"
    worker.ctx.distribution.start()
    assert worker.reconnect()
    session_id = worker.store(user="grace")
    assert len(holders(driver, session_id)) == 2
    driver.clock.advance(1802)
    assert holders(driver, session_id) == set()


def test_msm_126_a_session_made_while_all_nodes_are_down_keeps_its_id(
    driver: SimulatedDriver, make_worker: MakeWorker, mode: Mode
) -> None:
    worker = make_worker(**LOCAL, **mode)
    lose(driver)
    worker.save(worker.create(user="the first to notice"))
    session = worker.create(user="ada")
    worker.save(session)
    assert SessionId(session.id).node is None
    for page in range(3):
        again = loaded(worker, session.id)
        again["page"] = page
        worker.save(again)
        assert not again.id_changed, "no cookie is sent again"


@pytest.mark.parametrize("fault", ["timeout", "refused", "reset", "protocol"])
def test_msm_173_a_session_that_cannot_be_asked_for_is_not_taken_for_gone(
    driver: SimulatedDriver, make_worker: MakeWorker, fault: Any
) -> None:
    session_id = make_worker().store(user="ada")
    for node in driver.nodes.values():
        node.fault = fault
    with pytest.raises(SessionUnavailable):
        make_worker().load(session_id)
    substitute = loaded(make_worker(**LOCAL), session_id)
    assert not substitute.id_changed
    for node in driver.nodes.values():
        node.fault = None
    assert read(make_worker(), session_id) == {"user": "ada"}


def test_msm_172_the_backup_serves_for_an_unreadable_copy_and_mends_it(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker()
    session_id = worker.store(user="ada")
    item = driver.nodes[home_of(session_id)].server.peek(key_of(session_id))
    assert item is not None
    item.value = item.value[:-1] + bytes([item.value[-1] ^ 1])
    session = loaded(worker, session_id)
    assert dict(session) == {"user": "ada"}
    assert worker.ctx.counters.snapshot().corrupt == 1
    assert worker.save(session).status == "stored"
    assert read(worker, session_id) == {"user": "ada"}
    assert worker.ctx.counters.snapshot().corrupt == 1


def test_msm_172_a_session_of_which_no_copy_can_be_read_is_served_as_last_seen_or_followed_by_a_new_one(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    has_seen, worker = make_worker(**LOCAL), make_worker(**LOCAL)
    session_id = has_seen.store(user="ada")
    for node in holders(driver, session_id):
        item = driver.nodes[node].server.peek(key_of(session_id))
        assert item is not None
        item.value = b"no record"
    assert read(has_seen, session_id) == {"user": "ada"}
    assert worker.load(session_id) is None
    assert len(holders(driver, session_id)) == 2, "nothing is deleted"
    assert worker.ctx.counters.snapshot().corrupt == 2
    assert read(worker, worker.store(user="grace")) == {"user": "grace"}


def test_msm_176_where_there_is_no_room_the_session_that_was_used_least_recently_goes() -> None:
    with SessionManager(near_cache=NearCacheSettings(max_sessions=3)) as manager:
        ids = []
        for n in range(4):
            with manager.request(None, "POST") as session:
                session["n"] = n
            ids.append(session.id)
            manager.load(ids[0])
        assert [manager.load(session_id) is not None for session_id in ids] == [True, False, True, True]
        assert manager.statistics().dropped == 1
