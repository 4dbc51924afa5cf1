"""The sessions that live in a sticky worker: one object each, which all its requests share."""

from __future__ import annotations

import math
import threading
from contextlib import AbstractContextManager
from weakref import WeakValueDictionary

from msm_fast._core.near_cache import NearCache
from msm_fast._core.session_id import SessionId
from msm_fast.engine.changes import Base, carry_over, join
from msm_fast.engine.context import Context, digest
from msm_fast.session import SessionState

__all__ = ["LiveSessions"]

_N_LOCKS = 64
_TOUCHES_PER_LIFETIME = 10
_UNLIMITED_TOUCH_S = 3 * 3600.0
_SWEPT_EVERY_S = 1.0
_SWEPT_AT_ONCE = 500
_ENDED_S = 60.0
"""How long it is remembered that a session was ended: longer than a request that was loading it may take to say so."""


class LiveSessions:
    """The live sessions by storage key.

    The least recently used are dropped when there are too many. One that a request still has, or whose changes are
    still to be written, is found all the same: there are never two objects of one session.

    Thread-safety: shared by all threads. What makes several changes to one session that belong together is done under
    its lock, which other sessions may share; the lock may be taken again by the thread that has it.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        bounds = ctx.settings.near_cache
        self._table: NearCache = NearCache(bounds.max_sessions, max_bytes=bounds.max_bytes, clock=ctx.clock.monotonic)
        self._ended: NearCache = NearCache(bounds.max_sessions, ttl=_ENDED_S, clock=ctx.clock.monotonic)
        self._unswept: list[bytes] = []
        self._swept_at = -math.inf
        self._start_empty()

    def _start_empty(self) -> None:
        self._locks = [threading.RLock() for _ in range(_N_LOCKS)]
        self._alive: WeakValueDictionary[bytes, SessionState] = WeakValueDictionary()
        self._table.clear()

    def lock(self, key: bytes) -> AbstractContextManager[bool]:
        """Return the lock of a session."""
        return self._locks[hash(key) % _N_LOCKS]

    def get(self, key: bytes) -> SessionState | None:
        """Return the live session, or None."""
        state: SessionState | None = self._table.get(key)
        if state is None and key in self._alive:
            with self.lock(key):  # else one that is ended just now would be put back
                state = self._alive.get(key)
                if state is not None:
                    self._table.put(key, state, size=len(state.body))
        return state

    def __len__(self) -> int:
        return len(self._alive)

    def put(self, key: bytes, state: SessionState) -> SessionState:
        """Make a session live, under its lock; return the object that lives, which is another if there was one."""
        live = self._alive.setdefault(key, state)
        live.is_live = True
        if live.used_at is None:
            self.note_touched(live)
            live.used_at = self._ctx.clock.monotonic()
        self._table.put(key, live, size=len(live.body))
        return live

    def adopt(self, found: SessionState) -> SessionState | None:
        """Make a session live that was found in the cluster; return the object that lives, or None: it was ended here.

        Of requests that come at once the first wins. Where there is a live one it takes over what was stored elsewhere.
        """
        key = self._ctx.storage_key(found.session_id)
        with self.lock(key):
            if key in self._ended:
                return None
            live = self._alive.get(key)
            now = self._ctx.clock.monotonic()
            if live is not None and (live.local_kind is not None or self.has_expired(live, now)):
                self.forget(key)
            live = self.put(key, found)
            if live is not found:
                self.take_in(live, found)
            self.note_touched(live)
            live.used_at = now
            live.is_new = False
            return live

    def share(self, found: SessionState) -> SessionState | None:
        """Make a session live that stays on this host; return the object to serve, or None: it was ended here.

        That is the one that lives already, unless another worker of this host has kept more of it since.
        """
        key = self._ctx.storage_key(found.session_id)
        with self.lock(key):
            if key in self._ended:
                return None
            live = self._alive.get(key) or self.put(key, found)
            return live if live.local_generation >= found.local_generation else found

    def take_in(self, live: SessionState, found: SessionState) -> None:
        """Let a live session have what was found in the cluster, under what is still to be written from here.

        If that was stored beside what it stands on, neither loses an attribute, and both are stored as one.
        """
        ctx = self._ctx
        stored = live.stored
        live.must_store |= found.must_store
        if found.stored is None or (stored is not None and self._knows(live, found)):
            return
        key = ctx.storage_key(live.session_id)
        theirs, _ = found.attributes.encode()
        with self.lock(key):
            mine = live.body
            if live.revision != live.written_revision and ctx.settings.on_conflict == "error":
                self._tell_dropped(live)
                mine = stored.body if stored is not None else b""
            if stored is not None and (base := Base.of(stored)).is_beside(found.stored):
                theirs = join(ctx, stored.body, theirs, prevails=base.prevails_over(found.stored))
                live.must_store = True
            self.rebase(key, live, carry_over(ctx, stored.body if stored is not None else b"", mine, theirs))
            live.session_id = live.session_id.with_node(found.session_id.node)
            live.created_ms = found.created_ms
            live.take_lifetimes(found.max_inactive_s, found.absolute_lifetime_s)
            live.stored, live.local_generation = found.stored, found.local_generation
            if found.moved_from is not None:
                live.moved_from = found.moved_from
            self.note_touched(live)  # now: its lifetime may have become a shorter one

    def _knows(self, live: SessionState, found: SessionState) -> bool:
        """Whether what was found is what the live session stands on, or something older."""
        assert live.stored is not None
        assert found.stored is not None
        return found.stored.nonce in live.stored.lineage and not found.local_generation

    def rebase(self, key: bytes, live: SessionState, body: bytes) -> None:
        """Let a live session have the attributes in body, under what requests have not saved yet; under its lock."""
        live.attributes.rebase(body)
        live.body = body
        self.note_size(key, live)

    def note_size(self, key: bytes, live: SessionState) -> None:
        """Count a session, if it still lives, by what it has grown to; under its lock."""
        if self._alive.get(key) is live:
            self._table.put(key, live, size=len(live.body))

    def forget(self, key: bytes) -> None:
        """Drop a session, to be found in the cluster again; a request that still has it may bring it back."""
        self._table.pop(key)
        self._alive.pop(key, None)

    def end(self, session_id: SessionId, by: object = True) -> SessionState | None:
        """Drop a session that was ended, or has another id now; requests that still have it store nothing.

        by: who ends it, for `revive`. Return what lived here.
        """
        key = self._ctx.storage_key(session_id)
        self._ctx.behind.discard(key)
        with self.lock(key):
            self._ended.put(key, by)
            live = self._alive.get(key)
            if live is not None:
                live.was_ended = True
            self.forget(key)
            return live

    def is_ended_by(self, session_id: SessionId, by: object) -> bool:
        """Whether it was ended here by this one, and by nobody since."""
        return self._ended.get(self._ctx.storage_key(session_id)) is by

    def revive(self, session_id: SessionId, live: SessionState | None, by: object) -> bool:
        """Let a session live on that was to end and did not, unless another has ended it since; return whether it does.

        live, by: of `end`.
        """
        key = self._ctx.storage_key(session_id)
        with self.lock(key):
            if not self.is_ended_by(session_id, by):
                return False
            self._ended.pop(key)
            if live is None:
                return False
            live.was_ended = False
            self.put(key, live)
            return True

    def clear(self) -> int:
        """Drop all sessions, and what is still to be written of them; return how many that were."""
        self._table.clear()
        self._alive.clear()
        return self._ctx.behind.clear()

    def take_back(self, key: bytes, generation: int) -> SessionState | None:
        """Let a session that was kept on this host in an outage belong to the cluster again, and return it.

        None if it does not live here, or if what the local store has under that generation is another worker's. What a
        request has changed since that generation goes with it.
        """
        with self.lock(key):
            live = self._alive.get(key)
            if live is None or live.local_kind != "local" or live.local_generation < generation:
                return None
            live.local_kind = None
            live.revision += 1
            return live

    def give_back(self, key: bytes, live: SessionState) -> None:
        """Let a session that could not be written belong to this host for longer."""
        with self.lock(key):
            live.local_kind = live.local_kind or "local"

    def forget_local(self) -> None:
        """Drop the sessions that were kept on this host in an outage, to be found again."""
        for key, live in self._all_alive():
            if live.local_kind not in (None, "tagged"):
                self.forget(key)

    def sweep(self, n_most: int = _SWEPT_AT_ONCE) -> None:
        """Once a second look at the next n_most sessions, and drop those that have expired.

        To be called while there is other work. What the cluster has goes by itself.
        """
        now = self._ctx.clock.monotonic()
        if now - self._swept_at < _SWEPT_EVERY_S:
            return
        self._swept_at = now
        if not self._unswept:
            self._unswept = [key for key, _ in self._all_alive()]
        for key in self._unswept[-n_most:]:
            live = self._alive.get(key)
            if live is not None and self.has_expired(live, now):
                self.forget(key)
        del self._unswept[-n_most:]

    def _all_alive(self) -> list[tuple[bytes, SessionState]]:
        """Return all that live now; iterating over the dictionary itself fails if a request adds to it meanwhile."""
        found = [(ref.key, ref()) for ref in self._alive.valuerefs()]
        return [(key, live) for key, live in found if live is not None]

    def note_touched(self, live: SessionState) -> None:
        """Note that the lives of the session's copies were extended."""
        live.touch_at = self._ctx.clock.monotonic() + _touch_interval_s(live)

    def touched_at(self, live: SessionState) -> float:
        """Return when the lives of the session's copies were extended last."""
        return live.touch_at - _touch_interval_s(live)

    def has_expired(self, live: SessionState, now: float) -> bool:
        """Whether a session has not been used for too long, or has lived too long. now: monotonic seconds."""
        if live.max_inactive_s and live.used_at is not None and now - live.used_at >= live.max_inactive_s:
            return True
        limit_s = live.absolute_lifetime_s
        return bool(limit_s) and self._ctx.now_ms() >= live.created_ms + limit_s * 1000

    def renew_after_fork(self) -> None:
        """Start empty in a forked child: its parent still has them."""
        self._start_empty()

    def _tell_dropped(self, live: SessionState) -> None:
        name = digest(live.session_id)
        self._ctx.counters.add("dropped")
        self._ctx.tell("dropped", f"session {name}: changes here met others that were stored first", session=name)


def _touch_interval_s(live: SessionState) -> float:
    return live.max_inactive_s / _TOUCHES_PER_LIFETIME if live.max_inactive_s else _UNLIMITED_TOUCH_S
