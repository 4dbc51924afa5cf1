"""One request's session, from its cookie to its save."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from msm_fast.engine.context import Context
from msm_fast.engine.locking import SessionLock, new_lock
from msm_fast.engine.request_rules import RequestRules
from msm_fast.policies import SaveResult
from msm_fast.session import Session, SessionState

if TYPE_CHECKING:
    from msm_fast.manager import SessionManager

__all__ = ["RequestScope", "TimeBudget"]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods whose requests are taken to read only (RFC 9110, 9.2.1). Those that write all the same may need one round
trip more."""


class TimeBudget:
    """What one request may still spend on sessions, in seconds."""

    __slots__ = ("left_s",)

    def __init__(self, left_s: float) -> None:
        self.left_s = left_s


class _Found(NamedTuple):
    """The session as it was when it was looked up, to tell later whether the request has changed it."""

    state: SessionState
    plain: str
    body: bytes
    max_inactive_s: int

    @classmethod
    def of(cls, state: SessionState) -> _Found:
        return cls(state, state.session_id.plain, state.body, state.max_inactive_s)


class RequestScope:
    """One request's session, from its cookie to its save.

    As a context manager it gives the session, and saves it when the block ends without an exception. An adapter that
    must save earlier, before the response's headers leave, calls `save` itself, and `close` however the request ends.
    With the first `save` the session's lock is let go: a response may stream for hours.

    is_ignored: settings.ignore_requests matches: nothing is stored, and the client's cookie must stay as it is.
    """

    __slots__ = (
        "_budget",
        "_cookie_value",
        "_ctx",
        "_found",
        "_lock",
        "_manager",
        "_name",
        "_rules",
        "is_ignored",
        "session",
    )

    def __init__(
        self,
        manager: SessionManager,
        ctx: Context,
        rules: RequestRules,
        cookie_value: str | None,
        method: str,
        uri: str,
    ) -> None:
        self._manager = manager
        self._ctx = ctx
        self._rules = rules
        self._cookie_value = cookie_value
        self._name = method.upper(), uri.partition("?")[0]
        self._budget = manager._new_budget()
        self._lock: SessionLock | None = None
        self._found: _Found | None = None
        self.is_ignored = rules.is_ignored(self._name[1])
        self.session = Session(find=self._find, mint=manager._new_state, presented=cookie_value)

    def save(self) -> SaveResult:
        """Store what changed; a session that the request never looked at costs nothing.

        Raises: SessionUnavailable, SerializationError, ConflictError.
        """
        if not self.session.was_used:
            return SaveResult("unchanged")
        state = self.session.state
        if self.is_ignored:
            self._tell_ignored_change(state)
            return SaveResult("unchanged")
        result = self._manager._save(state, self._budget, self._lock)
        if self._rules.learns:
            has_changed = result.status != "unchanged" and (self._found is None or _Found.of(state) != self._found)
            if has_changed or self._found is not None:
                self._rules.learn(*self._name, has_changed=has_changed)
        return result

    def close(self) -> None:
        """Let the session's lock go if it was not saved; may be called more than once."""
        lock, self._lock = self._lock, None
        if lock is not None:
            self._manager._release(lock, self._budget)

    def _find(self) -> SessionState | None:
        method, path = self._name
        if not self.is_ignored and self._rules.needs_lock(method, path):
            self._lock = new_lock(self._ctx)
        state = self._manager._find(self._cookie_value, method not in _SAFE_METHODS, self._budget, self._lock)
        self._found = None if state is None or not self._rules.learns else _Found.of(state)
        return state

    def _tell_ignored_change(self, state: SessionState) -> None:
        """Tell once that an ignored request writes to its session: most likely somebody expects it to be stored."""
        if self._rules.is_ignored_change_told or not (state.attributes.is_changed or state.is_ended):
            return
        self._rules.is_ignored_change_told = True
        self._ctx.tell(
            "ignored_change",
            f"{' '.join(self._name)} has changed its session, but settings.ignore_requests matches it: the change is "
            "not stored. This is told once",
        )

    def __enter__(self) -> Session:
        return self.session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.save()
        finally:
            self.close()
