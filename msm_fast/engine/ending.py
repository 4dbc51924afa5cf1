"""Ending a session: a tombstone in place of each copy, so that a slower request cannot bring it back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msm_fast._core import wire
from msm_fast._core.session_id import SessionId
from msm_fast.engine.context import Context
from msm_fast.engine.copies import encode_tombstone
from msm_fast.engine.effects import Batch, Flow, NodeFailure
from msm_fast.engine.exchanging import exchange
from msm_fast.errors import SessionUnavailable

__all__ = ["end_copies"]

_TRIES = 2


def end_copies(ctx: Context, session_ids: Sequence[SessionId], max_inactive_s: int) -> Flow[None]:
    """Put tombstones wherever the sessions have copies or a copy would be looked for, unconditionally: logout wins.

    A node that cannot be told now may still have a copy: it is taken out of use and told when it is back, before
    anything is read from it. max_inactive_s: the sessions' own; a tombstone lives as long as such a copy may.
    Raises: SessionUnavailable if not one node took them.
    """
    ttl_s = ctx.tombstone_ttl_s(max_inactive_s)
    exptime, until = ctx.exptime(ttl_s), ctx.clock.monotonic() + ttl_s
    commands: dict[str, list[wire.Command]] = {}
    for session_id in session_ids:
        key = ctx.storage_key(session_id)
        tombstone = wire.store(key, encode_tombstone(ctx, key, session_id, max_inactive_s), ctx.nonce(), exptime)
        for node in ctx.health.down():  # first: one that comes back meanwhile is then among the sites
            ctx.missed.add(node, [tombstone], until)
        for node in _sites(ctx, session_id):
            commands.setdefault(node, []).append(tombstone)
    try:
        failures = yield from _tell(ctx, [Batch(node, todo) for node, todo in commands.items()])
    finally:
        for session_id in session_ids:  # not before: until now other requests may have seen it there
            ctx.forget(ctx.storage_key(session_id))
    for node, failure in failures.items():
        ctx.missed.add(node, commands[node], until)
        now = ctx.clock.monotonic()
        ctx.health.failed(node, failure.kind, f"missed a logout: {failure.detail}", now, opens_at_once=True)
    if len(failures) == len(commands):
        raise _unavailable(ctx, session_ids[-1], commands)


def _tell(ctx: Context, batches: list[Batch]) -> Flow[dict[str, NodeFailure]]:
    """Exchange batches; one that was not answered once more. Return by node those that failed.

    What a node misses only this process knows, and if it dies before the node is told, the node serves an ended session
    to readers until a tenth of its lifetime has gone: worth a second try.
    """
    failures: dict[str, NodeFailure] = {}
    for _ in range(_TRIES):
        outcomes = yield from exchange(ctx, batches)
        for batch, outcome in zip(batches, outcomes, strict=True):
            failures.pop(batch.node, None)
            if isinstance(outcome, NodeFailure):
                failures[batch.node] = outcome
        batches = [batch for batch in batches if batch.node in failures and ctx.health.is_up(batch.node)]
        if not batches:
            break
    return failures


def _unavailable(ctx: Context, session_id: SessionId, tried: Iterable[str]) -> SessionUnavailable:
    nodes = sorted({*ctx.health.down(), *tried})
    where = ", ".join(ctx.label(node) for node in nodes)
    what = f"is not ended yet: {where} cannot be reached; they are told when they are back, if this process lives until"
    return ctx.unavailable(session_id, f"{what} then", nodes)


def _sites(ctx: Context, session_id: SessionId) -> list[str]:
    """Return the nodes that are up among the session's home and those that a search for it would ask."""
    home = ctx.topology.home(session_id.node)
    others = [node for node in ctx.topology.ranked_with_failover(session_id.plain, ctx.health.is_up) if node != home]
    first = [home] if home is not None and ctx.health.is_up(home) else []
    return [*first, *ctx.topology.searched(others, home, ctx.settings.replicas)]
