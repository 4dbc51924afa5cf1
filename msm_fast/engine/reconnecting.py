"""Going back to the cluster: what was ended meanwhile first, then what was kept here, then as if new."""

from __future__ import annotations

from dataclasses import replace

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.session_id import SessionId
from msm_fast.engine.changes import differing, lay_over
from msm_fast.engine.context import TELL_AGAIN_S, Context
from msm_fast.engine.effects import Flow, Sleep
from msm_fast.engine.ending import end_copies
from msm_fast.engine.exchanging import probe
from msm_fast.engine.keeping import move_base
from msm_fast.engine.loading import load
from msm_fast.engine.local import drop_kept, state_of_record
from msm_fast.engine.saving import save
from msm_fast.engine.serialization import StaysLocal
from msm_fast.errors import CorruptRecord, MsmError, SessionUnavailable, UnknownFormat
from msm_fast.local_store import LocalRecord
from msm_fast.session import SessionState

__all__ = ["catch_up", "reconnect", "told_by"]


_MOST_ROUNDS = 10
"""How often what was changed during the replay is replayed: each time it is less, unless requests outrun replay_rate.
What is left then is stored by the session's next request."""

_PATIENCE_S = 10.0
"""How long the cluster waits for a local store that cannot be read: it may have logouts that are to be told first."""


def reconnect(ctx: Context) -> Flow[bool]:
    """Take up distribution again; return whether it is on now.

    Sessions that were ended while the cluster was away are ended there before any is read. With
    reconnect.on_reconnect="replay" the sessions that were kept here are then stored, at most replay_rate a second, and
    those whose nodes are still away wait for them; with "discard" they are not. Requests are served from here until
    all this is done, so what they end and change meanwhile follows. In the end all else that was kept here is dumped
    but what can never be distributed. What cannot be read stays, and counts when it can be.
    Raises: SessionUnavailable while the local store cannot be read, for the first _PATIENCE_S.
    """
    for node in ctx.health.down():
        yield from probe(ctx, node)  # what ails one often ailed all: rather find every session than some
    told: set[bytes] = set()
    if not (yield from _end_what_was_ended(ctx, told)):
        return False
    n_gone = 0
    if ctx.settings.reconnect.on_reconnect == "replay":
        n_gone = yield from _replay(ctx)
        if not (yield from _end_what_was_ended(ctx, told)):
            return False
    if not ctx.distribution.can_reconnect:
        return False
    n_dropped = n_gone + _dump(ctx, told)
    ctx.tell("reset", f"the cluster is used as if new; {n_dropped} session(s) that were kept on this host are dropped")
    leftovers = [record for _, record in _records(ctx) if record.kind != "tagged"]
    ctx.distribution.reconnected(has_leftovers=bool(leftovers) or ctx.local_failing_since is not None)
    if ctx.distribution.is_on:  # for requests that were about to keep something here while we looked
        _drop_records(ctx)
        yield from _end_what_was_ended(ctx, told)
        _forget_ended(ctx, told)
    return ctx.distribution.is_on


def _end_what_was_ended(ctx: Context, told: set[bytes]) -> Flow[bool]:
    """End in the cluster what was ended here, until there is no more; return whether it could be told.

    told: the keys of those that the cluster knows of. They stay here so long: nothing may be served under their ids.
    """
    while untold := [(key, record) for key, record in _records(ctx) if record.kind == "ended" and key not in told]:
        for key, record in untold:
            session_id, max_inactive_s = told_by(ctx, key, record)
            try:
                yield from end_copies(ctx, [session_id], max_inactive_s)
            except SessionUnavailable:
                return False
            if ctx.is_closed:
                return False
            told.add(key)
    return True


def _replay(ctx: Context) -> Flow[int]:
    """Store the sessions that were kept here, over what the cluster has of them; stop when it is lost again.

    Return how many were dropped, since the cluster has them no more.
    """
    n_gone = 0
    waiting: set[bytes] = set()
    for _ in range(_MOST_ROUNDS):
        keys = [key for key, record in _records(ctx) if record.kind == "local" and key not in waiting]
        if not keys:
            break
        for key in keys:
            record = ctx.local.load(key)  # as it is now: a request may have changed it since, or ended it
            if record is None or record.kind != "local":
                continue
            try:
                n_gone += yield from _replay_one(ctx, key, record)
            except SessionUnavailable:
                if not ctx.distribution.can_reconnect:
                    return n_gone
                waiting.add(key)
            except UnknownFormat:  # it, or what the cluster has of it: left to the workers that can read it
                waiting.add(key)
            if ctx.is_closed:
                return n_gone
            yield Sleep(1 / ctx.settings.reconnect.replay_rate)
    return n_gone


