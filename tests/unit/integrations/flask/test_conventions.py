"""What Flask's own sessions can do, and how the extension is set up."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from flask import Flask, request, session, stream_with_context
from flask.json.provider import DefaultJSONProvider
from flask.testing import FlaskClient
from markupsafe import Markup

from msm_fast import AsyncSessionManager, ConfigurationError, SessionManager, Settings
from msm_fast.integrations.flask import FlaskSession, MsmFast
from tests.unit.integrations.flask.shop import make_app, manager_of, stored


def test_a_test_can_read_and_write_the_session(client: FlaskClient) -> None:
    with client.session_transaction() as inside:
        inside["n"] = 41
    assert client.post("/count").text == "42"
    with client.session_transaction() as inside:
        assert inside["n"] == 42


def test_modified_and_accessed_are_told(client: FlaskClient) -> None:
    def of_this_request() -> tuple[bool, bool]:
        current = flask.globals.request_ctx._session  # type: ignore[attr-defined]
        return current.accessed, current.modified

    with client:
        client.get("/static-page")
        assert of_this_request() == (False, False)
    with client:
        client.post("/count")
        assert of_this_request() == (True, True)
    with client:
        client.get("/read")
        assert of_this_request() == (True, False)
    with client:
        client.post("/leave")
        assert of_this_request() == (True, True)


def test_the_session_is_a_dict_in_every_way(app: Flask) -> None:
    with app.test_request_context():
        session.update(a=1)
        inside: Any = session._get_current_object()  # type: ignore[attr-defined]
        inside |= {"b": 2}
        assert isinstance(inside, FlaskSession)
        assert (inside | {"c": 3}, {"c": 3} | inside) == ({"a": 1, "b": 2, "c": 3}, {"c": 3, "a": 1, "b": 2})
        assert inside.copy() == {"a": 1, "b": 2} == inside
        assert inside.popitem() in (("a", 1), ("b", 2))
        assert inside.new
        assert inside.id not in repr(inside)


def test_a_copy_of_the_session_is_a_dict_that_has_nothing_to_do_with_it(app: Flask) -> None:
    with app.test_request_context():
        session["cart"] = ["apple"]
        shallow, deep = copy.copy(session), copy.deepcopy(session)
        deep["cart"].append("pear")
        assert session["cart"] == ["apple"]
        session.clear()
        assert (shallow, deep) == ({"cart": ["apple"]}, {"cart": ["apple", "pear"]})


@pytest.mark.parametrize("is_looked_at_before", [True, False])
def test_what_a_streaming_body_writes_is_stored_when_it_ends(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture, is_looked_at_before: bool
) -> None:
    @app.post("/stream")
    def stream() -> flask.Response:
        if is_looked_at_before:
            session["before"] = True

        def pieces() -> Iterator[str]:
            yield "one"
            session["after"] = True

        return flask.Response(stream_with_context(pieces()))

    client.post("/count")
    with client.post("/stream") as response:
        assert response.text == "one"
    assert stored(app, client) == {"n": 1, "after": True} | ({"before": True} if is_looked_at_before else {})
    assert caplog.text == ""


class Translated:
    """A text that is translated when it is shown, into the language of the request."""

    def __html__(self) -> str:
        return f"hello in {request.args['language']}"


class Price:
    """What only the application's own JSON knows."""


class ShopJson(DefaultJSONProvider):
    @staticmethod
    def default(o: object) -> object:
        return "12 cents" if isinstance(o, Price) else DefaultJSONProvider.default(o)


@pytest.mark.parametrize(("value", "expected"), [(Translated(), Markup("hello in de")), (Price(), "12 cents")])
def test_what_is_stored_by_a_streamed_response_is_what_its_request_has_made_of_it(
    app: Flask, client: FlaskClient, value: object, expected: object
) -> None:
    app.json = ShopJson(app)

    @app.post("/stream")
    def stream() -> flask.Response:
        session["value"] = value
        return flask.Response(iter(["one"]))

    with client.post("/stream?language=de") as response:
        assert response.text == "one"
    assert stored(app, client) == {"value": expected}


def test_a_session_that_begins_after_the_headers_left_is_warned_about(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/stream")
    def stream() -> flask.Response:
        session.get("n")

        def pieces() -> Iterator[str]:
            yield "one"
            session["late"] = True

        return flask.Response(stream_with_context(pieces()))

    with client.post("/stream") as response:
        assert response.text == "one"
    assert "after the headers had left" in caplog.text


def test_what_a_body_writes_after_the_cookie_was_taken_away_is_warned_about(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/stream")
    def stream() -> flask.Response:
        del session["n"]

        def pieces() -> Iterator[str]:
            yield "one"
            session["after"] = True

        return flask.Response(stream_with_context(pieces()))

    client.post("/count")
    with client.post("/stream") as response:
        assert response.text == "one"
    assert client.get_cookie("session") is None
    assert "the client will not know it" in caplog.text


def test_one_extension_serves_several_applications_apart() -> None:
    extension = MsmFast()
    one, other = Flask("one"), Flask("other")
    for app in (one, other):
        extension.init_app(app)
    assert manager_of(one) is not manager_of(other)


def test_or_with_one_manager_for_all() -> None:
    with SessionManager() as manager:
        app = Flask("one")
        MsmFast(app, manager=manager)
        assert manager_of(app) is manager


@pytest.mark.parametrize("wrong", ["n1:localhost:11211", {"no_such_setting": 1}, {"timeouts": {"request": -1}}])
def test_wrong_settings_are_refused_by_name(wrong: object) -> None:
    with pytest.raises(ConfigurationError):
        make_app(MSM_FAST=wrong)


def test_settings_from_the_environment_that_are_no_json_are_refused_without_their_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLASK_MSM_FAST", "{'secrets': ['a secret of some length']}")
    app = Flask("shop")
    app.config.from_prefixed_env()
    with pytest.raises(ConfigurationError, match="MSM_FAST=<class 'str'>") as caught:
        MsmFast(app)
    assert "some length" not in str(caught.value)


@pytest.mark.parametrize("wrong", [AsyncSessionManager(), "n1:localhost:11211", Settings()])
def test_what_is_no_manager_for_threads_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="a SessionManager"):
        MsmFast(manager=wrong)


def test_settings_may_be_nested_dicts_or_a_settings_object() -> None:
    app = make_app(MSM_FAST={"timeouts": {"request": 0.5}})
    assert manager_of(app).settings.timeouts.request == 0.5
    settings = Settings.build(max_inactive=60)
    assert manager_of(make_app(MSM_FAST=settings)).settings is settings
