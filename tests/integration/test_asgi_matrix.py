"""Starlette over real memcached: what other session systems get wrong, and what each request costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.testclient import TestClient

from msm_fast import ApplicationStopped, SerializationError, SessionId
from tests.behaviours import Record, timed
from tests.integration.asgi_app import make_starlette
from tests.integration.conftest import Nodes
from tests.integration.meeting import PATIENCE_S, Meeting
from tests.proxy import CountingProxy
from tests.timeouts import HURRIED, UNHURRIED

pytestmark = pytest.mark.memcached


@pytest.fixture
def meeting() -> Meeting:
    return Meeting()


@pytest.fixture
def make(nodes: Nodes, meeting: Meeting) -> Iterator[Callable[..., TestClient]]:
    """Return a function that makes browsers, each at a worker of its own."""
    with ExitStack() as stack:

        def make_browser(at: TestClient | None = None, **settings: Any) -> TestClient:
            """Return a browser, another window of that which is given."""
            text = ",".join(f"{name}:{server.address}" for name, server in nodes.items())
            settings = {"timeouts": UNHURRIED, **settings}
            client = stack.enter_context(TestClient(make_starlette(meeting, nodes=text, **settings)))
            if at is not None:
                client.cookies.set("session", cookie_of(at), domain="testserver.local", path="/")
            return client

        yield make_browser


@pytest.fixture
def client(make: Callable[..., TestClient]) -> TestClient:
    return make()


def cookie_of(client: TestClient) -> str:
    return str(client.cookies["session"])


@pytest.mark.shows("writers")
def test_two_overlapping_writers_keep_both_keys(
    make: Callable[..., TestClient], client: TestClient, meeting: Meeting
) -> None:
    client.post("/set/before")
    other = make(at=client)
    meeting.while_held_up(lambda: other.post("/slow/one"), lambda: client.post("/set/other"))
    assert client.get("/everything").json() == {"before": True, "one": True, "other": True}


@pytest.mark.shows("reader")
def test_a_slow_reader_rolls_nothing_back(
    make: Callable[..., TestClient], client: TestClient, meeting: Meeting
) -> None:
    client.post("/set/before")
    other = make(at=client)
    read = meeting.while_held_up(lambda: other.get("/slow"), lambda: client.post("/set/other"))
    assert read.json() == {"before": True}
    assert client.get("/everything").json() == {"before": True, "other": True}


@pytest.mark.shows("logout")
@pytest.mark.parametrize("logout", ["/out", "/clear"])
def test_a_logout_is_not_undone_by_a_request_on_its_way(
    make: Callable[..., TestClient], client: TestClient, meeting: Meeting, logout: str
) -> None:
    client.post("/in")
    other = make(at=client)
    late = meeting.while_held_up(lambda: other.post("/slow/late"), lambda: client.post(logout))
    assert "set-cookie" not in late.headers
    assert "session" not in client.cookies
    assert other.get("/everything").json() == {}


@pytest.mark.shows("fixation")
def test_a_planted_id_is_not_adopted_and_a_login_leaves_it_behind(
    make: Callable[..., TestClient], client: TestClient
) -> None:
    planted = str(SessionId.generate("n1"))
    client.cookies.set("session", planted, domain="testserver.local", path="/")
    client.post("/set/visited")
    assert cookie_of(client) != planted
    attacker = make(at=client)
    client.post("/in")
    assert client.get("/everything").json() == {"visited": True, "user": "ada"}
    assert attacker.get("/everything").json() == {}


@pytest.mark.shows("unserializable")
def test_a_value_that_cannot_be_stored_stops_the_application_by_default(client: TestClient) -> None:
    client.post("/set/before")
    with pytest.raises(SerializationError, match="bad"):
        client.post("/bad")
    with pytest.raises(ApplicationStopped):
        client.get("/everything")


@pytest.mark.shows("unserializable")
def test_or_is_left_out_and_the_rest_of_the_session_lives(make: Callable[..., TestClient]) -> None:
    client = make(on_unserializable="blacklist")
    client.post("/set/before")
    assert client.post("/bad").status_code == 200
    assert client.get("/everything").json() == {"before": True, "bad": None}


@pytest.mark.shows("corrupt")
def test_a_corrupt_copy_is_replaced_by_the_other(
    make: Callable[..., TestClient], client: TestClient, nodes: Nodes
) -> None:
    client.post("/set/before")
    plain, _, home = cookie_of(client).partition("-")
    with nodes[home].client() as direct:
        direct.set(plain, b"nonsense")
    other = make(at=client)
    assert other.get("/everything").json() == {"before": True}
    other.post("/set/after")
    assert client.get("/everything").json() == {"before": True, "after": True}


@pytest.mark.shows("down", "hanging", "back")
@pytest.mark.parametrize("failure", ["down", "hanging"])
def test_without_any_node_the_cookie_stays_and_the_login_is_back_when_they_are(
    make: Callable[..., TestClient], nodes: Nodes, failure: str, record_property: Record
) -> None:
    """Hanging nodes keep what they have, as behind a network that is gone. Nodes that died have nothing any more."""
    client = make(on_cluster_lost="error", timeouts=HURRIED)
    client.post("/in")
    for server in nodes.values():
        server.pause() if failure == "hanging" else server.kill()
    asked = [lambda: client.get("/everything"), lambda: client.post("/set/lost"), lambda: client.get("/page")]
    answers, seconds = zip(*(timed(ask) for ask in asked), strict=True)
    for server in nodes.values():
        server.resume() if failure == "hanging" else server.start()
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert ["set-cookie" in answer.headers for answer in answers] == [False, False, False]
    assert sum(seconds) < 5
    record_property(failure, max(seconds))
    healed_at = time.monotonic()
    deadline = healed_at + PATIENCE_S
    while (answer := client.get("/everything")).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert answer.json() == ({"user": "ada"} if failure == "hanging" else {})
    if failure == "hanging":
        record_property("back", time.monotonic() - healed_at)


@pytest.mark.shows("outage")
def test_in_an_outage_nobody_is_logged_out(make: Callable[..., TestClient], nodes: Nodes) -> None:
    client = make(timeouts=HURRIED)
    client.post("/in")
    stranger = make(at=client, timeouts=HURRIED)
    for server in nodes.values():
        server.pause()
    try:
        assert client.get("/everything").json() == {"user": "ada"}
        assert "set-cookie" not in stranger.post("/set/meanwhile").headers
    finally:
        for server in nodes.values():
            server.resume()
    deadline = time.monotonic() + PATIENCE_S
    while stranger.get("/everything").json() != {"user": "ada"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.shows("cost")
def test_what_a_request_costs(nodes: Nodes, record_property: Record) -> None:
    proxy = CountingProxy(nodes["n1"].port)

    def turns_of(act: Callable[[], Any]) -> int:
        before = proxy.turns
        act()
        return proxy.turns - before

    try:
        with TestClient(make_starlette(nodes=f"n1:{proxy.address}", timeouts=UNHURRIED)) as client:
            client.post("/set/before")
            read, write = turns_of(lambda: client.get("/everything")), turns_of(lambda: client.post("/set/after"))
            client.cookies.clear()
            without = turns_of(lambda: client.get("/everything"))
            assert (read, write, without) == (1, 2, 0)
            assert turns_of(lambda: client.get("/everything", headers={"Cookie": "session=garbage"})) == 0
            record_property("cost", f"{read}, {write}, {without}")
    finally:
        proxy.close()
