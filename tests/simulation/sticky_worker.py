"""A worker of the simulation that serves sessions from its memory, with the work behind the requests done when told."""

from __future__ import annotations

from typing import Any

from msm_fast import DistributionState, SaveResult, SessionId
from msm_fast.engine.effects import Flow
from msm_fast.engine.local import find_locally, is_only_in_cluster
from msm_fast.engine.sticky import StickySessions
from msm_fast.local_store import LocalStore
from msm_fast.session import SessionState
from tests.simulation.driver import SimulatedDriver
from tests.simulation.worker import Worker


class StickyWorker(Worker):
    """Does for sticky sessions what the manager and the thread behind it do."""

    def __init__(
        self, driver: SimulatedDriver, settings: Any, seed: int = 0, local_store: LocalStore | None = None
    ) -> None:
        super().__init__(driver, settings, seed, local_store)
        self.sticky = StickySessions(self.ctx)

    def find(self, session_id: SessionId, expect_write: bool) -> Flow[SessionState | None]:
        live = self.sticky.find_at_once(session_id)
        if live is not None:
            return live
        if not self.ctx.distribution.is_on and not is_only_in_cluster(self.ctx, session_id):
            return find_locally(self.ctx, session_id)
        return (yield from self.sticky.find(session_id, expect_write))

    def keep(self, state: SessionState) -> Flow[SaveResult]:
        result = self.sticky.store_at_once(state)
        return result if result is not None else (yield from self.sticky.store(state))

    def store(self, **attributes: Any) -> str:
        session = self.create(**attributes)
        assert self.save(session).status == "queued"
        return session.id


def stored(driver: SimulatedDriver, worker: StickyWorker, session_id: str) -> dict[str, Any]:
    """Return what a worker that has never seen the session finds in the cluster."""
    session = Worker(driver, worker.ctx.settings).load(session_id)
    assert session is not None
    return dict(session)


def fail(driver: SimulatedDriver, fault: Any) -> None:
    for node in driver.nodes.values():
        node.fault = fault


def lose(driver: SimulatedDriver, worker: StickyWorker) -> None:
    for node in driver.nodes.values():
        node.fault = "refused"
    while worker.ctx.state() is not DistributionState.LOCAL:
        worker.load(str(SessionId.generate("n1")))
        worker.load(str(SessionId.generate("n2")))


def heal(driver: SimulatedDriver, worker: StickyWorker) -> None:
    for node in driver.nodes.values():
        node.fault = None
    for node in worker.ctx.health.down():
        worker.probe(node)
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
