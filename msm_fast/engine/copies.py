"""A session's copies: the record around it, the commands that read and write it, and what they answered."""

from __future__ import annotations

from dataclasses import dataclass

from msm_fast._core import wire
from msm_fast._core.record import Record
from msm_fast._core.session_id import SessionId
from msm_fast._core.wire import Command
from msm_fast.engine.context import Context, NearCopy
from msm_fast.engine.effects import Batch, Replies
from msm_fast.engine.topology import home_digest
from msm_fast.engine.versions import cas_of, life_of, version
from msm_fast.errors import CorruptRecord
from msm_fast.session import ABSENT, UNKNOWN, SessionState

__all__ = [
    "Copy",
    "encode_state",
    "encode_stored",
    "encode_tombstone",
    "is_over",
    "last_access_ms",
    "put",
    "question",
    "read_copy",
    "tell_corrupt",
]

_BEYOND_ALL_GENERATIONS = 2**64 - 1


@dataclass(slots=True)
class Copy:
    """One node's copy of a session, as a reply brought it.

    size: of the record as it came. version: with the node's life. ttl_s: what was left of the item's life before this
    request.
    """

    size: int
    record: Record
    version: int
    nonce: int
    ttl_s: int


def read_copy(ctx: Context, replies: Replies, key: bytes) -> Copy:
    """Return the copy in the first reply, which has a value. Raises: CorruptRecord, UnknownFormat."""
    reply = replies[0]
    assert reply.value is not None
    found = version(replies.life, reply.cas)
    return Copy(len(reply.value), ctx.records.decode(reply.value, key), found, reply.client_flags, reply.ttl_s)


def is_over(ctx: Context, record: Record) -> bool:
    """Whether the session has reached its absolute lifetime, however lately it was used."""
    limit_s = record.absolute_lifetime_s
    return bool(limit_s) and ctx.now_ms() >= record.created_ms + limit_s * 1000


def last_access_ms(ctx: Context, record: Record, ttl_s: int) -> int:
    """Return when the session was last used: as long ago as its item's life, of which ttl_s was left, had run down."""
    if ttl_s < 0:
        return record.accessed_ms
    idle_s = max(ctx.ttl_s(record.max_inactive_s) - ttl_s, 0)
    return max(record.accessed_ms, ctx.now_ms() - idle_s * 1000)


def tell_corrupt(ctx: Context, node: str, error: CorruptRecord) -> None:
    """Count and tell an item that is no copy of its session; it is left where it is."""
    ctx.counters.add("corrupt")
    ctx.tell("corrupt", f"node {ctx.label(node)} has an item that cannot be used: {error}", node=node)


def encode_state(
    ctx: Context, key: bytes, state: SessionState, body: bytes, generation: int, lineage: tuple[int, ...]
) -> bytes:
    """Return the record of a session that is saved now, with what `encode_attributes` gave as its body."""
    return ctx.records.encode(
        key,
        body,
        generation=generation,
        created_ms=state.created_ms,
        accessed_ms=ctx.now_ms() - int(ctx.idle_s(state) * 1000),
        max_inactive_s=state.max_inactive_s,
        absolute_lifetime_s=state.absolute_lifetime_s,
        lineage=lineage,
        home=home_digest(state.session_id.node or ""),
    )


def encode_stored(ctx: Context, key: bytes, state: SessionState) -> bytes:
    """Return the record that the cluster holds of a session, as this view of it knows; b"" for none."""
    if state.stored is None:
        return b""
    return ctx.records.encode(
        key,
        state.stored.body,
        generation=state.stored.generation,
        created_ms=state.created_ms,
        accessed_ms=state.accessed_ms,
        lineage=state.stored.lineage,
    )


def encode_tombstone(ctx: Context, key: bytes, session_id: SessionId, max_inactive_s: int) -> bytes:
    """Return the record that stands for a session that was ended. max_inactive_s: the session's own."""
    now_ms = ctx.now_ms()
    return ctx.records.encode(
        key,
        b"",
        generation=_BEYOND_ALL_GENERATIONS,
        created_ms=now_ms,
        accessed_ms=now_ms,
        max_inactive_s=max_inactive_s,
        is_tombstone=True,
        home=home_digest(session_id.node or ""),
    )


def question(ctx: Context, near: NearCopy | None, node: str, key: bytes, exptime: int) -> Command:
    """Return the command that asks a node for its copy, without the value if it may be the one that was seen.

    near: what was seen of the session; None if it is known that the node has something else.
    """
    seen = near.copies.get(node, UNKNOWN) if near is not None else UNKNOWN
    if near is not None and seen > 0:
        if ctx.health.of(node).compares:
            return wire.get(key, exptime, cas=cas_of(seen))
        if near.size > ctx.settings.near_cache.validate_over:
            return wire.get(key, exptime, value=False)
    return wire.get(key, exptime)


def put(node: str, key: bytes, record: bytes, nonce: int, exptime: int, expected: int) -> Batch:
    """Return the batch that writes a node's copy if it is as expected: a version, or ABSENT."""
    if expected == ABSENT:
        return Batch(node, (wire.store(key, record, nonce, exptime, add=True),))
    return Batch(node, (wire.store(key, record, nonce, exptime, cas=cas_of(expected)),), life_of(expected))
