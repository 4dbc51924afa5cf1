"""How long an answer is waited for in a loop that is held up, with a loop and a clock that do as they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from msm_fast._core import wire
from msm_fast.drivers import watch as watch_module
from msm_fast.drivers.pipeline import PendingBatch, Pipeline, RoundTrip
from msm_fast.drivers.watch import Watch
from msm_fast.engine.effects import Batch, NodeFailure

OPERATION_S = 0.1
HELD_UP_S = 5 * OPERATION_S


class Connection:
    """Stands for one on which a batch was written."""

    def __init__(self) -> None:
        self.answered_at = 0.0
        self.is_suspected = False

    def suspect(self) -> None:
        self.is_suspected = True


class Loop:
    """An event loop that has one timer and stands still until it is told how late it gets to that."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._timer: tuple[float, Callable[[], None]] = (0.0, lambda: None)
        self._real = asyncio.new_event_loop()
        self.create_future = self._real.create_future
        self.close = self._real.close

    def call_later(self, delay_s: float, callback: Callable[[], None], context: object) -> SimpleNamespace:
        self._timer = (self.now + delay_s, callback)
        return SimpleNamespace(cancel=lambda: None)

    def go_on(self, late_s: float = 0.0, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Do what is there to be done before the timer is due, then something that takes so long, then the timer's."""
        due, callback = self._timer
        self.now = max(self.now, due)
        meanwhile()
        self.now += late_s
        callback()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    loop = Loop()
    monkeypatch.setattr(watch_module, "time", SimpleNamespace(monotonic=lambda: loop.now))
    yield loop
    loop.close()


def sent(loop: Loop, connection: Connection) -> tuple[RoundTrip, PendingBatch]:
    round_trip = RoundTrip([Batch("n1", [wire.noop()])], loop.now + 60, Watch(loop, OPERATION_S))
    pipeline = Pipeline(1)
    pipeline.add(round_trip.pending[0])
    assert pipeline.write(connection) is not None
    return round_trip, round_trip.pending[0]


def test_a_node_that_answers_others_is_not_given_up_by_a_loop_that_is_held_up_again_and_again(loop: Loop) -> None:
    connection = Connection()
    _round_trip, pending = sent(loop, connection)

    def read_what_has_come() -> None:
        connection.answered_at = loop.now

    for _ in range(4):
        loop.go_on(HELD_UP_S, read_what_has_come)
    assert not pending.is_over
    assert not connection.is_suspected


def test_a_node_that_says_nothing_is_given_up_by_a_loop_that_is_held_up_again_and_again(loop: Loop) -> None:
    connection = Connection()
    _round_trip, pending = sent(loop, connection)
    loop.go_on(HELD_UP_S)
    assert not pending.is_over
    loop.go_on(HELD_UP_S)
    assert isinstance(pending.outcome, NodeFailure)
    assert pending.outcome.kind == "timeout"
    assert connection.is_suspected
