"""How long those who wait in a loop that is held up do so, with a loop and a clock that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from msm_fast._core import wire
from msm_fast.drivers import pipeline as pipeline_module
from msm_fast.drivers.pipeline import PendingBatch, Pipeline, RoundTrip
from msm_fast.drivers.waiting import LOOK_S
from msm_fast.drivers.watch import Watch
from msm_fast.engine.effects import Batch, NodeFailure
from msm_fast.policies import Timeouts

TIMEOUTS = Timeouts(connect=0.1, operation=0.1, request=0.25)
HELD_UP_S = 5 * TIMEOUTS.request
EPSILON_S = 0.02


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
        self.now = 1000.0
        self.timer: tuple[float, Callable[[], None]] | None = None
        self._real = asyncio.new_event_loop()
        self.create_future = self._real.create_future
        self.close = self._real.close

    def call_later(self, delay_s: float, callback: Callable[[], None], context: object) -> None:
        assert self.timer is None
        self.timer = (self.now + delay_s, callback)

    def go_on(self, late_s: float = 0.0, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Do what is there to be done before the timer is due, then something that takes so long, then the timer's."""
        assert self.timer is not None
        due, callback = self.timer
        self.timer = None
        self.now = max(self.now, due)
        meanwhile()
        self.now += late_s
        callback()

    def go_on_until(self, condition: Callable[[], bool], late_s: float = 0.0) -> int:
        """Return how many turns it took."""
        for n in range(1000):
            if condition():
                return n
            self.go_on(late_s)
        raise AssertionError("it never came to that")


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    loop = Loop()
    monkeypatch.setattr(pipeline_module, "monotonic", lambda: loop.now)
    yield loop
    loop.close()


@pytest.fixture
def watch(loop: Loop) -> Watch:
    watch = Watch(TIMEOUTS)
    watch.loop = cast("asyncio.AbstractEventLoop", loop)
    return watch


def begun(watch: Watch, budget_s: float = 60.0) -> tuple[RoundTrip, PendingBatch]:
    round_trip = RoundTrip([Batch("n1", [wire.noop()])], watch.now() + budget_s, watch)
    return round_trip, round_trip.pending[0]


def sent(watch: Watch, connection: Connection, budget_s: float = 60.0) -> tuple[RoundTrip, PendingBatch]:
    round_trip, pending = begun(watch, budget_s)
    pipeline = Pipeline(1)
    pipeline.add(pending)
    assert pipeline.write(connection) is not None
    return round_trip, pending


def kind_of(pending: PendingBatch) -> str:
    assert isinstance(pending.outcome, NodeFailure)
    return pending.outcome.kind


def test_a_node_that_says_nothing_is_given_up_in_time_by_a_loop_that_is_free(loop: Loop, watch: Watch) -> None:
    connection = Connection()
    _round_trip, pending = sent(watch, connection)
    began = loop.now
    loop.go_on_until(lambda: pending.is_over, late_s=0.001)
    assert TIMEOUTS.operation <= loop.now - began <= TIMEOUTS.operation + EPSILON_S
    assert kind_of(pending) == "timeout"
    assert connection.is_suspected


def test_a_request_has_its_deadline_in_time_in_a_loop_that_is_free(loop: Loop, watch: Watch) -> None:
    _round_trip, pending = begun(watch, TIMEOUTS.request)
    began = loop.now
    loop.go_on_until(lambda: pending.is_over, late_s=0.001)
    assert TIMEOUTS.request <= loop.now - began <= TIMEOUTS.request + EPSILON_S
    assert kind_of(pending) == "deadline"


def test_a_loop_that_is_held_up_in_each_of_its_turns_has_ten_of_them_for_an_answer(loop: Loop, watch: Watch) -> None:
    connection = Connection()
    _round_trip, pending = sent(watch, connection)
    for _ in range(10):
        loop.go_on(HELD_UP_S)
        assert not pending.is_over
    assert not connection.is_suspected


def test_a_node_that_says_nothing_is_given_up_also_by_a_loop_that_is_held_up_in_each_of_its_turns(
    loop: Loop, watch: Watch
) -> None:
    connection = Connection()
    _round_trip, pending = sent(watch, connection)
    assert loop.go_on_until(lambda: pending.is_over, HELD_UP_S) <= 12
    assert kind_of(pending) == "timeout"
    assert connection.is_suspected


def test_a_node_that_answers_others_is_not_given_up_by_a_loop_that_is_held_up_again_and_again(
    loop: Loop, watch: Watch
) -> None:
    connection = Connection()
    _round_trip, pending = sent(watch, connection)

    def read_what_has_come() -> None:
        connection.answered_at = watch.now()

    for _ in range(40):
        loop.go_on(HELD_UP_S, read_what_has_come)
    assert not pending.is_over
    assert not connection.is_suspected


def test_an_answer_that_came_while_the_loop_was_held_up_is_read_before_it_is_missed(loop: Loop, watch: Watch) -> None:
    connection = Connection()
    _round_trip, pending = sent(watch, connection)
    until = watch.now() + TIMEOUTS.operation
    loop.go_on_until(lambda: watch.now() > until - LOOK_S)
    loop.go_on(HELD_UP_S)
    assert watch.now() > until
    assert not pending.is_over
    loop.go_on()
    assert pending.is_over


def test_a_request_that_waits_for_a_connection_is_charged_next_to_nothing_of_what_the_loop_is_held_up(
    loop: Loop, watch: Watch
) -> None:
    round_trip, pending = begun(watch, TIMEOUTS.request)
    for _ in range(20):
        loop.go_on(HELD_UP_S)
    assert not pending.is_over
    pending.end(NodeFailure("refused", False, ""))
    assert round_trip.left_s == pytest.approx(TIMEOUTS.request - 20 * TIMEOUTS.operation / 10)


def test_a_request_without_a_connection_has_a_deadline_in_a_loop_that_is_held_up_in_each_of_its_turns(
    loop: Loop, watch: Watch
) -> None:
    _round_trip, pending = begun(watch, TIMEOUTS.request)
    assert loop.go_on_until(lambda: pending.is_over, HELD_UP_S) <= 27
    assert kind_of(pending) == "deadline"


def test_what_is_charged_is_what_passed_until_the_outcome_in_a_loop_that_is_free(loop: Loop, watch: Watch) -> None:
    round_trip, pending = begun(watch, TIMEOUTS.request)
    for _ in range(4):
        loop.go_on()
    pending.end(NodeFailure("refused", False, ""))
    loop.go_on(HELD_UP_S)
    assert round_trip.left_s == pytest.approx(TIMEOUTS.request - 4 * LOOK_S)


def test_nothing_ticks_while_nobody_waits(loop: Loop, watch: Watch) -> None:
    round_trip, _pending = begun(watch)
    round_trip.close()
    loop.go_on()
    assert loop.timer is None
    before = watch.now()
    loop.now += 3600
    assert watch.now() - before <= TIMEOUTS.operation / 10
    again, _pending = begun(watch)
    assert loop.timer is not None
    again.close()
