"""Where sessions live on this host while the cluster does not have them: by default the memory of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from msm_fast._core.near_cache import NearCache
from msm_fast.policies import NearCacheSettings
from msm_fast.session import LocalKind

__all__ = ["ENDED_BOUNDS", "LocalRecord", "LocalStore", "MemoryStore"]

ENDED_BOUNDS = NearCacheSettings(max_sessions=100_000)
"""How much is kept of sessions that were ended, apart from those that live: without it they would be back with the
cluster. In memory some 60 MB."""


@dataclass(frozen=True, slots=True)
class LocalRecord:
    """One session in a local store.

    generation: grows with each save. data: the encoded record. accessed_ms: when it was last used. kind: why it is
    here. base: the record in the cluster that it stands on; b"" for none. live: the values, by name, that cannot be
    encoded, which only this process has; None where there are none. plain: of its session's id, which the key may not
    tell. Where local variables are shown, none of the session is.
    """

    generation: int
    data: bytes = field(repr=False)
    accessed_ms: int
    kind: LocalKind = "local"
    base: bytes = field(default=b"", repr=False)
    live: dict[str, object] | None = field(default=None, repr=False)
    plain: str = field(kw_only=True, repr=False)


class LocalStore(Protocol):
    """Records by storage key. Times to live are seconds; 0: for ever. Thread-safety: shared by all threads."""

    def load(self, key: bytes) -> LocalRecord | None:
        """Return the record under key, or None."""

    def touch(self, key: bytes, ttl_s: int, accessed_ms: int) -> None:
        """Let the record under key, if any, live ttl_s seconds from now."""

    def swap(self, key: bytes, expected: int, record: LocalRecord, ttl_s: int) -> bool:
        """Store record if the generation there now is expected (0: nothing there); return whether it was."""

    def delete(self, key: bytes, expected: int | None = None) -> None:
        """Remove what is under key, if its generation is expected (None: whatever it is)."""

    def all_keys(self) -> list[bytes]:
        """Return all keys."""

    def __len__(self) -> int:
        """Return how many records there may be; those that have expired may count."""

    @property
    def dropped(self) -> int:
        """How many records had to go for want of room."""

    def renew_after_fork(self) -> None:
        """Make a forked child safe: replace locks and connections that it shares with its parent."""

    def close(self) -> None:
        """Let go of what the store has open."""


class MemoryStore:
    """Records in the memory of this process, the least recently used dropped first.

    bounds: of all but those that say that a session has ended, which have ENDED_BOUNDS. clock: monotonic seconds.
    Thread-safety: shared by all threads of a process; what reads and writes does both under one lock.
    """

    def __init__(self, bounds: NearCacheSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.records: NearCache = NearCache(bounds.max_sessions, max_bytes=bounds.max_bytes, clock=clock)
        """The records themselves, by key: to be counted without a detour; what changes them is below."""
        self.ended: NearCache = NearCache(ENDED_BOUNDS.max_sessions, max_bytes=ENDED_BOUNDS.max_bytes, clock=clock)
        """Those that say that a session has ended."""
        self._max_bytes = bounds.max_bytes
        self._n_too_large = 0
        self._lock = threading.Lock()

    def load(self, key: bytes) -> LocalRecord | None:
        """Return the record under key, or None."""
        record: LocalRecord | None = self.records.get(key) or self.ended.get(key)
        return record

    def touch(self, key: bytes, ttl_s: int, accessed_ms: int) -> None:
        """Let the record under key, if any, live ttl_s seconds from now (0: for ever)."""
        with self._lock:
            record = self.load(key)
            if record is not None:
                self._put(key, replace(record, accessed_ms=accessed_ms), ttl_s)

    def swap(self, key: bytes, expected: int, record: LocalRecord, ttl_s: int) -> bool:
        """Store record if the generation there now is expected (0: nothing there); return whether it was."""
        with self._lock:
            current = self.load(key)
            if (current.generation if current else 0) != expected:
                return False
            self._put(key, record, ttl_s)
            return True

    def delete(self, key: bytes, expected: int | None = None) -> None:
        """Remove what is under key, if its generation is expected (None: whatever it is)."""
        with self._lock:
            current = self.load(key)
            if current is not None and expected in (None, current.generation):
                self._drop(key)

    def all_keys(self) -> list[bytes]:
        """Return all keys."""
        return [*self.records.keys(), *self.ended.keys()]

    def __len__(self) -> int:
        return len(self.records) + len(self.ended)

    @property
    def dropped(self) -> int:
        """How many records had to go for want of room."""
        return self.records.evictions + self.ended.evictions + self._n_too_large

    def renew_after_fork(self) -> None:
        """Replace the lock in a forked child, where another thread may have held it."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Do nothing: the memory goes with the store."""

    def _put(self, key: bytes, record: LocalRecord, ttl_s: int) -> None:
        """Put record in the place of what is under key, which is there until then: who only looks takes no lock."""
        size = len(record.data) + len(record.base)
        if record.kind == "ended":
            self.ended.put(key, record, size=size, ttl=ttl_s or None)
            self.records.pop(key)
            return
        self._n_too_large += size > self._max_bytes  # the cache keeps none of these
        self.records.put(key, record, size=size, ttl=ttl_s or None)
        self.ended.pop(key)

    def _drop(self, key: bytes) -> None:
        self.records.pop(key)
        self.ended.pop(key)
