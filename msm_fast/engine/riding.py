"""One command more in a round trip that a flow makes anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from msm_fast._core.replies import Reply
from msm_fast._core.wire import Command
from msm_fast.engine.effects import Batch, Effect, Exchange, Flow, NodeFailure, Outcome, Replies

__all__ = ["Answer", "ride"]

T = TypeVar("T")

Answer = tuple[Reply, int] | NodeFailure
"""The reply to the command and the life of the node that gave it, or why there is none."""


_BROKEN_OFF = NodeFailure("deadline", True, "the request was broken off")
"""Nobody knows what became of the command."""


def ride(
    flow: Flow[T],
    wanted: Callable[[Batch], bool],
    command: Command,
    take: Callable[[Answer], None],
    *,
    goes_first: bool,
) -> Flow[T]:
    """Carry flow out, with command added to the first batch that is wanted, before or after its own; flow does not see.

    take: called with what came of it. Neither is called any more after that; when flow sends that batch again, the
    command is not sent again.
    """
    has_ridden = False
    result: list[Outcome] | None = None
    while True:
        try:
            effect: Effect = flow.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value
        seats = effect.batches if isinstance(effect, Exchange) and not has_ridden else ()
        seat = next((i for i, batch in enumerate(seats) if wanted(batch)), None)
        if seat is None:
            result = yield effect
            continue
        has_ridden = True
        batches, own = list(seats), list(seats[seat].commands)
        commands = [command, *own] if goes_first else [*own, command]
        batches[seat] = Batch(seats[seat].node, commands, seats[seat].life)
        try:
            result = yield Exchange(batches)
        except GeneratorExit:
            take(_BROKEN_OFF)
            raise
        assert result is not None
        outcome = result[seat]
        if isinstance(outcome, NodeFailure):
            take(outcome)
        else:
            replies = list(outcome)
            take((replies.pop(0 if goes_first else -1), outcome.life))
            result[seat] = Replies(replies, outcome.life, outcome.compares)
