"""Where a session is found and kept: in the cluster, or on this host while the cluster cannot be used for it."""

from __future__ import annotations

import contextlib

from msm_fast._core.session_id import SessionId
from msm_fast.engine.context import Context, digest
from msm_fast.engine.effects import Flow
from msm_fast.engine.ending import end_copies
from msm_fast.engine.keeping import bring_kept_along, keep_unless_back
from msm_fast.engine.loading import Asked, is_known_to_be_ended, load
from msm_fast.engine.local import drop_kept, find_locally, is_only_in_cluster, kept_record
from msm_fast.engine.reconnecting import catch_up
from msm_fast.engine.saving import Begun, save
from msm_fast.engine.serialization import StaysLocal
from msm_fast.engine.tagged import end_kept, find_tagged, keep_too, tag, was_tagged
from msm_fast.errors import CorruptRecord, SessionUnavailable, UnknownFormat
from msm_fast.local_store import LocalRecord
from msm_fast.policies import SaveResult
from msm_fast.session import SessionState

__all__ = ["find", "store"]


def find(
    ctx: Context, session_id: SessionId, expect_write: bool, asked: Asked | None = None
) -> Flow[SessionState | None]:
    """Return the session, or None if there is none.

    asked: as for `load`.
    Raises: SessionUnavailable, CorruptRecord where settings.on_cluster_lost and on_corrupt say so.
    """
    if not ctx.distribution.is_on:
        return (yield from _find_without_cluster(ctx, session_id))
    kept = kept_record(ctx, session_id)
    if kept is not None and kept.kind == "ended":
        yield from _forget_ended(ctx, session_id, kept)
        return None
    if kept is not None and kept.kind == "tagged":
        return (yield from find_tagged(ctx, session_id, kept))
    try:
        state = yield from load(ctx, session_id, expect_write, asked)
    except SessionUnavailable as error:
        if ctx.settings.on_cluster_lost == "error":
            raise
        return _fall_back(ctx, session_id, error, may_be_in_cluster=True)
    except CorruptRecord as error:
        if ctx.settings.on_corrupt == "error":
            raise
        return _fall_back(ctx, session_id, error, may_be_in_cluster=isinstance(error, UnknownFormat))
    if kept is None:
        return state
    try:
        return catch_up(ctx, session_id, state, kept)
    except UnknownFormat as error:  # what was kept waits for the workers that can read it
        return state if state is not None else _fall_back(ctx, session_id, error, may_be_in_cluster=True)


def _find_without_cluster(ctx: Context, session_id: SessionId) -> Flow[SessionState | None]:
    """Return a session while sessions do not go to the cluster; one that only the cluster has is only read there."""
    if is_only_in_cluster(ctx, session_id):
        with contextlib.suppress(SessionUnavailable, CorruptRecord):
            state = yield from load(ctx, session_id, False)
            if state is not None:
                return state
    return find_locally(ctx, session_id)


def _forget_ended(ctx: Context, session_id: SessionId, kept: LocalRecord) -> Flow[None]:
    """Drop what says here that a session has ended, if the cluster says so too."""
    ctx.counters.add("not_found")
    if (yield from is_known_to_be_ended(ctx, session_id)):
        drop_kept(ctx, session_id, kept.generation)


def _fall_back(
    ctx: Context, session_id: SessionId, error: Exception, *, may_be_in_cluster: bool
) -> SessionState | None:
    """Serve a session from this host that the cluster could not give.

    may_be_in_cluster: a later request, or a later version of this library, may still be given it.
    """
    ctx.counters.add("fallbacks")
    ctx.tell_session("fallback", session_id, f"is served from this host: {error}")
    return find_locally(ctx, session_id, may_be_in_cluster=may_be_in_cluster)


def store(ctx: Context, state: SessionState, begun: Begun | None = None) -> Flow[SaveResult]:
    """Store what a request changed, in the cluster if it can be.

    begun: as for `save`.
    Raises: SerializationError, SessionTooLarge, ConflictError and SessionUnavailable where the settings say so.
    """
    result = None
    if begun is not None:
        result = yield from _store_in_cluster(ctx, state, begun.writing.epoch, begun)
    while result is None:  # until the cluster is not taken up again just while it is kept here
        epoch = ctx.distribution.epoch
        if was_tagged(ctx, state):
            state.local_kind = "tagged"
        if state.local_kind is not None and ctx.distribution.is_on and state.epoch != epoch:
            if state.local_kind == "provisional":
                return _drop(ctx, state)
            if state.local_kind == "local":  # what was kept here was dumped; this request's own changes are not lost
                state.local_kind, state.local_generation = None, 0
        if state.local_kind is not None or not ctx.distribution.is_on:
            result = keep_unless_back(ctx, state, epoch)
        else:
            result = yield from _store_in_cluster(ctx, state, epoch, None)
    return result


def _store_in_cluster(ctx: Context, state: SessionState, epoch: int, begun: Begun | None) -> Flow[SaveResult | None]:
    """Store what a request changed in the cluster, or here if that fails; None: it has been away and is back."""
    ended, node = state.retired, state.moved_from or state.session_id.node
    bring_kept_along(ctx, state)
    try:
        result = yield from save(ctx, state, begun)
    except SessionUnavailable as error:
        if ctx.settings.on_cluster_lost == "error":
            raise
        if state.stored is not None:  # it is found where it was: it has not moved
            state.session_id = state.session_id.with_node(node or None)
        ctx.counters.add("fallbacks")
        ctx.tell_session("fallback", state.session_id, f"is kept on this host: {error}")
        if state.retired and ctx.distribution.is_on:  # else the reconnection tells the nodes
            with contextlib.suppress(SessionUnavailable):  # then each is told before it is used again
                yield from end_copies(ctx, state.retired, state.retired_max_inactive_s)
        return keep_unless_back(ctx, state, epoch)
    except StaysLocal as stays:
        return (yield from tag(ctx, state, stays))
    for session_id in ended:
        end_kept(ctx, session_id, state.retired_max_inactive_s)
    if state.local_generation:
        drop_kept(ctx, state.session_id, state.local_generation)
        state.local_generation = 0
    is_stored = result.status in ("stored", "merged")
    return keep_too(ctx, state, result) if is_stored and was_tagged(ctx, state) else result


def _drop(ctx: Context, state: SessionState) -> SaveResult:
    """Do not store a session that stood for one that can be reached again: that one is not overwritten."""
    name = digest(state.session_id)
    ctx.counters.add("dropped")
    ctx.tell("dropped", f"provisional session {name} is not stored: the cluster can be reached again", session=name)
    return SaveResult("failed")
