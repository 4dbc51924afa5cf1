"""Storing what a request changed: compare and swap, merge on conflict, move when the node is gone."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import NamedTuple

from msm_fast._core import wire
from msm_fast.engine.attempts import Progress, Write, next_write, outrun, unavailable, unreadable, write_of
from msm_fast.engine.changes import Base, follow, merge, needs_storing
from msm_fast.engine.context import Context
from msm_fast.engine.copies import Copy, encode_stored
from msm_fast.engine.effects import Batch, Exchange, Flow, NodeFailure, Outcome, Sleep
from msm_fast.engine.ending import end_copies
from msm_fast.engine.exchanging import exchange, settle, wait_after_conflict
from msm_fast.engine.relocation import follow_home
from msm_fast.engine.rotating import bring_along
from msm_fast.engine.serialization import encode_attributes, fit_item
from msm_fast.engine.topology import home_digest
from msm_fast.engine.usual_saving import Writing
from msm_fast.engine.writing import write_copies, write_deferred
from msm_fast.errors import SessionUnavailable
from msm_fast.policies import SaveResult, SaveStatus
from msm_fast.session import ABSENT, UNKNOWN, SessionState, Stored

__all__ = ["Begun", "end_retired", "save"]

_NO_NONCE = 0
"""What no write has."""
_MOST_CONFLICTS = 1000
"""More than fit into a request's time: in the background a save has no other end."""


class Begun(NamedTuple):
    """A first round trip that is over, in which the session was written to its nodes."""

    writing: Writing
    outcomes: list[Outcome]


def save(ctx: Context, state: SessionState, begun: Begun | None = None) -> Flow[SaveResult]:
    """Store the session on its node and backups if it changed, then remove the copies of ids it no longer has.

    begun: what was done of it without a flow, in vain; else the usual way is tried here.
    Raises: SerializationError and SessionTooLarge by policy, ConflictError if settings.on_conflict says so,
    SessionUnavailable if it could be stored nowhere, or others changed it all the time that the request had.
    """
    if state.is_ended and not state.attributes:
        yield from end_retired(ctx, state)
        return SaveResult("invalidated")
    if begun is None:
        writing = ctx.usual_saving.begin(state)
        if isinstance(writing, SaveResult):
            return writing
        if writing is not None:
            outcomes: list[Outcome] = yield Exchange(writing.batches)
            saved = ctx.usual_saving.saved(writing, outcomes)
            if saved is not None:
                return saved
            begun = Begun(writing, outcomes)
    if state.rotated_from is not None:
        yield from bring_along(ctx, state)
    body = encode_attributes(ctx, state) if begun is None else begun.writing.body
    if begun is None and not needs_storing(state, body):
        ctx.counters.add("unchanged")
        return SaveResult("unchanged", state.session_id.node)
    was_new = state.stored is None and not state.local_generation and not state.retired
    result = yield from _store(ctx, state, body, begun)
    if result.status == "invalidated":
        return result
    ctx.counters.add("created" if was_new else "stored")
    if state.retired:
        yield from end_retired(ctx, state)
    return result


def end_retired(ctx: Context, state: SessionState) -> Flow[None]:
    """Remove the copies of the ids that the session had before."""
    if state.retired:
        yield from end_copies(ctx, state.retired, state.retired_max_inactive_s)
        ctx.counters.add("invalidated" if state.is_ended else "rotated")
    state.retired = ()


def _store(ctx: Context, state: SessionState, body: bytes, begun: Begun | None) -> Flow[SaveResult]:
    """Write the record until it is stored, merging and moving as it must, as long as the request has time."""
    if begun is None:
        if body is state.body:
            body = fit_item(ctx, state, body)
        writing = ctx.usual_saving.plan(state, body)
        if writing is not None:
            outcomes: list[Outcome] = yield Exchange(writing.batches)
            result = ctx.usual_saving.stored(writing, outcomes)
            if result is not None:
                return result
            begun = Begun(writing, outcomes)
    progress = Progress.over(state.stored, state.own_nonces)
    home = home_digest(state.session_id.node or "")
    try:
        return (yield from _write_on(ctx, state, body, begun, progress))
    except SessionUnavailable:
        if progress.refused and not progress.n_conflicts:
            yield from _put_back(ctx, state, home, progress.refused)
        raise


