"""The session as Flask and its applications know it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from flask.sessions import SessionMixin

from msm_fast.policies import SaveResult
from msm_fast.request_scope import RequestScope
from msm_fast.session import Session

__all__ = ["FlaskSession"]

_PERMANENT = "_permanent"


class FlaskSession(SessionMixin):
    """A dict of the session's attributes that stores itself when the request ends.

    Changes inside values are noticed: `modified` need not be set. `clear()` ends the session, as applications mean it
    at logout: its id is dead, and what is written afterwards begins a new session with a new id.
    """

    def __init__(self, scope: RequestScope, presented: str | None) -> None:
        self.presented: Final = presented
        """What the client sent as its cookie."""
        self._scope = scope
        self._session = scope.session
        self._was_modified = False
        self.has_new_lifetime = False
        """Whether this request has made it permanent, or no longer so."""

    # -- what it is

    @property
    def scope(self) -> RequestScope:
        """The request's scope, for the session interface."""
        return self._scope

    @property
    def engine_session(self) -> Session:
        """The session behind it: its id, times, generation and lifetime."""
        return self._session

    @property
    def id(self) -> str:
        """The id, as the cookie carries it. A secret: never log it."""
        return self._session.id

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether it was made in this request."""
        return self._session.is_new

    @property
    def modified(self) -> bool:
        """Whether this request has changed it, inside its values too. May be set, and need not be."""
        return self._was_modified or (self._session.is_at_hand and self._session.state.attributes.is_changed)

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
            self.has_new_lifetime = True

    # -- what may be done to it

    def rotate_id(self) -> None:
        """Give it a new id and let the old one die; call it at login, unless Flask-Login does."""
        self._session.rotate_id()

    def invalidate(self) -> None:
        """End it: what is written afterwards begins a new session."""
        self._was_modified |= len(self._session) > 0
        self._session.invalidate()

    def save(self, permanent_lifetime_s: float, lifetime_s: float | None) -> SaveResult:
        """Store what changed. permanent_lifetime_s, lifetime_s: how long it lives unused, if it is permanent or not."""
        self._was_modified = self.modified
        if self._session.is_at_hand:
            if self.permanent:
                self._session.max_inactive = permanent_lifetime_s
            elif self.has_new_lifetime:
                self._session.max_inactive = lifetime_s
        return self._scope.save()

    # -- its attributes

    def __getitem__(self, name: str) -> Any:
        return self._session[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._session[name] = value

    def __delitem__(self, name: str) -> None:
        del self._session[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._session)

    def __len__(self) -> int:
        return len(self._session)

    def __contains__(self, name: object) -> bool:
        return name in self._session

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of name, or default when there is none."""
        return self._session.get(name, default)

    def clear(self) -> None:
        """End it, as `invalidate` does."""
        self.invalidate()

    def copy(self) -> dict[str, Any]:
        """Return its attributes as a dict."""
        return dict(self)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self}

    def __ior__(self, other: Mapping[str, Any]) -> FlaskSession:
        self.update(other)
        return self

    def __repr__(self) -> str:
        return f"<FlaskSession {self._session!r}>"
