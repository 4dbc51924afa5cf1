# cython: nonecheck=True
"""What every request needs of its manager's context: keys, counts, what was seen of sessions, and time.

Compiled, since each request comes here a dozen times.
"""

cimport cython

from msm_fast._core cimport wire
from msm_fast._core.counts cimport Counts
from msm_fast._core.session_id cimport StorageKeys
from msm_fast._core.state cimport NearCopy, SessionState

from struct import iter_unpack

from msm_fast._core.near_cache import NearCache

__all__ = ["Essentials"]

cdef enum:
    TTL_MARGIN_S = 2                        # memcached dates items by a count of seconds that may be one old, and leaps
    TOMBSTONE_LONGEST_S = 30 * 24 * 3600    # of a session that never expires
    UNLIMITED_CHECK_S = 3 * 3600            # how long copies of such a session are taken to be in step
    NONCES_AT_ONCE = 64


@cython.final
cdef class Essentials:
    """The part of a `Context` that the usual way of a request goes through.

    settings: a Settings. clock: a Clock. counters: what to count by. rng: as for Context.
    Thread-safety: shared by all flows.
    """

    def __init__(self, settings, clock, Counts counters not None, rng):
        self.clock = clock
        self.rng = rng
        self.counters = counters
        self.storage_keys = StorageKeys(settings.key_prefix, settings.hash_ids)
        self.storage_key = getattr(self.storage_keys, "of")
        self.default_max_inactive_s = int(settings.max_inactive or 0)
        self._monotonic = clock.monotonic
        self._wall = clock.wall
        bounds = settings.near_cache
        self._near = NearCache(bounds.max_sessions, max_bytes=bounds.max_bytes, clock=clock.monotonic)
        self._nonces = []

    # -- what was seen of sessions

    cpdef NearCopy near_copy(self, bytes key):
        """Return what this process last saw of the session in the cluster, unless it must have expired since."""
        return self._near.get(key)

    cpdef int keep_near(self, bytes key, NearCopy near, bytes body) except -1:
        """Keep what was seen of a session for as long as it lives unused.

        body: its encoded attributes, which may be larger than the record that has them compressed.
        """
        self._near.put(key, near, max(near.size, len(body)), near.max_inactive_s if near.max_inactive_s else None)
        return 0

    @property
    def near_bytes(self):
        """How many bytes of records are kept near."""
        return self._near.nbytes

    cpdef bint must_ask_backups(self, NearCopy near) except -1:
        """Whether the backups' turn to be asked has come: when a tenth of the session's lifetime has gone."""
        if near is None:
            return True
        cdef double interval_s = near.max_inactive_s / 10.0 if near.max_inactive_s else UNLIMITED_CHECK_S
        return <double>self._monotonic() - near.asked_at >= interval_s

    def forget(self, bytes key not None):
        """Drop what was seen of the session."""
        self._near.pop(key)

    def forget_all(self):
        """Drop what was seen of any session."""
        self._near.clear()

    def see_as(self, Essentials other not None):
        """Have what other has seen of sessions, and see for both from now on."""
        self._near = other._near

    # -- time

    cpdef long long now_ms(self) except? -1:
        """Return the wall-clock time in milliseconds, as records carry it."""
        return <long long>(<double>self._wall() * 1000)

    cpdef long long ttl_s(
        self, long long max_inactive_s, long long created_ms=0, long long absolute_lifetime_s=0
    ) except? -1:
        """Return with what TTL an item lives long enough from now, in seconds; 0: for ever."""
        cdef long long idle_s = max_inactive_s + TTL_MARGIN_S if max_inactive_s else 0
        cdef long long left_s
        if not absolute_lifetime_s:
            return idle_s
        left_s = max(absolute_lifetime_s - max(0, self.now_ms() - created_ms) // 1000, 0) + TTL_MARGIN_S
        return min(idle_s, left_s) if idle_s else left_s

    cpdef long long life_s(self, SessionState state) except? -1:
        """Return with what TTL the session's items live long enough after its last request, in seconds; 0: for ever."""
        cdef long long unused_s = state.max_inactive_s
        if unused_s:
            unused_s = max(unused_s - <long long>self.idle_s(state), 1)
        return self.ttl_s(unused_s, state.created_ms, state.absolute_lifetime_s)

    cpdef double idle_s(self, SessionState state) except? -1.0:
        """Return how long ago the session's last request came; 0 for one that only lives for its request."""
        if state.used_at is None:
            return 0.0
        return max(<double>self._monotonic() - <double>state.used_at, 0.0)

    def tombstone_ttl_s(self, long long max_inactive_s):
        """Return with what TTL a session's tombstone lives as long as any copy of it, on whatever node."""
        return self.ttl_s(max_inactive_s) + TTL_MARGIN_S if max_inactive_s else TOMBSTONE_LONGEST_S

    cpdef object exptime(self, long long ttl_s):
        """Return ttl_s as memcached wants it."""
        return wire.exptime(ttl_s, self._wall())

    cpdef object touch_exptime(self, long long ttl_s):
        """Return the exptime with which a command that looks at an item lets it live ttl_s; None: as long as it does.

        Where sessions live for ever unused that may be what is left of an absolute lifetime: it needs no touch.
        """
        return self.exptime(ttl_s) if ttl_s else None

    # -- chance

    cpdef object nonce(self):
        """Return a random number that tells one write from every other, 1 to 2**32-1."""
        while True:
            try:
                return self._nonces.pop()
            except IndexError:
                self._nonces = self._draw_nonces()

    cdef list _draw_nonces(self):
        """Return as many as one call of the system's random source should give."""
        drawn = self.rng.getrandbits(32 * NONCES_AT_ONCE).to_bytes(4 * NONCES_AT_ONCE, "little")
        return [nonce for (nonce,) in iter_unpack("<I", drawn) if nonce]

    def forget_nonces(self):
        """Draw others from now on: a forked child must not write under its parent's."""
        self._nonces = []
