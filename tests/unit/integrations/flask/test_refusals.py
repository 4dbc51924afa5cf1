"""Flask applications whose sessions are not available."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from flask import Flask, copy_current_request_context, session
from flask.testing import FlaskClient

from msm_fast import CorruptRecord, LockTimeout, SaveResult, SessionManager, SessionUnavailable
from msm_fast.manager import RequestScope
from tests.unit.integrations.flask.shop import cookies_set, make_app, manager_of, stored

PATIENCE_S = 20.0


@pytest.mark.parametrize(
    "error", [SessionUnavailable("every node is down"), CorruptRecord("bit flip"), LockTimeout("it is locked")]
)
@pytest.mark.parametrize("when", ["load", "save"])
def test_when_the_store_fails_the_answer_is_503_and_the_cookie_stays(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, error: Exception, when: str
) -> None:
    def fail(*args: object) -> SaveResult:
        raise error

    client.post("/count")
    if when == "load":
        monkeypatch.setattr(manager_of(app), "_find", fail)
    else:
        monkeypatch.setattr(RequestScope, "save", fail)
    response = client.post("/count")
    assert (response.status_code, cookies_set(response)) == (503, [])
    assert response.headers["Retry-After"] == "1"
    assert b"2" not in response.data
    assert client.get("/static-page").status_code == 200


@pytest.mark.parametrize("status", [503, 500])
def test_an_application_may_have_an_error_page_of_its_own(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    @app.errorhandler(SessionUnavailable)
    def sorry(error: Exception) -> tuple[str, int]:
        return "come back soon", status

    def fail(*args: object) -> None:
        raise SessionUnavailable("every node is down")

    client.post("/count")
    monkeypatch.setattr(manager_of(app), "_find", fail)
    response = client.post("/count")
    assert (response.text, response.status_code) == ("come back soon", status)
    assert (response.headers["Vary"], cookies_set(response)) == ("Cookie", [])


def be_unavailable(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no session be found any more, in an application that answers errors as in production."""

    def fail(*args: object) -> None:
        raise SessionUnavailable("every node is down")

    app.config.update(TESTING=False)
    monkeypatch.setattr(manager_of(app), "_find", fail)


def look_after_the_request(app: Flask) -> None:
    @app.after_request
    def look(response: flask.Response) -> flask.Response:
        response.headers["X-User"] = str(session.get("user"))
        return response


def look_in_the_page_for_what_is_not_there(app: Flask) -> None:
    @app.errorhandler(404)
    def show(error: Exception) -> tuple[str, int]:
        return f"{session.get('user')}, there is no such page", 404


def look_in_the_page_for_errors_too(app: Flask) -> None:
    look_in_the_page_for_what_is_not_there(app)

    @app.errorhandler(500)
    def show_error(error: Exception) -> tuple[str, int]:
        return f"{session.get('user')}, something went wrong", 500


def look_in_the_page_for_sessions_that_are_not_available(app: Flask) -> None:
    app.add_url_rule("/nowhere", view_func=lambda: str(session.get("user")))

    @app.errorhandler(SessionUnavailable)
    def show(error: Exception) -> tuple[str, int]:
        return f"{session.get('user')}, come back soon", 503


@pytest.mark.parametrize(
    "look",
    [
        look_after_the_request,
        look_in_the_page_for_what_is_not_there,
        look_in_the_page_for_errors_too,
        look_in_the_page_for_sessions_that_are_not_available,
    ],
)
def test_where_flask_asks_no_error_handler_the_answer_is_503_too(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, look: Callable[[Flask], None]
) -> None:
    look(app)
    client.post("/count")
    be_unavailable(app, monkeypatch)
    response = client.get("/nowhere")
    assert (response.status_code, response.headers.get("Retry-After"), cookies_set(response)) == (503, "1", [])
    assert b"None" not in response.data
    assert response.headers["Cache-Control"] == "no-store"