def _write_on(
    ctx: Context, state: SessionState, body: bytes, begun: Begun | None, progress: Progress
) -> Flow[SaveResult]:
    """Go on with what was begun, if anything was, and write again until it is stored or cannot be."""
    status: SaveStatus = "stored"
    while True:
        if begun is None:
            body = fit_item(ctx, state, body)
            write = next_write(ctx, state, body, progress)
            verdict = yield from write_copies(ctx, write)
        else:
            write = write_of(begun.writing)
            outcomes = yield from settle(ctx, begun.writing.batches, begun.outcomes)
            verdict = yield from write_copies(ctx, write, (begun.writing.batches, outcomes))
            begun = None
        if verdict == "stored":
            _commit(ctx, state, write, body)
            if write.deferred and not ctx.behind.add(
                write.key, partial(write_deferred, ctx, write), size=len(write.record)
            ):
                yield from write_deferred(ctx, write)
            return SaveResult(status, write.home or None, write.backups)
        if verdict == "superseded":
            return _commit_superseded(ctx, state, write, body, status)
        if verdict == "ended":
            # Also where it was not yet known, and for as long as a copy may live, whatever was set here or elsewhere.
            assert write.tombstone is not None
            lifetimes = (state.longest_max_inactive_s(), write.tombstone.max_inactive_s)
            yield from end_copies(ctx, [state.session_id], max(lifetimes) if all(lifetimes) else 0)
        progress.learn(write)
        if verdict == "unreadable":
            raise unreadable(ctx, state, write.unreadable)  # it is not moved away from what others may have stored
        is_out_of_time = verdict == "home_lost" and write.is_out_of_time
        if progress.n_conflicts >= _MOST_CONFLICTS or (is_out_of_time and progress.n_conflicts):
            raise outrun(ctx, state, progress)  # no node is at fault
        if verdict == "gone" and (progress.lost or progress.away):
            raise unavailable(ctx, state, progress)  # those that cannot be asked may have it
        if verdict in ("ended", "gone"):
            return SaveResult("invalidated")
        was_kept = state.is_live or (state.body and not state.retired)  # under this id, here or there
        if verdict == "conflict" and progress.base_nonce is None and not was_kept:
            state.session_id = ctx.new_state().session_id  # somebody has the same 128 random bits: take others
            progress = Progress.over(None)
        elif verdict == "conflict":
            body = _build_on_winner(ctx, state, body, write, progress)
            status = "merged"
            progress.n_conflicts += 1
            if progress.n_conflicts % 2 == 0:  # what was just looked at is worth another try at once, but not always
                yield Sleep(wait_after_conflict(ctx, progress.n_conflicts))
                progress.expected = dict.fromkeys(progress.expected or (), UNKNOWN)


def _build_on_winner(ctx: Context, state: SessionState, body: bytes, write: Write, progress: Progress) -> bytes:
    """Join this request's changes with what another stored first, to be written over that; return the new body."""
    winner = _winner(write)
    if write.is_under(winner):
        follow(state, body, winner.record)
    else:
        base = Base(progress.base_generation, progress.base_nonce or _NO_NONCE, progress.lineage)
        merge(ctx, state, winner.record, base)
    follow_home(ctx, state, write.home, winner.record)
    body = encode_attributes(ctx, state)
    progress.stand_on(write, winner)
    if state.is_live:  # if nothing more comes of it now, it is tried again from here
        assert progress.expected is not None
        state.stored = Stored(winner.record.generation, progress.lineage, progress.expected, winner.record.body)
    return body


def _put_back(ctx: Context, state: SessionState, home: int, nodes: Collection[str]) -> Flow[None]:
    """Store again what the session was, on nodes that had no room for what it is: they have dropped that, too.

    Only where there is nothing now: what others have stored or ended meanwhile stays. So each is looked at before, as
    one that is full deletes what it has even if it is asked to add something (memcached -M).
    """
    if state.stored is None:
        return
    had_copies = [node for node in nodes if state.stored.copies.get(node, UNKNOWN) != ABSENT]
    if not had_copies:
        return
    key = ctx.storage_key(state.session_id)
    looks = [Batch(node, (wire.get(key, value=False),)) for node in had_copies]
    seen = zip(had_copies, (yield from exchange(ctx, looks)), strict=True)
    gone = [node for node, outcome in seen if not isinstance(outcome, NodeFailure) and outcome[0].status == "EN"]
    if not gone:
        return
    ttl_s = ctx.ttl_s(state.stored_max_inactive_s, state.created_ms, state.stored_absolute_lifetime_s)
    record = encode_stored(ctx, key, state, home)
    command = wire.store(key, record, state.stored.nonce, ctx.exptime(ttl_s), add=True)
    yield from exchange(ctx, [Batch(node, (command,)) for node in gone])


def _winner(write: Write) -> Copy:
    """Return the newest of the copies that were stored meanwhile; of equal ones the home's."""
    node = max(write.newer, key=lambda n: (write.newer[n].record.generation, n == write.home))
    return write.newer[node]


def _commit_superseded(ctx: Context, state: SessionState, write: Write, body: bytes, status: SaveStatus) -> SaveResult:
    """Note that the session was stored and that another request has built on it since: nothing is known of that one."""
    assert write.superseded_by is not None
    home = follow_home(ctx, state, write.home, write.superseded_by.record)
    state.attributes.mark_saved(body)
    state.note_lifetimes_stored()
    state.stored = Stored(write.generation, write.lineage, {}, body)
    state.body = body
    state.must_store, state.moved_from = False, None
    state.own_nonces = frozenset()
    ctx.forget(write.key)
    return SaveResult(status, home or None)


def _commit(ctx: Context, state: SessionState, write: Write, body: bytes) -> None:
    """Note that the session is stored as written."""
    copies = {node: written for node, written in write.done.items() if written != UNKNOWN}
    ctx.usual_saving.commit(state, write.key, write.record, body, write.generation, write.lineage, copies)
