"""The same flows under the simulated driver and, on real memcached processes, the blocking one."""

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from msm_fast import SessionId, SessionUnavailable
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.engine.context import Clock, Context
from msm_fast.engine.effects import Flow
from msm_fast.engine.loading import load
from msm_fast.engine.saving import save
from msm_fast.session import Session, SessionState
from msm_fast.settings import Settings
from tests.integration.conftest import Nodes
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.worker import make_settings

pytestmark = pytest.mark.memcached

T = TypeVar("T")
PLAIN = "0123456789abcdef" * 2


class Application:
    """What a site does with sessions, written once; it keeps a record of what it was told."""

    def __init__(self, ctx: Context, run: Callable[[Flow[Any]], Any]) -> None:
        self.ctx = ctx
        self.run = run
        self.told: list[object] = []

    def load(self, session_id: str) -> Session | None:
        parsed = SessionId.parse(session_id)
        assert parsed is not None
        state = self.run(load(self.ctx, parsed, True))
        self.told.append(None if state is None else (dict(state.attributes), str(state.session_id)))
        return None if state is None else self.session(state, session_id)

    def save(self, session: Session) -> None:
        result = self.run(save(self.ctx, session.state))
        self.told.append((result, session.generation))

    def session(self, state: SessionState, presented: str | None = None) -> Session:
        return Session(None, self.ctx.new_state, presented, state)

    def live(self, kill: Callable[[str], None]) -> None:
        """Create, change, conflict, lose a node, log out, lose the rest."""
        session = self.session(self.ctx.new_state())
        session.state.session_id = SessionId(f"{PLAIN}-{self.ctx.topology.ranked(PLAIN, lambda node: True)[0]}")
        session["cart"] = ["apple"]
        self.save(session)
        first, second = self.load(session.id), self.load(session.id)
        assert first is not None
        assert second is not None
        first["cart"].append("pear")
        second["user"] = "ada"
        self.save(first)
        self.save(second)
        kill(session.id.partition("-")[2])
        moved = self.load(session.id)
        assert moved is not None
        self.save(moved)
        moved.invalidate()
        self.save(moved)
        assert self.load(session.id) is None
        for node in self.ctx.topology.nodes:
            kill(node)
        with pytest.raises(SessionUnavailable) as caught:
            self.load(f"{PLAIN[::-1]}-n1")
        self.told.append(caught.value.nodes)
        self.told.append(self.ctx.counters.snapshot())


def simulated() -> list[object]:
    driver = SimulatedDriver(["n1", "n2", "n3"], VirtualClock())
    ctx = Context(make_settings(), driver.clock.as_clock(), random.Random(1))
    application = Application(ctx, driver.run)

    def kill(node: str) -> None:
        driver.nodes[node].fault = "refused"

    application.live(kill)
    return application.told


def real(nodes: Nodes) -> list[object]:
    settings = Settings.build([f"{name}:{server.address}" for name, server in nodes.items()])
    ctx = Context(settings, Clock(time.monotonic, time.time), random.Random(1))
    driver = BlockingDriver(ctx.topology.nodes, settings.timeouts)

    def run(flow: Flow[T]) -> T:
        return driver.run(flow, time.monotonic() + settings.timeouts.request)

    application = Application(ctx, run)
    application.live(lambda node: nodes[node].kill())
    driver.close()
    return application.told


def test_an_application_is_told_the_same_under_both(nodes: Nodes) -> None:
    assert real(nodes) == simulated()
