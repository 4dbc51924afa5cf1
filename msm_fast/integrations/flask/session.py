"""The session as Flask and its applications know it."""

from __future__ import annotations

from typing import Any

from flask.sessions import SessionMixin

from msm_fast.integrations.session_mapping import SessionMapping
from msm_fast.policies import SaveResult
from msm_fast.request_scope import RequestScope
from msm_fast.session import Session

__all__ = ["FlaskSession"]

_PERMANENT = "_permanent"


class FlaskSession(SessionMapping, SessionMixin):
    """A dict of the session's attributes, with what Flask asks of a session.

    scope: the request's. presented: what the client sent as its cookie.
    """

    def __init__(self, scope: RequestScope, presented: str | None) -> None:
        super().__init__(scope.session)
        self.scope = scope
        self.presented = presented
        self._was_modified = False
        self.has_new_lifetime = False
        """Whether this request has made it permanent, or no longer so."""
        self.is_given_up = False
        """Whether the request was told that it is not available, and goes on without it."""
        self.unanswered: BaseException | None = None
        """The error that told so, if no error handler has answered it."""

    @property
    def is_refused(self) -> bool:
        """Whether it was looked up in vain."""
        return self.scope.is_refused and not self.engine_session.is_at_hand

    def give_up(self, stand_in: Session, unanswered: BaseException | None = None) -> None:
        """Be stand_in from now on, which is not stored: what answers the request may look at it without an error."""
        self.engine_session = stand_in
        self.is_given_up = True
        self.unanswered = unanswered

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether it was made in this request."""
        return self.is_new

    @property
    def modified(self) -> bool:
        """Whether this request has changed it, inside its values too. May be set, and need not be."""
        session = self.engine_session
        return self._was_modified or (session.is_at_hand and session.state.attributes.is_changed)

    @modified.setter
    def modified(self, value: bool) -> None:
        self._was_modified = value

    @property
    def permanent(self) -> bool:
        """Whether it outlives the browser, for PERMANENT_SESSION_LIFETIME after its last request."""
        return bool(self.get(_PERMANENT, False))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        if bool(value) != self.permanent:
            self[_PERMANENT] = bool(value)

    def __setitem__(self, name: str, value: Any) -> None:
        if name == _PERMANENT:
            self.has_new_lifetime |= bool(value) != self.permanent
        self.engine_session[name] = value

    def __delitem__(self, name: str) -> None:
        if name == _PERMANENT:
            self.has_new_lifetime |= self.permanent
        del self.engine_session[name]

    def invalidate(self) -> None:
        """End it: what is written afterwards begins a new session."""
        self._was_modified |= len(self) > 0
        super().invalidate()

    def save(self, permanent_lifetime_s: float, lifetime_s: float | None) -> SaveResult:
        """Store what changed. permanent_lifetime_s, lifetime_s: how long it lives unused, if it is permanent or not."""
        session = self.engine_session
        if not session.is_at_hand:
            return self.scope.save()
        if self.permanent:
            session.max_inactive = permanent_lifetime_s
        elif self.has_new_lifetime:
            session.max_inactive = lifetime_s
        state = session.state
        self._was_modified |= not state.attributes and state.attributes.is_changed  # what it held is gone with the save
        before = state.body
        result = self.scope.save()
        self._was_modified |= session.state.body is not before
        return result
