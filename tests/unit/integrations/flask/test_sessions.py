"""Sessions in Flask, on the embedded local store, through Flask's own test client."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask, session
from flask.testing import FlaskClient
from markupsafe import Markup

from msm_fast import SaveResult, SessionId
from msm_fast.manager import RequestScope
from tests.unit.integrations.flask.shop import cookie_of, cookies_set, make_app, manager_of, stored


class LazyText:
    """What translation libraries give: a text that is made when it is shown."""

    def __html__(self) -> str:
        return "<em>hello</em>"


def test_the_session_is_kept_from_request_to_request(client: FlaskClient) -> None:
    assert [client.post("/count").text for _ in range(3)] == ["1", "2", "3"]
    assert client.get("/read").text == "3"


def test_no_secret_key_is_needed_and_the_cookie_holds_an_id_only(client: FlaskClient) -> None:
    client.post("/count")
    assert SessionId.parse(cookie_of(client))


def test_the_cookie_is_set_once(client: FlaskClient) -> None:
    assert cookies_set(client.get("/read")) == [], "nothing was written"
    response = client.post("/count")
    assert cookies_set(response) == [f"session={cookie_of(client)}; HttpOnly; Path=/"]
    assert response.headers["Cache-Control"] == "no-store"
    assert cookies_set(client.post("/count")) == []
    assert cookies_set(client.get("/read")) == []


def test_a_response_varies_by_cookie_if_the_session_was_looked_at(client: FlaskClient) -> None:
    client.post("/count")
    assert "Vary" not in client.get("/static-page").headers
    assert client.get("/read").headers.getlist("Vary") == ["Cookie"]


def test_the_cookie_is_as_flasks_settings_say() -> None:
    app = make_app(
        SESSION_COOKIE_NAME="sid",
        SESSION_COOKIE_PATH="/count",
        SESSION_COOKIE_DOMAIN="example.org",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=False,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_PARTITIONED=True,
    )
    client = app.test_client()
    (cookie,) = cookies_set(client.post("/count", base_url="https://example.org"))
    name, *attributes = cookie.split("; ")
    assert name.startswith("sid=")
    assert sorted(attributes) == ["Domain=example.org", "Partitioned", "Path=/count", "SameSite=Strict", "Secure"]


def test_nested_changes_are_stored_without_help(app: Flask, client: FlaskClient) -> None:
    @app.post("/cart")
    def add() -> str:
        session.setdefault("cart", []).append(len(session["cart"]))
        return "added"

    for _ in range(3):
        client.post("/cart")
    assert stored(app, client) == {"cart": [0, 1, 2]}


SPECIAL = {
    "tuple": (1, 2, 3),
    "bytes": b"\xff",
    "markup": Markup("<b>"),
    "uuid": uuid.UUID(int=7),
    "datetime": datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=2))),
    "nested": [("warning", Markup("<em>"))],
    "beside what JSON has not": [Markup("<i>"), Decimal("1.10"), {1: 2}],
    "a key like a tag": {" t": [1]},
}


def test_flasks_tagged_types_come_back_as_they_were(app: Flask, client: FlaskClient) -> None:
    found: dict[str, Any] = {}

    @app.post("/set")
    def set_all() -> str:
        session.update(SPECIAL)
        return "set"

    @app.get("/get")
    def get_all() -> str:
        found.update(session)
        return "got"

    client.post("/set")
    client.get("/get")
    assert found == SPECIAL
    assert type(found["markup"]) is Markup
    assert type(found["nested"][0]) is tuple
    assert type(found["nested"][0][1]) is Markup


def test_what_only_flask_can_store_is_stored_as_flask_does(app: Flask, client: FlaskClient) -> None:
    @app.post("/set")
    def set_all() -> str:
        session["lazy"] = LazyText()
        session["ordered"] = OrderedDict(a=1)
        return "set"

    client.post("/set")
    found = stored(app, client)
    assert found == {"lazy": Markup("<em>hello</em>"), "ordered": {"a": 1}}


def test_a_serializer_of_ones_own_is_not_overruled() -> None:
    app = make_app(MSM_FAST={"serializer": "json"})
    assert manager_of(app).settings.serializer == "json"


def test_clear_ends_the_session(app: Flask, client: FlaskClient) -> None:
    client.post("/count")
    old = cookie_of(client)
    (deletion,) = cookies_set(client.post("/leave"))
    assert deletion.startswith("session=;")
    assert client.get_cookie("session") is None
    assert manager_of(app).load(old) is None


def test_a_login_that_clears_first_has_a_new_id(app: Flask, client: FlaskClient) -> None:
    client.post("/count")
    old = cookie_of(client)
    client.post("/in")
    assert cookie_of(client) != old
    assert manager_of(app).load(old) is None
    assert stored(app, client) == {"user": "ada"}


def test_a_session_without_any_attribute_left_needs_no_cookie(client: FlaskClient) -> None:
    client.post("/count")
    (deletion,) = cookies_set(client.post("/pop"))
    assert deletion.startswith("session=;")
    assert client.get("/read").text == "0"


def test_a_request_that_met_another_repeats_the_cookie_in_case_that_one_took_it(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/count")
    monkeypatch.setattr(RequestScope, "save", lambda scope: SaveResult("merged"))
    assert cookies_set(client.post("/count"))[0].startswith(f"session={cookie_of(client)};")


def test_an_id_that_a_client_made_up_is_not_adopted(client: FlaskClient) -> None:
    made_up = str(SessionId.generate())
    client.set_cookie("session", made_up)
    assert client.post("/count").text == "1"
    assert cookie_of(client) != made_up


@pytest.mark.parametrize("cookie", ["garbage", "x" * 10_000, '"abc\\015"'])
def test_a_cookie_that_is_no_id_is_no_session(client: FlaskClient, cookie: str) -> None:
    assert client.get("/read", headers={"Cookie": f"session={cookie}"}).text == "0"
