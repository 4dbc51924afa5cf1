"""What a request costs on the wire, counted between the library and real memcached processes."""

from collections.abc import Iterator

import pytest

from msm_fast import SessionManager
from tests.integration.conftest import Nodes
from tests.proxy import CountingProxy
from tests.timeouts import UNHURRIED

pytestmark = pytest.mark.memcached


class Wire:
    """Two nodes behind counting proxies, and workers that have their connections already."""

    def __init__(self, nodes: Nodes) -> None:
        self.proxies = {name: CountingProxy(nodes[name].port) for name in ("n1", "n2")}
        text = ",".join(f"{name}:127.0.0.1:{proxy.port}" for name, proxy in self.proxies.items())
        self.managers = [SessionManager(text, timeouts=UNHURRIED) for _ in range(2)]
        for manager in self.managers:
            for _ in range(2):
                with manager.request(None, "POST") as session:
                    session["warm"] = True
                with manager.request(session.id, "POST") as session:
                    session["warm"] = 2
        self.turns()

    def turns(self) -> list[int]:
        """Return how many round trips each node has seen since the last call."""
        counts = [proxy.turns for proxy in self.proxies.values()]
        for proxy in self.proxies.values():
            proxy.turns = 0
        return counts

    def close(self) -> None:
        for manager in self.managers:
            manager.close()
        for proxy in self.proxies.values():
            proxy.close()


@pytest.fixture
def wire(nodes: Nodes) -> Iterator[Wire]:
    wire = Wire(nodes)
    yield wire
    wire.close()


def new_session(wire: Wire, worker: int = 0) -> str:
    with wire.managers[worker].request(None, "POST") as session:
        session["cart"] = ["apple"]
        session["user"] = "ada"
    wire.turns()
    return session.id


def test_a_new_session_is_one_write_to_each_of_its_nodes(wire: Wire) -> None:
    with wire.managers[0].request(None, "POST") as session:
        session["cart"] = ["apple"]
    assert wire.turns() == [1, 1]


def test_a_read_only_request_is_one_write_to_one_node(wire: Wire) -> None:
    session_id = new_session(wire)
    for _ in range(5):
        with wire.managers[0].request(session_id) as session:
            assert session["cart"] == ["apple"]
        assert sorted(wire.turns()) == [0, 1]


def test_the_first_read_in_another_worker_asks_the_backup_in_the_same_round_trip(wire: Wire) -> None:
    session_id = new_session(wire, worker=0)
    with wire.managers[1].request(session_id) as session:
        assert session["cart"] == ["apple"]
    assert wire.turns() == [1, 1]
    with wire.managers[1].request(session_id) as session:
        assert session["cart"] == ["apple"]
    assert sorted(wire.turns()) == [0, 1]


@pytest.mark.parametrize("worker", [0, 1])
def test_a_changed_session_is_two_round_trips_with_its_backup(wire: Wire, worker: int) -> None:
    session_id = new_session(wire, worker=0)
    manager = wire.managers[worker]
    before = manager.statistics().round_trips
    with manager.request(session_id, "POST") as session:
        session["cart"].append("pear")
    assert wire.turns() == [2, 2]
    assert manager.statistics().round_trips == before + 2


def test_a_read_only_request_that_may_write_is_one_round_trip_and_writes_nothing(wire: Wire) -> None:
    session_id = new_session(wire)
    with wire.managers[0].request(session_id, "POST") as session:
        assert session["user"] == "ada"
    assert wire.turns() == [1, 1]


def test_a_get_that_writes_in_the_worker_that_saved_last_is_two_round_trips(wire: Wire) -> None:
    session_id = new_session(wire)
    with wire.managers[0].request(session_id, "GET") as session:
        session["flash"] = None
    assert sorted(wire.turns()) == [1, 2]


def test_a_logout_is_two_round_trips(wire: Wire) -> None:
    session_id = new_session(wire)
    with wire.managers[0].request(session_id, "POST") as session:
        session.invalidate()
    assert wire.turns() == [2, 2]


def test_no_session_is_no_round_trip(wire: Wire) -> None:
    with wire.managers[0].request(None) as session:
        assert session.get("user") is None
    assert wire.turns() == [0, 0]
