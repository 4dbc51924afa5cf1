# cython: nonecheck=True
"""A session as one request sees it."""

from collections.abc import Mapping, MutableMapping

from msm_fast._core.state cimport SessionState

__all__ = ["Session"]

cdef object _MISSING = object()


cdef class Session:
    """A dict of the session's attributes, with what a request may ask of and do to the session itself.

    Keys are str. Changes, also inside nested values, are noticed without help and stored when the request ends. The
    session is looked up when it is first used; a request that never looks at it costs no round trip.

    find: looks it up, or gives None: there is none. mint: gives a new one. presented: what the client came with. state:
    where it was looked up already. was_used: whether this request has looked at the session at all (the response then
    varies by cookie).
    Raises, from any first use: SessionUnavailable if no copy could be reached, CorruptRecord if none could be read.
    Thread-safety: one request's own view, which its threads may share.
    """

    def __init__(self, find, mint, presented=None, SessionState state=None):
        self._find = find
        self._mint = mint
        self._presented = presented
        self._state = state
        self.was_used = state is not None

    @property
    def state(self):
        """The state behind it, looked up now if it was not before. For the engine and drivers."""
        return self._now()

    @property
    def is_at_hand(self):
        """Whether it was looked up, with success: using it waits for nothing."""
        return self._state is not None

    cdef SessionState _now(self):
        return self._look_up() if self._state is None else self._state

    cdef SessionState _look_up(self):
        self.was_used = True
        found = None if self._find is None else self._find()
        if found is None:
            found = self._mint()
        if self._state is None:  # else another thread of this request was first, and has perhaps changed it by now
            self._state = found
        self._find = None  # the scope's, which refers to this session: a cycle would be left to the garbage collector
        return self._state

    # -- what it is

    @property
    def id(self):
        """The id, as the cookie carries it. A secret: never log it."""
        return str(self._now().session_id)

    @property
    def id_changed(self):
        """Whether the client came with an id and must be given another."""
        return self._presented is not None and self._presented != self.id

    @property
    def is_new(self):
        """Whether it was made in this request."""
        return self._now().is_new

    @property
    def is_local(self):
        """Whether it is kept on this host only: no node is configured, none can be reached, or it cannot be stored."""
        return self._now().local_kind is not None

    @property
    def generation(self):
        """How often the session has been saved; 0 for a new one. It grows by more when the session moves."""
        cdef SessionState state = self._now()
        return state.local_generation or (state.stored.generation if state.stored else 0)

    @property
    def created_at(self):
        """When it was made, in seconds since the epoch."""
        return self._now().created_ms / 1000.0

    @property
    def accessed_at(self):
        """When it was last used before this request, in seconds since the epoch, to the second."""
        return self._now().accessed_ms / 1000.0

    @property
    def max_inactive(self):
        """After how many seconds without a request it expires; None: never. Can be set, per session."""
        return self._now().max_inactive_s or None

    @max_inactive.setter
    def max_inactive(self, seconds):
        cdef long whole = _whole_seconds("max_inactive", seconds)
        cdef SessionState state = self._now()
        if whole != state.max_inactive_s:
            state.max_inactive_s = whole
            _have_stored(state)

    @property
    def absolute_lifetime(self):
        """After how many seconds since it was made it expires, used or not; None: never. Can be set, per session."""
        return self._now().absolute_lifetime_s or None

    @absolute_lifetime.setter
    def absolute_lifetime(self, seconds):
        cdef long whole = _whole_seconds("absolute_lifetime", seconds)
        cdef SessionState state = self._now()
        if whole != state.absolute_lifetime_s:
            state.absolute_lifetime_s = whole
            _have_stored(state)

    def has_lifetimes(self, max_inactive, absolute_lifetime):
        """Whether it has these two already, in seconds, in which case they need not be set."""
        cdef SessionState state = self._now()
        return state.max_inactive_s == (max_inactive or 0) and state.absolute_lifetime_s == (absolute_lifetime or 0)

    # -- what may be done to it

    def store_anyway(self):
        """Have it stored when the request ends even if nothing was written to it."""
        self._now().must_store = True

    def invalidate(self):
        """End the session: its attributes are gone now, its copies when the request ends.

        What is written afterwards starts a new session with a new id.
        """
        cdef SessionState fresh = self._mint()
        cdef SessionState state = self._now()
        fresh.retired_max_inactive_s = state.longest_max_inactive_s()
        fresh.retired = _retire(state)
        fresh.is_ended = True
        self._state = fresh

    def rotate_id(self):
        """Give the session a new id and let the old one die; call it at login and at every change of privilege."""
        cdef SessionState fresh = self._mint()
        cdef SessionState found, state
        cdef tuple retired
        while True:
            found = state = self._now()
            retired = _retire(found)
            if not (found.is_live or found.is_being_saved):
                break
            # Requests that share it came with the old id and must not be given the new one. Nor must a save on its way.
            state = found.part_with()
            if self._state is found:  # else a thread has ended it, or given it a new id, while values were decoded
                break
        self._state = state
        state.retired_max_inactive_s = state.longest_max_inactive_s()
        state.retired = retired
        state.session_id = fresh.session_id
        state.rotated_from, state.stored = state.stored or state.rotated_from, None
        state.local_kind, state.local_generation, state.is_live = fresh.local_kind, 0, False
        state.must_store |= bool(state.retired)

    # -- its attributes

    def __getitem__(self, name):
        return self._now().attributes[name]

    def __setitem__(self, name, value):
        self._now().attributes[name] = value

    def get(self, name, default=None):
        """Return the value of name, or default when there is none."""
        return self._now().attributes.get(name, default)

    def __delitem__(self, name):
        del self._now().attributes[name]

    def __iter__(self):
        return iter(self._now().attributes)

    def __len__(self):
        return len(self._now().attributes)

    def __contains__(self, name):
        return name in self._now().attributes

    def pop(self, name, default=_MISSING):
        """Remove name and return its value, or default when there is none. Raises: KeyError when there is neither."""
        attributes = self._now().attributes
        return attributes.pop(name) if default is _MISSING else attributes.pop(name, default)

    def clear(self):
        """Remove every attribute; the session itself lives on."""
        self._now().attributes.clear()

    def __repr__(self):
        if self._state is None:
            return "<Session, not looked at>"
        return f"<Session generation {self.generation}, {len(self._state.attributes)} attributes>"

    # -- what every dict has

    update = MutableMapping.update
    popitem = MutableMapping.popitem
    setdefault = MutableMapping.setdefault
    keys = Mapping.keys
    items = Mapping.items
    values = Mapping.values

    def __eq__(self, other):
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.items()) == dict(other.items())


MutableMapping.register(Session)


cdef void _have_stored(SessionState state) noexcept:
    """Have a lifetime stored that was set, by the save after the one that is on its way, if one is."""
    state.must_store |= state.kept()
    state.must_store_again |= state.is_being_saved


cdef tuple _retire(SessionState state):
    """Return the ids whose copies go when a session is saved that is ended, or gets a new id."""
    if state.keeps_id or state.is_being_saved:
        return (*state.retired, state.session_id)
    return state.retired


cdef long _whole_seconds(str name, object seconds) except -1:
    """Return a lifetime as records have it: 0 for none. Raises: ValueError."""
    if seconds is None:
        return 0
    if not isinstance(seconds, (int, float)) or not 1 <= seconds < 2**32:
        raise ValueError(f"{name} is 1 to 2**32 - 1 seconds, or None: not {seconds!r}")
    return int(seconds)
