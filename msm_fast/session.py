"""A session as one request sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Literal

from msm_fast._core.session_id import SessionId
from msm_fast._core.state import ABSENT, UNKNOWN, SessionState, Stored

__all__ = ["ABSENT", "UNKNOWN", "LocalKind", "Session", "SessionState", "Stored"]

LocalKind = Literal["local", "provisional", "tagged", "ended"]
"""Why a session is kept in this process, or on this host, and not in the cluster.

local: the cluster could not be used when it was saved. provisional: it stands for one that cannot be reached, under the
same id, and never goes to the cluster. tagged: it holds what cannot be stored. ended: it was ended, and not every node
may know.
"""

class Session(MutableMapping[str, Any]):
    """A dict of the session's attributes, with what a request may ask of and do to the session itself.

    Keys are str. Changes, also inside nested values, are noticed without help and stored when the request ends. The
    session is looked up when it is first used; a request that never looks at it costs no round trip.

    Raises, from any first use: SessionUnavailable if no copy could be reached, CorruptRecord if none could be read.
    Thread-safety: one request's own view; not to be shared by threads.
    """

    __slots__ = ("_find", "_mint", "_presented", "_state", "was_used")

    def __init__(
        self,
        find: Callable[[], SessionState | None] | None,
        mint: Callable[[], SessionState],
        presented: str | None = None,
        state: SessionState | None = None,
    ) -> None:
        self._find = find
        self._mint = mint
        self._presented = presented
        self._state = state
        self.was_used = state is not None
        """Whether this request has looked at the session at all (the response then varies by cookie)."""

    @property
    def state(self) -> SessionState:
        """The state behind it, looked up now if it was not before. For the engine and drivers."""
        return self._state or self._look_up()

    @property
    def is_at_hand(self) -> bool:
        """Whether it was looked up, with success: using it waits for nothing."""
        return self._state is not None

    def _look_up(self) -> SessionState:
        self.was_used = True
        self._state = (self._find and self._find()) or self._mint()
        self._find = None  # the scope's, which refers to this session: a cycle would be left to the garbage collector
        return self._state

    # -- what it is

    @property
    def id(self) -> str:
        """The id, as the cookie carries it. A secret: never log it."""
        return str(self.state.session_id)

    @property
    def id_changed(self) -> bool:
        """Whether the client came with an id and must be given another."""
        return self._presented is not None and self._presented != self.id

    @property
    def is_new(self) -> bool:
        """Whether it was made in this request."""
        return self.state.is_new

    @property
    def is_local(self) -> bool:
        """Whether it is kept on this host only: no node is configured, none can be reached, or it cannot be stored."""
        return self.state.local_kind is not None

    @property
    def generation(self) -> int:
        """How often the session has been saved; 0 for a new one. It grows by more when the session moves."""
        state = self.state
        return state.local_generation or (state.stored.generation if state.stored else 0)

    @property
    def created_at(self) -> float:
        """When it was made, in seconds since the epoch."""
        return self.state.created_ms / 1000

    @property
    def accessed_at(self) -> float:
        """When it was last used before this request, in seconds since the epoch, to the second."""
        return self.state.accessed_ms / 1000

    @property
    def max_inactive(self) -> float | None:
        """After how many seconds without a request it expires; None: never. Can be set, per session."""
        return self.state.max_inactive_s or None

    @max_inactive.setter
    def max_inactive(self, seconds: float | None) -> None:
        if seconds is not None and not 1 <= seconds < 2**32:
            raise ValueError(f"max_inactive is 1 second or more, or None: not {seconds!r}")
        whole = 0 if seconds is None else int(seconds)
        state = self.state
        if whole != state.max_inactive_s:
            state.must_store |= state.is_kept
            state.max_inactive_s = whole

    @property
    def absolute_lifetime(self) -> float | None:
        """After how many seconds since it was made it expires, used or not; None: never. Can be set, per session."""
        return self.state.absolute_lifetime_s or None

    @absolute_lifetime.setter
    def absolute_lifetime(self, seconds: float | None) -> None:
        if seconds is not None and not 1 <= seconds < 2**32:
            raise ValueError(f"absolute_lifetime is 1 second or more, or None: not {seconds!r}")
        whole = 0 if seconds is None else int(seconds)
        state = self.state
        if whole != state.absolute_lifetime_s:
            state.must_store |= state.is_kept
            state.absolute_lifetime_s = whole

    def has_lives(self, max_inactive: float | None, absolute_lifetime: float | None) -> bool:
        """Whether it has these two already, in seconds, in which case they need not be set."""
        state = self.state
        return state.max_inactive_s == (max_inactive or 0) and state.absolute_lifetime_s == (absolute_lifetime or 0)

    # -- what may be done to it

    def store_anyway(self) -> None:
        """Have it stored when the request ends even if nothing was written to it."""
        self.state.must_store = True

    def invalidate(self) -> None:
        """End the session: its attributes are gone now, its copies when the request ends.

        What is written afterwards starts a new session with a new id.
        """
        state = self.state
        fresh = self._mint()
        fresh.retired = _retire(state)
        fresh.is_ended = True
        self._state = fresh

    def rotate_id(self) -> None:
        """Give the session a new id and let the old one die; call it at login and at every change of privilege."""
        state = self.state
        fresh = self._mint()
        if state.is_live:  # requests that share it must not be given the new id: they came with the old one
            state = self._state = state.part_with()
        state.retired = _retire(state)
        state.session_id = fresh.session_id
        state.rotated_from, state.stored = state.stored or state.rotated_from, None
        state.local_kind, state.local_generation, state.is_live = fresh.local_kind, 0, False
        state.must_store |= bool(state.retired)

    # -- its attributes

    def __getitem__(self, name: str) -> Any:
        return (self._state or self._look_up()).attributes[name]

    def __setitem__(self, name: str, value: Any) -> None:
        (self._state or self._look_up()).attributes[name] = value

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of name, or default when there is none."""
        return (self._state or self._look_up()).attributes.get(name, default)

    def __delitem__(self, name: str) -> None:
        del self.state.attributes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.state.attributes)

    def __len__(self) -> int:
        return len(self.state.attributes)

    def __contains__(self, name: object) -> bool:
        return name in self.state.attributes

    def clear(self) -> None:
        """Remove every attribute; the session itself lives on."""
        self.state.attributes.clear()

    def __repr__(self) -> str:
        if self._state is None:
            return "<Session, not looked at>"
        return f"<Session generation {self.generation}, {len(self._state.attributes)} attributes>"


def _retire(state: SessionState) -> tuple[SessionId, ...]:
    is_known = state.is_kept or state.local_kind == "provisional"
    return (*state.retired, state.session_id) if is_known else state.retired
