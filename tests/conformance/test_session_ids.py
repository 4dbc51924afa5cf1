"""Session ids: their parts, how they change, and which of them a store is asked for."""

import re
from collections.abc import Callable

import pytest

from msm_fast import SessionId, SessionManager
from tests.conformance.traffic import Traffic
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]

ISSUED = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("session_id", "node", "expected"),
    [("foo", "n", "foo-n"), ("foo.jvm1", "n", "foo-n.jvm1"), ("foo.j-v-m1", "n", "foo-n.j-v-m1")],
)
def test_msm_001_a_node_is_put_between_the_plain_id_and_the_route(session_id: str, node: str, expected: str) -> None:
    assert str(SessionId(session_id).with_node(node)) == expected


@pytest.mark.parametrize(
    ("session_id", "expected"),
    [
        ("foo", "foo-m"),
        ("foo-n", "foo-m"),
        ("foo-n.jvm1", "foo-m.jvm1"),
        ("foo.jvm1", "foo-m.jvm1"),
        ("foo.j-v-m1", "foo-m.j-v-m1"),
    ],
)
def test_msm_002_another_node_takes_the_place_of_the_one_that_is_there(session_id: str, expected: str) -> None:
    assert str(SessionId(session_id).with_node("m")) == expected


@pytest.mark.parametrize(
    ("session_id", "node"), [("foo-n", "n"), ("foo-n.jvm1", "n"), ("foo-n.j-v-m1", "n"), ("foo.j-v-m1", None)]
)
def test_msm_003_the_node_is_read_from_the_id_and_never_from_its_route(session_id: str, node: str | None) -> None:
    assert SessionId(session_id).node == node


@pytest.mark.parametrize(
    ("text", "is_asked_for"),
    [
        ("foo", False),
        ("foo.jvm1-n", False),
        ("foo.n.jvm1", False),
        ("foo.n.j-v-m1", False),
        (f"{ISSUED}-n1", True),
        (f"{ISSUED}-n1.jvm1", True),
        (f"{ISSUED}-n1.j-v-m1", True),
    ],
)
def test_msm_004_only_an_id_that_names_a_node_is_asked_for(
    worker: Worker, traffic: Traffic, text: str, is_asked_for: bool
) -> None:
    assert worker.load(text) is None
    assert (traffic.round_trips > 0) == is_asked_for


def test_msm_034_a_new_id_names_its_node_only_if_the_node_has_a_name() -> None:
    driver = SimulatedDriver(["n1", ""], VirtualClock())
    named = Worker(driver, make_settings(1))
    nameless = Worker(driver, type(named.ctx.settings).build("127.0.0.1:11211"))
    assert SessionId(named.store(user="ada")).node == "n1"
    assert SessionId(nameless.store(user="ada")).node is None


def test_msm_097_a_new_id_has_its_node_between_dash_and_dot(worker: Worker) -> None:
    session_id = worker.store(user="ada")
    node = session_id.partition("-")[2].partition(".")[0]
    assert worker.driver.nodes[node].server.keys() == [SessionId(session_id).plain.encode()]


def test_msm_100_a_new_id_has_the_form_that_load_balancers_know(worker: Worker) -> None:
    for _ in range(50):
        assert re.fullmatch(r"[^-.]+-[^.]+(\.[\w]+)?", worker.store(user="ada"))


@pytest.mark.parametrize(
    "text",
    [
        "foo n-n1",
        "foo-n1\n",
        "foo\r\nflush_all\r\n-n1",
        "foo\x00-n1",
        "foo\t-n1",
        " foo-n1",
        "foo-n1 ",
        "f\u00f6\u00f6-n1",
    ],
)
def test_msm_188_an_id_with_blanks_or_control_characters_never_reaches_a_node(text: str) -> None:
    with SessionManager("n1:127.0.0.1:1") as manager:
        with manager.request(text) as session:
            assert session.is_new
            assert session.id != text
        assert manager.load(text) is None
        assert manager.statistics().round_trips == 0
