"""Keeping sessions on this host, under the rules of distributed ones: same records, same merging.

Nothing here waits for a network, so these are plain functions, not flows.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.session_id import SessionId
from msm_fast.engine.changes import merge, needs_storing
from msm_fast.engine.context import Context, digest
from msm_fast.engine.copies import encode_state, encode_stored, encode_tombstone, next_generation
from msm_fast.engine.local import extend, kept_record, lay_in
from msm_fast.engine.serialization import StaysLocal, encode_attributes
from msm_fast.errors import ConflictError, CorruptRecord, UnknownFormat
from msm_fast.local_store import LocalRecord
from msm_fast.policies import SaveResult
from msm_fast.session import SessionState

__all__ = ["bring_kept_along", "end_locally", "keep_locally", "keep_unless_back", "move_base"]

_ATTEMPTS = 64
"""Requests that save one session at once; each swap lets one of them through."""

_BEYOND_ALL_GENERATIONS = 2**63 - 1


def keep_locally(ctx: Context, state: SessionState) -> SaveResult:
    """Store the session here if it changed, then end the ids it no longer has.

    Raises: SerializationError and SessionTooLarge by policy, ConflictError if settings.on_conflict says so.
    """
    result = _keep(ctx, state, None)
    assert result is not None
    return result


def keep_unless_back(ctx: Context, state: SessionState, epoch: int) -> SaveResult | None:
    """Store the session here as `keep_locally` does, unless the cluster has been taken up again since epoch.

    The reconnection has not seen then what would be kept here: nothing is, and None says that it goes to the cluster.
    """
    return _keep(ctx, state, epoch)


def _keep(ctx: Context, state: SessionState, epoch: int | None) -> SaveResult | None:
    if state.is_ended and not state.attributes:
        return SaveResult("invalidated") if _end_retired(ctx, state, epoch) else None
    state.local_kind = state.local_kind or "local"
    bring_kept_along(ctx, state)
    body, live = _encode(ctx, state)
    if not needs_storing(state, body) and _is_as_found(state, live):
        if state.is_live and state.local_generation:  # it was found in memory: nobody has looked at its record
            extend(ctx, state)
        ctx.counters.add("unchanged")
        return SaveResult("unchanged")
    was_new = not state.is_kept and not state.retired
    result = _swap(ctx, state, body, live, epoch)
    if result is not None:
        ctx.counters.add("created" if was_new else "stored")
    return result


def bring_kept_along(ctx: Context, state: SessionState) -> None:
    """Let a session that gets a new id have what others have kept here under its old one since it was found.

    Under an id that stays a swap would meet it. While the cluster is used only what cannot go there counts: anything
    else that is here is of an outage that is over.
    Raises: ConflictError if settings.on_conflict says so.
    """
    kept = kept_record(ctx, state.retired[-1]) if state.retired and not state.is_ended else None
    if kept is None or kept.kind == "ended" or (ctx.distribution.is_on and kept.kind != "tagged"):
        return
    key, kind = ctx.storage_key(state.retired[-1]), state.local_kind
    with contextlib.suppress(CorruptRecord):  # who finds it next tells
        if ctx.records.decode(kept.data, key).body != state.body or not _is_as_found(state, kept.live):
            _merge_kept(ctx, state, key, kept)
            state.local_kind = kind


def _is_as_found(state: SessionState, unencodable: dict[str, object] | None) -> bool:
    """Whether what cannot be encoded are the same objects as before: that one is gone, or another, no bytes show."""
    before = state.unencodable
    if before is None or unencodable is None:
        return before is unencodable
    return before.keys() == unencodable.keys() and all(before[name] is value for name, value in unencodable.items())


def _encode(ctx: Context, state: SessionState) -> tuple[bytes, dict[str, object] | None]:
    """Return the body, and what cannot be encoded, by name, if there may be any."""
    try:
        return encode_attributes(ctx, state), None
    except StaysLocal as stays:
        # A provisional one does not stay: it would hide the session that it stands for.
        if stays.tags_session and state.local_kind != "provisional":
            state.local_kind = "tagged"
        encoded = AttributeMap.decode(stays.body, serializer=ctx.serializers)
        unencodable = {}
        for name in state.attributes:
            if name not in encoded:
                with contextlib.suppress(KeyError):  # one that shares the session has deleted it just now
                    unencodable[name] = state.attributes[name]
        return stays.body, unencodable


def _swap(
    ctx: Context, state: SessionState, body: bytes, live: dict[str, object] | None, epoch: int | None
) -> SaveResult | None:
    """Compare and swap the record, merging with what other requests stored first; then end the ids before this one."""
    key = ctx.storage_key(state.session_id)
    ttl_s = ctx.ttl_s(state.max_inactive_s, state.created_ms, state.absolute_lifetime_s)
    base = encode_stored(ctx, key, state)
    for _ in range(_ATTEMPTS):
        expected = state.local_generation
        is_shared = state.is_live and live is not None  # by requests, each of which has all changes of the others
        generation = next_generation(expected or (state.stored.generation if state.stored else 0))
        data = encode_state(ctx.essentials, ctx.records, key, state, body, generation, ())
        assert state.local_kind is not None
        dropped = ctx.local.dropped
        plain = state.session_id.plain
        record = LocalRecord(generation, data, ctx.now_ms(), state.local_kind, base, live, plain=plain)
        if ctx.local.swap(key, expected, record, ttl_s):
            if not _end_retired(ctx, state, epoch):
                ctx.local.delete(key, generation)
                return None
            if not (ctx.distribution.is_on or ctx.is_local_shared):
                ctx.forget(key)  # or what was seen of it in the cluster would be back when this is gone
            if not is_shared:
                state.attributes.mark_saved(body)
            state.body = body
            state.local_generation = generation
            state.unencodable = live
            state.must_store = False
            _tell_dropped(ctx, ctx.local.dropped - dropped)
            return SaveResult("local")
        current = ctx.local.load(key)
        if current is None and ctx.topology.nodes and expected and state.local_kind != "tagged":
            state.local_generation = 0  # dumped when another worker of this host was back in the cluster
            continue
        if current is None or current.kind == "ended":
            return SaveResult("invalidated")
        if not is_shared:
            try:
                _merge_kept(ctx, state, key, current)
            except UnknownFormat as error:
                return _drop_beside(ctx, state, error)
            body, live = _encode(ctx, state)
            base = current.base  # what is merged now are changes to that
        state.local_generation = current.generation
    raise ConflictError(
        f"session {digest(state.session_id)} was changed by others {_ATTEMPTS} times while it was being saved",
        session=digest(state.session_id),
    )


def _drop_beside(ctx: Context, state: SessionState, error: UnknownFormat) -> SaveResult:
    """Do not store what would take the place of what another worker of this host has kept of the session."""
    ctx.counters.add("dropped")
    ctx.tell_session("dropped", state.session_id, f"is not kept here, since others have kept it here: {error}")
    return SaveResult("failed")


def _merge_kept(ctx: Context, state: SessionState, key: bytes, current: LocalRecord) -> None:
    """Lay this request's changes over what another one has kept here first, and what of that cannot be encoded."""
    before, mine = state.unencodable or {}, state.attributes
    # Of what cannot be encoded neither the bytes nor the merge tell whether this request has changed it.
    untouched = {name for name, value in before.items() if mine.get(name) is value}
    deleted = {*mine.changed_names()[1], *(name for name in before if name not in mine)}
    winner = ctx.records.decode(current.data, key)
    merge(ctx, state, winner)
    if current.kind == "tagged":
        state.local_kind = "tagged"
    theirs = AttributeMap.decode(winner.body, serializer=ctx.serializers)
    unencodable = None if current.live is None else lay_in(theirs, current.live)
    mine = state.attributes
    for name in {*before, *(unencodable or {})}:
        if name in untouched or name in deleted:
            mine.pop(name, None)
        if name in theirs and name not in deleted:
            mine.setdefault(name, theirs[name])
    state.unencodable = unencodable


