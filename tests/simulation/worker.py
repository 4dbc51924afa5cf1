"""A worker process of the simulation: one engine, its own view of the cluster's health."""

from __future__ import annotations

import math
import random
from typing import Any

from msm_fast._core.session_id import SessionId
from msm_fast.engine.behind import Job
from msm_fast.engine.context import Context
from msm_fast.engine.effects import Exchange, Flow, Outcome
from msm_fast.engine.exchanging import probe
from msm_fast.engine.loading import Asked
from msm_fast.engine.reconnecting import reconnect
from msm_fast.engine.saving import Begun
from msm_fast.engine.serving import find, store
from msm_fast.local_store import LocalStore
from msm_fast.policies import SaveResult
from msm_fast.session import Session, SessionState
from msm_fast.settings import Settings
from tests.simulation.driver import SimulatedDriver

_RETRY_S = 1.0


def make_settings(n_nodes: int = 3, **settings: Any) -> Settings:
    """Return settings for n1, n2…; what cannot be reached or read is an error unless they say otherwise."""
    settings = {"on_cluster_lost": "error", "on_corrupt": "error", **settings}
    nodes = ",".join(f"n{i}:127.0.0.1:{11000 + i}" for i in range(1, n_nodes + 1))
    return Settings.build(nodes, **settings)


class Worker:
    """Loads and saves sessions as a manager does, over the simulated driver."""

    def __init__(
        self, driver: SimulatedDriver, settings: Settings, seed: int = 0, local_store: LocalStore | None = None
    ) -> None:
        self.driver = driver
        self.ctx = Context(settings, driver.clock.as_clock(), random.Random(seed), local_store)

    def create(self, **attributes: Any) -> Session:
        session = self._session(self.ctx.new_state())
        session.update(attributes)
        return session

    def load(self, session_id: str, expect_write: bool = True) -> Session | None:
        parsed = SessionId.parse_issued(session_id)
        if parsed is None:
            return None
        state = self.driver.run(self.find(parsed, expect_write))
        return None if state is None else self._session(state, presented=session_id)

    def save(self, session: Session) -> SaveResult:
        return self.driver.run(self.keep(session.state))

    def find(self, session_id: SessionId, expect_write: bool) -> Flow[SessionState | None]:
        """Find a session as the managers do: the usual way first, then by a flow that goes on from there."""
        asked = None
        question = self.ctx.usual_loading.ask_for(str(session_id), expect_write)
        if question is not None:
            outcomes: list[Outcome] = yield Exchange(question.batches)
            state = self.ctx.usual_loading.found(question, outcomes)
            if state is not None:
                return state
            asked = Asked(question, outcomes)
        return (yield from find(self.ctx, session_id, expect_write, asked))

    def keep(self, state: SessionState) -> Flow[SaveResult]:
        """Store a session as the managers do."""
        begun = None
        writing = self.ctx.usual_saving.begin(state)
        if isinstance(writing, SaveResult):
            return writing
        if writing is not None:
            outcomes: list[Outcome] = yield Exchange(writing.batches)
            result = self.ctx.usual_saving.saved(writing, outcomes)
            if result is not None:
                return result
            begun = Begun(writing, outcomes)
        return (yield from store(self.ctx, state, begun))

    def store(self, **attributes: Any) -> str:
        """Create a session, store it and return its id."""
        session = self.create(**attributes)
        assert self.save(session).status == "stored"
        return session.id

    def next_job(self) -> Job | None:
        """Take the next job that is due."""
        return next(iter(self.ctx.behind.take(self.driver.clock.monotonic(), 1)), None)

    def do(self, job: Job) -> bool:
        """Carry a job out; one that fails is due again a second later."""
        is_done = self.driver.run(job.run())
        self.ctx.behind.finish(job, None if is_done else self.driver.clock.monotonic() + _RETRY_S)
        return is_done

    def catch_up(self) -> int:
        """Do what is due behind the requests; return how many jobs that were."""
        n = 0
        while (job := self.next_job()) is not None:
            self.do(job)
            n += 1
        return n

    def probe(self, node: str) -> bool:
        """Do what the prober does for a node, and reconnect if that is possible then."""
        is_up = self.driver.run(probe(self.ctx, node))
        if self.ctx.distribution.can_reconnect:
            self.reconnect()
        return is_up

    def reconnect(self) -> bool:
        return self.driver.run(reconnect(self.ctx), math.inf)

    def _session(self, state: SessionState, presented: str | None = None) -> Session:
        return Session(find=None, mint=self.ctx.new_state, presented=presented, state=state)
