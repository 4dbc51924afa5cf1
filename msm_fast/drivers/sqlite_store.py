"""A local store in a file, which all worker processes of a host share.

In an outage a user who meets another worker still finds the session.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator

from msm_fast._core.attributes import AttributeMap
from msm_fast.errors import ConfigurationError, SessionUnavailable
from msm_fast.local_store import LocalRecord
from msm_fast.policies import NearCacheSettings

__all__ = ["SqliteStore"]

_log = logging.getLogger("msm_fast.local_store")

_LAYOUT = """
CREATE TABLE IF NOT EXISTS msm_fast_sessions (
    key BLOB PRIMARY KEY,
    generation INTEGER NOT NULL,
    data BLOB NOT NULL,
    accessed_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    base BLOB NOT NULL,
    plain TEXT NOT NULL,
    expires_at REAL  -- seconds since the epoch; NULL: never
);
CREATE INDEX IF NOT EXISTS msm_fast_sessions_accessed ON msm_fast_sessions (accessed_ms);
"""
_IS_LIVE = "(expires_at IS NULL OR expires_at > ?)"
_BUSY_TIMEOUT_S = 0.1
_SWAPS_PER_TIDYING = 100


class SqliteStore:
    """Records in an SQLite file in WAL mode. A value that cannot be encoded stays with the process that has it.

    path: of the file; made, readable by its owner alone, if it is not there. One that another user owns or can write is
    refused: what it says of a session is believed. bounds: of the whole file, kept to from time to time: the least
    recently used records go first. wall_clock: seconds since the epoch.
    Raises: ConfigurationError if the file cannot be used at the start, SessionUnavailable if it cannot later.
    Thread-safety: one connection, used under a lock; processes wait for each other at most a tenth of a second.
    """

    def __init__(self, path: str, bounds: NearCacheSettings, wall_clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._bounds = bounds
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._live: dict[bytes, AttributeMap] = {}
        self._n_swaps = 0
        self._dropped = 0
        self._is_failing = False
        self._abandoned: list[sqlite3.Connection] = []
        try:
            _make(path)
            self._db = self._connect()
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                "local_store", f"sqlite:///{path}", f"a file that SQLite can open ({error})"
            ) from error

    def load(self, key: bytes) -> LocalRecord | None:
        """Return the record under key, or None."""
        with self._use() as db:
            return self._load(db, key)

    def touch(self, key: bytes, ttl_s: int, accessed_ms: int) -> None:
        """Let the record under key, if any, live ttl_s seconds from now (0: for ever)."""
        with self._use() as db:
            db.execute(
                "UPDATE msm_fast_sessions SET accessed_ms = ?, expires_at = ? WHERE key = ?",
                (accessed_ms, self._expiry(ttl_s), key),
            )

    def swap(self, key: bytes, expected: int, record: LocalRecord, ttl_s: int) -> bool:
        """Store record if the generation there now is expected (0: nothing there); return whether it was."""
        with self._use() as db:
            current = self._load(db, key)
            if (current.generation if current else 0) != expected:
                return False
            row = (key, record.generation, record.data, record.accessed_ms, record.kind, record.base, record.plain)
            db.execute("REPLACE INTO msm_fast_sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, self._expiry(ttl_s)))
            self._live.pop(key, None)
            if record.live is not None:
                self._live[key] = record.live
            self._n_swaps += 1
            if self._n_swaps % _SWAPS_PER_TIDYING == 0:
                self._tidy(db)
            return True

    def delete(self, key: bytes, expected: int | None = None) -> None:
        """Remove what is under key, if its generation is expected (None: whatever it is)."""
        with self._use() as db:
            db.execute(
                "DELETE FROM msm_fast_sessions WHERE key = :key AND generation = coalesce(:expected, generation)",
                {"key": key, "expected": expected},
            )
            self._live.pop(key, None)

    def all_keys(self) -> list[bytes]:
        """Return all keys."""
        with self._use() as db:
            rows = db.execute(f"SELECT key FROM msm_fast_sessions WHERE {_IS_LIVE}", (self._wall_clock(),))
            return [key for (key,) in rows]

    def __len__(self) -> int:
        with self._use() as db:
            (n,) = db.execute("SELECT EXISTS (SELECT 1 FROM msm_fast_sessions)").fetchone()
            return int(n)

    @property
    def dropped(self) -> int:
        """How many records this process had to drop for want of room."""
        return self._dropped

    def renew_after_fork(self) -> None:
        """Give a forked child a lock and a connection of its own; that of its parent is neither used nor closed."""
        self._lock = threading.Lock()
        self._live.clear()
        self._abandoned.append(self._db)
        self._db = self._connect()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = OFF")  # an outage store: it need not outlive the host's own crash
            db.executescript(_LAYOUT)
        except sqlite3.Error:
            db.close()
            raise
        return db

    @contextlib.contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection for one transaction. Raises: SessionUnavailable."""
        try:
            with self._lock, self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
        except sqlite3.Error as error:
            if not self._is_failing:
                _log.error("the local store %s cannot be used: %s", self._path, error)
            self._is_failing = True
            raise SessionUnavailable(f"the local store {self._path} cannot be used: {error}") from error
        if self._is_failing:
            _log.warning("the local store %s can be used again", self._path)
        self._is_failing = False

    def _load(self, db: sqlite3.Connection, key: bytes) -> LocalRecord | None:
        row = db.execute(
            "SELECT generation, data, accessed_ms, kind, base, plain FROM msm_fast_sessions "
            f"WHERE key = ? AND {_IS_LIVE}",
            (key, self._wall_clock()),
        ).fetchone()
        if row is None:
            return None
        generation, data, accessed_ms, kind, base, plain = row
        return LocalRecord(generation, data, accessed_ms, kind, base, self._live.get(key), plain=plain)

    def _expiry(self, ttl_s: int) -> float | None:
        return self._wall_clock() + ttl_s if ttl_s else None

    def _tidy(self, db: sqlite3.Connection) -> None:
        """Remove what has expired, and the least recently used where there is too much."""
        db.execute(f"DELETE FROM msm_fast_sessions WHERE NOT {_IS_LIVE}", (self._wall_clock(),))
        n, n_bytes = db.execute("SELECT count(*), total(length(data) + length(base)) FROM msm_fast_sessions").fetchone()
        share = max(1 - self._bounds.max_sessions / max(n, 1), 1 - self._bounds.max_bytes / max(n_bytes, 1))
        if share > 0:
            cursor = db.execute(
                "DELETE FROM msm_fast_sessions WHERE key IN "
                "(SELECT key FROM msm_fast_sessions ORDER BY accessed_ms LIMIT ?)",
                (max(int(n * share), 1),),
            )
            self._dropped += cursor.rowcount


def _make(path: str) -> None:
    """Make the file if it is not there. Raises: OSError, ConfigurationError for one that another user can change."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    user = os.geteuid()
    is_ours = user in (0, found.st_uid) or found.st_uid == 0
    if not is_ours or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        accepted = "a file that belongs to this user or root, and that nobody else can write: chmod 600 makes it so"
        raise ConfigurationError("local_store", f"sqlite:///{path}", accepted)
