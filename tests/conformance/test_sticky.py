"""Sticky sessions: what becomes of one when its client comes to another worker, and when its worker ends."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from msm_fast import Event, Session, SessionManager
from tests.conformance.client import Client, Form, WebWorker
from tests.conformance.sticky_worker import PromptWorker
from tests.conformance.test_node_failover import addresses, has_item, plain_of
from tests.conformance.test_workers import make_site
from tests.conformance.traffic import Traffic
from tests.integration.conftest import Nodes
from tests.integration.test_manager import home_of
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import holders
from tests.simulation.test_saving import loaded
from tests.simulation.worker import make_settings
from tests.timeouts import HURRIED, UNHURRIED

__all__ = ["make_site"]

MakeWorker = Callable[..., PromptWorker]
MakeWebWorker = Callable[..., WebWorker]


# -- another worker takes over


@pytest.mark.parametrize(
    ("n_nodes", "failover", "old", "route", "expected"),
    [
        pytest.param(1, None, "", None, "", id="one node without a name"),
        pytest.param(1, None, ".w1", "w2", ".w2", id="one node without a name, routes"),
        *[
            pytest.param(2, failover, old, route, f"-{node}{'.' + route if route else ''}")
            for failover, node in ((None, "n1"), ("n2", "n1"), ("n1", "n2"))
            for old, route in (("-n1", None), ("-n1", "w2"), ("-n1.w1", "w2"), ("-n1.w1", None))
        ],
    ],
)
def test_msm_038_a_takeover_changes_the_route_and_leaves_a_failover_node(
    n_nodes: int, failover: str | None, old: str, route: str | None, expected: str
) -> None:
    driver = SimulatedDriver(["n1", "n2"] if n_nodes > 1 else [""], VirtualClock())

    def worker(route: str | None, failover: str | None = None) -> PromptWorker:
        settings = make_settings(n_nodes, sticky=True, route=route, failover_nodes=failover)
        if n_nodes == 1:
            settings = settings.build("127.0.0.1:11211", sticky=True, route=route)
        return PromptWorker(driver, settings)

    first = worker(old.partition(".")[2] or None)
    session = first.create(user="ada")
    node = "n1" if n_nodes > 1 else None
    session.state.session_id = session.state.session_id.with_node(node)
    first.save(session)
    assert session.id == plain_of(session.id) + old
    taken = loaded(worker(route, failover), session.id)
    assert taken.id == plain_of(session.id) + expected
    assert taken.id_changed == (old != expected)
    assert dict(taken) == {"user": "ada"}


@pytest.mark.memcached
def test_msm_121_workers_whose_failover_nodes_differ_move_sessions_off_their_own(nodes: Nodes) -> None:
    text = addresses(nodes, "n1", "n2")
    with (
        SessionManager(text, sticky=True, route="w1", failover_nodes="n1", timeouts=UNHURRIED) as first,
        SessionManager(text, sticky=True, route="w2", failover_nodes="n2", timeouts=UNHURRIED) as second,
    ):
        client, one, two = Client(), WebWorker(first), WebWorker(second)
        before = client.post(one, user="ada").id
        one.settle()
        assert home_of(before) == "n2"
        assert not has_item(nodes, "n1", before)
        client.post(two, page="2")
        two.settle()
        assert client.id == before.replace("-n2.w1", "-n1.w2")
        assert has_item(nodes, "n1", before)
        client.post(two, page="3")
        two.settle()
        assert Client(before).get(two).attributes == {"user": "ada", "page": "3"}, "what is left on n2 does not count"
        client.post(one, cart="apple")
        one.settle()
        assert client.id == before
        assert client.get(two).attributes == {"user": "ada", "page": "3", "cart": "apple"}


@pytest.mark.memcached
def test_msm_114_to_115_a_takeover_keeps_all_of_the_id_but_its_route(nodes: Nodes, make_site: MakeWebWorker) -> None:
    client, one, two = Client(), make_site(sticky=True, route="w1"), make_site(sticky=True, route="w2")
    before = client.post(one, user="ada").id
    one.settle()
    one.manager.close()
    taken = client.get(two)
    assert taken.attributes == {"user": "ada"}
    assert taken.id == client.id == before.removesuffix(".w1") + ".w2"
    assert len(taken.all("set-cookie")) == 1
    again = client.get(two)
    assert again.id == taken.id
    assert again.all("set-cookie") == []
    two.settle()
    assert sum(has_item(nodes, name, taken.id) for name in nodes) == min(len(two.manager.nodes()), 2)


@pytest.mark.parametrize(("routes", "n_takeover"), [(("w1", "w2"), 1), ((None, None), 0)])
def test_msm_116_a_takeover_writes_once_and_an_equal_value_does_not(
    driver: SimulatedDriver,
    make_worker: MakeWorker,
    traffic: Traffic,
    routes: tuple[str | None, str | None],
    n_takeover: int,
) -> None:
    one, two = (make_worker(sticky=True, route=route) for route in routes)
    session_id = one.store(user="ada")
    home = home_of(session_id)
    assert traffic.count("ms", home) == 1
    session = loaded(two, session_id)
    two.save(session)
    assert traffic.count("ms", home) == 1 + n_takeover
    for value, n in (("ada", 0), ("grace", 1)):
        session = loaded(two, session.id)
        session["user"] = value
        two.save(session)
        assert traffic.count("ms", home) == 1 + n_takeover + n


def test_msm_119_a_takeover_fetches_the_session_once(make_worker: MakeWorker, traffic: Traffic) -> None:
    session_id = make_worker(sticky=True, route="w1").store(user="ada")
    traffic.clear()
    worker = make_worker(sticky=True, route="w2")
    session = loaded(worker, session_id)
    worker.save(session)
    assert traffic.count("mg", home_of(session_id)) == 1
    traffic.clear()
    for _ in range(3):
        again = loaded(worker, session.id)
        assert dict(again) == {"user": "ada"}
        worker.save(again)
    assert traffic.count() == 0


@pytest.mark.memcached
def test_msm_178_requests_that_take_one_session_over_at_once_share_it(make_web_worker: MakeWebWorker) -> None:
    client, one = Client(), make_web_worker(sticky=True, route="w1")
    two = make_web_worker(sticky=True, route="w2")
    before = client.post(one, start="1").id
    one.settle()
    together = threading.Barrier(4)

    def write_together(session: Session, form: Form) -> None:
        together.wait(10)
        assert session["start"] == "1"
        together.wait(10)
        session.update(form)
        together.wait(10)

    two.pages["POST /together"] = write_together
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: ids.append(Client(before).post(two, "/together", **{f"n{n}": "1"}).id))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert ids == [before.replace(".w1", ".w2")] * 4
    expected = {"start": "1", "n0": "1", "n1": "1", "n2": "1", "n3": "1"}
    assert Client(ids[0]).get(two).attributes == expected
    two.settle()
    assert Client(ids[0]).get(one).attributes == expected


# -- how long it lives, and what is left of it when its worker ends


def test_msm_177_a_session_that_is_only_read_stays_in_the_cluster_with_default_settings(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(sticky=True)
    session_id = worker.store(user="ada")
    for _ in range(100):
        driver.clock.advance(300)
        assert worker.save(loaded(worker, session_id)).status == "unchanged"
        assert len(holders(driver, session_id)) == 2
    driver.clock.advance(1500)
    assert dict(loaded(make_worker(sticky=True), session_id)) == {"user": "ada"}


@pytest.fixture
def held(
    make_web_worker: MakeWebWorker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[WebWorker, threading.Event]]:
    """A worker that writes nothing behind its requests until the event is set."""
    web_worker, may_write = make_web_worker(sticky=True), threading.Event()
    carry_out = web_worker.manager._writer._run
    monkeypatch.setattr(web_worker.manager._writer, "_run", lambda *job: may_write.wait(10) and carry_out(*job))
    yield web_worker, may_write
    may_write.set()


@pytest.mark.parametrize("manager_class", [SessionManager], ids=["threads"])  # whose thread is held up
@pytest.mark.memcached
def test_msm_183_a_worker_that_ends_stores_what_is_not_stored_yet(
    held: tuple[WebWorker, threading.Event], make_web_worker: MakeWebWorker
) -> None:
    web_worker, may_write = held
    clients = [Client() for _ in range(50)]
    for n, client in enumerate(clients):
        client.post(web_worker, n=str(n))
    other = make_web_worker(sticky=True)
    assert [client.id for client in clients if client.id and other.manager.load(client.id)] == []
    may_write.set()
    web_worker.manager.close()
    for n, client in enumerate(clients):
        assert client.get(other).attributes == {"n": str(n)}
    assert web_worker.manager.statistics().dropped == 0


@pytest.mark.memcached
def test_msm_183_a_worker_whose_nodes_hang_ends_in_time_and_tells_what_it_could_not_store(
    nodes: Nodes, make_web_worker: MakeWebWorker
) -> None:
    web_worker, told = make_web_worker(sticky=True, timeouts=HURRIED), list[Event]()
    web_worker.manager.subscribe(told.append)
    Client().post(web_worker, n="the connections are there")
    web_worker.settle()
    for server in nodes.values():
        server.pause()
    for n in range(20):
        Client().post(web_worker, n=str(n))
    started = time.monotonic()
    web_worker.manager.close(timeout=0.3)
    assert time.monotonic() - started < 2
    assert [event.kind for event in told if event.kind == "dropped"] == ["dropped"]
