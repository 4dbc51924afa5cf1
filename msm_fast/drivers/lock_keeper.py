"""The thread that renews the locks of requests that take long, and lets go those that could not be let go in time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msm_fast.drivers.worker_thread import WorkerThread
from msm_fast.engine.context import Context
from msm_fast.engine.effects import Flow
from msm_fast.engine.kept_locks import KeptLocks
from msm_fast.engine.locking import SessionLock, release, renew
from msm_fast.logs import Log

__all__ = ["LockKeeper"]

_log = Log("msm_fast.lock_keeper")
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
        self._worker = WorkerThread("msm-fast-lock-keeper", self._work)

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
        self._worker.close(timeout_s)

    def renew_after_fork(self) -> None:
        """Start anew in a forked child: the locks are its parent's, who has the thread as well."""
        self._worker.renew()
        self._locks.renew_after_fork()

    def tick(self) -> None:
        """Renew the locks whose time has come, and try again to let go what is left."""
        held, left = self._locks.due()
        for lock in held:
            self._run(renew(self._ctx, lock))
        for lock in left:
            self._run(release(self._ctx, lock))
        self._locks.forget_released()

    def _start(self) -> None:
        error = self._worker.start()
        if error is not None:  # the next lock tries again; until then they last for their lifetimes
            _log.error("no thread can be started to renew locks: %s", error)

    def _has_more(self, n_idle: int) -> bool:
        return n_idle < _LINGERS_TICKS or self._locks.has_any()

    def _work(self) -> None:
        n_idle = 0
        self._worker.pause(self._locks.tick_s)
        while not self._worker.ends(partial(self._has_more, n_idle)):
            n_idle = 0 if self._locks.has_any() else n_idle + 1
            try:
                self.tick()
            except Exception:  # noqa: BLE001 - whatever it was: without this thread every lock would be lost
                _log.exception("a lock could not be renewed; it is tried again")
            self._worker.pause(self._locks.tick_s)