def move_base(ctx: Context, key: bytes, body: bytes, state: SessionState) -> int:
    """Let what is kept here stand on a body that is in the cluster since, as state is; return its generation.

    That is what was kept before it and has been replayed. Changes made after that would else count as made beside it.
    """
    while (kept := ctx.local.load(key)) is not None and kept.kind == "local":
        try:
            record = ctx.records.decode(kept.data, key)
            before = ctx.records.decode(kept.base, key) if kept.base else state.stored
        except CorruptRecord:
            break  # who reads it next tells
        assert before is not None
        base = ctx.records.encode(
            key,
            body,
            generation=before.generation,
            created_ms=record.created_ms,
            accessed_ms=record.accessed_ms,
            max_inactive_s=state.stored_max_inactive_s,
            absolute_lifetime_s=state.stored_absolute_lifetime_s,
            lineage=before.lineage,
        )
        moved = replace(kept, generation=next_generation(kept.generation), base=base)
        ttl_s = ctx.ttl_s(record.max_inactive_s, record.created_ms, record.absolute_lifetime_s)
        if ctx.local.swap(key, kept.generation, moved, ttl_s):
            return moved.generation
    return 0 if kept is None else kept.generation


def _tell_dropped(ctx: Context, n: int) -> None:
    if n > 0:
        ctx.counters.add("dropped", n)
        gone = f"{ctx.local.dropped} session(s), those that were used least recently or are too large, are gone by now"
        ctx.tell_seldom("dropped", f"the local store is full: {gone}", node=None)


def _end_retired(ctx: Context, state: SessionState, epoch: int | None) -> bool:
    """End the ids that the session had before; return False, with nothing ended, if the cluster is back since epoch."""
    for session_id in state.retired:
        end_locally(ctx, session_id, state.retired_max_inactive_s)
    if epoch is not None and ctx.distribution.epoch != epoch:
        for session_id in state.retired:
            ctx.local.delete(ctx.storage_key(session_id))
        return False
    ctx.counters.add("invalidated" if state.is_ended else "rotated", len(state.retired))
    state.retired = ()
    return True


def end_locally(ctx: Context, session_id: SessionId, max_inactive_s: int) -> None:
    """End a session while the cluster cannot be told; the reconnection tells it before anything else."""
    key = ctx.storage_key(session_id)
    ctx.forget(key)
    ctx.local.delete(key)
    if ctx.topology.nodes:
        data = encode_tombstone(ctx, key, session_id, max_inactive_s)
        record = LocalRecord(_BEYOND_ALL_GENERATIONS, data, ctx.now_ms(), "ended", plain=session_id.plain)
        ttl_s = ctx.tombstone_ttl_s(max_inactive_s)
        while not ctx.local.swap(key, 0, record, ttl_s):
            ctx.local.delete(key)
