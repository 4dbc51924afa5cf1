"""The way that nearly every request goes: every node is up, and each answers what was expected of it.

A session is found in one round trip and stored in another. Where something is not as usual, the functions here say so
by None; what follows then is up to the flows that know all cases, which go on from the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from msm_fast._core import wire
from msm_fast._core.session_id import SessionId
from msm_fast.engine.context import Context, NearCopy
from msm_fast.engine.copies import encode_state, is_over, last_access_ms, question
from msm_fast.engine.effects import Batch, NodeFailure, Outcome
from msm_fast.engine.serialization import decode_attributes
from msm_fast.engine.versions import version
from msm_fast.engine.writing import LINEAGE, NONE, Write
from msm_fast.errors import CorruptRecord
from msm_fast.session import ABSENT, UNKNOWN, SessionState, Stored

__all__ = ["found", "plan", "questions"]

_NOWHERE: dict[str, int] = {}


def questions(
    ctx: Context, plain: str, key: bytes, home: str, near: NearCopy | None, ttl_s: int, ask_backups: bool
) -> list[Batch]:
    """Return what a session's home is asked first, and its backups: for CAS value and nonce only."""
    exptime = ctx.exptime(ttl_s)
    batches = [Batch(home, (question(ctx, near, home, key, exptime),))]
    if ask_backups and ctx.settings.replicas:
        peek = (wire.get(key, exptime, value=False),)
        backups = ctx.topology.others(plain, home)[: ctx.settings.replicas]
        batches += [Batch(node, peek) for node in backups]
    return batches


def found(
    ctx: Context,
    session_id: SessionId,
    key: bytes,
    home: str,
    near: NearCopy | None,
    max_inactive_s: int,
    batches: Sequence[Batch],
    outcomes: Sequence[Outcome],
) -> SessionState | None:
    """Return the session, if its home has a good copy of it and every backup that was asked has the same.

    near: what was seen of it before. max_inactive_s: the lifetime by which its copies were touched.
    """
    outcome = outcomes[0]
    if isinstance(outcome, NodeFailure):
        return None
    reply = outcome[0]
    nonce = reply.client_flags
    seen = version(outcome.life, reply.cas)
    is_unchanged = reply.value is None
    if reply.value is not None:
        try:
            record, size = ctx.records.decode(reply.value, key), len(reply.value)
        except CorruptRecord:
            return None
    elif near is not None and reply.status == "HD" and near.is_copy(home, seen, nonce):
        record, size = near.record(ctx.records, key), near.size
    else:
        return None
    lineage = record.lineage
    if (
        record.is_tombstone
        or record.max_inactive_s != max_inactive_s
        or lineage[:1] != (nonce,)
        or ctx.topology.node_of_digest(record.home) != home
        or home in ctx.topology.draining
        or is_over(ctx, record)
        or not ctx.records.is_current(record)
    ):
        return None
    copies = {home: seen}
    for batch, peeked in zip(batches, outcomes, strict=True):
        if peeked is outcome:
            continue
        if isinstance(peeked, NodeFailure) or peeked[0].status != "HD" or peeked[0].client_flags != nonce:
            return None
        copies[batch.node] = version(peeked.life, peeked[0].cas)
    asked_at = ctx.clock.monotonic()
    if near is not None and near.nonce == nonce:
        copies = {**near.copies, **copies}
        asked_at = near.asked_at if len(batches) == 1 else asked_at
    body = record.body
    ctx.keep_near(key, NearCopy(record, size, nonce, max_inactive_s, copies, asked_at), body)
    if is_unchanged:
        ctx.counters.add("validated")
    ctx.counters.add("loaded")
    return SessionState(
        session_id=session_id,
        attributes=decode_attributes(ctx, session_id, body),
        created_ms=record.created_ms,
        accessed_ms=last_access_ms(ctx, record, reply.ttl_s),
        max_inactive_s=max_inactive_s,
        absolute_lifetime_s=record.absolute_lifetime_s,
        stored=Stored(record.generation, lineage, copies, body),
        body=body,
        is_new=False,
        epoch=ctx.distribution.epoch,
    )


def plan(ctx: Context, state: SessionState, body: bytes) -> Write | None:
    """Return what stores the session on the node that its id names and on its backups, all in one round trip."""
    settings, topology, stored = ctx.settings, ctx.topology, state.stored
    is_deferring = settings.backup == "async" and not settings.sticky
    if not ctx.health.is_quiet or topology.draining or state.has_moved or state.own_nonces or is_deferring:
        return None
    session_id = state.session_id
    home = topology.home(session_id.node)
    if home is None or home not in topology.nodes:
        return None
    others = [node for node in topology.ranked(session_id.plain) if node != home]
    stands_on: tuple[int, ...] = ()
    base_generation, base_nonce, known, unseen = 0, None, _NOWHERE, ABSENT
    if stored is not None:
        base_generation, base_nonce, stands_on = stored.generation, stored.nonce, stored.lineage
        known, unseen = stored.copies, UNKNOWN
    expected = {home: known.get(home, unseen)}
    for node in others[: settings.replicas]:
        expected[node] = known.get(node, unseen)
    key = ctx.storage_key(session_id)
    generation, lineage = base_generation + 1, (ctx.nonce(), *stands_on)[:LINEAGE]
    nonces = frozenset(lineage[:1])
    if state.is_live:
        state.own_nonces = nonces
    return Write(
        key=key,
        record=encode_state(ctx, key, state, body, generation, lineage),
        generation=generation,
        lineage=lineage,
        own_nonces=nonces,
        attempts=nonces,
        exptime=ctx.exptime(ctx.life_s(state)),
        base_generation=base_generation,
        base_nonce=base_nonce,
        home=home,
        expected=expected,
        spares=others[settings.replicas :],
        corrupt=stored.corrupt if stored is not None else NONE,
        recreates=state.is_live,
    )
