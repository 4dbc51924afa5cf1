"""Where a session is found and kept: in the cluster, or on this host while the cluster cannot be used for it."""

from __future__ import annotations

import contextlib

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.session_id import SessionId
from msm_fast.engine.changes import lay_over, take_up
from msm_fast.engine.context import Context, digest
from msm_fast.engine.effects import Flow
from msm_fast.engine.ending import end_copies
from msm_fast.engine.loading import Asked, load, was_ended
from msm_fast.engine.local import (
    bring_kept_along,
    drop_kept,
    end_locally,
    find_locally,
    is_only_in_cluster,
    keep_locally,
    keep_unless_back,
    kept_record,
    state_of_record,
)
from msm_fast.engine.reconnecting import catch_up, told_by
from msm_fast.engine.saving import Begun, end_retired, save
from msm_fast.engine.serialization import StaysLocal
from msm_fast.errors import CorruptRecord, SessionUnavailable, UnknownFormat
from msm_fast.local_store import LocalRecord
from msm_fast.policies import SaveResult
from msm_fast.session import SessionState

__all__ = ["find", "stay_local", "store"]


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
        return (yield from _find_tagged(ctx, session_id, kept))
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
    if (yield from _was_ended(ctx, session_id)):
        drop_kept(ctx, session_id, kept.generation)


def _find_tagged(ctx: Context, session_id: SessionId, kept: LocalRecord) -> Flow[SessionState | None]:
    """Return a session that cannot be stored, unless others have ended what the cluster has of it from before."""
    if kept.base and (yield from _was_ended(ctx, session_id)):
        _, max_inactive_s = told_by(ctx, ctx.storage_key(session_id), kept)
        end_locally(ctx, session_id, max_inactive_s)
    return find_locally(ctx, session_id)


def _was_ended(ctx: Context, session_id: SessionId) -> Flow[bool]:
    try:
        return (yield from was_ended(ctx, session_id))
    except (SessionUnavailable, CorruptRecord):
        return False


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


def store(ctx: Context, state: SessionState, begun: Begun | None = None) -> Flow[SaveResult]:
    """Store what a request changed, in the cluster if it can be.

    begun: as for `save`.
    Raises: SerializationError, SessionTooLarge, ConflictError and SessionUnavailable where the settings say so.
    """
    result = None
    while result is None:  # until the cluster is not taken up again just while it is kept here
        epoch = ctx.distribution.epoch if begun is None else begun.writing.epoch
        if begun is None and _was_tagged(ctx, state):
            state.local_kind = "tagged"
        if state.local_kind is not None and ctx.distribution.is_on and state.epoch != epoch:
            if state.local_kind == "provisional":
                return _drop(ctx, state)
            if state.local_kind == "local":  # what was kept here was dumped; this request's own changes are not lost
                state.local_kind, state.local_generation = None, 0
        if begun is None and (state.local_kind is not None or not ctx.distribution.is_on):
            result = keep_unless_back(ctx, state, epoch)
        else:
            result = yield from _store_in_cluster(ctx, state, epoch, begun)
        begun = None
    return result


def _store_in_cluster(ctx: Context, state: SessionState, epoch: int, begun: Begun | None) -> Flow[SaveResult | None]:
    """Store what a request changed in the cluster, or here if that fails; None: it has been away and is back."""
    ended = state.retired
    bring_kept_along(ctx, state)
    try:
        result = yield from save(ctx, state, begun)
    except SessionUnavailable as error:
        if ctx.settings.on_cluster_lost == "error":
            raise
        name = digest(state.session_id)
        ctx.counters.add("fallbacks")
        ctx.tell("fallback", f"session {name} is kept on this host: {error}", session=name)
        if state.retired and ctx.distribution.is_on:  # else the reconnection tells the nodes
            with contextlib.suppress(SessionUnavailable):  # then each is told before it is used again
                yield from end_copies(ctx, state.retired, state.retired_max_inactive_s)
        return keep_unless_back(ctx, state, epoch)
    except StaysLocal as stays:
        return (yield from _tag(ctx, state, stays))
    for session_id in ended:
        _end_kept(ctx, session_id, state.retired_max_inactive_s)
    if state.local_generation:
        drop_kept(ctx, state.session_id, state.local_generation)
        state.local_generation = 0
    is_stored = result.status in ("stored", "merged")
    return _keep_too(ctx, state, result) if is_stored and _was_tagged(ctx, state) else result


def _end_kept(ctx: Context, session_id: SessionId, max_inactive_s: int) -> None:
    """End a session here, too, that was ended in the cluster, if it is kept here: slower requests may still have it."""
    kept = kept_record(ctx, session_id)
    if kept is not None and kept.kind != "ended":
        end_locally(ctx, session_id, max_inactive_s)


def _was_tagged(ctx: Context, state: SessionState) -> bool:
    """Whether another request, since this one has found the session in the cluster, has stored what cannot go there.

    In the cluster nobody here would find what this one stores.
    """
    if ctx.settings.on_unserializable != "local_session" or state.local_kind is not None or not state.is_kept:
        return False
    kept = kept_record(ctx, state.session_id)
    return kept is not None and kept.kind == "tagged"


def _keep_too(ctx: Context, state: SessionState, result: SaveResult) -> SaveResult:
    """Lay what was just stored in the cluster over what another request has tagged while that was on its way."""
    with contextlib.suppress(SessionUnavailable, UnknownFormat):  # then it is in the cluster only
        record = kept_record(ctx, state.session_id)
        kept = state_of_record(ctx, state.session_id, record) if record is not None else None
        theirs, ours = kept and kept.stored, state.stored
        if kept is not None and theirs and ours and theirs.generation < ours.generation:  # else it has that already
            base, now = (AttributeMap.decode(stored.body, serializer=ctx.serializers) for stored in (theirs, ours))
            lay_over(kept.attributes, base, now)
            if theirs.lifetimes is not None:
                kept.stored_max_inactive_s, kept.stored_absolute_lifetime_s = theirs.lifetimes
            kept.take_lifetimes(state.max_inactive_s, state.absolute_lifetime_s)
            kept.stored, kept.must_store = ours, True
            return keep_locally(ctx, kept)
    return result


def _tag(ctx: Context, state: SessionState, stays: StaysLocal) -> Flow[SaveResult]:
    """Let a session stay on this host from now on, unless it was ended meanwhile; its former ids end everywhere.

    What others have stored of it since it was found stays here with it: nobody here would look for that in the cluster.
    Raises: ConflictError if settings.on_conflict is "error" and there is such.
    """
    if state.stored is not None:
        if (yield from _was_ended(ctx, state.session_id)):
            return SaveResult("invalidated")
        with contextlib.suppress(SessionUnavailable, CorruptRecord):
            found = yield from load(ctx, state.session_id, True)
            if found is not None and take_up(ctx, state, state.stored, found):
                state.stored = found.stored
    for session_id in state.retired:
        _end_kept(ctx, session_id, state.retired_max_inactive_s)
    with contextlib.suppress(SessionUnavailable):  # then it is ended here, and the nodes are told when they are back
        yield from end_retired(ctx, state)
    return stay_local(ctx, state, stays)


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
