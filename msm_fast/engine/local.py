"""Sessions that are kept on this host: what is found there.

Nothing here waits for a network, so these are plain functions, not flows.
"""

from __future__ import annotations

import contextlib

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.record import Record
from msm_fast._core.session_id import SessionId
from msm_fast.engine.context import Context
from msm_fast.engine.copies import is_over, tell_unreadable
from msm_fast.engine.serialization import decode_attributes
from msm_fast.errors import CorruptRecord, SessionUnavailable, UnknownFormat
from msm_fast.local_store import LocalRecord
from msm_fast.session import LocalKind, SessionState, Stored

__all__ = [
    "drop_kept",
    "extend",
    "find_locally",
    "is_only_in_cluster",
    "kept_record",
    "lay_in",
    "state_of_record",
]


def kept_record(ctx: Context, session_id: SessionId) -> LocalRecord | None:
    """Return the session's record in the local store, or None; costs next to nothing while the store is empty.

    Raises: SessionUnavailable if the store fails and is needed, since the cluster is not used now.
    """
    try:
        return ctx.local.load(ctx.storage_key(session_id)) if len(ctx.local) else None
    except SessionUnavailable:
        if ctx.distribution.is_on:
            return None
        raise


def is_only_in_cluster(ctx: Context, session_id: SessionId) -> bool:
    """Whether nodes answer again, though sessions do not go there yet, and this one is not kept here.

    Another worker of this host may have stored it there already, and have dropped what was kept here of it: what this
    one last saw in the cluster is from before that. Where nobody shares the local store, it is what this one stored.
    Raises: as `kept_record`.
    """
    return ctx.is_local_shared and ctx.distribution.can_reconnect and kept_record(ctx, session_id) is None


def drop_kept(ctx: Context, session_id: SessionId, generation: int) -> None:
    """Drop a record that is of no use any more; while that cannot be done, who finds it next will do it."""
    with contextlib.suppress(SessionUnavailable):
        ctx.local.delete(ctx.storage_key(session_id), generation)


def find_locally(ctx: Context, session_id: SessionId, *, may_be_in_cluster: bool = True) -> SessionState | None:
    """Return the session, its life extended by this request, or None if there is none.

    What the local store has comes first, then what the near cache last saw of the cluster. A session that is in
    neither may be in the cluster: then it gets a provisional one under its id, which never goes there.
    So does one that another worker of this host has kept in a form that this one cannot read.
    may_be_in_cluster: False if the cluster has said that it is not, or that nobody can read it.
    Raises: UnknownFormat for what cannot be read if settings.on_corrupt says so.
    """
    if not ctx.topology.accepts(session_id):
        ctx.counters.add("refused_ids")
        return None
    record = kept_record(ctx, session_id)
    try:
        state = state_of_record(ctx, session_id, record) if record is not None else _seen_before(ctx, session_id)
    except UnknownFormat:
        if ctx.settings.on_corrupt == "error":
            raise
        state = _provisional(ctx, session_id)
    if state is None and record is None and may_be_in_cluster and ctx.topology.nodes:
        state = _provisional(ctx, session_id)
    ctx.counters.add("not_found" if state is None else "loaded")
    return state


def state_of_record(ctx: Context, session_id: SessionId, found: LocalRecord) -> SessionState | None:
    """Return the session in a record of the local store, or None if it was ended, is over or is damaged.

    Raises: UnknownFormat if another worker of this host has kept it in a form that this one cannot read; it is told.
    """
    if found.kind == "ended":
        return None
    key = ctx.storage_key(session_id)
    try:
        record = ctx.records.decode(found.data, key)
        base = ctx.records.decode(found.base, key) if found.base else None
    except UnknownFormat as error:
        tell_unreadable(ctx, None, error)
        raise
    except CorruptRecord as error:
        ctx.counters.add("corrupt")
        ctx.tell_seldom("corrupt", f"the local store has a record that cannot be used: {error}", node=None)
        return None
    if is_over(ctx.essentials, record):
        return None
    state = _state(ctx, session_id, record, found.accessed_ms, found.kind)
    extend(ctx, state)
    state.local_generation = found.generation
    if found.live is not None:
        state.unencodable = lay_in(state.attributes, found.live)
    state.stored = None if base is None else _stored(base)
    return state


def lay_in(attributes: AttributeMap, unencodable: dict[str, object]) -> dict[str, object]:
    """Add to attributes what this process has of those that cannot be encoded; return which these are.

    Not under a name that another worker of this host, which has not those, has stored something else under since.
    """
    left = {name: value for name, value in unencodable.items() if name not in attributes}
    attributes.update(left)
    return left


def extend(ctx: Context, state: SessionState) -> None:
    """Let the record that is kept of the session here live on."""
    ttl_s = ctx.ttl_s(state.max_inactive_s, state.created_ms, state.absolute_lifetime_s)
    with contextlib.suppress(SessionUnavailable):  # a file that can be read only, for now: the next request extends it
        ctx.local.touch(ctx.storage_key(state.session_id), ttl_s, ctx.now_ms())


def _seen_before(ctx: Context, session_id: SessionId) -> SessionState | None:
    """Return the session as the near cache last saw it in the cluster, its life there extended by this request."""
    key = ctx.storage_key(session_id)
    near = ctx.near_copy(key)
    if near is None:
        return None
    record = near.record(ctx.records, key)
    if is_over(ctx.essentials, record):
        return None
    ctx.keep_near(key, near, record.body)
    state = _state(ctx, session_id, record, record.accessed_ms, "local")
    state.stored = _stored(record)
    return state


def _stored(record: Record) -> Stored:
    """Return what a record says of the session in the cluster."""
    lifetimes = (record.max_inactive_s, record.absolute_lifetime_s)
    return Stored(record.generation, record.lineage, {}, record.body, lifetimes=lifetimes)


def _state(ctx: Context, session_id: SessionId, record: Record, accessed_ms: int, kind: LocalKind) -> SessionState:
    return SessionState(
        session_id=session_id,
        attributes=decode_attributes(ctx, session_id, record.body),
        created_ms=record.created_ms,
        accessed_ms=accessed_ms,
        max_inactive_s=record.max_inactive_s,
        absolute_lifetime_s=record.absolute_lifetime_s,
        body=record.body,
        local_kind=kind,
        is_new=False,
        epoch=ctx.distribution.epoch,
    )


def _provisional(ctx: Context, session_id: SessionId) -> SessionState:
    """Return an empty session under an id that may be in use in the cluster."""
    state = ctx.new_state()
    state.session_id = session_id
    state.local_kind = "provisional"
    ctx.counters.add("provisional")
    return state
