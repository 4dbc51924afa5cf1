"""A local store in a file, which all worker processes of a host share.

In an outage a user who meets another worker still finds the session.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Container, Iterator
from functools import partial
from pathlib import Path

from msm_fast._core.near_cache import NearCache
from msm_fast.drivers.sqlite_file import SqliteFile
from msm_fast.errors import ConfigurationError, SessionUnavailable
from msm_fast.local_store import ENDED_BOUNDS, LocalRecord
from msm_fast.logs import Log
from msm_fast.policies import NearCacheSettings

__all__ = ["SqliteStore"]

_log = Log("msm_fast.local_store")

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
_SWAPS_PER_TIDYING = 100
_BESIDE = ("-journal", "-wal", "-shm")
"""What SQLite adds to the file's name. It takes what it finds there for a part of the file."""


class SqliteStore:
    """Records in an SQLite file in WAL mode. A value that cannot be encoded stays with the process that has it.

    path: of the file; made, readable by its owner alone, if it is not there. One that another user owns or can write is
    refused, and so is one beside which there is such a file of SQLite's: what it says of a session is believed.
    bounds: of the file, kept to from time to time: the least recently used records go first, but those that say that a
    session has ended have ENDED_BOUNDS; and of what stays with the process. wall_clock: seconds since the epoch. clock:
    monotonic ones.

    What only looks waits for nobody who holds the file, to write or to back it up. What changes something waits two
    tenths of a second at most, and not at all while another request has just waited in vain: see SqliteFile. Where the
    file cannot be written, since it is held or its disk is full, what is deleted is gone for this process, and for the
    others when it is met once more or the cluster is back the next time.
    Raises: ConfigurationError if the file cannot be used at the start, SessionUnavailable if it cannot later.
    Thread-safety: shared by all threads and processes of a host.
    """

    def __init__(
        self,
        path: str,
        bounds: NearCacheSettings,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path = str(Path(path).absolute())  # the application may change its folder
        self._bounds = bounds
        self._wall_clock = wall_clock
        self._live: NearCache = NearCache(bounds.max_sessions, max_bytes=bounds.max_bytes, clock=clock)
        """By key what of sessions cannot be encoded: dicts, by name."""
        self._undeleted: dict[bytes, tuple[int, int]] = {}
        """What is deleted, but not in the file yet: by key the record's generation and accessed_ms."""
        self._n_swaps = 0
        self._dropped = 0
        self._failing: set[str] = set()
        self._file = SqliteFile(path, partial(_make, path), _LAYOUT, clock)
        try:
            with self._file.reading():
                pass
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                "local_store", f"sqlite:///{path}", f"a file that SQLite can open ({error})"
            ) from error

    def load(self, key: bytes) -> LocalRecord | None:
        """Return the record under key, or None."""
        with self._use() as db:
            record = self._read(db, key)
        if record is None or not self._is_undeleted(key, record):
            return record
        self.delete(key, record.generation)
        return None

    def touch(self, key: bytes, ttl_s: int, accessed_ms: int) -> None:
        """Let the record under key, if any, live ttl_s seconds from now (0: for ever)."""
        with self._use(writes=True) as db:
            db.execute(
                "UPDATE msm_fast_sessions SET accessed_ms = ?, expires_at = ? WHERE key = ?",
                (accessed_ms, self._expiry(ttl_s), key),
            )

    def swap(self, key: bytes, expected: int, record: LocalRecord, ttl_s: int) -> bool:
        """Store record if the generation there now is expected (0: nothing there); return whether it was."""
        with self._use(writes=True) as db:
            current = self._read(db, key)
            is_there = current is not None and not self._is_undeleted(key, current)
            if (current.generation if current and is_there else 0) != expected:
                return False
            row = (key, record.generation, record.data, record.accessed_ms, record.kind, record.base, record.plain)
            db.execute("REPLACE INTO msm_fast_sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, self._expiry(ttl_s)))
            self._live.pop(key, None)
            if record.live is not None:
                self._live.put(key, record.live, size=len(record.data))
            self._n_swaps += 1
            if self._n_swaps % _SWAPS_PER_TIDYING == 0:
                self._tidy(db)
        self._undeleted.pop(key, None)
        return True

    def delete(self, key: bytes, expected: int | None = None) -> None:
        """Remove what is under key, if its generation is expected (None: whatever it is)."""
        try:
            with self._use(writes=True) as db:
                db.execute(
                    "DELETE FROM msm_fast_sessions WHERE key = :key AND generation = coalesce(:expected, generation)",
                    {"key": key, "expected": expected},
                )
        except SessionUnavailable:
            with self._use() as db:
                found = self._read(db, key)
            if found is not None and expected in (None, found.generation):
                self._undeleted[key] = (found.generation, found.accessed_ms)
        self._live.pop(key, None)

    def all_keys(self) -> list[bytes]:
        """Return all keys."""
        with contextlib.suppress(SessionUnavailable):
            self._delete_undeleted()
        with self._use() as db:
            sql = f"SELECT key, generation, accessed_ms FROM msm_fast_sessions WHERE {_IS_LIVE}"
            rows = db.execute(sql, (self._wall_clock(),))
            return [key for key, *version in rows if self._undeleted.get(key) != tuple(version)]

    def __len__(self) -> int:
        with self._use() as db:
            (n,) = db.execute("SELECT EXISTS (SELECT 1 FROM msm_fast_sessions)").fetchone()
            return int(n)

    @property
    def dropped(self) -> int:
        """How many records this process had to drop for want of room."""
        return self._dropped

    def renew_after_fork(self) -> None:
        """Give a forked child locks of its own; it opens the file when it is first needed."""
        self._live.clear()
        self._file.renew_after_fork()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextlib.contextmanager
    def _use(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        """Lend a connection to look, or one transaction to write. Raises: SessionUnavailable."""
        lent, use = (self._file.writing(), "written") if writes else (self._file.reading(), "read")
        try:
            with lent as db:
                yield db
        except (OSError, sqlite3.Error, ConfigurationError) as error:
            if use not in self._failing:
                _log.error("the local store %s cannot be %s: %s", self._path, use, error)
            self._failing.add(use)
            raise SessionUnavailable(f"the local store {self._path} cannot be {use}: {error}") from error
        if use in self._failing:
            _log.warning("the local store %s can be %s again", self._path, use)
            self._failing.discard(use)

    def _is_undeleted(self, key: bytes, record: LocalRecord) -> bool:
        return self._undeleted.get(key) == (record.generation, record.accessed_ms)

    def _delete_undeleted(self) -> None:
        """Delete what could not be deleted before. Raises: SessionUnavailable if it still cannot."""
        if not self._undeleted:
            return
        undeleted = [(key, *version) for key, version in list(self._undeleted.items())]
        with self._use(writes=True) as db:
            db.executemany(
                "DELETE FROM msm_fast_sessions WHERE key = ? AND generation = ? AND accessed_ms = ?", undeleted
            )
        for key, *_ in undeleted:
            self._undeleted.pop(key, None)

    def _read(self, db: sqlite3.Connection, key: bytes) -> LocalRecord | None:
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
        self._make_room(db, "kind <> 'ended'", self._bounds)
        self._make_room(db, "kind = 'ended'", ENDED_BOUNDS)

    def _make_room(self, db: sqlite3.Connection, which: str, bounds: NearCacheSettings) -> None:
        """Remove the least recently used of some records if there are too many."""
        n, n_bytes = db.execute(
            f"SELECT count(*), total(length(data) + length(base)) FROM msm_fast_sessions WHERE {which}"
        ).fetchone()
        share = max(1 - bounds.max_sessions / max(n, 1), 1 - bounds.max_bytes / max(n_bytes, 1))
        if share > 0:
            cursor = db.execute(
                "DELETE FROM msm_fast_sessions WHERE key IN "
                f"(SELECT key FROM msm_fast_sessions WHERE {which} ORDER BY accessed_ms LIMIT ?)",
                (max(int(n * share), 1),),
            )
            self._dropped += cursor.rowcount


def _make(path: str) -> None:
    """Make the file if it is not there. Raises: OSError; ConfigurationError for one of which the rights are wrong.

    One that is there is not opened: closing it here would let go the locks of this process's connections to it.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    found = os.stat(path)
    user = os.geteuid()
    _check_rights(path, found, {0, user} if user else {found.st_uid})
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        accepted = f"a file that this user can read and write: it belongs to user {found.st_uid}, chown gives it away"
        raise ConfigurationError("local_store", f"sqlite:///{path}", accepted)
    for beside in (path + suffix for suffix in _BESIDE):
        with contextlib.suppress(FileNotFoundError):
            _check_rights(beside, os.lstat(beside), {0, user, found.st_uid})


def _check_rights(path: str, found: os.stat_result, owners: Container[int]) -> None:
    if found.st_uid not in owners or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        accepted = "a file that belongs to this user or root, and that nobody else can write: chmod 600 makes it so"
        raise ConfigurationError("local_store", f"sqlite:///{path}", accepted)
