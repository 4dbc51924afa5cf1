"""The WSGI middleware, on the embedded local store; with wsgiref's validator around both sides."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from msm_fast import AsyncSessionManager, ConfigurationError, SaveResult, SessionId, SessionManager, SessionUnavailable
from msm_fast.integrations.cookies import CookieSettings
from msm_fast.integrations.wsgi import ENVIRON_KEY, SessionMiddleware
from msm_fast.manager import RequestScope

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Handler = Callable[[Any, dict[str, Any]], str]


class Response:
    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = int(status[:3])
        self.headers = headers
        self.body = body

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def cookie(self) -> str | None:
        (value,) = self.all("set-cookie") or [None]
        return value.partition(";")[0].partition("=")[2] if value else None


class Browser:
    """Keeps the cookie as a browser does."""

    def __init__(self, app: App) -> None:
        self.app = validator(app)
        self.cookie: str | None = None

    def send(self, method: str = "GET", path: str = "/", scheme: str = "http", *, goes_away: bool = False) -> Response:
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scheme,
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        if self.cookie is not None:
            environ["HTTP_COOKIE"] = f"session={self.cookie}"
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            assert exc_info or not started, "start_response was called twice"
            started.append((status, headers))
            return lambda data: None

        body = self.app(environ, start_response)
        try:
            data = b"".join(broken_off(body) if goes_away else body)
        finally:
            body.close()  # type: ignore[attr-defined]
        response = Response(*started[-1], data)
        for value in response.all("set-cookie"):
            self.cookie = None if "Max-Age=0" in value else value.partition(";")[0].partition("=")[2]
        return response


def broken_off(body: Iterable[bytes]) -> Iterator[bytes]:
    """Do as a server whose client has gone after the first part of body."""
    for part in body:
        yield part
        raise BrokenPipeError


def app_of(handler: Handler) -> App:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        text = handler(environ[ENVIRON_KEY], environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [text.encode()]

    return app


def count(session: Any, environ: dict[str, Any]) -> str:
    if environ["REQUEST_METHOD"] == "POST":
        session["n"] = session.get("n", 0) + 1
    return str(session.get("n", 0))


@pytest.fixture
def manager() -> Iterator[SessionManager]:
    with SessionManager() as manager:
        yield manager


@pytest.fixture
def make_browser(manager: SessionManager) -> Callable[..., Browser]:
    def make(handler: Handler = count, **options: Any) -> Browser:
        return Browser(SessionMiddleware(app_of(handler), manager, **options))  # type: ignore[arg-type]

    return make


def test_the_session_is_kept_from_request_to_request(make_browser: Callable[..., Browser]) -> None:
    browser = make_browser()
    assert [browser.send("POST").body for _ in range(3)] == [b"1", b"2", b"3"]
    assert browser.send().body == b"3"


def test_the_cookie_is_set_once_when_the_session_is_first_stored(make_browser: Callable[..., Browser]) -> None:
    browser = make_browser()
    assert browser.send("GET").cookie is None, "nothing was written"
    first = browser.send("POST")
    assert SessionId.parse(first.cookie)
    assert first.all("set-cookie") == [f"session={first.cookie}; Path=/; HttpOnly; SameSite=Lax"]
    assert first.all("cache-control") == ["no-store"]
    assert browser.send("POST").cookie is None
    assert browser.send("GET").cookie is None


def test_over_https_the_cookie_is_secure(make_browser: Callable[..., Browser]) -> None:
    assert "Secure" in make_browser().send("POST", scheme="https").all("set-cookie")[0]


def test_the_cookies_name_can_be_chosen(make_browser: Callable[..., Browser]) -> None:
    browser = make_browser(cookie=CookieSettings(name="sid"))
    assert browser.send("POST").all("set-cookie")[0].startswith("sid=")


@pytest.mark.parametrize(
    ("wrong", "accepted"),
    [
        ({"manager": AsyncSessionManager()}, "a SessionManager"),
        ({"manager": "n1:10.0.0.1:11211"}, "a SessionManager"),
        ({"cookie": {"name": "sid"}}, "a CookieSettings"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(manager: SessionManager, wrong: dict[str, Any], accepted: str) -> None:
    with pytest.raises(ConfigurationError, match=accepted):
        SessionMiddleware(app_of(count), **{"manager": manager, **wrong})  # type: ignore[arg-type]


def test_a_response_varies_by_cookie_if_the_session_was_looked_at(make_browser: Callable[..., Browser]) -> None:
    assert make_browser(lambda session, environ: "static").send().all("vary") == []
    assert make_browser(lambda session, environ: str("n" in session)).send().all("vary") == ["Cookie"]
    assert make_browser(lambda session, environ: str(len(session))).send().all("vary") == ["Cookie"]


def test_a_new_id_reaches_the_client_in_the_same_response(make_browser: Callable[..., Browser]) -> None:
    def login(session: Any, environ: dict[str, Any]) -> str:
        if environ["PATH_INFO"] == "/login":
            session.rotate_id()
        return count(session, environ)

    browser = make_browser(login)
    browser.send("POST")
    old = browser.cookie
    assert browser.send("POST", "/login").cookie not in (None, old)
    assert browser.send().body == b"2"
    browser.cookie = old
    assert browser.send().body == b"0", "the old id is dead"


def test_an_error_page_in_place_of_a_response_gives_the_new_id_too(manager: SessionManager) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        session = environ[ENVIRON_KEY]
        if environ["PATH_INFO"] == "/login":
            session.rotate_id()
            start_response("200 OK", [("Content-Type", "text/html")])
            try:
                raise ValueError("the page could not be made")
            except ValueError:
                start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
                return [b"sorry"]
        text = count(session, environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [text.encode()]

    browser = Browser(SessionMiddleware(app, manager))  # type: ignore[arg-type]
    browser.send("POST")
    old = browser.cookie
    response = browser.send("POST", "/login")
    assert (response.status, response.all("cache-control"), response.all("vary")) == (500, ["no-store"], ["Cookie"])
    assert browser.cookie not in (None, old)
    assert browser.send().body == b"1"


def test_a_refusal_in_place_of_a_response_gives_the_new_id_too(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(scope: RequestScope) -> SaveResult:
        raise SessionUnavailable("every node is down")

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        session = environ[ENVIRON_KEY]
        if environ["PATH_INFO"] == "/login":
            session.rotate_id()
        text = count(session, environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        if environ["PATH_INFO"] == "/login":
            monkeypatch.setattr(RequestScope, "save", fail)
            session["late"] = True
        return [text.encode()]

    browser = Browser(SessionMiddleware(app, manager))  # type: ignore[arg-type]
    browser.send("POST")
    old = browser.cookie
    response = browser.send("POST", "/login")
    monkeypatch.undo()
    assert (response.status, response.all("cache-control")) == (503, ["no-store"])
    assert browser.cookie not in (None, old)
    assert browser.send().body == b"2"


def test_a_logout_deletes_the_cookie(make_browser: Callable[..., Browser]) -> None:
    def logout(session: Any, environ: dict[str, Any]) -> str:
        if environ["PATH_INFO"] == "/logout":
            session.invalidate()
            return "bye"
        return count(session, environ)

    browser = make_browser(logout)
    browser.send("POST")
    old = browser.cookie
    response = browser.send("POST", "/logout")
    assert "Max-Age=0" in response.all("set-cookie")[0]
    assert browser.cookie is None
    browser.cookie = old
    assert browser.send().body == b"0"


@pytest.mark.parametrize("cookie", ["garbage", "a b", '"abc\\015\\012"', "x" * 10_000, str(SessionId.generate("n1"))])
def test_a_cookie_that_is_no_session_is_not_adopted(make_browser: Callable[..., Browser], cookie: str) -> None:
    browser = make_browser()
    browser.cookie = cookie
    assert browser.send("GET").cookie is None
    response = browser.send("POST")
    assert response.body == b"1"
    assert response.cookie not in (None, cookie)


def test_an_ignored_request_sets_no_cookie_and_deletes_none() -> None:
    def handle(session: Any, environ: dict[str, Any]) -> str:
        if environ["PATH_INFO"] == "/out.png":
            session.invalidate()
        session["n"] = session.get("n", 0) + 1
        return "done"

    with SessionManager(ignore_requests=r".*\.png") as manager:
        browser = Browser(SessionMiddleware(app_of(handle), manager))  # type: ignore[arg-type]
        assert browser.send(path="/logo.png").all("set-cookie") == []
        browser.send(path="/")
        cookie = browser.cookie
        for path in ("/logo.png", "/out.png"):
            response = browser.send(path=path)
            assert response.all("set-cookie") == []
            assert response.all("vary") == ["Cookie"]
        assert browser.cookie == cookie
        loaded = manager.load(cookie or "")
        assert loaded is not None
        assert dict(loaded) == {"n": 1}


def test_paths_are_compared_with_patterns_as_text() -> None:
    with SessionManager(ignore_requests="/(käse|\ufffd)") as manager:
        browser = Browser(SessionMiddleware(app_of(count), manager))  # type: ignore[arg-type]
        for path in ("/käse".encode().decode("latin-1"), "/\xff"):
            assert browser.send("POST", path).all("set-cookie") == []