def test_an_error_page_of_ones_own_is_shown_though_a_later_function_looks_again(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_after_the_request(app)

    @app.after_request
    def write(response: flask.Response) -> flask.Response:
        session["answered"] = response.status_code
        return response

    @app.errorhandler(SessionUnavailable)
    def sorry(error: Exception) -> tuple[str, int]:
        return "come back soon", 503

    assert client.post("/count").text == "1"
    be_unavailable(app, monkeypatch)
    response = client.get("/read")
    assert (response.status_code, response.text, cookies_set(response)) == (503, "come back soon", [])
    assert response.headers["X-User"] == "None"
    monkeypatch.undo()
    assert stored(app, client) == {"n": 1, "answered": 200}


def test_a_session_that_a_thread_is_looking_up_as_its_request_ends_is_not_given_up(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_looking, may_find = threading.Event(), threading.Event()
    find = SessionManager._find
    seen: list[int] = []

    def find_slowly(*arguments: Any) -> Any:
        if threading.current_thread() in threads:
            is_looking.set()
            assert may_find.wait(PATIENCE_S)
        return find(*arguments)

    @app.post("/leave-a-thread")
    def leave_a_thread() -> str:
        threads.append(threading.Thread(target=copy_current_request_context(read_twice)))
        threads[0].start()
        assert is_looking.wait(PATIENCE_S)
        return "left"

    def read_twice() -> None:
        seen.extend([session["n"], session["n"]])

    threads: list[threading.Thread] = []
    client.post("/count")
    monkeypatch.setattr(SessionManager, "_find", find_slowly)
    client.post("/leave-a-thread")
    may_find.set()
    threads[0].join(PATIENCE_S)
    assert seen == [1, 1]


def test_an_error_that_has_nothing_to_do_with_sessions_stays_one(app: Flask, client: FlaskClient) -> None:
    @app.get("/fail")
    def fail() -> str:
        session["n"] = 7
        raise ZeroDivisionError

    client.post("/count")
    app.config.update(TESTING=False)
    response = client.get("/fail")
    assert (response.status_code, "Retry-After" in response.headers) == (500, False)


def test_a_streamed_response_that_is_refused_is_closed(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"one"

        def close(self) -> None:
            closed.append(True)

    @app.post("/stream")
    def stream() -> flask.Response:
        session["n"] = 1
        return flask.Response(Body())

    def fail(scope: RequestScope) -> SaveResult:
        raise SessionUnavailable("every node is down")

    monkeypatch.setattr(RequestScope, "save", fail)
    with client.post("/stream") as response:
        assert response.status_code == 503
    assert closed == [True]


def test_a_scope_that_may_hold_a_lock_is_closed_however_the_request_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(MSM_FAST={"locking": "all"})
    client = app.test_client()

    @app.get("/fail")
    def fail() -> str:
        raise ZeroDivisionError

    closed: list[RequestScope] = []
    monkeypatch.setattr(RequestScope, "close", lambda scope: closed.append(scope))
    client.get("/read")
    with pytest.raises(ZeroDivisionError):
        client.get("/fail")
    assert len({id(scope) for scope in closed}) == 2


def test_an_application_that_was_stopped_answers_500_and_keeps_the_cookie(app: Flask, client: FlaskClient) -> None:
    @app.post("/bad")
    def set_bad() -> str:
        session["bad"] = object()
        return "set"

    client.post("/count")
    app.config.update(TESTING=False)
    answers = [client.post("/bad"), client.get("/read")]
    assert [(answer.status_code, cookies_set(answer)) for answer in answers] == [(500, []), (500, [])]


def test_an_ignored_request_sets_no_cookie_and_stores_nothing() -> None:
    client = make_app(MSM_FAST={"ignore_requests": "/count"}).test_client()
    assert cookies_set(client.post("/count")) == []
    assert client.get("/read").text == "0"
