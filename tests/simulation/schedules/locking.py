"""Schedules of requests that lock their session, in workers that may die with the locks that they hold."""

from __future__ import annotations

from msm_fast import SaveResult, Session, SessionId
from msm_fast.engine.effects import Flow
from msm_fast.engine.locking import SessionLock, find_locked, new_lock, renew, store_locked, wait_for_lock
from msm_fast.session import SessionState
from msm_fast.settings import Settings
from tests.simulation.driver import SimulatedDriver
from tests.simulation.locking_worker import LockingWorker
from tests.simulation.schedules.history import Request
from tests.simulation.schedules.schedule import Schedule


class _Worker(LockingWorker):
    """Locks each session that it finds, until that is kept."""

    def __init__(self, driver: SimulatedDriver, settings: Settings, seed: int = 0) -> None:
        super().__init__(driver, settings, seed)
        self.locks: dict[int, SessionLock] = {}
        """By the id of the session's state."""

    def load(self, session_id: str, expect_write: bool = True) -> Session | None:
        request = self.begin(session_id)
        if request is None:
            return None
        self.locks[id(request.session.state)] = request.lock
        return request.session

    def find(self, session_id: SessionId, expect_write: bool) -> Flow[SessionState | None]:
        lock = new_lock(self.ctx)
        while True:
            state = yield from find_locked(self.ctx, session_id, expect_write, lock)
            if not lock.is_wanted:
                break
            yield from wait_for_lock(self.ctx, lock)
        if state is not None:
            self.locks[id(state)] = lock
        return state

    def keep(self, state: SessionState) -> Flow[SaveResult]:
        lock = self.locks.get(id(state)) or new_lock(self.ctx)
        try:
            return (yield from store_locked(self.ctx, state, lock))
        finally:
            self.locks.pop(id(state), None)

    def renew_locks(self) -> None:
        """Renew the locks that have lived for a third of their time, as the lock keeper does."""
        due_s = self.ctx.settings.timeouts.lock_ttl / 3
        for lock in list(self.locks.values()):
            if lock.is_held and self.ctx.clock.monotonic() >= lock.renewed_at + due_s:
                self.driver.run(renew(self.ctx, lock))


class LockingSchedule(Schedule):
    """Each request counts up what it found, which nobody else may do at the same time."""

    workers: list[_Worker]  # type: ignore[assignment]

    def _new_worker(self, number: int) -> _Worker:
        settings = self._settings(number, locking="all")
        return _Worker(self.driver, settings, self.rng.getrandbits(32))

    def _use(self, request: Request, session: Session) -> None:
        locks, found = self.workers[request.worker].locks, session.state
        super()._use(request, session)
        locks[id(session.state)] = locks.pop(id(found))  # one that ends its session has another then
        if request.action == "write":
            session["count"] = request.count = request.found.get("count", 0) + 1

    def _work_behind(self) -> None:
        for worker in self.workers:
            worker.renew_locks()
        super()._work_behind()
