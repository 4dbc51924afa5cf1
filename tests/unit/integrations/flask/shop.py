"""A small application with sessions of ours, and what its client has of them."""

from __future__ import annotations

from typing import Any

from flask import Flask, session
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from msm_fast import SessionManager
from msm_fast.integrations.flask import MsmFast


def make_app(**config: Any) -> Flask:
    app = Flask("shop")
    app.config.update(TESTING=True, **config)
    MsmFast(app)

    @app.post("/count")
    def count() -> str:
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    @app.get("/read")
    def read() -> str:
        return str(session.get("n", 0))

    @app.get("/static-page")
    def show_static_page() -> str:
        return "the same for all"

    @app.post("/stay")
    def stay() -> str:
        session.permanent = True
        return count()

    @app.post("/leave")
    def leave() -> str:
        session.clear()
        return "bye"

    @app.post("/in")
    def log_in() -> str:
        session.clear()
        session["user"] = "ada"
        return "hello"

    @app.post("/pop")
    def pop() -> str:
        session.pop("n", None)
        return "empty"

    return app


def manager_of(app: Flask) -> SessionManager:
    manager: SessionManager = app.extensions["msm_fast"]
    return manager


def cookies_set(response: TestResponse) -> list[str]:
    return response.headers.getlist("Set-Cookie")


def cookie_of(client: FlaskClient) -> str:
    cookie = client.get_cookie("session")
    assert cookie is not None
    return cookie.value


def stored(app: Flask, client: FlaskClient) -> dict[str, Any]:
    found = manager_of(app).load(cookie_of(client))
    assert found is not None
    return dict(found)
