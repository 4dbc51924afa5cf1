"""Sessions in the memory of this process, under the rules of distributed ones: same records, same merging.

Nothing here waits, so these are plain functions, not flows.
"""

from __future__ import annotations

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.record import decode_record
from msm_fast._core.session_id import SessionId
from msm_fast.engine.changes import merge, needs_storing
from msm_fast.engine.context import Context, digest
from msm_fast.engine.copies import encode_state, is_over
from msm_fast.engine.serialization import encode_attributes
from msm_fast.errors import ConflictError
from msm_fast.local_store import LocalRecord, MemoryStore
from msm_fast.policies import SaveResult
from msm_fast.session import SessionState, Stored

__all__ = ["load_local", "save_local"]

_ATTEMPTS = 64
"""Threads of one process that save one session at once; each swap lets one of them through."""


def load_local(ctx: Context, store: MemoryStore, session_id: SessionId) -> SessionState | None:
    """Return the session, its life extended by this request, or None if there is none."""
    key = ctx.storage_key(session_id)
    found = store.load(key) if session_id.node is None else None
    record = decode_record(found.data, key) if found is not None else None
    if found is None or record is None or is_over(ctx, record):
        ctx.counters.add("not_found")
        return None
    ttl_s = ctx.ttl_s(record.max_inactive_s, record.created_ms, record.absolute_lifetime_s)
    store.touch(key, ttl_s, ctx.now_ms())
    ctx.counters.add("loaded")
    return SessionState(
        session_id=session_id,
        attributes=AttributeMap.decode(record.body, serializer=ctx.serializers),
        created_ms=record.created_ms,
        accessed_ms=found.accessed_ms,
        max_inactive_s=record.max_inactive_s,
        absolute_lifetime_s=record.absolute_lifetime_s,
        stored=Stored(record.generation, (), {}, record.body),
        is_new=False,
        is_local=True,
    )


def save_local(ctx: Context, store: MemoryStore, state: SessionState) -> SaveResult:
    """Store the session if it changed, then remove the ids it no longer has.

    Raises: SerializationError and SessionTooLarge by policy, ConflictError if settings.on_conflict says so.
    """
    if state.is_ended and not state.attributes:
        _delete_retired(ctx, store, state)
        return SaveResult("invalidated")
    body = encode_attributes(ctx, state)
    if not needs_storing(state, body):
        ctx.counters.add("unchanged")
        return SaveResult("unchanged")
    was_new = state.stored is None and not state.retired
    result = _swap(ctx, store, state, body)
    ctx.counters.add("created" if was_new else "stored")
    _delete_retired(ctx, store, state)
    return result


def _delete_retired(ctx: Context, store: MemoryStore, state: SessionState) -> None:
    for session_id in state.retired:
        store.delete(ctx.storage_key(session_id))
        ctx.counters.add("invalidated" if state.is_ended else "rotated")
    state.retired = []


def _swap(ctx: Context, store: MemoryStore, state: SessionState, body: bytes) -> SaveResult:
    """Compare and swap the record, merging with what other threads stored first."""
    key = ctx.storage_key(state.session_id)
    expected = state.stored.generation if state.stored else 0
    ttl_s = ctx.ttl_s(state.max_inactive_s, state.created_ms, state.absolute_lifetime_s)
    for _ in range(_ATTEMPTS):
        generation = expected + 1
        record = LocalRecord(generation, encode_state(ctx, key, state, body, generation, ()), ctx.now_ms())
        if store.swap(key, expected, record, ttl_s):
            state.attributes.mark_saved(body)
            state.stored = Stored(generation, (), {}, body)
            state.must_store = False
            state.is_local = True
            return SaveResult("local")
        current = store.load(key)
        if current is None:
            return SaveResult("invalidated")
        merge(ctx, state, decode_record(current.data, key))
        body = encode_attributes(ctx, state)
        expected = current.generation
    raise ConflictError(
        f"session {digest(state.session_id)} was changed by others {_ATTEMPTS} times while it was being saved",
        session=digest(state.session_id),
    )
