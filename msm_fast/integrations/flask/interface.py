"""Flask's session interface: where a request's session comes from, and what its response says of it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from http import HTTPStatus
from typing import Any

from flask import Flask, Request, Response, after_this_request, has_request_context
from flask.ctx import RequestContext
from flask.globals import request_ctx
from flask.sessions import SecureCookieSession, SessionInterface, SessionMixin, session_json_serializer

from msm_fast.errors import MsmError
from msm_fast.integrations.cookies import never_stored, read_cookie, varied_by_cookie
from msm_fast.integrations.flask.session import FlaskSession
from msm_fast.integrations.session_headers import (
    REFUSAL,
    REFUSAL_HEADERS,
    UNREACHABLE,
    cookie_value,
    warn_if_untold,
)
from msm_fast.logs import Log
from msm_fast.manager import SessionManager
from msm_fast.policies import SaveResult

__all__ = ["MsmSessionInterface", "close_session", "leave_websocket_unlocked", "note_unanswered", "refusal"]

_log = Log("msm_fast.flask")
_ATTRIBUTE = "msm_fast_session"
"""Of a request's context: what was opened in it, and ends with it. Copies of the context are made without."""
_LONGEST_LIFETIME_S = 2**32 - 1


class MsmSessionInterface(SessionInterface):
    """Opens and saves sessions by a manager; the cookie is as the application's SESSION_COOKIE_… settings say.

    A session is looked up when it is first used, and stored after all `after_request` functions, before the headers
    leave. What a streaming body writes later is stored when the body ends, but can no longer set a cookie.

    Thread-safety: shared by all threads of a server.
    """

    serializer = session_json_serializer
    """What stores values that only Flask knows: `app.session_interface.serializer.register(…)` adds a tag."""

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager

    def open_session(self, app: Flask, request: Request) -> FlaskSession:
        """Return the request's session, which is not looked up yet."""
        path = request.root_path + request.path
        presented = read_cookie(request.environ.get("HTTP_COOKIE", ""), self.get_cookie_name(app))
        session = FlaskSession(self.manager.request(presented, request.method, path), presented)
        if has_request_context():
            setattr(_context(), _ATTRIBUTE, session)
            after_this_request(partial(self._give_up_if_refused, session))
        return session

    def _give_up_if_refused(self, session: FlaskSession, response: Response) -> Response:
        """Let no `after_request` function fail for what the application was told of already.

        This is the first of them. Flask-Login's looks at the session of each request.
        """
        if session.is_refused:
            session.give_up(self.manager.create())
        return response

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Store the session, and tell the client in response what it must know."""
        if not isinstance(session, FlaskSession):
            return  # it could not be opened, and the response says so
        if session.is_given_up:
            _answer_without(session, response)
            return
        told = None
        if not session.engine_session.was_used:
            self._refresh_unused(app, session, response)
        elif session.engine_session.is_at_hand:
            told = self._save_used(app, session, response)
        if response.is_streamed:
            response.call_on_close(self._late_save(app, session, told))
        if session.accessed or session.engine_session.was_used:
            _vary(response, sets_cookie=False)

    def _save_used(self, app: Flask, session: FlaskSession, response: Response) -> str | None:
        """Save a session that was found, and return what the client's cookie should say, as `cookie_value` does."""
        try:
            result = self._save(app, session)
        except UNREACHABLE as error:
            _refuse(response, error)
            return None
        value = cookie_value(session.scope, session.presented, result)
        if value and _was_emptied(session):
            value = ""
        if value == "":
            self._delete_cookie(app, response)
        elif value is not None and (value != session.presented or self._must_repeat(app, session, response, result)):
            self._set_cookie(app, session, value, response)
        return value

    def _save(self, app: Flask, session: FlaskSession) -> SaveResult:
        permanent_s = min(max(app.permanent_session_lifetime.total_seconds(), 1), _LONGEST_LIFETIME_S)
        return session.save(permanent_s, self.manager.settings.max_inactive)

    def _must_repeat(self, app: Flask, session: FlaskSession, response: Response, result: SaveResult) -> bool:
        """Whether the client must be sent the cookie that it has.

        Its expiry has changed, or is to slide; or another request has changed the session at the same time, and may
        have emptied it and taken the cookie away.
        """
        if session.has_new_lifetime or result.status == "merged":
            return True
        if not (session.permanent and self.should_set_cookie(app, session)):
            return False
        return session.modified or not _is_for_caches(response)

    def _late_save(self, app: Flask, session: FlaskSession, told: str | None) -> Callable[[], None]:
        """Return what stores what a body has written while it was sent.

        To encode a value may take the request, as of a translation, or the application's own JSON. Both are over when
        the body is, but in this copy of their variables.
        """

        def save() -> None:
            if not session.engine_session.is_at_hand:
                return
            result = self._save(app, session)
            value = cookie_value(session.scope, session.presented, result)
            warn_if_untold(value, session.presented if told is None else told, result, _log)

        return partial(copy_context().run, save)

    def _refresh_unused(self, app: Flask, session: FlaskSession, response: Response) -> None:
        """Let the expiry of a permanent session slide although nobody has looked at it, as Flask does."""
        presented = session.presented
        if not presented or not app.config["SESSION_REFRESH_EACH_REQUEST"] or session.scope.is_ignored:
            return
        if _is_for_caches(response):
            return
        try:
            found = self.manager.load(presented)
        except MsmError:
            return  # nobody has asked for it
        if found is not None and found.id == presented:
            attributes = SecureCookieSession({"_permanent": found.get("_permanent", False)})
            if self.should_set_cookie(app, attributes):
                self._set_cookie(app, attributes, presented, response)

    # -- the cookie

    def _set_cookie(self, app: Flask, session: SessionMixin, value: str, response: Response) -> None:
        expires = self.get_expiration_time(app, session)
        response.set_cookie(self.get_cookie_name(app), value, expires=expires, **self._attributes(app))
        _vary(response, sets_cookie=True)

    def _delete_cookie(self, app: Flask, response: Response) -> None:
        response.delete_cookie(self.get_cookie_name(app), **self._attributes(app))
        _vary(response, sets_cookie=True)

    def _attributes(self, app: Flask) -> dict[str, Any]:
        return {
            "httponly": self.get_cookie_httponly(app),
            "domain": self.get_cookie_domain(app),
            "path": self.get_cookie_path(app),
            "secure": self.get_cookie_secure(app),
            "partitioned": self.get_cookie_partitioned(app),
            "samesite": self.get_cookie_samesite(app),
        }


