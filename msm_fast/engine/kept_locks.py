"""Locks that outlast a round trip: those of requests that take long, and those that could not be let go in time."""

from __future__ import annotations

import threading
import weakref

from msm_fast.engine.context import Context
from msm_fast.engine.locking import SessionLock

__all__ = ["KeptLocks"]

_RENEWALS_PER_TTL = 3
_LONGEST_TICK_S = 1.0


class KeptLocks:
    """Says which locks are to be renewed, each at a third of its lifetime, and which to be let go.

    Of held locks it has weak references: one whose request was forgotten without an end is not renewed for ever.
    Thread-safety: under a lock.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._start_empty()

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._held: weakref.WeakSet[SessionLock] = weakref.WeakSet()
        self._left: dict[SessionLock, float] = {}

    @property
    def tick_s(self) -> float:
        """How often to look after them, in seconds."""
        return min(self._ctx.settings.timeouts.lock_ttl / _RENEWALS_PER_TTL / 2, _LONGEST_TICK_S)

    def keep(self, lock: SessionLock) -> None:
        """Renew a lock for as long as it is held."""
        with self._lock:
            self._held.add(lock)

    def release(self, lock: SessionLock) -> None:
        """Let a lock go when its node can be asked, or until its lifetime must be over."""
        with self._lock:
            self._held.discard(lock)
            self._left[lock] = self._ctx.clock.monotonic() + self._ctx.settings.timeouts.lock_ttl

    def has_any(self) -> bool:
        """Whether there is a lock to look after."""
        with self._lock:
            return bool(self._left) or any(lock.is_held for lock in self._held)

    def due(self) -> tuple[list[SessionLock], list[SessionLock]]:
        """Return those to be renewed now, and those to be let go."""
        now = self._ctx.clock.monotonic()
        due_s = self._ctx.settings.timeouts.lock_ttl / _RENEWALS_PER_TTL
        with self._lock:
            return [lock for lock in self._held if lock.is_held and now >= lock.renewed_at + due_s], list(self._left)

    def forget_released(self) -> None:
        """Forget those that were let go, and those whose lifetime is over."""
        now = self._ctx.clock.monotonic()
        with self._lock:
            self._left = {lock: until for lock, until in self._left.items() if lock.items and now < until}

    def renew_after_fork(self) -> None:
        """Start empty in a forked child: the locks are its parent's."""
        self._start_empty()
