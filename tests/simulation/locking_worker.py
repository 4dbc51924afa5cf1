"""A worker whose requests lock their sessions, as a manager does with locking="all"."""

from __future__ import annotations

from dataclasses import dataclass

from msm_fast._core.session_id import SessionId
from msm_fast.engine.locking import (
    SessionLock,
    find_locked,
    new_lock,
    release,
    renew,
    store_locked,
    wait_for_lock,
)
from msm_fast.policies import SaveResult
from msm_fast.session import Session
from tests.simulation.worker import Worker


@dataclass
class LockedRequest:
    """A request with its session, which it alone works on if lock.is_held."""

    worker: LockingWorker
    session: Session
    lock: SessionLock

    def save(self) -> SaveResult:
        return self.worker.driver.run(store_locked(self.worker.ctx, self.session.state, self.lock))

    def give_up(self) -> None:
        self.worker.driver.run(release(self.worker.ctx, self.lock))

    def renew(self) -> None:
        self.worker.driver.run(renew(self.worker.ctx, self.lock))


class LockingWorker(Worker):
    def begin(self, session_id: str, lock: SessionLock | None = None) -> LockedRequest | None:
        """Get a session with its lock, however long that takes, or None if there is no such session."""
        parsed = SessionId.parse_issued(session_id)
        assert parsed is not None
        lock = lock or new_lock(self.ctx)
        while True:
            state = self.driver.run(find_locked(self.ctx, parsed, True, lock))
            if not lock.is_wanted:
                break
            self.driver.run(wait_for_lock(self.ctx, lock), lock.wait_until)
        return None if state is None else LockedRequest(self, self._session(state, presented=session_id), lock)
