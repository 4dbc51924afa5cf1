"""One round trip, with its retries and what it says about the nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress

from msm_fast._core import wire
from msm_fast.engine.as_usual import all_answered
from msm_fast.engine.context import Context
from msm_fast.engine.effects import Batch, Exchange, Flow, NodeFailure, Outcome, Sleep

__all__ = [
    "NO_END",
    "ask",
    "exchange",
    "jittered_wait",
    "let_live",
    "probe",
    "settle",
    "wait_after_conflict",
    "wait_before_retry",
]

NO_END = -1
"""What a reply says of the life of an item that never expires."""

_MISSED_AT_ONCE = 200
_LOSSES_THAT_COUNT = 2
_DOWN = NodeFailure("refused", False, "it is down")


def exchange(ctx: Context, batches: list[Batch]) -> Flow[list[Outcome]]:
    """Exchange batches; retry those whose connection was lost, within the retry budget; note each node's health.

    A node that is down is left alone: it may have gone down since the batches were made.

    A command that is retried may have been carried out before: every write here is conditional and carries a nonce,
    so that the second answer tells.
    """
    if not ctx.health.is_quiet:
        return (yield from _exchange_with_those_up(ctx, batches))
    answers: list[Outcome] = yield Exchange(batches)
    return (yield from settle(ctx, batches, answers))


def settle(ctx: Context, batches: list[Batch], answers: list[Outcome]) -> Flow[list[Outcome]]:
    """Do for batches that are exchanged already what `exchange` does after that; return the answers there are then."""
    ctx.counters.add("round_trips")
    if not all_answered(ctx.health.healths, batches, answers, ctx.clock.monotonic()):
        yield from _retry(ctx, batches, answers)
        _note_health(ctx, batches, answers)
    return answers


def _exchange_with_those_up(ctx: Context, batches: Sequence[Batch]) -> Flow[list[Outcome]]:
    is_up = [ctx.health.is_up(batch.node) for batch in batches]
    asked = list(compress(batches, is_up))
    answers: list[Outcome] = []
    if asked:
        answers = yield Exchange(asked)
        ctx.counters.add("round_trips")
    yield from _retry(ctx, asked, answers)
    _note_health(ctx, asked, answers)
    in_turn = iter(answers)
    return [next(in_turn) if was_asked else _DOWN for was_asked in is_up]


def _retry(ctx: Context, asked: Sequence[Batch], answers: list[Outcome]) -> Flow[None]:
    """Ask those again whose connection was lost, as often as may be, and put what they say in place."""
    for attempt in range(ctx.settings.retry.attempts):
        lost = [i for i, answer in enumerate(answers) if _is_lost(answer)]
        if not lost or not ctx.retry_budget.spend(len(lost)):
            break
        if attempt:
            yield Sleep(jittered_wait(ctx, attempt))
        ctx.counters.add("retries", len(lost))
        again: list[Outcome] = yield Exchange([asked[i] for i in lost])
        ctx.counters.add("round_trips")
        for i, answer in zip(lost, again, strict=True):
            answers[i] = answer


def _is_lost(outcome: Outcome) -> bool:
    return isinstance(outcome, NodeFailure) and outcome.kind == "reset"


def jittered_wait(ctx: Context, attempt: int) -> float:
    """Return how long to wait before the n-th further attempt: exponential, with full jitter.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog.
    """
    retry = ctx.settings.retry
    return ctx.rng.random() * _grown(retry.base, 2, attempt, retry.cap)


def wait_after_conflict(ctx: Context, n_lost: int) -> float:
    """Return how long to wait before a write that lost so often goes on: with full jitter, soon not longer.

    Who won needs a round trip or two. Whoever waited longer with each loss would be overtaken by all that came later.
    """
    return jittered_wait(ctx, min(n_lost, _LOSSES_THAT_COUNT))


def wait_before_retry(ctx: Context, attempt: int) -> float:
    """Return how long the background waits before it tries a write once more: as long as for a probe, with half jitter.

    A retry at once would be one within the request's budget; this one waits for a node to be given up, or to come back.
    """
    reconnect = ctx.settings.reconnect
    return _grown(0.1 * reconnect.first, reconnect.factor, attempt, reconnect.cap) * (0.5 + ctx.rng.random())


def _grown(first: float, factor: float, n: int, cap: float) -> float:
    """Return first times factor for n times, but no more than cap."""
    try:
        return min(first * float(factor) ** n, cap)
    except OverflowError:  # a long outage has many attempts
        return cap


def ask(ctx: Context) -> Flow[bool]:
    """Ask every node that is not down for an answer, all at once; return whether all gave one."""
    outcomes = yield from exchange(ctx, [Batch(node, [wire.noop()]) for node in ctx.topology.nodes])
    return not any(isinstance(outcome, NodeFailure) for outcome in outcomes)


def let_live(ctx: Context, key: bytes, lives: Mapping[str, int]) -> Flow[None]:
    """Give a session's items the life back that they had before they were asked for: by node, in seconds, or NO_END."""
    commands = {node: wire.get(key, ctx.exptime(max(life_s, 0)), value=False) for node, life_s in lives.items()}
    yield from exchange(ctx, [Batch(node, [command]) for node, command in commands.items()])


def probe(ctx: Context, node: str) -> Flow[bool]:
    """Ask a node that is down whether it answers again, and tell it what it has missed; only then it is up.

    It is a request with a reply, since a server that hangs still accepts connections.
    """
    is_up = False
    while not is_up or ctx.missed.has_any(node):  # a logout may come in while the node is being told of others
        missed = ctx.missed.take(node, _MISSED_AT_ONCE)
        batch = Batch(node, [*missed, wire.noop()])
        outcomes: list[Outcome] = yield Exchange([batch])
        (outcome,) = outcomes
        if isinstance(outcome, NodeFailure):
            ctx.missed.put_back(node, missed)
            _note_health(ctx, [batch], outcomes)
            return False
        if not missed:
            ctx.health.returned(node, outcome.life, ctx.clock.monotonic(), compares=outcome.compares)
            is_up = True
    return True


def _note_health(ctx: Context, batches: Sequence[Batch], outcomes: Sequence[Outcome]) -> None:
    now = ctx.clock.monotonic()
    for batch, outcome in zip(batches, outcomes, strict=True):
        if not isinstance(outcome, NodeFailure):
            ctx.health.succeeded(batch.node, outcome.life, now, outcome.compares)
        elif outcome.kind != "restarted":
            ctx.counters.add("node_failures")
            ctx.health.failed(batch.node, outcome.kind, outcome.detail, now)
