"""Nodes that are added, removed and put back while sessions are served."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from msm_fast import DistributionState, Node, SessionUnavailable
from msm_fast.engine.effects import Exchange
from tests.simulation.driver import SimulatedDriver
from tests.simulation.server import SimulatedServer
from tests.simulation.test_backups_asked import keep_in_touch
from tests.simulation.test_loading import backup_of, holders, home_of, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]


def change(worker: Worker, *names: str, draining: tuple[str, ...] = (), failover: tuple[str, ...] = ()) -> None:
    nodes = tuple(Node(name, "127.0.0.1", 11000 + int(name[1:])) for name in names)
    worker.ctx.change_topology(replace(worker.ctx.settings, nodes=nodes, failover_nodes=failover), draining)


def store_on(worker: Worker, home: str) -> str:
    while True:
        session_id = worker.store(user="ada")
        if home_of(session_id) == home:
            return session_id


def out_of_use(driver: SimulatedDriver, worker: Worker, home: str) -> list[str]:
    """Return ids of sessions that a node has, which has missed that they ended and is configured no more."""
    session_ids = [store_on(worker, home) for _ in range(3)]
    sessions = [loaded(worker, session_id) for session_id in session_ids]
    driver.nodes[home].fault = "refused"
    for session in sessions:
        session.invalidate()
        worker.save(session)
    change(worker, *({"n1", "n2", "n3"} - {home}))
    driver.nodes[home].fault = None
    return session_ids


def test_a_node_that_is_put_back_is_told_first_what_ended_while_it_was_away(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_ids = out_of_use(driver, worker, "n2")
    change(worker, "n1", "n2", "n3")
    assert worker.ctx.health.down() == ["n2"]
    assert worker.ctx.health.due_probes(driver.clock.monotonic()) == ["n2"]
    assert worker.probe("n2")
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    change(worker, "n2")
    assert [worker.load(session_id) for session_id in session_ids] == [None] * 3


def test_what_a_node_has_missed_is_forgotten_when_it_is_gone_for_longer_than_a_session_lives(
    driver: SimulatedDriver, worker: Worker
) -> None:
    out_of_use(driver, worker, "n2")
    driver.clock.advance(worker.ctx.tombstone_ttl_s(worker.ctx.default_max_inactive_s) - 1)
    change(worker, "n1", "n3")
    assert worker.ctx.missed.has_any("n2")
    driver.clock.advance(2)
    change(worker, "n1", "n3")
    assert not worker.ctx.missed.has_any("n2")
    change(worker, "n1", "n2", "n3")
    assert worker.ctx.state() is DistributionState.DISTRIBUTED


def test_a_node_that_is_put_back_but_does_not_answer_is_probed_ever_less_often(
    driver: SimulatedDriver, worker: Worker
) -> None:
    out_of_use(driver, worker, "n2")
    driver.nodes["n2"].fault = "refused"
    change(worker, "n1", "n2", "n3")
    n_probes = 0
    for _ in range(600):
        for node in worker.ctx.health.due_probes(driver.clock.monotonic()):
            worker.probe(node)
            n_probes += 1
        driver.clock.advance(0.1)
    assert 3 < n_probes < 30


def test_what_ended_while_a_node_was_not_configured_is_not_served_by_it_when_it_is_put_back(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = store_on(worker, "n2")
    change(worker, "n1", "n3")
    session = loaded(worker, session_id)
    session.invalidate()
    worker.save(session)
    change(worker, "n1", "n2", "n3")
    assert driver.nodes["n2"].server.peek(key_of(session_id)), "its copy is alive"
    assert worker.load(session_id) is None


def test_a_session_of_a_node_that_was_removed_is_found_by_its_backup(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = store_on(worker, "n2")
    change(worker, "n1", "n3")
    before = driver.nodes["n2"].batches
    session = loaded(worker, session_id)
    assert dict(session) == {"user": "ada"}
    assert home_of(session.id) == backup_of(driver, session_id)
    assert worker.save(session).status == "stored"
    assert driver.nodes["n2"].batches == before
    assert worker.ctx.state() is DistributionState.DISTRIBUTED


def test_a_node_that_was_added_gets_new_sessions_and_old_ones_stay_where_they_are(worker: Worker) -> None:
    change(worker, "n1", "n2")
    session_id = worker.store(user="ada")
    change(worker, "n1", "n2", "n3")
    assert not loaded(worker, session_id).id_changed
    assert {home_of(worker.store(user="ada")) for _ in range(40)} == {"n1", "n2", "n3"}


def test_a_session_survives_its_home_that_dies_after_nodes_were_added(driver: SimulatedDriver, worker: Worker) -> None:
    change(worker, "n1", "n2")
    ids = [worker.store(user="ada") for _ in range(20)]
    change(worker, "n1", "n2", "n3")
    driver.nodes["n1"].fault = "refused"
    for session_id in ids:
        assert read(worker, session_id) == {"user": "ada"}


def test_a_session_is_put_back_on_its_home_although_a_node_was_added_that_ranks_before_its_backup(
    driver: SimulatedDriver, worker: Worker
) -> None:
    change(worker, "n1", "n2")
    ids = [store_on(worker, "n1") for _ in range(20)]
    change(worker, "n1", "n2", "n3")
    driver.nodes["n1"].server.restart()
    for session_id in ids:
        session = loaded(worker, session_id)
        session["page"] = 1
        assert worker.save(session).status == "stored"
        assert read(worker, session_id) == {"user": "ada", "page": 1}


def test_failover_nodes_can_be_others_from_now_on(worker: Worker) -> None:
    change(worker, "n1", "n2", "n3", failover=("n2", "n3"))
    assert {home_of(worker.store(user="ada")) for _ in range(10)} == {"n1"}
    change(worker, "n1", "n2", "n3", failover=("n1", "n2"))
    assert {home_of(worker.store(user="ada")) for _ in range(10)} == {"n3"}


def test_a_save_under_way_to_a_node_that_is_removed_moves_the_session(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = store_on(worker, "n2")
    session = loaded(worker, session_id)
    change(worker, "n1", "n3")
    session["page"] = 1
    assert worker.save(session).status == "stored"
    assert home_of(session.id) in ("n1", "n3")
    assert read(worker, session_id)["page"] == 1


def test_what_is_built_on_a_save_that_seems_to_have_failed_survives_that_it_goes_elsewhere(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    """The one that builds on it does not use the node any more that the session is moved to."""
    one, two = make_worker(replicas=2), make_worker()
    session_id = one.store(start=True)
    home = driver.nodes[home_of(session_id)]
    new_home = next(
        node for node in one.ctx.topology.ranked(key_of(session_id).decode()) if node != home_of(session_id)
    )
    change(two, *(driver.nodes.keys() - {new_home}))
    session = loaded(one, session_id)
    session["mine"] = True
    home.fault, home.carries_out_before_failing = "refused", True
    exchanges = iter(range(100))

    def build_on_it(_: Exchange) -> None:
        if next(exchanges) == 1:
            driver.before_exchange, home.fault = None, None
            other = loaded(two, session_id)
            assert other["mine"]
            other["other"] = True
            assert two.save(other).status == "stored"
            home.fault = "refused"

    driver.before_exchange = build_on_it
    assert one.save(session).status == "merged"
    assert driver.before_exchange is None
    home.fault = None
    assert read(make_worker(replicas=2), session.id) == {"start": True, "mine": True, "other": True}


def test_a_session_that_is_only_read_has_a_backup_again_once_the_node_that_had_it_is_at_another_address(
    driver: SimulatedDriver, worker: Worker
) -> None:
    """Else it is gone when its home is replaced, too, however long after that and however often it was read between."""
    session_id = worker.store(user="ada")
    for name in (backup_of(driver, session_id), home_of(session_id)):
        driver.nodes[name].server = SimulatedServer(driver.clock)
        move(worker, name)
        keep_in_touch(driver, worker, 5)
        session = worker.load(session_id, expect_write=False)
        assert session is not None
        worker.save(session)
    assert holders(driver, session_id) == {home_of(session_id), backup_of(driver, session_id)}


def test_a_session_that_is_only_read_has_a_backup_again_once_the_node_that_had_it_is_gone(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = store_on(worker, "n1")
    (other,) = {"n2", "n3"} - {backup_of(driver, session_id)}
    change(worker, "n1", other)
    keep_in_touch(driver, worker, 1)
    session = worker.load(session_id, expect_write=False)
    assert session is not None
    assert worker.save(session).status == "stored"
    assert other in holders(driver, session_id)


def move(worker: Worker, name: str) -> None:
    """Let a node be at another address."""
    nodes = worker.ctx.settings.nodes
    nodes = tuple(replace(node, port=node.port + 100) if node.node_id == name else node for node in nodes)
    worker.ctx.change_topology(replace(worker.ctx.settings, nodes=nodes), ())


def test_what_a_lost_cluster_means_is_not_decided_by_the_nodes_of_before(driver: SimulatedDriver) -> None:
    worker = Worker(driver, make_settings(0))
    assert worker.save(worker.create(user="ada")).status == "local"
    change(worker, "n1", "n2", "n3")
    assert worker.reconnect()
    session = loaded(worker, worker.store(user="ada"))
    for node in driver.nodes.values():
        node.fault = "refused"
    session["page"] = 1
    with pytest.raises(SessionUnavailable):
        worker.save(session)
    with pytest.raises(SessionUnavailable):
        worker.load(session.id)
    change(worker)
    assert worker.save(worker.create(user="ada")).status == "local"
