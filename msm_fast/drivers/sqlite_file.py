"""A file of SQLite in WAL mode that threads and processes share, none of which waits long for another."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TypeAlias
from urllib.parse import quote

from msm_fast.forks import take_each
from msm_fast.logs import Log

__all__ = ["SqliteFile"]

_log = Log("msm_fast.local_store")

_PATIENCE_S = 0.1
_PAUSE_S = 0.001
_LEFT_ALONE_S = 1.0
_PATIENCE_BEFORE_FORK_S = 1.0

_Identity: TypeAlias = "tuple[int, int] | None"
"""Which file it is: its device and inode; None: there is none."""
_Identities: TypeAlias = "tuple[_Identity, ...]"
"""Of the file, and of those that SQLite has beside it."""


class SqliteFile:
    """Two connections to a file: what only reads has its own, since no process that writes holds it up.

    make: makes the file, unless it is there. layout: what makes the tables, likewise. clock: monotonic seconds.

    An operation waits at most a tenth of a second for other threads, and what writes about as long for other processes.
    Who has waited in vain for those is the last one to do so for a second, or until the file can be written again: the
    others try once, so that many at a time are kept no longer than one is.

    A file that was deleted, as what cleans up /tmp does, or replaced, is left for the one that is under its path by
    then, which connections and processes that are new use. So are those that SQLite has beside it: processes that do
    not have the same of these would overwrite each other's pages. While none can be made, as when its folder is gone,
    nothing is to be read. A file that turns out to be damaged, as the host's crash may leave it, is put aside.
    Raises: sqlite3.Error, and what make raises.
    Thread-safety: shared by all threads. It is closed before a fork; parent and child open it when they next use it.
    """

    def __init__(self, path: str, make: Callable[[], None], layout: str, clock: Callable[[], float]) -> None:
        self._path, self._wal_path, self._shm_path = path, path + "-wal", path + "-shm"
        self._make = make
        self._layout = layout
        self._is_closed = False
        self._was_opened = False
        self._last_opened: _Identity = None
        self._reader = _Connection(self._connect_to_read, self._identify, self._put_aside, clock)
        self._writer = _Connection(self._connect_to_write, self._identify, self._put_aside, clock)
        _files.add(self)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to read with, while no thread of this process writes."""
        self._leave_replaced()
        with self._reader.lent() as db:
            yield db

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for one transaction, while no other thread reads."""
        self._leave_replaced()
        with self._writer.lent() as db:
            self._begin(db)
            with self._reader.turn():  # not before: those who read do not wait for the process that this waited for
                yield db
                db.commit()

    def renew_after_fork(self) -> None:
        """Give a forked child locks of its own; what could not be closed in time is neither used nor closed there."""
        self._reader.renew_after_fork()
        self._writer.renew_after_fork()

    def close_before_fork(self) -> None:
        """Close the file as soon as no thread uses it, and let none use it until `go_on`.

        SQLite keeps the locks of a process in its memory. A child would inherit those of a transaction that a thread
        has open, and nobody there would ever let them go.
        """
        with contextlib.suppress(sqlite3.Error):
            self._leave_replaced()
        take_each(self._writer.close_before_fork, self._reader.close_before_fork)

    def go_on(self) -> None:
        """Let the threads use the file again, after the fork."""
        take_each(self._reader.go_on, self._writer.go_on)

    def close(self) -> None:
        """Close the file for good."""
        self._is_closed = True
        with contextlib.suppress(sqlite3.Error):
            self._leave_replaced()
        for connection in (self._writer, self._reader):
            with contextlib.suppress(sqlite3.OperationalError), connection.turn():  # unless a thread hangs in it
                connection.close()

    def _leave_replaced(self) -> None:
        """Close both connections if one is not to the files that are there now.

        Both, since SQLite lets connections of one process share what it has beside the file. What is in a -wal that was
        deleted goes into the file, unless somebody has made another one by now: what is there may be newer.
        """
        if self._are_to_what_is_there():
            return
        with self._writer.turn(), self._reader.turn():
            if not self._are_to_what_is_there():  # another thread may have made them anew
                keeps_wal = _identity(self._wal_path) is None
                with self._other_connection() if _has_content(self._wal_path) else contextlib.nullcontext():
                    self._writer.close(keeps_wal=keeps_wal)
                    self._reader.close(keeps_wal=keeps_wal)

    @contextlib.contextmanager
    def _other_connection(self) -> Iterator[None]:
        """Have a connection that only reads beside those that are closed.

        The last of all processes' connections writes what it knows of its -wal into the file, and deletes what is under
        that name: what others have stored there, who have ended by now. One that only reads does neither.
        """
        with contextlib.ExitStack() as until_closed:
            with contextlib.suppress(sqlite3.Error):  # there may be no file any more
                db = sqlite3.connect(f"file:{quote(self._path)}?mode=ro", timeout=0, uri=True)
                until_closed.enter_context(contextlib.closing(db))
                db.execute("PRAGMA schema_version").fetchone()  # only now it is opened
            yield

    def _are_to_what_is_there(self) -> bool:
        now = self._identify()
        return self._writer.is_to(now) and self._reader.is_to(now)

    def _begin(self, db: sqlite3.Connection) -> None:
        """Begin to write. SQLite's own way to wait has ever longer pauses, in which others are quicker every time."""
        _execute_in_turn(db, "BEGIN IMMEDIATE", 0.0 if self._writer.is_left_alone else _PATIENCE_S)

    def _identify(self) -> _Identities:
        return _identity(self._path), *self._beside()

    def _beside(self) -> tuple[_Identity, ...]:
        return _identity(self._wal_path), _identity(self._shm_path)

    def _connect(self, patience_s: float) -> tuple[sqlite3.Connection, _Identities]:
        if self._is_closed:
            raise sqlite3.ProgrammingError("it is closed")
        self._make()
        identity = _identity(self._path)  # before it is opened: if it is replaced just then, the next use notices
        db = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            _execute_in_turn(db, "PRAGMA journal_mode = WAL", patience_s)  # in which SQLite would not wait for others
            db.execute(f"PRAGMA busy_timeout = {round(1000 * patience_s)}")
            db.execute("PRAGMA synchronous = OFF")  # an outage store: it need not outlive the host's own crash
            db.executescript(self._layout)
        except sqlite3.Error:
            db.close()
            raise
        self._note_opened(identity)
        return db, (identity, *self._beside())

    def _connect_to_read(self, patience_s: float) -> tuple[sqlite3.Connection, _Identities]:
        try:
            return self._connect(patience_s)
        except OSError:
            if not self._was_opened or _identity(self._path) is not None:
                raise
        # Nothing is kept any more: who looks after an outage is to hear that, or would never use the cluster again.
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        db.executescript(self._layout)
        self._note_opened(None)
        return db, (None, *self._beside())

    def _connect_to_write(self, patience_s: float) -> tuple[sqlite3.Connection, _Identities]:
        db, identities = self._connect(patience_s)
        db.execute("PRAGMA busy_timeout = 0")  # `_begin` waits
        return db, identities

    def _put_aside(self) -> None:
        for suffix in ("-shm", "-wal", ""):
            with contextlib.suppress(OSError):
                os.replace(self._path + suffix, f"{self._path}.damaged{suffix}")
        _log.error("the local store %s is damaged: what was kept there is lost. See %s.damaged", self._path, self._path)

    def _note_opened(self, identity: _Identity) -> None:
        if self._last_opened not in (None, identity):
            _log.warning("the local store %s was deleted or replaced: what this process kept there is lost", self._path)
        self._was_opened, self._last_opened = True, identity


