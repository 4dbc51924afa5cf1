"""Sessions for any WSGI application (PEP 3333)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from inspect import iscoroutinefunction
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from msm_fast.errors import ConfigurationError
from msm_fast.integrations.cookies import CookieSettings, read_cookie
from msm_fast.integrations.session_headers import REFUSAL, UNREACHABLE, SessionHeaders
from msm_fast.manager import RequestScope, SessionManager

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

from msm_fast.logs import Log

__all__ = ["ENVIRON_KEY", "SessionMiddleware"]

ENVIRON_KEY = "msm_fast.session"
_log = Log("msm_fast.wsgi")
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class SessionMiddleware:
    """Gives app its session in environ["msm_fast.session"], a dict that stores itself.

    The session is stored when app calls start_response, so before the first byte leaves: a client that follows a
    redirect at once finds what was written. What a streaming body writes later is stored when the body ends, but can no
    longer set a cookie. A request that the app ends with an exception stores nothing more.

    When no copy of a session can be reached, or its lock cannot be had in time, the answer is 503 with Retry-After, and
    the cookie stays as it is.

    cookie: name and attributes of the cookie.
    Raises: ConfigurationError.
    Thread-safety: shared by all threads of a server.
    """

    def __init__(self, app: WSGIApplication, manager: SessionManager, cookie: CookieSettings | None = None) -> None:
        if not callable(getattr(manager, "request", None)) or iscoroutinefunction(getattr(manager, "save", None)):
            raise ConfigurationError("manager", type(manager), "a SessionManager(…)")
        if not isinstance(cookie, CookieSettings | None):
            raise ConfigurationError("cookie", cookie, "a CookieSettings(…)")
        self._app = app
        self._manager = manager
        self._cookie = cookie or CookieSettings()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        presented = read_cookie(environ.get("HTTP_COOKIE", ""), self._cookie.name)
        uri = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if not uri.isascii():
            uri = uri.encode("latin-1", "replace").decode("utf-8", "replace")  # PEP 3333 has bytes as latin-1
        scope = self._manager.request(presented, environ["REQUEST_METHOD"], uri)
        is_https = environ.get("wsgi.url_scheme") == "https"
        response = _Response(scope, SessionHeaders(scope, self._cookie, presented, is_https=is_https), start_response)
        environ[ENVIRON_KEY] = scope.session
        try:
            body = self._app(environ, response.start)
            if not isinstance(body, (list, tuple)):
                response.stream()
                return _Body(body, response)
            response.check_begun()
            response.end()
        except UNREACHABLE as error:
            body = response.refuse(error)
        except BaseException:
            scope.close()
            raise
        scope.close()
        return body


class _Response:
    """One response on its way out."""

    def __init__(self, scope: RequestScope, session_headers: SessionHeaders, start_response: StartResponse) -> None:
        self._scope = scope
        self.session_headers = session_headers
        self._start_response = start_response
        self._is_streamed = False
        self._obstacle: BaseException | None = None

    def stream(self) -> None:
        """Have no lock from when the headers have left: the body is made while it is sent, perhaps for hours."""
        self._is_streamed = True
        if self.session_headers.have_left:
            self._scope.close()

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """Store the session, then pass the response on with what it needs of headers.

        An error page that takes the place of a response tells the client what that would have told of the session.
        """
        headers = list(headers)
        if not self.session_headers.have_left:
            try:
                self.session_headers.note_save(self._scope.save(), _log)
            except UNREACHABLE as error:
                self._obstacle = error
                raise
            self.session_headers.have_left = True
            if self._is_streamed:
                self._scope.close()
        if self._scope.session.was_used:
            self.session_headers.add_to(headers)
        return self._pass_on(status, headers, exc_info)

    def check_begun(self) -> None:
        """Raise what kept app from starting the response, if it made nothing of that: Werkzeug's debugger does so."""
        if self._obstacle is not None and not self.session_headers.have_left:
            raise self._obstacle

    def end(self) -> None:
        """Store what the app wrote after it had started the response."""
        session = self._scope.session
        if self.session_headers.have_left and session.was_used and session.state.may_need_saving:
            self.session_headers.note_save(self._scope.save(), _log)

    def close(self) -> None:
        """End the request, however it went."""
        self._scope.close()

    def refuse(self, error: BaseException) -> Iterable[bytes]:
        """Answer 503: the session may well exist, so the client keeps its cookie and comes again."""
        _log.error("a request was refused: %s", error)
        exc_info = sys.exc_info() if self.session_headers.have_left else None
        self._pass_on("503 Service Unavailable", self.session_headers.of_refusal(), exc_info)
        return [REFUSAL]

    def _pass_on(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None
    ) -> Callable[[bytes], object]:
        start = cast("Callable[..., Callable[[bytes], object]]", self._start_response)
        return start(status, headers, exc_info) if exc_info else start(status, headers)


class _Body:
    """A body that is made while it is sent, with the session's last word at its end."""

    def __init__(self, body: Iterable[bytes], response: _Response) -> None:
        self._body = body
        self._response = response
        self._has_failed = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._body:  # noqa: UP028 - who stops early has `yield from` close the app's body, and `close` again
                yield part
            self._response.check_begun()
        except GeneratorExit:  # the client has gone
            raise
        except BaseException as error:
            self._has_failed = True
            if self._response.session_headers.have_left or not isinstance(error, UNREACHABLE):
                raise
            yield from self._response.refuse(error)

    def close(self) -> None:
        """Close the app's body, then store what it wrote to the session, unless it failed."""
        close: Any = getattr(self._body, "close", None)
        try:
            if close is not None:
                close()
            if not self._has_failed:
                self._response.end()
        finally:
            self._response.close()
