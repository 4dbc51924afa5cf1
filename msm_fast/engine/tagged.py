"""Sessions that stay on this host, since something in them cannot be encoded: on_unserializable="local_session"."""

from __future__ import annotations

import contextlib

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.session_id import SessionId
from msm_fast.engine.changes import lay_over, take_up
from msm_fast.engine.context import Context
from msm_fast.engine.effects import Flow
from msm_fast.engine.keeping import end_locally, keep_locally
from msm_fast.engine.loading import is_known_to_be_ended, load
from msm_fast.engine.local import find_locally, kept_record, state_of_record
from msm_fast.engine.reconnecting import told_by
from msm_fast.engine.saving import end_retired
from msm_fast.engine.serialization import StaysLocal
from msm_fast.errors import CorruptRecord, SessionUnavailable, UnknownFormat
from msm_fast.local_store import LocalRecord
from msm_fast.policies import SaveResult
from msm_fast.session import SessionState

__all__ = ["end_kept", "find_tagged", "keep_too", "stay_local", "tag", "was_tagged"]


def find_tagged(ctx: Context, session_id: SessionId, kept: LocalRecord) -> Flow[SessionState | None]:
    """Return a session that cannot be stored, unless others have ended what the cluster has of it from before."""
    if kept.base and (yield from is_known_to_be_ended(ctx, session_id)):
        _, max_inactive_s = told_by(ctx, ctx.storage_key(session_id), kept)
        end_locally(ctx, session_id, max_inactive_s)
    return find_locally(ctx, session_id)


def was_tagged(ctx: Context, state: SessionState) -> bool:
    """Whether another request, since this one has found the session in the cluster, has stored what cannot go there.

    In the cluster nobody here would find what this one stores.
    """
    if ctx.settings.on_unserializable != "local_session" or state.local_kind is not None or not state.is_kept:
        return False
    kept = kept_record(ctx, state.session_id)
    return kept is not None and kept.kind == "tagged"


def keep_too(ctx: Context, state: SessionState, result: SaveResult) -> SaveResult:
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


def tag(ctx: Context, state: SessionState, stays: StaysLocal) -> Flow[SaveResult]:
    """Let a session stay on this host from now on, unless it was ended meanwhile; its former ids end everywhere.

    What others have stored of it since it was found stays here with it: nobody here would look for that in the cluster.
    Raises: ConflictError if settings.on_conflict is "error" and there is such.
    """
    if state.stored is not None:
        if (yield from is_known_to_be_ended(ctx, state.session_id)):
            return SaveResult("invalidated")
        with contextlib.suppress(SessionUnavailable, CorruptRecord):
            found = yield from load(ctx, state.session_id, True)
            if found is not None and take_up(ctx, state, state.stored, found):
                state.stored = found.stored
    for session_id in state.retired:
        end_kept(ctx, session_id, state.retired_max_inactive_s)
    with contextlib.suppress(SessionUnavailable):  # then it is ended here, and the nodes are told when they are back
        yield from end_retired(ctx, state)
    result = stay_local(ctx, state, stays)
    if state.stored is not None and result.status == "local":
        with contextlib.suppress(SessionUnavailable, CorruptRecord):
            found = yield from load(ctx, state.session_id, True)  # a save that ended just before did not see this here
            if found is not None:
                return keep_too(ctx, found, result)
    return result


def stay_local(ctx: Context, state: SessionState, stays: StaysLocal) -> SaveResult:
    """Keep a session on this host that cannot be stored in the cluster, or all of them, as the policy says."""
    if stays.tags_session:
        state.local_kind = "tagged"
    else:
        ctx.distribution.stop(stays.reason)
    state.must_store = True
    return keep_locally(ctx, state)


def end_kept(ctx: Context, session_id: SessionId, max_inactive_s: int) -> None:
    """End a session here, too, that was ended in the cluster, if it is kept here: slower requests may still have it."""
    kept = kept_record(ctx, session_id)
    if kept is not None and kept.kind != "ended":
        end_locally(ctx, session_id, max_inactive_s)
