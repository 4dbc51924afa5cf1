"""What a flow may ask of its driver, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from msm_fast._core.replies import Replies
from msm_fast._core.wire import Batch

__all__ = [
    "Batch",
    "Budget",
    "Effect",
    "Exchange",
    "FailureKind",
    "Flow",
    "NodeFailure",
    "Outcome",
    "Replies",
    "Sleep",
    "carry_out",
]

T = TypeVar("T")

FailureKind = Literal[
    "refused",
    "unreachable",
    "reset",
    "timeout",
    "protocol",
    "unsupported",
    "deadline",
    "exhausted",
    "gone",
    "restarted",
]
"""Why a node gave no replies.

refused: no connection, by its host's word. unreachable: its host is not reached. reset: the connection was lost.
timeout: no answer within timeouts.operation (or timeouts.connect). protocol: the answer was nonsense. unsupported: the
server is no memcached, too old, without CAS values, does not accept our password, or has no certificate that we accept.
restarted: the node is up, but not in the life that the batch was for; nothing was sent.

These say nothing about the node. deadline: the request's own time was over. exhausted: this process or its host lacked
what a connection takes. gone: it is none of our nodes any more.
"""


@dataclass(slots=True)
class Exchange:
    """Send the batches together and wait for all: one round trip. The result is a list of Outcome, in order."""

    batches: Sequence[Batch]


@dataclass(slots=True)
class Sleep:
    """Wait so many seconds, but not past the request's deadline. The result is whether any time is left after it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NodeFailure:
    """A batch that was not answered. sent: something may have reached the node, so the outcome is unknown."""

    kind: FailureKind
    sent: bool
    detail: str


class Budget:
    """What a request may still spend on sessions. left_s: seconds; who spends some takes them off."""

    __slots__ = ("left_s",)

    def __init__(self, left_s: float) -> None:
        self.left_s = left_s


Effect: TypeAlias = Exchange | Sleep
Outcome: TypeAlias = Replies | NodeFailure
Flow: TypeAlias = Generator[Effect, Any, T]


def carry_out(
    flow: Flow[T],
    exchange: Callable[[Exchange, float], list[Outcome]],
    sleep: Callable[[Sleep, float], bool],
    deadline: float,
) -> T:
    """Run flow to its end with what a blocking driver does for each effect by the deadline, and return its result.

    A flow that is broken off, by gevent.Timeout or Ctrl-C, is closed at once: it would hold on to what it has begun for
    as long as the traceback lives.
    """
    result: list[Outcome] | bool | None = None
    try:
        while True:
            try:
                effect = flow.send(result)
            except StopIteration as stop:
                value: T = stop.value
                return value
            result = exchange(effect, deadline) if isinstance(effect, Exchange) else sleep(effect, deadline)
    finally:
        flow.close()