def close_session(error: BaseException | None = None) -> None:
    """Let the lock of the request's session go, if that was not saved, as the request's context ends.

    A copy of the context, such as a thread works in, is not the request's: it may end first.
    """
    session = vars(_context()).pop(_ATTRIBUTE, None)
    if session is not None:
        session.scope.close()


def leave_websocket_unlocked(app: Flask, **_: object) -> None:
    """Take no lock for a websocket, as of Flask-Sock: its view goes on for as long as its client stays.

    What the client says it wants is not enough, or it could have any request go without: the view's route counts.
    """
    context = _context()
    session = getattr(context, _ATTRIBUTE, None)
    rule = context.request.url_rule
    if session is not None and rule is not None and rule.websocket:
        session.scope.close()


def _context() -> RequestContext:
    context: RequestContext = request_ctx._get_current_object()  # type: ignore[attr-defined]
    return context


def note_unanswered(app: Flask, exception: BaseException, **_: object) -> None:
    """Take note of an error that no error handler is asked for, so that `save_session` answers it.

    Flask asks for none when an `after_request` function or an error handler has raised it.
    """
    session = getattr(_context(), _ATTRIBUTE, None)
    if isinstance(exception, UNREACHABLE) and session is not None:
        session.give_up(app.extensions["msm_fast"].create(), exception)


def _answer_without(session: FlaskSession, response: Response) -> None:
    """Leave response as the application has made it of the refusal, or refuse the request if it has not."""
    if session.unanswered is not None and response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
        _refuse(response, session.unanswered)
    _vary(response, sets_cookie=False)


def refusal(error: BaseException) -> Response:
    """Return the answer to a request whose session may well exist but is not available."""
    _log.error("a request was refused: %s", error)
    return Response(REFUSAL, 503, REFUSAL_HEADERS)


def _refuse(response: Response, error: BaseException) -> None:
    """Make response that answer, at a time when no other can be given."""
    refused = refusal(error)
    close = getattr(response.response, "close", None)
    if close is not None:
        response.call_on_close(close)
    response.direct_passthrough = False
    response.status_code, response.response = refused.status_code, refused.response
    response.headers = refused.headers


def _was_emptied(session: FlaskSession) -> bool:
    """Whether this request has removed the last attribute; Flask takes the cookie away then.

    What stands for a session that cannot be reached is empty, but nobody knows what that one holds.
    """
    return not session and session.modified and session.engine_session.state.local_kind != "provisional"


def _is_for_caches(response: Response) -> bool:
    """Whether caches may hand response out for a while, from which a cookie in it would keep them.

    Assets are such: that an expiry slides is not worth their being sent again with each page.
    """
    values = response.headers.getlist("Cache-Control")
    if not values or never_stored(values) is None:
        return False
    control = response.cache_control
    return bool(control.public) or (control.max_age or 0) > 0 or (control.s_maxage or 0) > 0


def _vary(response: Response, *, sets_cookie: bool) -> None:
    """Do as `vary_by_cookie`, without a copy of the headers."""
    headers = response.headers
    vary = varied_by_cookie(headers.getlist("Vary"))
    if vary is not None:
        headers["Vary"] = vary
    if sets_cookie and (control := never_stored(headers.getlist("Cache-Control"))) is not None:
        headers["Cache-Control"] = control
