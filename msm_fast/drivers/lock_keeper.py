"""The thread that renews the locks of requests that take long, and lets go those that could not be let go in time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from msm_fast.engine.context import Context
from msm_fast.engine.effects import Flow
from msm_fast.engine.kept_locks import KeptLocks
from msm_fast.engine.locking import SessionLock, release, renew

__all__ = ["LockKeeper"]

_log = logging.getLogger("msm_fast.lock_keeper")
_LINGERS_TICKS = 10


class LockKeeper:
    """Renews each held lock in the background, until it is let go.

    The thread lives while there are locks, and some ticks longer, so that it is not made anew for each request.

    run: carries out a flow within the time of one exchange.
    Thread-safety: all methods may be called from any thread.
    """

    def __init__(self, ctx: Context, run: Callable[[Flow[None]], object]) -> None:
        self._ctx = ctx
        self._run = run
        self._locks = KeptLocks(ctx)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def keep(self, lock: SessionLock) -> None:
        """Renew a lock for as long as it is held."""
        self._locks.keep(lock)
        self._start()

    def release(self, lock: SessionLock) -> None:
        """Let a lock go when its node can be asked, or until its lifetime must be over."""
        self._locks.release(lock)
        self._start()

    def close(self, timeout_s: float) -> None:
        """Stop, waiting at most timeout_s for what is on its way. Locks that are left die by their lifetime."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def renew_after_fork(self) -> None:
        """Start anew in a forked child: the locks are its parent's, who has the thread as well."""
        is_closed = self._closing.is_set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._locks.renew_after_fork()
        self._thread = None
        if is_closed:
            self._closing.set()

    def tick(self) -> None:
        """Renew the locks whose time has come, and try again to let go what is left."""
        held, left = self._locks.due()
        for lock in held:
            self._run(renew(self._ctx, lock))
        for lock in left:
            self._run(release(self._ctx, lock))
        self._locks.forget_released()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                thread = threading.Thread(target=self._work, name="msm-fast-lock-keeper", daemon=True)
                try:
                    self._thread = thread
                    thread.start()
                except RuntimeError as error:  # the next lock tries again; until then they last for their lifetimes
                    self._thread = None
                    _log.error("no thread can be started to renew locks: %s", error)

    def _work(self) -> None:
        n_idle = 0
        while not self._closing.wait(self._locks.tick_s):
            with self._lock:
                n_idle = 0 if self._locks.has_any() else n_idle + 1
                if n_idle > _LINGERS_TICKS:
                    self._thread = None
                    return
            try:
                self.tick()
            except Exception:  # noqa: BLE001 - whatever it was: without this thread every lock would be lost
                _log.exception("a lock could not be renewed; it is tried again")
