"""Storing what a request changed: compare and swap, merge on conflict, move when the node is gone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from msm_fast._core import wire
from msm_fast.engine.as_usual import LINEAGE, Writing
from msm_fast.engine.changes import Base, follow, merge, needs_storing
from msm_fast.engine.context import Context, digest
from msm_fast.engine.copies import Copy, encode_state, encode_stored, next_generation
from msm_fast.engine.effects import Batch, Exchange, Flow, NodeFailure, Outcome, Sleep
from msm_fast.engine.ending import end_copies
from msm_fast.engine.exchanging import exchange, settle, wait_after_conflict
from msm_fast.engine.relocation import follow_home, move_home
from msm_fast.engine.rotating import bring_along
from msm_fast.engine.serialization import encode_attributes, fit_item
from msm_fast.engine.topology import home_digest
from msm_fast.engine.writing import BEATS_THE_OLD_HOME, Write, write_copies, write_deferred
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
        writing = ctx.usual.begin(state)
        if isinstance(writing, SaveResult):
            return writing
        if writing is not None:
            outcomes: list[Outcome] = yield Exchange(writing.batches)
            saved = ctx.usual.saved(writing, outcomes)
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


@dataclass(slots=True)
class _Progress:
    """What is known between the attempts of one save.

    generation: the highest that was written or met. base_generation, base_nonce: of the copy that the session's
    changes lie over, 0 and None for a new session. lineage: what the next write stands on. own_nonces, attempts: as for
    `Write`. merged: nonces of the copies that its changes lay over before. expected: per node, None while there can be
    no copy yet. lost: nodes that failed. refused: as for `Write`. away: nodes that were down. n_conflicts: how often
    others were first.
    """

    generation: int = 0
    base_generation: int = 0
    base_nonce: int | None = None
    lineage: tuple[int, ...] = ()
    own_nonces: frozenset[int] = frozenset()
    attempts: frozenset[int] = frozenset()
    merged: frozenset[int] = frozenset()
    expected: dict[str, int] | None = None
    corrupt: frozenset[str] = frozenset()
    lost: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    away: set[str] = field(default_factory=set)
    n_conflicts: int = 0


def _start(stored: Stored | None, own_nonces: frozenset[int] = frozenset()) -> _Progress:
    if stored is None:
        return _Progress(own_nonces=own_nonces, attempts=own_nonces)
    return _Progress(
        own_nonces=own_nonces,
        attempts=own_nonces,
        generation=stored.generation,
        base_generation=stored.generation,
        base_nonce=stored.nonce,
        lineage=stored.lineage,
        expected=dict(stored.copies),
        corrupt=stored.corrupt,
    )


def _store(ctx: Context, state: SessionState, body: bytes, begun: Begun | None) -> Flow[SaveResult]:
    """Write the record until it is stored, merging and moving as it must, as long as the request has time."""
    if begun is None:
        if body is state.body:
            body = fit_item(ctx, state, body)
        writing = ctx.usual.plan(state, body)
        if writing is not None:
            outcomes: list[Outcome] = yield Exchange(writing.batches)
            result = ctx.usual.stored(writing, outcomes)
            if result is not None:
                return result
            begun = Begun(writing, outcomes)
    progress = _start(state.stored, state.own_nonces)
    home = home_digest(state.session_id.node or "")
    try:
        return (yield from _write_on(ctx, state, body, begun, progress))
    except SessionUnavailable:
        if progress.refused and not progress.n_conflicts:
            yield from _put_back(ctx, state, home, progress.refused)
        raise


def _write_on(
    ctx: Context, state: SessionState, body: bytes, begun: Begun | None, progress: _Progress
) -> Flow[SaveResult]:
    """Go on with what was begun, if anything was, and write again until it is stored or cannot be."""
    status: SaveStatus = "stored"
    while True:
        if begun is None:
            body = fit_item(ctx, state, body)
            write = _plan(ctx, state, body, progress)
            verdict = yield from write_copies(ctx, write)
        else:
            write = _write_of(begun.writing)
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
        _learn(progress, write)
        is_out_of_time = verdict == "home_lost" and write.is_out_of_time
        if progress.n_conflicts >= _MOST_CONFLICTS or (is_out_of_time and progress.n_conflicts):
            raise _outrun(ctx, state, progress)  # no node is at fault
        if verdict == "gone" and (progress.lost or progress.away):
            raise _unavailable(ctx, state, progress)  # those that cannot be asked may have it
        if verdict == "gone" and state.is_live:
            continue  # evicted, or lost in a restart: it lives here
        if verdict in ("ended", "gone"):
            return SaveResult("invalidated")
        if verdict == "conflict" and progress.base_nonce is None and not state.is_live:
            state.session_id = ctx.new_state().session_id  # somebody has the same 128 random bits: take others
            progress = _start(None)
        elif verdict == "conflict":
            winner = _winner(write)
            if write.is_under(winner):
                follow(state, body, winner.record)
            else:
                base = Base(progress.base_generation, progress.base_nonce or _NO_NONCE, progress.lineage)
                merge(ctx, state, winner.record, base)
            follow_home(ctx, state, write.home, winner.record)
            body = encode_attributes(ctx, state)
            status = "merged"
            _stand_on(progress, write, winner)
            if state.is_live:  # if nothing more comes of it now, it is tried again from here
                assert progress.expected is not None
                state.stored = Stored(winner.record.generation, progress.lineage, progress.expected, winner.record.body)
            progress.n_conflicts += 1
            if progress.n_conflicts % 2 == 0:  # what was just looked at is worth another try at once, but not always
                yield Sleep(wait_after_conflict(ctx, progress.n_conflicts))
                progress.expected = dict.fromkeys(progress.expected or (), UNKNOWN)


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


def _learn(progress: _Progress, write: Write) -> None:
    """Note what an attempt that was not enough has found out, and what it may have left behind."""
    progress.generation = write.generation
    progress.lineage = write.lineage
    progress.own_nonces |= {write.nonce}
    progress.attempts |= {write.nonce}
    unsettled = dict.fromkeys(write.strange, UNKNOWN)  # to be looked at again, not to be overwritten
    progress.expected = {**write.expected, **unsettled, **write.done}
    progress.lost |= write.failed
    progress.refused |= write.refused
    progress.corrupt = write.corrupt


def _stand_on(progress: _Progress, write: Write, winner: Copy) -> None:
    """Let the next attempt stand on what another request stored first."""
    assert progress.expected is not None
    progress.expected.update((n, copy.version) for n, copy in write.strange.items() if copy.nonce == winner.nonce)
    if progress.base_nonce is not None:
        progress.merged |= {progress.base_nonce}
    progress.base_generation = winner.record.generation
    progress.base_nonce = winner.nonce
    progress.generation = max(progress.generation, winner.record.generation)
    progress.lineage = winner.record.lineage
    progress.attempts = frozenset()


def _write_of(writing: Writing) -> Write:
    """Return what was planned as usual, to go on with."""
    stored = writing.state.stored
    nonces = frozenset(writing.lineage[:1])
    return Write(
        key=writing.key,
        record=writing.record,
        generation=writing.generation,
        lineage=writing.lineage,
        own_nonces=nonces,
        attempts=nonces,
        exptime=writing.exptime,
        base_generation=stored.generation if stored is not None else 0,
        base_nonce=stored.nonce if stored is not None else None,
        home=writing.home,
        expected=writing.expected,
        spares=writing.spares,
        recreates=writing.state.is_live,
    )


def _plan(ctx: Context, state: SessionState, body: bytes, progress: _Progress) -> Write:
    """Choose the nodes to write to and make the record."""
    health = ctx.health
    progress.away.update(health.down())
    ranked = ctx.topology.ranked(state.session_id.plain, health.is_up)
    if progress.lost:
        ranked = [node for node in ranked if node not in progress.lost]
    home = ctx.topology.home(state.session_id.node)
    if home is None or home in progress.lost or not health.is_up(home):
        if not ranked:
            raise _unavailable(ctx, state, progress)
        home = ranked[0]
        move_home(ctx, state, home)
    others = [node for node in ranked if node != home]
    others.sort(key=lambda node: not health.is_steady(node))
    unseen = ABSENT if progress.expected is None else UNKNOWN
    known = progress.expected or {}
    generation = next_generation(progress.generation)
    if state.has_moved:
        generation = max(generation, next_generation(progress.base_generation, BEATS_THE_OLD_HOME))
    key = ctx.storage_key(state.session_id)
    lineage = (ctx.nonce(), *progress.lineage)[:LINEAGE]
    own_nonces = progress.own_nonces | {lineage[0]}
    if state.is_live:
        state.own_nonces = own_nonces
    backups = {n: known.get(n, unseen) for n in others[: ctx.settings.replicas]}
    # Workers that do not know yet that a node drains keep sessions there: theirs and these meet only where both write.
    is_deferring = ctx.settings.backup == "async" and not ctx.settings.sticky and not ctx.topology.draining
    return Write(
        key=key,
        record=encode_state(ctx.essentials, ctx.records, key, state, body, generation, lineage),
        generation=generation,
        lineage=lineage,
        own_nonces=own_nonces | progress.merged,
        attempts=progress.attempts | {lineage[0]},
        exptime=ctx.exptime(ctx.life_s(state)),
        base_generation=progress.base_generation,
        base_nonce=progress.base_nonce,
        recreates=state.is_live,
        corrupt=progress.corrupt,
        home=home,
        expected={
            home: known.get(home, unseen),
            **({} if is_deferring else backups),
            **_copies_elsewhere(ctx, known, home, {*backups, *progress.lost}),
        },
        deferred=backups if is_deferring else {},
        spares=others[ctx.settings.replicas :],
    )


def _copies_elsewhere(ctx: Context, known: dict[str, int], home: str, backups: Collection[str]) -> dict[str, int]:
    """Return which copies are on other nodes than these, and are to be written, too.

    What stays on a node that the session leaves must say where it went. If the home has none, one that is elsewhere,
    since nodes were added, is what tells that the session has not vanished.
    """
    is_missing = known.get(home, ABSENT) <= ABSENT
    return {
        node: copy
        for node, copy in known.items()
        if copy != ABSENT and node != home and node not in backups and ctx.health.is_up(node)
        if is_missing or node in ctx.topology.draining
    }


def _unavailable(ctx: Context, state: SessionState, progress: _Progress) -> SessionUnavailable:
    ctx.counters.add("unavailable")
    down = ctx.health.down()
    nodes = {*down, *progress.lost}
    refused = progress.refused.difference(down)
    reasons = (
        (refused, "cannot store it, most likely being out of memory (SERVER_ERROR)"),
        (nodes - refused, "cannot be reached in the request's time"),
    )
    why = " and ".join(f"{', '.join(map(ctx.label, sorted(group)))} {reason}" for group, reason in reasons if group)
    return SessionUnavailable(
        f"session {digest(state.session_id)} could not be saved: {why}; what is stored may be as it was, or as it is "
        "now",
        session=digest(state.session_id),
        nodes=tuple(sorted(nodes)),
    )


def _outrun(ctx: Context, state: SessionState, progress: _Progress) -> SessionUnavailable:
    ctx.counters.add("unavailable")
    return SessionUnavailable(
        f"session {digest(state.session_id)} could not be saved in the request's time (timeouts.request): others had "
        f"changed it {progress.n_conflicts} times meanwhile; what is stored may be as it was, or as it is now. Let "
        "fewer requests of one session write at once, or set locking",
        session=digest(state.session_id),
        nodes=tuple(sorted(progress.lost)),
    )


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
    state.must_store = state.has_moved = False
    state.own_nonces = frozenset()
    ctx.forget(write.key)
    return SaveResult(status, home or None)


def _commit(ctx: Context, state: SessionState, write: Write, body: bytes) -> None:
    """Note that the session is stored as written."""
    copies = {node: written for node, written in write.done.items() if written != UNKNOWN}
    ctx.usual.commit(state, write.key, write.record, body, write.generation, write.lineage, copies)
