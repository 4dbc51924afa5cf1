"""What is on its way on one connection, without a connection: bytes are taken from it and given to it."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest

from msm_fast._core import wire
from msm_fast._core.replies import ProtocolError
from msm_fast.drivers.pipeline import PendingBatch, Pipeline, RoundTrip
from msm_fast.drivers.watch import Watch
from msm_fast.engine.effects import Batch, NodeFailure
from msm_fast.policies import Timeouts

GET = wire.get(b"key")
FAILURE = NodeFailure("reset", True, "the connection was lost")


class Connection:
    """Stands for what a pipeline's bytes are written to."""

    answered_at = 0.0


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


def ask(n_batches: int = 1) -> RoundTrip:
    batches = [Batch(f"n{i}", [GET]) for i in range(n_batches)]
    return RoundTrip(batches, math.inf, Watch(Timeouts(operation=60)))


def sent(pipeline: Pipeline, n_batches: int) -> RoundTrip:
    """Write so many batches together."""
    round_trip = ask(n_batches)
    for pending in round_trip.pending:
        pipeline.add(pending)
    assert pipeline.write(Connection()) is not None
    return round_trip


def hit(opaque: int, value: bytes) -> bytes:
    return b"VA %d c5 f0 t-1 O%d\r\n%b\r\n" % (len(value), opaque, value)


def values(round_trip: RoundTrip) -> list[bytes]:
    return [outcome[0].value for outcome in round_trip.outcomes]


@in_loop
async def test_one_piece_of_the_stream_may_have_the_replies_of_several_writes() -> None:
    pipeline = Pipeline(1)
    first, second, third = sent(pipeline, 2), sent(pipeline, 1), sent(pipeline, 1)
    stream = hit(1, b"a\n") + hit(2, b"b\r\n") + hit(3, b"c") + hit(4, b"cut off")
    assert pipeline.take(stream[:-3], 1, False)
    assert (values(first), values(second), values(third)) == ([b"a\n", b"b\r\n"], [b"c"], [])
    assert pipeline.take(stream[-3:], 1, False)
    assert values(third) == [b"cut off"]
    assert pipeline.is_idle


@in_loop
async def test_what_came_before_a_reply_that_makes_no_sense_is_given() -> None:
    pipeline = Pipeline(1)
    round_trip = sent(pipeline, 3)
    with pytest.raises(ProtocolError):
        pipeline.take(hit(1, b"good") + hit(9, b"bad") + hit(3, b"whose?"), 1, False)
    assert values(round_trip) == [b"good"]
    assert pipeline.pop_sent() == round_trip.pending[1:]


@in_loop
async def test_bytes_behind_the_last_reply_make_no_sense() -> None:
    pipeline = Pipeline(1)
    round_trip = sent(pipeline, 1)
    with pytest.raises(ProtocolError, match="nobody asked for"):
        pipeline.take(hit(1, b"mine") + b"HD\r\n", 1, False)
    assert values(round_trip) == [b"mine"]


@in_loop
async def test_replies_carry_the_life_of_the_node_and_what_it_can_do() -> None:
    pipeline = Pipeline(1)
    round_trip = sent(pipeline, 1)
    pipeline.take(hit(1, b"value"), 7, True)
    (replies,) = round_trip.outcomes
    assert (replies.life, replies.compares) == (7, True)


@in_loop
async def test_a_round_trip_has_ended_when_its_last_batch_has_an_outcome() -> None:
    round_trip = ask(2)
    first, second = round_trip.pending
    second.end(FAILURE)
    assert not round_trip.has_ended.done()
    first.end(FAILURE)
    assert round_trip.has_ended.done()


@in_loop
async def test_a_round_trip_of_nothing_has_ended_at_once() -> None:
    assert ask(0).has_ended.done()


@in_loop
async def test_a_batch_has_one_outcome() -> None:
    round_trip = ask()
    (pending,) = round_trip.pending
    pending.end(FAILURE)
    pending.end(NodeFailure("timeout", True, "later"))
    assert round_trip.outcomes == [FAILURE]


@in_loop
async def test_the_time_for_an_answer_begins_when_all_batches_are_sent_or_failed() -> None:
    round_trip = ask(3)
    began_at = round_trip.sent_at
    await asyncio.sleep(0.001)
    one, other, failed = round_trip.pending
    for pending in (one, other):
        pipeline = Pipeline(1)
        pipeline.add(pending)
        pipeline.write(Connection())
    assert (round_trip.n_unsent, round_trip.sent_at) == (1, began_at)
    failed.end(FAILURE)
    assert round_trip.n_unsent == 0
    assert round_trip.sent_at > began_at


@in_loop
async def test_a_round_trip_that_is_closed_wants_nothing_and_leaves_nothing_to_the_garbage_collector() -> None:
    pipeline = Pipeline(1)
    gc.disable()
    try:
        written, unwritten = sent(pipeline, 1), ask()
        pipeline.add(unwritten.pending[0])
        future = weakref.ref(written.has_ended)
        written.close()
        unwritten.close()
        assert pipeline.write(Connection()) is None
        assert pipeline.take(hit(1, b"dropped"), 1, False)
        assert written.outcomes == []
        del written
        assert future() is None
    finally:
        gc.enable()


def test_a_batch_that_no_round_trip_has_sent_does_nothing() -> None:
    with pytest.raises(TypeError, match="made by RoundTrip"):
        PendingBatch()
    pending, pipeline = PendingBatch.__new__(PendingBatch), Pipeline(1)
    pending.end(FAILURE)
    pipeline.add(pending)
    assert pipeline.write(Connection()) is None
    assert pending.outcome is None
