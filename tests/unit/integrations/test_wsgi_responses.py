"""How responses of the WSGI middleware end: when the session is stored, when it is refused, and that all is closed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from msm_fast import CorruptRecord, LockTimeout, SaveResult, SessionId, SessionManager, SessionUnavailable
from msm_fast.integrations.session_headers import REFUSAL
from msm_fast.integrations.wsgi import ENVIRON_KEY, SessionMiddleware
from msm_fast.manager import RequestScope
from tests.unit.integrations.test_wsgi import Browser, app_of, manager

__all__ = ["manager"]


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


@pytest.mark.parametrize("error", [ZeroDivisionError(), SessionUnavailable("every node is down"), None])
def test_what_a_body_wrote_before_it_failed_is_not_stored(manager: SessionManager, error: Exception | None) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        session = environ[ENVIRON_KEY]
        session["before"] = True
        start_response("200 OK", [("Content-Type", "text/plain")])
        session["after"] = True
        yield b"..."
        if error is not None:
            raise error
        yield b"..."

    sent: list[list[tuple[str, str]]] = []
    environ: Any = {"REQUEST_METHOD": "POST", "PATH_INFO": "/"}

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        sent.append(headers)

    body = SessionMiddleware(app, manager)(environ, start_response)  # type: ignore[arg-type]
    chunks = iter(body)
    assert next(chunks) == b"..."
    if error is not None:  # else the client has gone
        with pytest.raises(type(error)):
            next(chunks)
    body.close()  # type: ignore[attr-defined]
    (cookie,) = [value.partition(";")[0].partition("=")[2] for name, value in sent[0] if name == "Set-Cookie"]
    loaded = manager.load(cookie)
    assert loaded is not None
    assert ("after" in loaded) == (error is None)


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
