"""Several flows carried out side by side: what they want to exchange at the same time is one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from msm_fast._core.wire import Command
from msm_fast.engine.effects import Batch, Effect, Exchange, Flow, NodeFailure, Outcome, Replies, Sleep

__all__ = ["together"]

T = TypeVar("T")

_BLAMES_NODE = ("timeout", "protocol")
"""Failures of which a node's breaker counts several before it opens."""


def together(flows: Sequence[Flow[T]]) -> Flow[list[T | Exception]]:
    """Carry flows out side by side; return what each has returned or raised, in their order.

    The commands that go to one node at the same time are one batch. If it fails, one of the flows is told why, the
    others of a timeout only that their time was over: for the node's breaker it was one failure.
    """
    run = _Run(flows)
    try:
        for i in range(len(flows)):
            run.advance(i, None)
        while run.wanted:
            exchanges = {i: effect for i, effect in run.wanted.items() if isinstance(effect, Exchange)}
            if exchanges:
                shared = _SharedExchange(exchanges)
                outcomes: list[Outcome] = yield Exchange(shared.batches)
                for i, mine in shared.share_out(outcomes).items():
                    run.advance(i, mine)
            else:
                sleeps = {i: effect for i, effect in run.wanted.items() if isinstance(effect, Sleep)}
                shortest = min(effect.seconds for effect in sleeps.values())
                has_time: bool = yield Sleep(shortest)
                for i, effect in sleeps.items():
                    if effect.seconds <= shortest or not has_time:
                        run.advance(i, has_time)
                    else:
                        run.wanted[i] = Sleep(effect.seconds - shortest)
    finally:
        for flow in flows:
            flow.close()
    return run.results


class _Run(Generic[T]):
    """How far each flow is. wanted: by index, of those that have not ended. results: of those that have."""

    def __init__(self, flows: Sequence[Flow[T]]) -> None:
        self._flows = flows
        self.wanted: dict[int, Effect] = {}
        self.results: list[T | Exception] = [RuntimeError("it has not ended")] * len(flows)

    def advance(self, i: int, answer: list[Outcome] | bool | None) -> None:
        """Let a flow go on until it wants something, or ends."""
        self.wanted.pop(i, None)
        try:
            self.wanted[i] = self._flows[i].send(answer)
        except StopIteration as stop:
            self.results[i] = stop.value
        except Exception as error:  # noqa: BLE001 - whatever it was, it is this flow's alone
            self.results[i] = error


class _SharedExchange:
    """The exchanges of several flows as one: a batch for each node, and each life of it that one of them asks for."""

    def __init__(self, exchanges: dict[int, Exchange]) -> None:
        commands: dict[tuple[str, int | None], list[Command]] = {}
        self._seats: dict[int, list[tuple[tuple[str, int | None], int, int]]] = {}
        for i, exchange in exchanges.items():
            self._seats[i] = []
            for batch in exchange.batches:
                whose = batch.node, batch.life
                mine = commands.setdefault(whose, [])
                self._seats[i].append((whose, len(mine), len(mine) + len(batch.commands)))
                mine += batch.commands
        self._order = list(commands)
        self.batches = [Batch(node, commands[node, life], life) for node, life in self._order]

    def share_out(self, outcomes: Sequence[Outcome]) -> dict[int, list[Outcome]]:
        """Return what each flow is answered."""
        by_batch = dict(zip(self._order, outcomes, strict=True))
        return {i: [self._share(by_batch, *seat) for seat in seats] for i, seats in self._seats.items()}

    @staticmethod
    def _share(
        by_batch: dict[tuple[str, int | None], Outcome], whose: tuple[str, int | None], start: int, end: int
    ) -> Outcome:
        outcome = by_batch[whose]
        if not isinstance(outcome, NodeFailure):
            return Replies(outcome[start:end], outcome.life, outcome.compares)
        if outcome.kind in _BLAMES_NODE:
            by_batch[whose] = replace(outcome, kind="deadline")
        return outcome
