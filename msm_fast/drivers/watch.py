"""The time that those who wait in an event loop have, and the batches of an exchange."""

from __future__ import annotations

import asyncio
import contextvars
import math

from msm_fast.drivers.failures import OUT_OF_TIME
from msm_fast.drivers.pipeline import Agenda, PendingBatch, RoundTrip
from msm_fast.drivers.waiting import LOOK_S
from msm_fast.engine.effects import NodeFailure
from msm_fast.policies import Timeouts

__all__ = ["Watch"]

_LOOKS = 10
"""How often the loop comes round, at least, before any limit is over, however long that takes."""


class Watch(Agenda):
    """One timer for all that wait for anything in a loop: few of them ever get as far as that it matters.

    The time for an answer begins when all batches of a round trip are sent; what is not has a connection to wait for,
    which has limits of its own.
    """

    __slots__ = ("_context", "_timer")

    def __init__(self, timeouts: Timeouts) -> None:
        shortest_s = min(timeouts.connect, timeouts.operation, timeouts.request)
        super().__init__(timeouts.operation, max(shortest_s / _LOOKS, 2 * LOOK_S))
        self._context = contextvars.Context()
        """That of no request: the timer sets itself anew, again and again."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Set the timer, unless it is still set for those who were there before."""
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
        if self._timer is None:
            self.look()
            self._timer = self.loop.call_later(LOOK_S, self._look, context=self._context)

    def _look(self) -> None:
        self._timer = None
        if not self.due:
            return
        self.start()
        if self.read_until >= self.next_at:
            self._give_up_what_is_due()

    def _give_up_what_is_due(self) -> None:
        self.next_at = math.inf
        due = [(waiting, at) for waiting, at in self.due.items() if at <= self.read_until]
        for round_trip, _at in due:
            assert isinstance(round_trip, RoundTrip)
            self._give_up(round_trip)
        self.next_at = min(self.due.values(), default=math.inf)

    def _give_up(self, round_trip: RoundTrip) -> None:
        """Give up what has had its time, and look again when that may be so of the rest."""
        round_trip.waits_for_connection = round_trip.n_unsent > 0
        next_at = math.inf
        for pending in round_trip.pending:
            if pending.is_over:
                continue
            due = round_trip.deadline if round_trip.waits_for_connection else self._due_at(round_trip, pending)
            if self.read_until < due:
                next_at = min(next_at, due)
            else:
                _give_up(pending, is_deadline=self.read_until >= round_trip.deadline)
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
