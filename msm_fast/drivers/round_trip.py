"""The time that the batches of one exchange have in an event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

from msm_fast.drivers.failures import OUT_OF_TIME
from msm_fast.drivers.multiplexed import PendingBatch
from msm_fast.engine.effects import Batch, NodeFailure

__all__ = ["RoundTrip", "Watch"]

_HELD_UP_S = 0.01
_LAST_LOOK_S = 0.001
"""A loop that was held up may look at its timers before it reads what has come meanwhile (uvloop does): so much later
it has read it."""


class Watch:
    """One timer for all round trips that are on their way: few of them ever get as far as that it matters."""

    __slots__ = ("_due", "_timer", "_wakes_at", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._due: dict[RoundTrip, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf

    def expect(self, round_trip: RoundTrip, at: float) -> None:
        """Call round_trip.expire then, unless it is told otherwise before. at: of time.monotonic(); inf: never."""
        self._due[round_trip] = at
        if at < self._wakes_at:
            self._wake_at(at)

    def forget(self, round_trip: RoundTrip) -> None:
        """Do not call it any more."""
        self._due.pop(round_trip, None)

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = at
        self._timer = self.loop.call_later(max(at - time.monotonic(), 0), self._wake)

    def _wake(self) -> None:
        self._timer, self._wakes_at = None, math.inf
        now = time.monotonic()
        for round_trip in [round_trip for round_trip, at in self._due.items() if at <= now]:
            round_trip.expire(self._due[round_trip])
        next_at = min(self._due.values(), default=math.inf)
        if next_at < self._wakes_at:
            self._wake_at(next_at)


class RoundTrip:
    """The batches of one exchange, and who waits for them.

    The time for an answer begins when all of them are sent; what is not has a connection to wait for, which has limits
    of its own.
    """

    __slots__ = (
        "_deadline",
        "_is_last_look",
        "_n_open",
        "_n_unsent",
        "_operation_s",
        "_sent_at",
        "_waits_for_connection",
        "_watch",
        "has_ended",
        "pending",
    )

    def __init__(self, batches: Sequence[Batch], deadline: float, operation_s: float, watch: Watch) -> None:
        self._deadline = deadline
        self._operation_s = operation_s
        self._watch = watch
        self._sent_at = time.monotonic()
        self._n_unsent = self._n_open = len(batches)
        self._is_last_look = False
        self._waits_for_connection = False
        self.has_ended: asyncio.Future[None] = watch.loop.create_future()
        self.pending = [PendingBatch(batch, self) for batch in batches]
        if batches:
            watch.expect(self, self._answer_due())
        else:
            self.has_ended.set_result(None)

    def close(self) -> None:
        """Want no outcome any more of what has none yet."""
        self._watch.forget(self)
        for pending in self.pending:
            pending.abandon()

    def batch_sent(self) -> None:
        """Note that one of the batches was written."""
        self._n_unsent -= 1
        self._begin_to_count()

    def batch_ended(self, was_sent: bool) -> None:
        """Note that one of the batches has an outcome."""
        self._n_open -= 1
        if not self._n_open:
            if not self.has_ended.done():
                self.has_ended.set_result(None)
        elif not was_sent:
            self._n_unsent -= 1
            self._begin_to_count()

    def _begin_to_count(self) -> None:
        if not self._n_unsent:
            self._sent_at = time.monotonic()
            if self._waits_for_connection:
                self._watch.expect(self, self._answer_due())

    def _answer_due(self) -> float:
        return min(self._sent_at + self._operation_s, self._deadline)

    def expire(self, due: float) -> None:
        """Give up what has no answer, once there was time for one. due: when this was to be called."""
        now = time.monotonic()
        if now > due + _HELD_UP_S and not self._is_last_look:
            self._is_last_look = True
            self._watch.expect(self, now + _LAST_LOOK_S)
            return
        self._is_last_look = False
        self._waits_for_connection = self._n_unsent > 0
        next_at = math.inf
        for pending in self.pending:
            if pending.is_over:
                continue
            due = self._deadline if self._waits_for_connection else self._due(pending)
            if now < due:
                next_at = min(next_at, due)
            else:
                self._give_up(pending, is_deadline=now >= self._deadline)
        self._watch.expect(self, next_at)

    def _due(self, pending: PendingBatch) -> float:
        """Return when a batch is given up: when its node has said nothing for so long.

        On a connection that many share, it is no sign of a node that hangs if others are answered first.
        """
        answered_at = pending.connection.answered_at if pending.connection is not None else 0.0
        return min(max(self._sent_at, answered_at) + self._operation_s, self._deadline)

    @staticmethod
    def _give_up(pending: PendingBatch, *, is_deadline: bool) -> None:
        connection = pending.connection
        if is_deadline:
            pending.end(NodeFailure("deadline", connection is not None, OUT_OF_TIME))
            return
        if connection is not None:
            connection.suspect()
        pending.end(NodeFailure("timeout", connection is not None, "no answer in time"))
