"""Runs flows over a simulated cluster: the same flows as the blocking driver's, under virtual time and faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from msm_fast._core import wire
from msm_fast._core.replies import ReplyParser
from msm_fast.engine.effects import (
    Batch,
    Exchange,
    FailureKind,
    Flow,
    NodeFailure,
    Outcome,
    Replies,
    Sleep,
    carry_out,
)
from msm_fast.policies import Timeouts
from tests.simulation.clock import VirtualClock
from tests.simulation.server import SimulatedServer

T = TypeVar("T")

ROUND_TRIP_S = 0.0005


class SimulatedNode:
    """A server and the network to it. fault: what the next batches meet, until it is None again."""

    def __init__(self, clock: VirtualClock) -> None:
        self.server = SimulatedServer(clock)
        self.fault: FailureKind | None = None
        self.carries_out_before_failing = False
        self.batches = 0
        self._clock = clock

    def answer(self, batch: Batch, opaque: int, timeouts: Timeouts, deadline: float) -> Outcome:
        self.batches += 1
        if self.fault is None and batch.life not in (None, self.server.life):
            return NodeFailure("restarted", False, "simulated: restarted")
        data = wire.encode(batch.commands, opaque)
        if self.fault is not None:
            if self.carries_out_before_failing:
                self.server.handle(data)
            return self._fail(self.fault, timeouts, deadline)
        parser = ReplyParser(batch.commands, opaque)
        assert parser.feed(self.server.handle(data))
        return Replies(parser.replies, self.server.life, self.server.compares)

    def _fail(self, fault: FailureKind, timeouts: Timeouts, deadline: float) -> NodeFailure:
        if fault == "timeout":
            self._clock.advance(min(timeouts.operation, max(deadline - self._clock.monotonic(), 0)))
            if self._clock.monotonic() >= deadline:
                return NodeFailure("deadline", True, "the request's time was over")
        return NodeFailure(fault, fault != "refused", f"simulated: {fault}")


class SimulatedDriver:
    """Carries flows out. before_exchange, if set, is called before each one: the place for faults and rivals."""

    def __init__(self, nodes: list[str], clock: VirtualClock, timeouts: Timeouts | None = None) -> None:
        self.clock = clock
        self.nodes = {node: SimulatedNode(clock) for node in nodes}
        self.timeouts = timeouts or Timeouts()
        self.exchanges = 0
        self.before_exchange: Callable[[Exchange], None] | None = None
        self._opaque = 0

    def run(self, flow: Flow[T], deadline: float | None = None) -> T:
        until = self.clock.monotonic() + self.timeouts.request if deadline is None else deadline
        return carry_out(flow, self._exchange, self._sleep, until)

    def _sleep(self, effect: Sleep, until: float) -> bool:
        self.clock.advance(max(min(effect.seconds, until - self.clock.monotonic()), 0))
        return self.clock.monotonic() < until

    def _exchange(self, effect: Exchange, deadline: float) -> list[Outcome]:
        if self.before_exchange is not None:
            self.before_exchange(effect)
        self.exchanges += 1
        if self.clock.monotonic() >= deadline:
            return [NodeFailure("deadline", False, "the request's time was over") for _ in effect.batches]
        self._opaque += 1000
        start = self.clock.monotonic()
        slowest = start
        outcomes = []
        for batch in effect.batches:
            self.clock.elapsed = start  # they wait at the same time
            outcomes.append(self.nodes[batch.node].answer(batch, self._opaque, self.timeouts, deadline))
            slowest = max(slowest, self.clock.monotonic())
        self.clock.elapsed = slowest + ROUND_TRIP_S
        return outcomes
