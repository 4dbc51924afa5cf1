"""Logins by Flask-Login."""

from __future__ import annotations

import pytest
from flask import Flask
from flask_login import LoginManager, UserMixin, confirm_login, login_user

from tests.unit.integrations.flask.shop import cookie_of, manager_of, stored

OLD_CLOCK = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
"""Flask-Login asks for the time in a way that Python 3.12 deprecates."""


class User(UserMixin):
    id = "ada"


@pytest.fixture
def login_app(app: Flask) -> Flask:
    app.secret_key = "of the remember-me cookie"
    logins = LoginManager(app)
    logins.user_loader(lambda user_id: User())

    @app.post("/login")
    def log_in_by_flask_login() -> str:
        login_user(User(), remember=True)
        return "hello"

    @app.post("/confirm")
    def confirm_by_flask_login() -> str:
        confirm_login()
        return "still you"

    @app.get("/me")
    def me() -> str:
        from flask_login import current_user

        return str(current_user.get_id())

    return app


@OLD_CLOCK
def test_a_login_by_flask_login_gives_the_session_a_new_id(login_app: Flask) -> None:
    client = login_app.test_client()
    client.post("/count")
    planted = cookie_of(client)
    client.post("/login")
    assert cookie_of(client) != planted
    assert manager_of(login_app).load(planted) is None
    assert stored(login_app, client)["n"] == 1
    assert client.get("/me").text == "ada"


@OLD_CLOCK
def test_so_does_one_by_its_remember_me_cookie(login_app: Flask) -> None:
    client = login_app.test_client()
    client.post("/login")
    attacker = login_app.test_client()
    attacker.post("/count")
    client.set_cookie("session", cookie_of(attacker))
    assert client.get("/me").text == "ada"
    assert cookie_of(client) != cookie_of(attacker)
    assert attacker.get("/me").text == "None"


@OLD_CLOCK
def test_and_so_does_a_login_that_is_confirmed_and_fresh_again(login_app: Flask) -> None:
    client = login_app.test_client()
    client.post("/login")
    client.delete_cookie("session")
    client.get("/me")
    seen_by_somebody_else = cookie_of(client)
    client.post("/confirm")
    assert cookie_of(client) != seen_by_somebody_else
    assert stored(login_app, client)["_fresh"] is True
    assert manager_of(login_app).load(seen_by_somebody_else) is None
