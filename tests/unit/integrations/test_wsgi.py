"""The WSGI middleware, on the embedded local store; with wsgiref's validator around both sides."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from msm_fast import (
    AsyncSessionManager,
    ConfigurationError,
    CorruptRecord,
    LockTimeout,
    SaveResult,
    SessionId,
    SessionManager,
    SessionUnavailable,
)
from msm_fast.integrations.cookies import CookieSettings
from msm_fast.integrations.session_headers import REFUSAL
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


def test_a_request_that_raises_stores_nothing(manager: SessionManager) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ[ENVIRON_KEY]["n"] = 1
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        Browser(SessionMiddleware(app, manager)).send("POST")  # type: ignore[arg-type]
    assert manager.statistics().created == 0


def test_the_session_is_stored_before_the_first_byte_leaves(manager: SessionManager) -> None:
    seen: list[int] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ[ENVIRON_KEY]["n"] = 1
        start_response("302 Found", [("Content-Type", "text/plain"), ("Location", "/")])
        seen.append(manager.statistics().created)
        yield b"first"

    Browser(SessionMiddleware(app, manager)).send("POST")  # type: ignore[arg-type]
    assert seen == [1]


def test_what_a_streaming_body_writes_is_stored_when_it_ends(manager: SessionManager) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        session = environ[ENVIRON_KEY]
        if environ["REQUEST_METHOD"] == "GET":
            start_response("200 OK", [("Content-Type", "text/plain")])
            yield repr(dict(session)).encode()
            return
        session["before"] = True
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"..."
        session["after"] = True

    browser = Browser(SessionMiddleware(app, manager))  # type: ignore[arg-type]
    browser.send("POST")
    assert browser.send("GET").body == b"{'before': True, 'after': True}"


@pytest.mark.parametrize("end", ["the body fails", "the client goes"])
def test_what_a_body_wrote_before_it_failed_is_not_stored(manager: SessionManager, end: str) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        session = environ[ENVIRON_KEY]
        session["before"] = True
        start_response("200 OK", [("Content-Type", "text/plain")])
        session["after"] = True
        yield b"..."
        if end == "the body fails":
            raise ZeroDivisionError
        yield b"..."

    sent: list[list[tuple[str, str]]] = []
    environ: Any = {"REQUEST_METHOD": "POST", "PATH_INFO": "/"}

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        sent.append(headers)

    body = SessionMiddleware(app, manager)(environ, start_response)  # type: ignore[arg-type]
    chunks = iter(body)
    assert next(chunks) == b"..."
    if end == "the body fails":
        with pytest.raises(ZeroDivisionError):
            next(chunks)
    body.close()  # type: ignore[attr-defined]
    (cookie,) = [value.partition(";")[0].partition("=")[2] for name, value in sent[0] if name == "Set-Cookie"]
    loaded = manager.load(cookie)
    assert loaded is not None
    assert ("after" in loaded) == (end == "the client goes")


def test_a_session_that_starts_after_the_headers_left_is_warned_about(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        session = environ[ENVIRON_KEY]
        session.get("n")
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"..."
        session["late"] = True

    Browser(SessionMiddleware(app, manager)).send("POST")  # type: ignore[arg-type]
    assert "after the headers had left" in caplog.text


def test_the_apps_close_is_called(manager: SessionManager) -> None:
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"x"

        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body()

    Browser(SessionMiddleware(app, manager)).send()  # type: ignore[arg-type]
    assert closed == [True]


def test_it_is_called_once_also_if_the_client_goes_away(manager: SessionManager) -> None:
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Body:
            return self

        def __next__(self) -> bytes:
            return b"x"

        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body()

    with pytest.raises(BrokenPipeError):
        Browser(SessionMiddleware(app, manager)).send(goes_away=True)  # type: ignore[arg-type]
    assert closed == [True]


@pytest.mark.parametrize(
    "error", [SessionUnavailable("every node is down"), CorruptRecord("bit flip"), LockTimeout("it is locked")]
)
@pytest.mark.parametrize("when", ["load", "save"])
@pytest.mark.parametrize("is_generator", [False, True])
def test_when_the_store_fails_the_answer_is_503_and_the_cookie_stays(
    manager: SessionManager,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    when: str,
    is_generator: bool,
) -> None:
    def listed(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ[ENVIRON_KEY]["n"] = 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"stored"]

    def generated(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        yield from listed(environ, start_response)

    def fail(*args: object) -> SaveResult:
        raise error

    browser = Browser(SessionMiddleware(generated if is_generator else listed, manager))  # type: ignore[arg-type]
    browser.send("POST")
    cookie = browser.cookie
    if when == "load":
        monkeypatch.setattr(manager, "_find", fail)
    else:
        monkeypatch.setattr(RequestScope, "save", fail)
    response = browser.send("POST")
    assert response.status == 503
    assert response.all("retry-after")
    assert response.all("set-cookie") == []
    assert b"stored" not in response.body
    assert cookie == browser.cookie


@pytest.mark.parametrize("is_streamed", [True, False])
def test_so_it_is_if_the_application_makes_nothing_of_that(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch, is_streamed: bool
) -> None:
    def fail(scope: RequestScope) -> SaveResult:
        raise SessionUnavailable("no copy can be reached")

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with contextlib.suppress(SessionUnavailable):  # as Werkzeug's debugger does, which has an error page for it
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
        return iter(()) if is_streamed else []

    monkeypatch.setattr(RequestScope, "save", fail)
    response = Browser(SessionMiddleware(app, manager)).send()
    assert (response.status, response.all("retry-after")) == (503, ["1"])
    assert response.body == REFUSAL


def test_so_it_is_if_the_log_wants_to_show_whose_session_it_is_with_the_line(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sessions: list[Any] = []

    def look(record: logging.LogRecord) -> bool:
        return bool(sessions[-1].get("user"))

    def fail(*_: object) -> None:
        raise SessionUnavailable("no copy can be reached")

    def app(session: Any, environ: dict[str, Any]) -> str:
        sessions.append(session)
        return str(session.get("user"))

    monkeypatch.setattr(RequestScope, "_find", fail)
    monkeypatch.setattr(caplog.handler, "filters", [look])
    browser = Browser(SessionMiddleware(app_of(app), manager))
    browser.cookie = str(SessionId.generate())
    assert browser.send().status == 503


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


@pytest.mark.parametrize("end", ["a list", "a generator", "an exception", "an exception in the body"])
def test_the_scope_is_closed_however_the_request_ends(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    closed = []
    close = RequestScope.close

    def note(scope: RequestScope) -> None:
        closed.append(scope)
        close(scope)

    monkeypatch.setattr(RequestScope, "close", note)

    def generated() -> Iterator[bytes]:
        yield b"one"
        if end == "an exception in the body":
            raise ZeroDivisionError
        yield b"two"

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ[ENVIRON_KEY]["n"] = 1
        if end == "an exception":
            raise ZeroDivisionError
        start_response("200 OK", [("Content-Type", "text/plain")])
        assert closed == []
        return [b"one"] if end == "a list" else generated()

    browser = Browser(SessionMiddleware(app, manager))  # type: ignore[arg-type]
    if end.startswith("an exception"):
        with pytest.raises(ZeroDivisionError):
            browser.send()
    else:
        browser.send()
    assert closed
