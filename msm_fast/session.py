"""A session as one request sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.session_id import SessionId

__all__ = ["ABSENT", "UNKNOWN", "LocalKind", "Session", "SessionState", "Stored"]

LocalKind = Literal["local", "provisional", "tagged", "ended"]
"""Why a session is kept in this process, or on this host, and not in the cluster.

local: the cluster could not be used when it was saved. provisional: it stands for one that cannot be reached, under the
same id, and never goes to the cluster. tagged: it holds what cannot be stored. ended: it was ended, and not every node
may know.
"""

ABSENT: Final = 0
"""Expected of a copy: there is none. (memcached counts CAS values from 1.)"""
UNKNOWN: Final = -1
"""Expected of a copy: nothing is known, ask first."""


@dataclass(slots=True)
class Stored:
    """What the store holds of a session, as far as this view of it knows.

    generation: grows with each save. lineage: the nonces of the write that this view is based on and of those before
    it, newest first; the copies of one write have one nonce. copies: per node id the version of its copy, or ABSENT; a
    node that is not there is UNKNOWN. body: the encoded attributes of that generation. corrupt: nodes whose copy nobody
    can read.
    """

    generation: int
    lineage: tuple[int, ...]
    copies: dict[str, int]
    body: bytes
    corrupt: frozenset[str] = frozenset()

    @property
    def nonce(self) -> int:
        """The nonce of the write that this view is based on."""
        return self.lineage[0]


class _WeaklyReferable:
    """A base for classes with slots; dataclasses make the slot themselves only from Python 3.11 on."""

    __slots__ = ("__weakref__",)


@dataclass(slots=True, eq=False)
class SessionState(_WeaklyReferable):
    """The session behind a `Session`: what the engine loads, changes and saves. Times are wall-clock milliseconds.

    Of a sticky session there is one in a worker, which all its requests share.
    """

    session_id: SessionId
    attributes: AttributeMap
    created_ms: int
    accessed_ms: int
    max_inactive_s: int
    absolute_lifetime_s: int
    stored: Stored | None = None
    """What the cluster holds; None for a session that was never there, or may be but cannot be reached."""
    body: bytes = b""
    """The encoded attributes as they were found, or last saved here or there."""
    local_kind: LocalKind | None = None
    """Why it is kept locally; None for a distributed session."""
    local_generation: int = 0
    """The generation of its record in the local store; 0: there is none."""
    must_store: bool = False
    """Save even if no attribute changed: the session moved, a copy is missing, a lifetime was set."""
    has_moved: bool = False
    """Its node could not be used: the next generation must beat any that the old node may still accept."""
    retired: tuple[SessionId, ...] = ()
    """Ids this session had before it was invalidated or got a new one; their copies go when it is saved."""
    is_new: bool = True
    """Made in this request, not loaded."""
    is_ended: bool = False
    """Invalidated, here or by another request, and nothing written since."""
    rotated_from: Stored | None = None
    """What was stored under the id before the new one, as far as it is known."""
    is_live: bool = False
    """Sticky: it lives in this worker, which has the last word on whether it exists."""
    was_ended: bool = False
    """Sticky: another request that shares it has ended it; nothing of it is stored any more."""
    used_at: float | None = None
    """Sticky: when its last request came, monotonic seconds."""
    touch_at: float = 0.0
    """Sticky: when the lives of its copies are to be extended next, monotonic seconds."""
    revision: int = 0
    """Sticky: grows with each change that is to be written."""
    written_revision: int = 0
    """Sticky: the revision that the cluster has."""
    turn: object = None
    """Sticky: whose turn it is to write; the next one waits for that."""
    own_nonces: frozenset[int] = frozenset()
    """Sticky: of writes whose outcome is not known."""
    unsettled: SessionState | None = None
    """Sticky: what such a write was to store. It is tried again, as it was, before anything newer."""
    merge_base: bytes | None = None
    """The encoded attributes that its own changes go back to, where the attributes themselves do not know."""
    epoch: int = 0
    """How often the distribution had been taken up again when it was found."""

    @property
    def is_kept(self) -> bool:
        """Whether there is a session of this id, stored in the cluster or kept here."""
        return self.stored is not None or self.is_live or self.local_generation > 0

    @property
    def may_need_saving(self) -> bool:
        """Whether there is something that a save would store; what is not kept may have it in vain."""
        return self.must_store or bool(self.retired) or self.attributes.is_changed


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
            state = self._state = _part_with(state)
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


def _part_with(state: SessionState) -> SessionState:
    """Return a state with the same attributes that is no other request's."""
    return replace(
        state,
        attributes=state.attributes.copy(),
        used_at=None,
        revision=0,
        written_revision=0,
        turn=None,
        own_nonces=frozenset(),
        unsettled=None,
    )


def _retire(state: SessionState) -> tuple[SessionId, ...]:
    is_known = state.is_kept or state.local_kind == "provisional"
    return (*state.retired, state.session_id) if is_known else state.retired