def _replay_one(ctx: Context, key: bytes, record: LocalRecord) -> Flow[bool]:
    """Store one session that was kept here; return whether it was dropped instead: the cluster has it no more."""
    session_id, _ = told_by(ctx, key, record)
    try:
        if (yield from ctx.replay_live(key, record.generation)):
            ctx.counters.add("replayed")
            return False
        encoded = replace(record, live=None)
        state = catch_up(ctx, session_id, (yield from load(ctx, session_id, True)), encoded)
        if state is None:
            ctx.counters.add("dropped")
            return True
        yield from save(ctx, state)
        ctx.local.delete(key, record.generation)
        if state.stored is not None and ctx.local.load(key) is not None:  # a request has changed it meanwhile
            move_base(ctx, key, ctx.records.decode(record.data, key).body, state)
        ctx.counters.add("replayed")
        if record.live is not None:
            ctx.tell_session("dropped", session_id, "is stored without what of it cannot be encoded")
    except (SessionUnavailable, UnknownFormat):
        raise
    except (MsmError, StaysLocal) as error:
        ctx.local.delete(key, record.generation)
        ctx.counters.add("dropped")
        ctx.tell_session("dropped", session_id, f"cannot be stored in the cluster: {error}")
    return False


def _dump(ctx: Context, told: set[bytes]) -> int:
    """Drop what was kept here and has no business here any more; return how many sessions that were."""
    n_dropped = _drop_records(ctx)
    _forget_ended(ctx, told)
    ctx.forget_all()
    n_dropped += ctx.dump_live(ctx.settings.reconnect.on_reconnect == "discard")
    ctx.counters.add("dropped", n_dropped)
    return n_dropped


def _drop_records(ctx: Context) -> int:
    staying = {"tagged", "ended"} | ({"local"} if ctx.settings.reconnect.on_reconnect == "replay" else set())
    dropped = [(key, record) for key, record in _records(ctx) if record.kind not in staying]
    for key, record in dropped:
        ctx.local.delete(key, record.generation)
    return len(dropped)


def _forget_ended(ctx: Context, told: set[bytes]) -> None:
    """Drop the records of ended sessions that the cluster knows of."""
    for key, record in _records(ctx):
        if record.kind == "ended" and key in told:
            ctx.local.delete(key, record.generation)


def _records(ctx: Context) -> list[tuple[bytes, LocalRecord]]:
    """Return what is kept here, by key.

    Those whose keys are made in another way, as by other applications that have a key_prefix of their own and the same
    file, are left to them: under the keys of this one the cluster knows nothing of such sessions.
    Raises: SessionUnavailable if some of it cannot be read, for the first _PATIENCE_S.
    """
    found: list[tuple[bytes, LocalRecord]] = []
    keys: list[bytes] = []
    failure: SessionUnavailable | None = None
    try:
        keys = ctx.local.all_keys()
    except SessionUnavailable as error:
        failure = error
    for key in keys:
        try:
            record = ctx.local.load(key)
        except SessionUnavailable as error:
            failure = error
            continue
        if record is not None and _is_ours(ctx, key, record):
            found.append((key, record))
    _bear(ctx, failure)
    return found


def _is_ours(ctx: Context, key: bytes, record: LocalRecord) -> bool:
    return ctx.storage_key(ctx.session_id_of(record.plain, home=0)) == key


def _bear(ctx: Context, failure: SessionUnavailable | None) -> None:
    """Note whether the local store can be read. Raises: failure, until that has gone on for _PATIENCE_S."""
    if failure is None:
        ctx.local_failing_since = None
        return
    now = ctx.clock.monotonic()
    if ctx.local_failing_since is None:
        ctx.local_failing_since = now
    if now - ctx.local_failing_since < _PATIENCE_S:
        raise failure
    if ctx.is_first_time("local store fails", TELL_AGAIN_S):
        detail = "logouts and changes that are kept there do not reach the cluster until it can be read"
        ctx.tell("dropped", f"the cluster is used all the same: {failure}; {detail}")


def told_by(ctx: Context, key: bytes, kept: LocalRecord) -> tuple[SessionId, int]:
    """Return the id and max_inactive_s of a session that was kept here; as far as its record can be read."""
    try:
        record = ctx.records.decode(kept.data, key)
    except CorruptRecord:
        return ctx.session_id_of(kept.plain, home=0), ctx.default_max_inactive_s
    return ctx.session_id_of(kept.plain, record.home), record.max_inactive_s


def catch_up(ctx: Context, session_id: SessionId, state: SessionState | None, kept: LocalRecord) -> SessionState | None:
    """Return the session that the cluster has, with the changes that were kept here meanwhile laid over it.

    They are stored when the request ends. An attribute that was changed there too stays: that was acknowledged. A
    provisional session goes now that the one it stood for can be asked for; one that was changed here and is gone
    from the cluster has ended there.
    kept: of any other session than one that was ended here.
    Raises: UnknownFormat if what was kept cannot be read here.
    """
    is_void = kept.kind == "provisional" or (state is None and kept.base)
    mine = None if is_void else state_of_record(ctx, session_id, kept)
    if mine is None:
        drop_kept(ctx, session_id, kept.generation)
        return state
    if state is None:
        mine.local_kind = None
        mine.must_store = True
        return mine
    base = AttributeMap.decode(mine.stored.body if mine.stored else b"", serializer=ctx.serializers)
    lay_over(state.attributes, base, mine.attributes, sparing=differing(base, state.attributes))
    were_s, limit_was_s = (mine.stored and mine.stored.lifetimes) or (state.max_inactive_s, state.absolute_lifetime_s)
    if state.max_inactive_s == were_s:
        state.max_inactive_s = mine.max_inactive_s
    if state.absolute_lifetime_s == limit_was_s:
        state.absolute_lifetime_s = mine.absolute_lifetime_s
    state.local_generation = kept.generation
    state.must_store = True
    return state