def _execute_in_turn(db: sqlite3.Connection, statement: str, patience_s: float) -> None:
    """Execute what other processes may hold up, for about so many seconds."""
    for n_left in reversed(range(max(round(patience_s / _PAUSE_S), 1))):
        try:
            db.execute(statement)
            return
        except sqlite3.OperationalError:
            if not n_left:
                raise
            time.sleep(_PAUSE_S)


class _Connection:
    """A connection that is made when it is first used, and used by one thread at a time.

    connect: makes it, and waits so many seconds for other processes; with it comes which files it is to. identify:
    returns which files are there now. put_aside: takes that away, since it is damaged.
    """

    def __init__(
        self,
        connect: Callable[[float], tuple[sqlite3.Connection, _Identities]],
        identify: Callable[[], _Identities],
        put_aside: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._connect = connect
        self._identify = identify
        self._put_aside = put_aside
        self._identities: _Identities = (None,)
        self._clock = clock
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._failed_at = -math.inf
        self._abandoned: list[sqlite3.Connection] = []

    @property
    def is_left_alone(self) -> bool:
        """Whether somebody has just waited in vain."""
        return self._clock() - self._failed_at < _LEFT_ALONE_S

    def is_to(self, identities: _Identities) -> bool:
        """Whether it is to these files, or to none yet, or is in use for a transaction."""
        db = self._db
        return db is None or self._identities == identities or db.in_transaction

    @contextlib.contextmanager
    def lent(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection; a transaction that is begun on it ends with this."""
        with self.turn():
            try:
                if self._db is None:
                    self._db, self._identities = self._connect(0.0 if self.is_left_alone else _PATIENCE_S)
                if self._db.in_transaction:
                    raise sqlite3.ProgrammingError("a signal has interrupted what uses it")
                with self._db as db:
                    yield db
            except sqlite3.OperationalError:
                self._failed_at = self._clock()
                raise
            except sqlite3.DatabaseError as error:
                # Not one of its subclasses: the file is malformed, or no database any more, and will not get better.
                file = self._identities[0]
                was_opened = file is not None and file == self._identify()[0]
                if was_opened and type(error) is sqlite3.DatabaseError:
                    self.close()
                    self._put_aside()
                raise
            self._failed_at = -math.inf

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Keep other threads from the connection."""
        try:
            if not self._lock.acquire(timeout=_PATIENCE_S):
                raise sqlite3.OperationalError("other threads use it for too long")
            yield
        finally:
            # Ctrl-C may come in any Python function. This calls none, and the lock knows whether it was taken at all.
            try:  # noqa: SIM105
                self._lock.release()
            except RuntimeError:
                pass

    def close_before_fork(self) -> None:
        """Take the turn, and close the connection."""
        if self._lock.acquire(timeout=_PATIENCE_BEFORE_FORK_S):
            self.close()

    def go_on(self) -> None:
        """Give the turn back that was taken before a fork, if it was."""
        with contextlib.suppress(RuntimeError):
            self._lock.release()

    def close(self, *, keeps_wal: bool = False) -> None:
        """Close the connection; the next use makes another one.

        keeps_wal: what only the -wal has goes into the file before, also if that -wal was deleted.
        """
        db, self._db = self._db, None
        if db is None:
            return
        if keeps_wal:
            with contextlib.suppress(sqlite3.Error):
                db.execute("PRAGMA wal_checkpoint")
        db.close()

    def renew_after_fork(self) -> None:
        """Forget a connection that is a parent's, and the lock that another thread may have held."""
        self._lock = threading.RLock()
        if self._db is not None:
            self._abandoned.append(self._db)
            self._db = None


def _identity(path: str) -> _Identity:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _has_content(path: str) -> bool:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size > 0
    return False


_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()


def _before_fork() -> None:
    take_each(*(file.close_before_fork for file in list(_files)))


def _after_fork_in_parent() -> None:
    take_each(*(file.go_on for file in list(_files)))


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
