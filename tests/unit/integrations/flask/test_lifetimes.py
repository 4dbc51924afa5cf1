"""How long a session and its cookie live in Flask."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import flask
import pytest
from flask import Flask, session
from flask.sessions import SessionMixin
from flask.testing import FlaskClient

from msm_fast import Settings
from msm_fast.integrations.flask import FlaskSession
from tests.unit.integrations.flask.shop import cookie_of, cookies_set, make_app, manager_of


def test_a_permanent_session_lives_as_long_as_flask_says(app: Flask, client: FlaskClient) -> None:
    app.permanent_session_lifetime = timedelta(days=3)
    (cookie,) = cookies_set(client.post("/stay"))
    assert "Expires=" in cookie
    found = manager_of(app).load(cookie_of(client))
    assert found is not None
    assert found.max_inactive == 3 * 24 * 3600


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(days=100_000)], ids=["too short", "too long"])
def test_a_lifetime_that_no_session_can_have_is_the_nearest_one(
    app: Flask, client: FlaskClient, lifetime: timedelta
) -> None:
    app.permanent_session_lifetime = lifetime
    assert client.post("/stay").text == "1"
    assert manager_of(app).statistics().created == 1


def test_other_sessions_live_as_long_as_msm_fast_says() -> None:
    app = make_app(MSM_FAST={"max_inactive": 600})
    client = app.test_client()
    (cookie,) = cookies_set(client.post("/count"))
    assert "Expires" not in cookie
    found = manager_of(app).load(cookie_of(client))
    assert found is not None
    assert found.max_inactive == 600


def test_a_session_may_be_given_lifetimes_of_its_own(app: Flask, client: FlaskClient) -> None:
    @app.post("/shorten")
    def shorten() -> str:
        assert isinstance(session, FlaskSession)
        session.max_inactive, session.absolute_lifetime = 60, 600
        return f"{session.max_inactive} {session.absolute_lifetime}"

    client.post("/count")
    assert client.post("/shorten").text == "60 600"
    found = manager_of(app).load(cookie_of(client))
    assert found is not None
    assert (found.max_inactive, found.absolute_lifetime) == (60, 600)


def say_that_it_is_not(permanent: SessionMixin) -> None:
    permanent.permanent = False


def take_out_all_but_the_count(permanent: SessionMixin) -> None:
    for name in [*permanent]:
        if name != "n":
            permanent.pop(name)


@pytest.mark.parametrize("end", [say_that_it_is_not, take_out_all_but_the_count])
def test_a_session_that_is_no_longer_permanent_ends_with_the_browser(
    app: Flask, client: FlaskClient, end: Callable[[SessionMixin], None]
) -> None:
    @app.post("/forget")
    def forget() -> str:
        end(session)
        return "forgotten"

    client.post("/stay")
    (cookie,) = cookies_set(client.post("/forget"))
    assert "Expires" not in cookie
    found = manager_of(app).load(cookie_of(client))
    assert found is not None
    assert found.max_inactive == Settings().max_inactive


@pytest.mark.parametrize(("refresh", "n_cookies"), [(True, 1), (False, 0)])
@pytest.mark.parametrize("path", ["/read", "/static-page"])
def test_the_expiry_of_a_permanent_session_slides_if_flask_says_so(refresh: bool, n_cookies: int, path: str) -> None:
    client = make_app(SESSION_REFRESH_EACH_REQUEST=refresh).test_client()
    client.post("/stay")
    assert len(cookies_set(client.get(path))) == n_cookies


@pytest.mark.parametrize("is_looked_at", [False, True])
@pytest.mark.parametrize("control", ["public, max-age=3600", "public", "max-age=60", "s-maxage=60"])
def test_what_caches_may_keep_is_left_to_them_instead(control: str, is_looked_at: bool) -> None:
    client = client_for_an_asset(control, is_looked_at)
    manager = manager_of(client.application)
    loaded = manager.statistics().loaded
    response = client.get("/asset")
    assert (cookies_set(response), response.headers["Cache-Control"]) == ([], control)
    assert manager.statistics().loaded == loaded + is_looked_at
    assert len(cookies_set(client.get("/read"))) == 1


@pytest.mark.parametrize("is_looked_at", [False, True])
@pytest.mark.parametrize("control", ["private, max-age=60", "no-cache", "max-age=0", "no-cache='x', must-revalidate"])
def test_what_they_may_not_keep_lets_it_slide(control: str, is_looked_at: bool) -> None:
    assert len(cookies_set(client_for_an_asset(control, is_looked_at).get("/asset"))) == 1


def test_a_cacheable_response_that_changes_its_session_sends_the_cookie_of_a_permanent_one() -> None:
    client = client_for_an_asset("public", is_looked_at=True)
    response = client.get("/asset?write=it")
    assert (len(cookies_set(response)), response.headers["Cache-Control"]) == (1, "no-store")


def client_for_an_asset(control: str, is_looked_at: bool) -> FlaskClient:
    """Return a client with a permanent session in front of something with that Cache-Control at /asset."""
    app = make_app()

    @app.get("/asset")
    def show() -> flask.Response:
        if is_looked_at:
            session.get("n")
        if flask.request.args:
            session["n"] = 7
        return flask.Response("body {}", headers={"Cache-Control": control})

    client = app.test_client()
    client.post("/stay")
    return client


def test_to_say_again_that_it_is_permanent_changes_nothing() -> None:
    app = make_app(SESSION_REFRESH_EACH_REQUEST=False)

    @app.get("/again")
    def say_again() -> str:
        session.permanent = True
        return "still"

    client = app.test_client()
    client.post("/stay")
    assert cookies_set(client.get("/again")) == []


def test_an_ignored_request_does_not_let_it_slide() -> None:
    client = make_app(MSM_FAST={"ignore_requests": "/(read|static-page)"}).test_client()
    client.post("/stay")
    assert cookies_set(client.get("/read")) == []
    assert cookies_set(client.get("/static-page")) == []
