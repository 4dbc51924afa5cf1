"""The time that the batches of one exchange have in an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import math
import time

from msm_fast.drivers.failures import OUT_OF_TIME
from msm_fast.drivers.pipeline import Agenda, PendingBatch, RoundTrip
from msm_fast.drivers.waiting import HELD_UP_S
from msm_fast.engine.effects import NodeFailure

__all__ = ["Watch"]

_LAST_LOOK_S = 0.001
"""A loop that was held up may look at its timers before it reads what has come meanwhile (uvloop does): so much later
it has read it."""


class Watch(Agenda):
    """One timer for all round trips that are on their way: few of them ever get as far as that it matters.

    The time for an answer begins when all batches of a round trip are sent; what is not has a connection to wait for,
    which has limits of its own.
    """

    __slots__ = ("_context", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, operation_s: float) -> None:
        super().__init__(loop, operation_s)
        self._context = contextvars.Context()
        """That of no request: the timer sets itself anew, again and again."""
        self._timer: asyncio.TimerHandle | None = None

    def wake_at(self, at: float) -> None:
        """Set the timer to this time."""
        if self._timer is not None:
            self._timer.cancel()
        self.wakes_at = at
        self._timer = self.loop.call_later(max(at - time.monotonic(), 0), self._wake, context=self._context)

    def _wake(self) -> None:
        self._timer, self.wakes_at = None, math.inf
        now = time.monotonic()
        for round_trip in [round_trip for round_trip, at in self.due.items() if at <= now]:
            self._look(round_trip, self.due[round_trip])
        next_at = min(self.due.values(), default=math.inf)
        if next_at < self.wakes_at:
            self.wake_at(next_at)

    def _look(self, round_trip: RoundTrip, due: float) -> None:
        """Give up what has no answer, once there was time for one. due: when this was to be called."""
        now = read_at = time.monotonic()
        if now > due + HELD_UP_S:
            round_trip.deadline += now - due  # it is not the request that has spent that
            if not round_trip.is_last_look:
                round_trip.is_last_look = True
                self.look_at(round_trip, now + _LAST_LOOK_S)
                return
            read_at = due  # held up once more: what has come since then is not read
        round_trip.is_last_look = False
        round_trip.waits_for_connection = round_trip.n_unsent > 0
        next_at = math.inf
        for pending in round_trip.pending:
            if pending.is_over:
                continue
            due = round_trip.deadline if round_trip.waits_for_connection else self._due_at(round_trip, pending)
            if read_at < due and now < round_trip.deadline:
                next_at = min(next_at, due)
            else:
                _give_up(pending, is_deadline=now >= round_trip.deadline)
        self.look_at(round_trip, next_at)

    def _due_at(self, round_trip: RoundTrip, pending: PendingBatch) -> float:
        """Return when a batch is given up: when its node has said nothing for so long.

        On a connection that many share, it is no sign of a node that hangs if others are answered first.
        """
        answered_at = pending.connection.answered_at if pending.connection is not None else 0.0
        return float(min(max(round_trip.sent_at, answered_at) + self.operation_s, round_trip.deadline))


def _give_up(pending: PendingBatch, *, is_deadline: bool) -> None:
    connection = pending.connection
    if is_deadline:
        pending.end(NodeFailure("deadline", connection is not None, OUT_OF_TIME))
        return
    if connection is not None:
        connection.suspect()
    pending.end(NodeFailure("timeout", connection is not None, "no answer in time"))
