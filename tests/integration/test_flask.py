"""Flask over real memcached: what other session systems get wrong, and what each request costs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, has_request_context, request, session
from flask.testing import FlaskClient

from msm_fast import ApplicationStopped, SerializationError, SessionId, SessionManager
from msm_fast.integrations.flask import MsmFast
from tests.behaviours import Record, timed
from tests.integration.conftest import Nodes
from tests.integration.meeting import PATIENCE_S, Meeting
from tests.proxy import CountingProxy
from tests.timeouts import HURRIED, UNHURRIED

pytestmark = pytest.mark.memcached


def make_app(nodes: str, meeting: Meeting | None = None, **settings: Any) -> Flask:
    app = Flask("shop")
    app.config.update(TESTING=True, MSM_FAST={"nodes": nodes, "timeouts": UNHURRIED, **settings})
    MsmFast(app)

    @app.post("/set/<name>")
    def set_one(name: str) -> str:
        session[name] = True
        return "set"

    @app.post("/slow/<name>")
    def set_slowly(name: str) -> str:
        session.get(name)
        assert meeting is not None
        meeting.hold_up()
        session[name] = True
        return "set"

    @app.get("/slow")
    def read_slowly() -> dict[str, Any]:
        found = dict(session)
        assert meeting is not None
        meeting.hold_up()
        return found

    @app.post("/cart")
    def add() -> str:
        session.setdefault("cart", []).append(request.args["item"])
        return "added"

    @app.post("/cart/nested")
    def add_nested() -> str:
        session["cart"].append(request.args["item"])
        return "added"

    @app.post("/in")
    def log_in() -> str:
        session.rotate_id()  # type: ignore[attr-defined]
        session["user"] = "ada"
        return "hello"

    @app.post("/out")
    def log_out() -> str:
        session.clear()
        return "bye"

    @app.post("/bad")
    def set_bad() -> str:
        session["bad"] = threading.Lock()
        return "set"

    @app.get("/everything")
    def everything() -> dict[str, Any]:
        return dict(session)

    @app.get("/page")
    def show_page() -> str:
        return "page"

    return app


def as_text(nodes: Nodes) -> str:
    return ",".join(f"{name}:{server.address}" for name, server in nodes.items())


def manager_of(app: Flask) -> SessionManager:
    manager: SessionManager = app.extensions["msm_fast"]
    return manager


def cookie_of(client: FlaskClient) -> str:
    cookie = client.get_cookie("session")
    assert cookie is not None
    return cookie.value


@pytest.fixture
def meeting() -> Meeting:
    return Meeting()


@pytest.fixture
def make(nodes: Nodes, meeting: Meeting) -> Iterator[Callable[..., Flask]]:
    """Return a function that makes workers of one application."""
    apps: list[Flask] = []

    def make_worker(**settings: Any) -> Flask:
        apps.append(make_app(as_text(nodes), meeting, **settings))
        return apps[-1]

    yield make_worker
    for app in apps:
        manager_of(app).close()


@pytest.fixture
def app(make: Callable[..., Flask]) -> Flask:
    return make()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def twin(client: FlaskClient, app: Flask) -> FlaskClient:
    """Return another window of the same browser, served by app."""
    other = app.test_client()
    other.set_cookie("session", cookie_of(client))
    return other


def test_a_log_that_shows_the_sessions_user_with_each_line_is_written_also_in_an_outage(
    nodes: Nodes, client: FlaskClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = []

    def look(record: logging.LogRecord) -> bool:
        users.append(session.get("user") if has_request_context() else None)
        return True

    client.post("/in")
    monkeypatch.setattr(caplog.handler, "filters", [look])
    with caplog.at_level(logging.INFO, "msm_fast"):
        for server in nodes.values():
            server.kill()
        assert client.get("/everything").json == {"user": "ada"}
    assert "ada" in users
    assert any("is served from this host" in message for message in caplog.messages)


@pytest.mark.shows("writers")
def test_two_overlapping_writers_keep_both_keys(
    make: Callable[..., Flask], client: FlaskClient, meeting: Meeting
) -> None:
    client.post("/set/before")
    other = twin(client, make())
    meeting.while_held_up(lambda: other.post("/slow/one"), lambda: client.post("/set/other"))
    assert client.get("/everything").json == {"before": True, "one": True, "other": True}


@pytest.mark.shows("reader")
def test_a_slow_reader_rolls_nothing_back(make: Callable[..., Flask], client: FlaskClient, meeting: Meeting) -> None:
    client.post("/set/before")
    other = twin(client, make())
    read = meeting.while_held_up(lambda: other.get("/slow"), lambda: client.post("/set/other"))
    assert read.json == {"before": True}
    assert client.get("/everything").json == {"before": True, "other": True}


@pytest.mark.shows("nested")
def test_nested_changes_are_stored(make: Callable[..., Flask], client: FlaskClient) -> None:
    client.post("/cart?item=apple")
    client.post("/cart/nested?item=pear")
    assert twin(client, make()).get("/everything").json == {"cart": ["apple", "pear"]}


@pytest.mark.shows("logout")
def test_a_logout_is_not_undone_by_a_request_on_its_way(
    make: Callable[..., Flask], client: FlaskClient, meeting: Meeting
) -> None:
    client.post("/in")
    other = twin(client, make())
    old = cookie_of(client)
    late = meeting.while_held_up(lambda: other.post("/slow/late"), lambda: client.post("/out"))
    assert late.headers.getlist("Set-Cookie") == []
    assert client.get_cookie("session") is None
    client.set_cookie("session", old)
    assert client.get("/everything").json == {}


@pytest.mark.shows("fixation", "rotation")
def test_a_planted_id_is_not_adopted_and_a_login_leaves_it_behind(app: Flask, client: FlaskClient) -> None:
    planted = str(SessionId.generate("n1"))
    client.set_cookie("session", planted)
    client.post("/set/visited")
    assert cookie_of(client) != planted
    attacker = twin(client, app)
    client.post("/in")
    assert client.get("/everything").json == {"visited": True, "user": "ada"}
    assert attacker.get("/everything").json == {}


@pytest.mark.shows("unserializable")
def test_a_value_that_cannot_be_stored_stops_the_application_by_default(client: FlaskClient) -> None:
    client.post("/set/before")
    with pytest.raises(SerializationError, match="bad"):
        client.post("/bad")
    with pytest.raises(ApplicationStopped):
        client.get("/everything")


@pytest.mark.shows("unserializable")
def test_or_is_left_out_and_the_rest_of_the_session_lives(make: Callable[..., Flask]) -> None:
    client = make(on_unserializable="blacklist").test_client()
    client.post("/set/before")
    assert client.post("/bad").status_code == 200
    assert client.get("/everything").json == {"before": True, "bad": None}


@pytest.mark.shows("corrupt")
def test_a_corrupt_copy_is_replaced_by_the_other(make: Callable[..., Flask], nodes: Nodes, client: FlaskClient) -> None:
    client.post("/set/before")
    plain = cookie_of(client).partition("-")[0]
    home = nodes[cookie_of(client).partition("-")[2]]
    with home.client() as direct:
        direct.set(plain, b"nonsense")
    worker = make()
    other = twin(client, worker)
    assert other.get("/everything").json == {"before": True}
    assert manager_of(worker).statistics().corrupt == 1
    assert other.post("/set/after").status_code == 200
    assert client.get("/everything").json == {"before": True, "after": True}


@pytest.mark.shows("node")
def test_a_node_dies_and_the_session_lives_on_under_a_new_cookie(nodes: Nodes, client: FlaskClient) -> None:
    client.post("/in")
    nodes[cookie_of(client).partition("-")[2]].kill()
    old = cookie_of(client)
    assert client.get("/everything").json == {"user": "ada"}
    assert cookie_of(client) != old
    assert cookie_of(client).partition("-")[0] == old.partition("-")[0]


@pytest.mark.shows("down", "hanging", "back")
@pytest.mark.parametrize("failure", ["down", "hanging"])
def test_without_any_node_the_cookie_stays_and_the_login_is_back_when_they_are(
    make: Callable[..., Flask], nodes: Nodes, failure: str, record_property: Record
) -> None:
    """Hanging nodes keep what they have, as behind a network that is gone. Nodes that died have nothing any more."""
    client = make(on_cluster_lost="error", timeouts=HURRIED).test_client()
    client.post("/in")
    for server in nodes.values():
        server.pause() if failure == "hanging" else server.kill()
    asked = [lambda: client.get("/everything"), lambda: client.post("/set/lost"), lambda: client.get("/page")]
    answers, seconds = zip(*(timed(ask) for ask in asked), strict=True)
    for server in nodes.values():
        server.resume() if failure == "hanging" else server.start()
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert [answer.headers.getlist("Set-Cookie") for answer in answers] == [[], [], []]
    assert sum(seconds) < 5
    record_property(failure, max(seconds))
    healed_at = time.monotonic()
    deadline = healed_at + PATIENCE_S
    while (answer := client.get("/everything")).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert answer.json == ({"user": "ada"} if failure == "hanging" else {})
    if failure == "hanging":
        record_property("back", time.monotonic() - healed_at)


@pytest.mark.shows("outage")
def test_in_an_outage_nobody_is_logged_out(make: Callable[..., Flask], nodes: Nodes) -> None:
    seen, unseen = make(timeouts=HURRIED), make(timeouts=HURRIED)
    client = seen.test_client()
    client.post("/in")
    stranger = twin(client, unseen)
    for server in nodes.values():
        server.pause()
    try:
        assert client.get("/everything").json == {"user": "ada"}
        assert stranger.post("/set/meanwhile").headers.getlist("Set-Cookie") == []
        with stranger.session_transaction() as inside:
            inside.pop("meanwhile")
        assert cookie_of(stranger) == cookie_of(client), "what stands for the session is empty, but is not the session"
    finally:
        for server in nodes.values():
            server.resume()
    deadline = time.monotonic() + PATIENCE_S
    while stranger.get("/everything").json != {"user": "ada"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.shows("cost")
def test_what_a_request_costs(nodes: Nodes, record_property: Record) -> None:
    proxy = CountingProxy(nodes["n1"].port)
    app = make_app(f"n1:{proxy.address}")
    client = app.test_client()

    def turns_of(act: Callable[[], Any]) -> int:
        before = proxy.turns
        act()
        return proxy.turns - before

    try:
        client.post("/set/before")
        known = cookie_of(client)
        read, write = turns_of(lambda: client.get("/everything")), turns_of(lambda: client.post("/set/after"))
        client.delete_cookie("session")
        without = turns_of(lambda: client.get("/everything"))
        assert (read, write, without) == (1, 2, 0)
        client.set_cookie("session", "garbage")
        assert turns_of(lambda: client.get("/everything")) == 0
        app.config["SESSION_REFRESH_EACH_REQUEST"] = False
        client.set_cookie("session", known)
        assert turns_of(lambda: client.get("/page")) == 0
        record_property("cost", f"{read}, {write}, {without}")
    finally:
        manager_of(app).close()
        proxy.close()
