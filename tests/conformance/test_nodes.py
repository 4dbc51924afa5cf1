"""Where sessions and their backups are, and where a session goes when its node is down."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from msm_fast import Breaker, Session, SessionId, SessionUnavailable
from tests.conformance.traffic import Traffic
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import backup_of, holders, home_of, key_of
from tests.simulation.test_saving import loaded
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]


@dataclass
class Cluster:
    """Nodes n1, n2… and workers on them. failover: their ids."""

    n_nodes: int
    failover: str | None = None

    def __post_init__(self) -> None:
        self.driver = SimulatedDriver([f"n{i}" for i in range(1, self.n_nodes + 1)], VirtualClock())

    def worker(self) -> Worker:
        return Worker(self.driver, make_settings(self.n_nodes, failover_nodes=self.failover))

    def session_on(self, node: str) -> str:
        """Store a session on node and return its id."""
        worker = self.worker()
        session = worker.create(user="ada")
        session.state.session_id = session.state.session_id.with_node(node)
        assert worker.save(session).node == node
        return session.id

    def lose(self, *nodes: str) -> None:
        for node in nodes:
            self.driver.nodes[node].fault = "refused"

    def node_of_new_session(self, minted_for: str) -> str | None:
        """Store a session whose id was made when the node minted_for was up; return the node it came to."""
        worker = self.worker()
        session = worker.create(user="ada")
        session.state.session_id = session.state.session_id.with_node(minted_for)
        node = worker.save(session).node
        assert SessionId(session.id).node == node
        return node


# -- where the copies are


def test_msm_005_both_copies_have_the_same_key_prefix_and_plain_id(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    session_id = make_worker(key_prefix="localhost_").store(user="ada")
    key = f"localhost_{SessionId(session_id).plain}".encode()
    assert sorted(node.server.keys() for node in driver.nodes.values()) == [[], [key], [key]]


@pytest.mark.parametrize(("n_nodes", "n_backups"), [(1, 0), (2, 1), (3, 1)])
def test_msm_009_029_the_backup_is_on_another_node_if_there_is_one(n_nodes: int, n_backups: int) -> None:
    cluster = Cluster(n_nodes)
    for node in cluster.driver.nodes:
        backups = holders(cluster.driver, cluster.session_on(node)) - {node}
        assert len(backups) == n_backups


def test_msm_010_a_node_that_is_down_or_back_is_known_to_be_at_once(driver: SimulatedDriver, worker: Worker) -> None:
    driver.nodes["n1"].fault = "refused"
    worker.load(str(SessionId.generate("n1")))
    assert not worker.ctx.health.is_up("n1")
    driver.nodes["n1"].fault = None
    worker.probe("n1")
    assert worker.ctx.health.is_up("n1")


def test_msm_035_a_node_that_is_down_leaves_the_others_up(driver: SimulatedDriver, worker: Worker) -> None:
    driver.nodes["n1"].fault = "refused"
    worker.load(str(SessionId.generate("n1")))
    assert worker.ctx.health.down() == ["n1"]


# -- where a session goes


@pytest.mark.parametrize(
    ("n_nodes", "home", "down", "moves_to"),
    [
        pytest.param(1, "n1", [], None, id="the only node"),
        pytest.param(2, "n1", [], "n2", id="n1 of two"),
        pytest.param(2, "n2", [], "n1", id="n2 of two"),
        pytest.param(2, "n1", ["n2"], None, id="n1 of two, the other down as well"),
        pytest.param(3, "n1", ["n2"], "n3", id="n1 of three, n2 down as well"),
    ],
)
def test_msm_011_to_013_030_a_new_session_goes_to_a_node_that_is_up(
    n_nodes: int, home: str, down: list[str], moves_to: str | None
) -> None:
    cluster = Cluster(n_nodes)
    cluster.lose(home, *down)
    if moves_to is None:
        with pytest.raises(SessionUnavailable):
            cluster.node_of_new_session(minted_for=home)
    else:
        assert {cluster.node_of_new_session(minted_for=home) for _ in range(20)} == {moves_to}


@pytest.mark.parametrize(
    ("n_nodes", "failover", "home", "down", "moves_to"),
    [
        pytest.param(2, "n2", "n1", [], "n2", id="to the failover node where no other primary is"),
        pytest.param(2, "n2", "n2", [], "n1", id="from the failover node to the primary"),
        pytest.param(2, "n2", "n2", ["n1"], None, id="from the failover node, the primary down"),
        pytest.param(3, "n2 n3", "n2", ["n1"], "n3", id="from one failover node to the other, the primary down"),
    ],
)
def test_msm_014_to_017_failover_nodes_are_used_when_no_primary_is_up(
    n_nodes: int, failover: str, home: str, down: list[str], moves_to: str | None
) -> None:
    cluster = Cluster(n_nodes, failover)
    cluster.lose(home, *down)
    if moves_to is None:
        with pytest.raises(SessionUnavailable):
            cluster.node_of_new_session(minted_for=home)
    else:
        assert {cluster.node_of_new_session(minted_for=home) for _ in range(20)} == {moves_to}


def test_msm_073_a_session_whose_node_is_down_gets_an_id_that_says_where_it_is(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    session_id = make_worker().store(user="ada")
    driver.nodes[home_of(session_id)].fault = "refused"
    session = loaded(make_worker(), session_id)
    assert session.id_changed
    assert home_of(session.id) != home_of(session_id)
    assert key_of(session.id) == key_of(session_id)
    assert session["user"] == "ada"


@pytest.mark.parametrize("request_writes", [True, False])
def test_msm_141_to_142_a_session_whose_backups_node_is_down_gets_another_backup(
    driver: SimulatedDriver, make_worker: MakeWorker, request_writes: bool
) -> None:
    worker = make_worker()
    session_id = worker.store(user="ada", page=1)
    home, backup = home_of(session_id), backup_of(driver, session_id)
    (third,) = {"n1", "n2", "n3"} - {home, backup}
    driver.nodes[backup].fault = "refused"
    for _ in range(2):
        driver.clock.advance(0.11 * 1800)  # a reader asks for the backups once in a tenth of the session's life
        session = loaded(worker, session_id, expect_write=request_writes)
        session["page"] = 2 if request_writes else 1
        worker.save(session)
    assert driver.nodes[third].server.peek(key_of(session_id)) is not None
    driver.nodes[home].fault = "refused"
    moved = loaded(make_worker(), session_id)
    assert dict(moved) == {"user": "ada", "page": 2 if request_writes else 1}
    assert moved.id == session_id.replace(f"-{home}", f"-{third}")


def test_msm_178_requests_that_move_one_session_at_once_get_the_same_session(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(user="ada")
    driver.nodes[home_of(session_id)].fault = "refused"
    first, second = loaded(one, session_id), loaded(two, session_id)
    first["a"], second["b"] = 1, 2
    one.save(first)
    two.save(second)
    assert first.id == second.id != session_id
    assert dict(loaded(one, session_id)) == {"user": "ada", "a": 1, "b": 2}


@pytest.mark.parametrize("n_nodes", [3, 4, 8])
def test_msm_180_a_session_without_a_backup_is_looked_for_in_two_round_trips_at_most(n_nodes: int) -> None:
    cluster = Cluster(n_nodes)
    traffic = Traffic(cluster.driver)
    cluster.lose("n1")
    assert cluster.worker().load(str(SessionId.generate("n1"))) is None
    assert traffic.round_trips == 2


# -- what is known of a node's health


def test_msm_175_one_refused_connection_is_enough_and_no_request_waits_for_the_probe(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(breaker=Breaker(timeouts=2))
    session_id = worker.store(user="ada")
    home = home_of(session_id)
    driver.nodes[home].fault = "refused"
    session = loaded(worker, session_id)
    worker.save(session)
    asked = driver.nodes[home].batches
    for _ in range(5):
        driver.clock.advance(10)
        session = loaded(worker, session.id)
    assert driver.nodes[home].batches == asked, "requests leave it alone"
    assert not worker.probe(home)
    driver.nodes[home].fault = None
    assert worker.probe(home), "an answer is enough, also if it brings nothing"
    assert worker.ctx.health.is_up(home)


def test_msm_175_a_save_that_fails_marks_its_node_down(driver: SimulatedDriver, worker: Worker) -> None:
    session: Session = worker.create(user="ada")
    home = home_of(session.id)
    driver.nodes[home].fault = "reset"
    assert worker.save(session).node != home
    assert worker.ctx.health.down() == [home]
