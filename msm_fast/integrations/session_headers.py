"""What a response tells the client of its session, in headers; the same for every interface."""

from __future__ import annotations

from msm_fast.errors import CorruptRecord, LockTimeout, SessionUnavailable
from msm_fast.integrations.cookies import CookieSettings, vary_by_cookie
from msm_fast.logs import Log
from msm_fast.policies import SaveResult
from msm_fast.request_scope import RequestLife

__all__ = ["REFUSAL", "REFUSAL_HEADERS", "UNREACHABLE", "SessionHeaders", "add_session", "cookie_value"]

UNREACHABLE = (SessionUnavailable, CorruptRecord, LockTimeout)
"""Errors after which the session may well exist: the answer is 503, and the client keeps its cookie and comes again."""

REFUSAL = b"Your session is not available at the moment. Please try again.\n"
"""The body of such an answer."""

REFUSAL_HEADERS = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Length", str(len(REFUSAL))),
    ("Retry-After", "1"),
    ("Cache-Control", "no-store"),
)


def cookie_value(scope: RequestLife, presented: str | None, result: SaveResult) -> str | None:
    """Return what the client's cookie should say after a save: an id, "" for no cookie, None to leave it alone.

    It says the id of a session that is stored, and is taken away only when this very request ended the session: if
    another one did, that one has told the client. presented: what it says now. result: of the save.
    """
    if scope.is_ignored:
        return None
    state = scope.session.state
    if state.is_kept and result.status != "invalidated":
        return str(state.session_id)
    return "" if state.is_ended and presented else None


class SessionHeaders:
    """The headers of one response.

    presented: what the client sent as its cookie. is_https: as CookieSettings.header.
    """

    def __init__(self, scope: RequestLife, cookie: CookieSettings, presented: str | None, *, is_https: bool) -> None:
        self._scope = scope
        self._cookie = cookie
        self._presented = presented
        self._is_https = is_https
        self._known = presented
        """What the client's cookie says; or was to say, and a warning has told that it does not."""
        self.sent: str | None = None
        """What Set-Cookie said when it was last asked for; to be said again where other headers take their place."""

    def cookie_to_set(self, result: SaveResult) -> str | None:
        """Return what Set-Cookie says after the save that gave result, or None: the client's cookie stays as it is.

        It is taken as sent.
        """
        value = cookie_value(self._scope, self._presented, result)
        self.sent = self._cookie_of(value)
        if value is not None:
            self._known = value
        return self.sent

    def of_refusal(self) -> list[tuple[str, str]]:
        """Return the headers of an answer that the session is not available.

        They tell the client the id that the response would have, in whose place this is sent: its own may be dead.
        """
        headers = list(REFUSAL_HEADERS)
        if self.sent is not None:
            add_session(headers, self.sent)
        return headers

    def note_late_save(self, result: SaveResult, log: Log) -> None:
        """Warn once if a save after the headers had left gave the session an id that the client was not told."""
        if result.status in ("unchanged", "invalidated"):
            return
        value = cookie_value(self._scope, self._presented, result)
        if value and value != self._known:
            self._known = value
            log.warning("a session got its id after the headers had left; the client will not know it")

    def _cookie_of(self, value: str | None) -> str | None:
        if not value:
            return None if value is None else self._cookie.deletion(self._is_https)
        is_known = value == self._presented and not self._cookie.rolling
        return None if is_known else self._cookie.header(value, self._is_https)


def add_session(headers: list[tuple[str, str]], set_cookie: str | None) -> None:
    """Add to the headers of a response that used its session what it needs. set_cookie: of `cookie_to_set`."""
    if set_cookie is not None:
        headers.append(("Set-Cookie", set_cookie))
    vary_by_cookie(headers, sets_cookie=set_cookie is not None)
