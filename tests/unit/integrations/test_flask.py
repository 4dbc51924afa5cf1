"""The Flask extension, on the embedded local store, through Flask's own test client."""

from __future__ import annotations

import copy
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import flask
import pytest
from flask import Flask, copy_current_request_context, session, stream_with_context
from flask.sessions import SessionMixin
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, login_user
from markupsafe import Markup
from werkzeug.test import TestResponse

from msm_fast import (
    AsyncSessionManager,
    ConfigurationError,
    CorruptRecord,
    LockTimeout,
    SaveResult,
    SessionId,
    SessionManager,
    SessionUnavailable,
    Settings,
)
from msm_fast.integrations.flask import FlaskSession, MsmFast
from msm_fast.manager import RequestScope

OLD_CLOCK = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
"""Flask-Login asks for the time in a way that Python 3.12 deprecates."""


PATIENCE_S = 20.0


class LazyText:
    """What translation libraries give: a text that is made when it is shown."""

    def __html__(self) -> str:
        return "<em>hello</em>"


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


@pytest.fixture
def app() -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


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


# -- how long it lives


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


# -- the conventions of Flask


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


# -- when the store fails


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


def test_an_application_may_have_an_error_page_of_its_own(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.errorhandler(SessionUnavailable)
    def sorry(error: Exception) -> tuple[str, int]:
        return "come back soon", 503

    def fail(*args: object) -> None:
        raise SessionUnavailable("every node is down")

    client.post("/count")
    monkeypatch.setattr(manager_of(app), "_find", fail)
    response = client.post("/count")
    assert (response.text, response.headers["Vary"], cookies_set(response)) == ("come back soon", "Cookie", [])


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
    assert len(closed) == 2


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


# -- Flask-Login


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


# -- commands


def run(app: Flask, *arguments: str, **options: Any) -> Any:
    return app.test_cli_runner().invoke(args=["msm", *arguments], **options)


def test_inspect_shows_names_and_types_and_no_id(app: Flask, client: FlaskClient) -> None:
    client.post("/in")
    result = run(app, "inspect", cookie_of(client))
    assert result.exit_code == 0
    assert "user: str" in result.output
    assert "ada" not in result.output
    assert cookie_of(client) not in result.output
    assert "ada" in run(app, "inspect", "--values", cookie_of(client)).output


def test_inspect_lets_no_name_write_to_the_terminal(app: Flask, client: FlaskClient) -> None:
    @app.post("/set")
    def set_all() -> str:
        session["a\x1b[2J\nnode: evil"] = "\x1b[31m"
        session["naïve \\ name"] = 2
        return "set"

    client.post("/set")
    output = run(app, "inspect", "--values", cookie_of(client), color=True).output
    assert "  'a\\x1b[2J\\nnode: evil': str '\\x1b[31m'\n" in output
    assert "  naïve \\ name: int 2\n" in output
    assert "\x1b" not in output


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_inspect_says_why_a_value_cannot_be_shown_and_shows_the_others(
    app: Flask, client: FlaskClient, options: list[str]
) -> None:
    @app.post("/set")
    def set_all() -> str:
        session["big"] = [10**5000]  # no text is made of so many digits
        session["user"] = "ada"
        return "set"

    client.post("/set")
    result = run(app, "inspect", "--values", *options, cookie_of(client))
    assert result.exit_code == 0
    assert "list, which cannot be shown: Exceeds the limit (4300 digits)" in result.output
    assert "str 'ada'" in result.output


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_inspect_shows_times_after_the_year_9999(app: Flask, client: FlaskClient, options: list[str]) -> None:
    client.post("/in")
    manager = app.extensions["msm_fast"]
    kept = manager.load(cookie_of(client))
    kept.state.created_ms = 2**62 - 1  # as somebody may have forged it
    kept["user"] = "bob"
    manager.save(kept)
    result = run(app, "inspect", *options, cookie_of(client))
    assert (result.exit_code, "146140482-" in result.output) == (0, True)


def test_delete_asks_and_then_ends_the_session(app: Flask, client: FlaskClient) -> None:
    client.post("/count")
    assert run(app, "delete", cookie_of(client), input="n\n").exit_code == 1
    assert client.get("/read").text == "1"
    result = run(app, "delete", "--yes", cookie_of(client))
    assert (result.exit_code, cookie_of(client) in result.output) == (0, False)
    assert client.get("/read").text == "0"


@pytest.mark.parametrize("command", [["inspect"], ["delete", "--yes"]])
@pytest.mark.parametrize("session_id", ["garbage", "0" * 32])
def test_a_session_that_does_not_exist_is_said_to(app: Flask, command: list[str], session_id: str) -> None:
    result = run(app, *command, session_id)
    assert result.exit_code == 1
    assert "no such session" in result.output


def test_status_and_nodes_tell_of_a_local_application(app: Flask) -> None:
    assert run(app, "status").output == "state: local\nnodes: 0\nnodes_up: 0\n"
    assert run(app, "nodes").output == "there are no nodes: sessions are kept on this host\n"
    assert run(app, "nodes", "--json").output == "[]\n"
