"""What a response tells the client of its session, in headers; the same for every interface."""

from __future__ import annotations

from msm_fast.errors import CorruptRecord, LockTimeout, SessionUnavailable
from msm_fast.integrations.cookies import CookieSettings, vary_by_cookie
from msm_fast.logs import Log
from msm_fast.policies import SaveResult
from msm_fast.request_scope import RequestLife

__all__ = ["REFUSAL", "REFUSAL_HEADERS", "UNREACHABLE", "SessionHeaders", "cookie_value", "warn_if_untold"]

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


def warn_if_untold(value: str | None, known: str | None, result: SaveResult, log: Log) -> bool:
    """Warn if a save after the headers had left gave the session an id that the client was not told; return whether so.

    value: of `cookie_value`. known: what the client's cookie says since the headers have left.
    """
    if not value or value == known or result.status in ("unchanged", "invalidated"):
        return False
    log.warning("a session got its id after the headers had left; the client will not know it")
    return True


class SessionHeaders:
    """The headers of one response, and what the client knows of the session by them.

    presented: what the client sent as its cookie. is_https: as CookieSettings.header.
    """

    def __init__(self, scope: RequestLife, cookie: CookieSettings, presented: str | None, *, is_https: bool) -> None:
        self._scope = scope
        self._cookie = cookie
        self._presented = presented
        self._is_https = is_https
        self._known = presented
        """What the client's cookie says; or was to say, and a warning has told that it does not."""
        self.have_left = False
        """Whether the client can be told nothing more."""
        self.set_cookie: str | None = None
        """What Set-Cookie is to say, or has said; None: the client's cookie stays as it is."""

    def note_save(self, result: SaveResult, log: Log) -> None:
        """Take note of what a save did: the client is told by Set-Cookie, or if that has left log a warning, once."""
        if not self._scope.session.was_used:
            return
        value = cookie_value(self._scope, self._presented, result)
        if not self.have_left:
            self.set_cookie = self._cookie_of(value)
            if value is not None:
                self._known = value
        elif warn_if_untold(value, self._known, result, log):
            self._known = value

    def add_to(self, headers: list[tuple[str, str]]) -> None:
        """Add to the headers of a response that used its session what it needs."""
        if self.set_cookie is not None:
            headers.append(("Set-Cookie", self.set_cookie))
        vary_by_cookie(headers, sets_cookie=self.set_cookie is not None)

    def of_refusal(self) -> list[tuple[str, str]]:
        """Return the headers of an answer that the session is not available.

        They tell the client the id that the response would have, in whose place this is sent: its own may be dead.
        """
        headers = list(REFUSAL_HEADERS)
        if self.set_cookie is not None:
            self.add_to(headers)
        return headers

    def _cookie_of(self, value: str | None) -> str | None:
        if not value:
            return None if value is None else self._cookie.deletion(self._is_https)
        is_known = value == self._presented and not self._cookie.rolling
        return None if is_known else self._cookie.header(value, self._is_https)
