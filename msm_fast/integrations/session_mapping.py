"""The session as the applications of a framework see it: a dict, and what else they may ask of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from copy import deepcopy
from typing import Any, TypeVar

from msm_fast.session import Session

__all__ = ["SessionMapping"]

Self = TypeVar("Self", bound="SessionMapping")


class SessionMapping(MutableMapping[str, Any]):
    """A dict of the session's attributes that stores itself when the request ends.

    Changes inside values are noticed. `clear()` ends the session, as it does where the cookie holds it: its id is dead,
    and what is written afterwards begins a new session with a new id.

    Raises, from any first use: SessionUnavailable if no copy could be reached, CorruptRecord if none could be read,
        LockTimeout.
    """

    def __init__(self, session: Session) -> None:
        self.engine_session = session
        """The session behind it: its times and generation."""

    @property
    def id(self) -> str:
        """The id, as the cookie carries it. A secret: never log it."""
        return self.engine_session.id

    @property
    def is_new(self) -> bool:
        """Whether it was made in this request."""
        return self.engine_session.is_new

    @property
    def max_inactive(self) -> float | None:
        """After how many seconds without a request it expires; None: never. Can be set, per session."""
        return self.engine_session.max_inactive

    @max_inactive.setter
    def max_inactive(self, seconds: float | None) -> None:
        self.engine_session.max_inactive = seconds

    @property
    def absolute_lifetime(self) -> float | None:
        """After how many seconds since it was made it expires, used or not; None: never. Can be set, per session."""
        return self.engine_session.absolute_lifetime

    @absolute_lifetime.setter
    def absolute_lifetime(self, seconds: float | None) -> None:
        self.engine_session.absolute_lifetime = seconds

    def rotate_id(self) -> None:
        """Give it a new id and let the old one die; call it at login and at every change of privilege."""
        self.engine_session.rotate_id()

    def invalidate(self) -> None:
        """End it: what is written afterwards begins a new session."""
        self.engine_session.invalidate()

    # -- a dict

    def __getitem__(self, name: str) -> Any:
        return self.engine_session[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.engine_session[name] = value

    def __delitem__(self, name: str) -> None:
        del self.engine_session[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.engine_session)

    def __len__(self) -> int:
        return len(self.engine_session)

    def __contains__(self, name: object) -> bool:
        return name in self.engine_session

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of name, or default when there is none."""
        return self.engine_session.get(name, default)

    def clear(self) -> None:
        """End it, as `invalidate` does."""
        self.invalidate()

    def copy(self) -> dict[str, Any]:
        """Return its attributes as a dict."""
        return dict(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return deepcopy(dict(self), memo)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self}

    def __ior__(self: Self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:
        self.update(other)
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.engine_session!r}>"
