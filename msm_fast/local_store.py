"""Where sessions live when there is no cluster: the memory of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from msm_fast._core.near_cache import NearCache
from msm_fast.policies import NearCacheSettings

__all__ = ["LocalRecord", "MemoryStore"]


@dataclass(frozen=True, slots=True)
class LocalRecord:
    """One session in the store. generation: what the record says. accessed_ms: when it was last used."""

    generation: int
    data: bytes
    accessed_ms: int


class MemoryStore:
    """Encoded records by key, written by compare-and-swap of the generation, the least recently used dropped first.

    clock: monotonic seconds.
    Thread-safety: shared by all threads of a process; what reads and writes does both under one lock.
    """

    def __init__(self, bounds: NearCacheSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._records: NearCache = NearCache(bounds.max_sessions, max_bytes=bounds.max_bytes, clock=clock)
        self._lock = threading.Lock()

    def load(self, key: bytes) -> LocalRecord | None:
        """Return the record under key, or None."""
        record: LocalRecord | None = self._records.get(key)
        return record

    def touch(self, key: bytes, ttl_s: int, accessed_ms: int) -> None:
        """Let the record under key, if any, live ttl_s seconds from now (0: for ever)."""
        with self._lock:
            record: LocalRecord | None = self._records.get(key)
            if record is not None:
                self._put(key, LocalRecord(record.generation, record.data, accessed_ms), ttl_s)

    def swap(self, key: bytes, expected: int, record: LocalRecord, ttl_s: int) -> bool:
        """Store record if the generation there now is expected (0: nothing there); return whether it was."""
        with self._lock:
            current: LocalRecord | None = self._records.get(key)
            if (current.generation if current else 0) != expected:
                return False
            self._put(key, record, ttl_s)
            return True

    def delete(self, key: bytes) -> None:
        """Remove what is under key, if anything."""
        self._records.pop(key)

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where another thread may have held it."""
        self._lock = threading.Lock()

    def _put(self, key: bytes, record: LocalRecord, ttl_s: int) -> None:
        self._records.put(key, record, size=len(record.data), ttl=ttl_s or None)
