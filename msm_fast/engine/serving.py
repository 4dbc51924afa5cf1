"""Where a session is found and kept: in the cluster, or on this host while the cluster cannot be used for it."""

from __future__ import annotations

from msm_fast._core.session_id import SessionId
from msm_fast.engine.context import Context, digest
from msm_fast.engine.effects import Flow
from msm_fast.engine.loading import load
from msm_fast.engine.local import find_locally, keep_locally, kept_record
from msm_fast.engine.reconnecting import catch_up
from msm_fast.engine.saving import save
from msm_fast.engine.serialization import StaysLocal
from msm_fast.errors import CorruptRecord, SessionUnavailable, UnknownFormat
from msm_fast.policies import SaveResult
from msm_fast.session import SessionState

__all__ = ["find", "stay_local", "store"]


def find(ctx: Context, session_id: SessionId, expect_write: bool) -> Flow[SessionState | None]:
    """Return the session, or None if there is none.

    Raises: SessionUnavailable, CorruptRecord where settings.on_cluster_lost and on_corrupt say so.
    """
    kept = kept_record(ctx, session_id)
    if not ctx.distribution.is_on or (kept is not None and kept.kind in ("tagged", "ended")):
        return find_locally(ctx, session_id)
    try:
        state = yield from load(ctx, session_id, expect_write)
    except SessionUnavailable as error:
        if ctx.settings.on_cluster_lost == "error":
            raise
        return _fall_back(ctx, session_id, error, may_be_in_cluster=True)
    except CorruptRecord as error:
        if ctx.settings.on_corrupt == "error":
            raise
        return _fall_back(ctx, session_id, error, may_be_in_cluster=isinstance(error, UnknownFormat))
    return state if kept is None else catch_up(ctx, session_id, state, kept)


def _fall_back(
    ctx: Context, session_id: SessionId, error: Exception, *, may_be_in_cluster: bool
) -> SessionState | None:
    """Serve a session from this host that the cluster could not give.

    may_be_in_cluster: a later request, or a later version of this library, may still be given it.
    """
    name = digest(session_id)
    ctx.counters.add("fallbacks")
    ctx.tell("fallback", f"session {name} is served from this host: {error}", session=name)
    return find_locally(ctx, session_id, may_be_in_cluster=may_be_in_cluster)


def store(ctx: Context, state: SessionState) -> Flow[SaveResult]:
    """Store what a request changed, in the cluster if it can be.

    Raises: SerializationError, SessionTooLarge, ConflictError and SessionUnavailable where the settings say so.
    """
    if state.local_kind is not None and ctx.distribution.is_on and state.epoch != ctx.distribution.epoch:
        if state.local_kind == "provisional":
            return _drop(ctx, state)
        if state.local_kind == "local":  # what was kept here was dumped; this request's own changes are not lost
            state.local_kind, state.local_generation = None, 0
    if state.local_kind is not None or not ctx.distribution.is_on:
        return keep_locally(ctx, state)
    try:
        result = yield from save(ctx, state)
    except SessionUnavailable as error:
        if ctx.settings.on_cluster_lost == "error":
            raise
        name = digest(state.session_id)
        ctx.counters.add("fallbacks")
        ctx.tell("fallback", f"session {name} is kept on this host: {error}", session=name)
        return keep_locally(ctx, state)
    except StaysLocal as stays:
        return stay_local(ctx, state, stays)
    if state.local_generation:
        ctx.local.delete(ctx.storage_key(state.session_id), state.local_generation)
        state.local_generation = 0
    return result


def stay_local(ctx: Context, state: SessionState, stays: StaysLocal) -> SaveResult:
    """Keep a session on this host that cannot be stored in the cluster, or all of them, as the policy says."""
    if stays.tags_session:
        state.local_kind = "tagged"
    else:
        ctx.distribution.stop(stays.reason)
    state.must_store = True
    return keep_locally(ctx, state)


def _drop(ctx: Context, state: SessionState) -> SaveResult:
    """Do not store a session that stood for one that can be reached again: that one is not overwritten."""
    name = digest(state.session_id)
    ctx.counters.add("dropped")
    ctx.tell("dropped", f"provisional session {name} is not stored: the cluster can be reached again", session=name)
    return SaveResult("failed")
