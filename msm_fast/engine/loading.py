"""Finding a session: at its node in one round trip, at its backups when that node cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msm_fast._core import wire
from msm_fast._core.session_id import SessionId
from msm_fast.engine import as_usual
from msm_fast.engine.context import Context, NearCopy, digest
from msm_fast.engine.copies import Copy, is_over, last_access_ms, question, read_copy, tell_corrupt
from msm_fast.engine.effects import Batch, Flow, NodeFailure, Outcome, Replies
from msm_fast.engine.exchanging import exchange
from msm_fast.engine.relocation import follow_home, move_home
from msm_fast.engine.serialization import decode_attributes
from msm_fast.engine.versions import version
from msm_fast.errors import CorruptRecord, SessionUnavailable, UnknownFormat
from msm_fast.session import ABSENT, SessionState, Stored

__all__ = ["load", "was_ended"]

_CLOCK_SKEW_S = 1.0
"""How far the clocks of two workers' hosts may be apart."""


class _Findings:
    """What the nodes answered so far.

    near: what was seen before, which stands in for copies that are still the same; None once one is not. is_calm: no
    node was away lately. wanted: the nodes that should have a copy. copies: readable ones. peeked: (version, nonce)
    where no value was asked for. corrupt: (version, error). unreadable: of another format, to be left alone. failed: no
    answer. away: down, and not asked, even if they came back meanwhile.
    """

    __slots__ = ("absent", "away", "copies", "corrupt", "failed", "is_calm", "near", "peeked", "unreadable", "wanted")

    def __init__(self, near: NearCopy | None, *, is_calm: bool) -> None:
        self.near = near
        self.is_calm = is_calm
        self.wanted: set[str] = set()
        self.copies: dict[str, Copy] = {}
        self.peeked: dict[str, tuple[int, int]] = {}
        self.absent: set[str] = set()
        self.corrupt: dict[str, tuple[int, CorruptRecord]] = {}
        self.unreadable: dict[str, UnknownFormat] = {}
        self.failed: set[str] = set()
        self.away: set[str] = set()


class _First(NamedTuple):
    """The first round trip, in which the home was asked for its copy."""

    batches: Sequence[Batch]
    outcomes: Sequence[Outcome]


def load(ctx: Context, session_id: SessionId, expect_write: bool) -> Flow[SessionState | None]:
    """Return the session, its life extended by this request, or None if there is none.

    expect_write: also ask the backups for their CAS values in the same round trip, so that a save needs only one
    more. An id that names no node of ours costs no round trip.
    Raises: SessionUnavailable if not all nodes that may have a copy could be asked, CorruptRecord if no copy can be
        read.
    """
    home = ctx.topology.home(session_id.node)
    if home is None and session_id.node is None and ctx.looks_issued(session_id):
        home = ctx.topology.first(session_id.plain)  # it was made while no node could be reached
        session_id = session_id.with_node(home)
    if home is None:
        ctx.counters.add("refused_ids")
        return None
    key = ctx.storage_key(session_id)
    near = ctx.near_copy(key)
    max_inactive_s = near.max_inactive_s if near else ctx.default_max_inactive_s
    ask_backups = expect_write or ctx.must_ask_backups(near)
    ttl_s = ctx.ttl_s(max_inactive_s)
    first = None
    if home in ctx.topology.nodes and ctx.health.is_calm(ctx.settings.max_inactive, ctx.clock.monotonic()):
        batches = as_usual.questions(ctx, session_id.plain, key, home, near, ttl_s, ask_backups)
        outcomes = yield from exchange(ctx, batches)
        state = as_usual.found(ctx, session_id, key, home, near, max_inactive_s, batches, outcomes)
        if state is not None:
            return state
        first = _First(batches, outcomes)
    findings = _start(ctx, near, is_calm=first is not None)
    yield from _find(ctx, findings, key, session_id.plain, home, ttl_s, ask_backups, first)
    best = _best(ctx, findings)
    if best is None:
        _check_that_there_is_none(ctx, session_id, home, findings)
    if best is None or best.record.is_tombstone or is_over(ctx, best.record):
        ctx.counters.add("not_found")
        ctx.forget(key)
        return None
    if findings.away or findings.failed:
        _check_that_it_is_current(ctx, session_id, home, findings, best)
    state = _build_state(ctx, session_id, home, findings, best)
    if state.max_inactive_s != max_inactive_s:
        yield from _touch(ctx, key, state)
    _remember(ctx, key, state, best, near, has_asked_backups=bool(findings.peeked or findings.absent))
    ctx.counters.add("loaded")
    return state


def was_ended(ctx: Context, session_id: SessionId) -> Flow[bool]:
    """Whether the session has a tombstone; False as well where it is just not found."""
    home = ctx.topology.home(session_id.node)
    if home is None:
        return False
    key = ctx.storage_key(session_id)
    findings = _start(ctx, ctx.near_copy(key), is_calm=False)
    yield from _find(ctx, findings, key, session_id.plain, home, ctx.ttl_s(ctx.default_max_inactive_s), False)
    return any(copy.record.is_tombstone for copy in findings.copies.values())


def _start(ctx: Context, near: NearCopy | None, *, is_calm: bool) -> _Findings:
    findings = _Findings(near, is_calm=is_calm)
    if not is_calm:
        findings.away.update(ctx.health.down())
    return findings


def _find(
    ctx: Context,
    findings: _Findings,
    key: bytes,
    plain: str,
    home: str,
    ttl_s: int,
    ask_backups: bool,
    first: _First | None = None,
) -> Flow[None]:
    """Ask the home, and where it has no answer that can be trusted, the nodes that a backup may be on.

    first: the answers of the home, if it was asked already.
    """
    is_calm = findings.is_calm
    ranked = ctx.topology.ranked_with_failover(plain, None if is_calm else ctx.health.is_up)
    others = [node for node in ranked if node != home]
    if not is_calm:
        others.sort(key=lambda node: not ctx.health.is_steady(node))
    backups = others[: ctx.settings.replicas]
    others = others[: ctx.settings.replicas + 1]
    findings.wanted = {home, *backups}
    if first is not None:
        yield from _take(ctx, findings, key, ttl_s, first.batches, 1, first.outcomes)
    elif ctx.health.is_up(home):
        peeks = others if _is_doubted(ctx, findings, home) else backups if ask_backups else []
        yield from _ask(ctx, findings, key, ttl_s, [home], peeks)
    found = findings.copies.get(home)
    if found is None:
        yield from _ask(ctx, findings, key, ttl_s, others, [])
    elif not found.record.is_tombstone:
        further = [*_doubtful(ctx, findings, home, found), *_moved_to(ctx, findings, home, found)]
        if further:
            yield from _ask(ctx, findings, key, ttl_s, further, [])


def _doubtful(ctx: Context, findings: _Findings, home: str, found: Copy) -> list[str]:
    """Return the nodes that were peeked at and may have something newer than what was found at home."""
    lineage = found.record.lineage
    return [
        node
        for node, (_, peeked) in findings.peeked.items()
        if peeked not in lineage
        or (peeked != lineage[0] and (_is_doubted(ctx, findings, home) or _is_doubted(ctx, findings, node)))
    ]


def _moved_to(ctx: Context, findings: _Findings, home: str, found: Copy) -> list[str]:
    """Return the node that the home's copy names as the session's home, if that is another and can be asked.

    The client came with an id from before the session was moved away; what is left here may be old.
    """
    actual = ctx.topology.node_of_digest(found.record.home)
    if actual is None or actual == home or actual in findings.copies or not ctx.health.is_up(actual):
        return []
    return [actual]


def _is_doubted(ctx: Context, findings: _Findings, node: str) -> bool:
    """Whether the node was away for a while, or did not answer lately: its copy may be older than another node's."""
    if findings.is_calm and node in ctx.topology.nodes:
        return False
    now = ctx.clock.monotonic()
    return not ctx.health.is_steady(node) or ctx.health.has_returned_within(node, ctx.settings.max_inactive, now)


def _ask(
    ctx: Context, findings: _Findings, key: bytes, ttl_s: int, values: Sequence[str], peeks: Sequence[str]
) -> Flow[None]:
    """Ask some nodes for their copy and others for its CAS value and nonce only, all at once, and note the answers.

    A large copy that has changed since it was seen costs a second round trip, unless its node can compare.
    """
    exptime = ctx.exptime(ttl_s)
    near = findings.near
    # Of a node that was peeked at before it is known that it has another.
    batches = [
        Batch(node, (question(ctx, None if node in findings.peeked else near, node, key, exptime),)) for node in values
    ]
    batches += [Batch(node, (wire.get(key, exptime, value=False),)) for node in peeks]
    if batches:
        outcomes = yield from exchange(ctx, batches)
        yield from _take(ctx, findings, key, ttl_s, batches, len(values), outcomes)


def _take(
    ctx: Context,
    findings: _Findings,
    key: bytes,
    ttl_s: int,
    batches: Sequence[Batch],
    n_values: int,
    outcomes: Sequence[Outcome],
) -> Flow[None]:
    """Note what was answered to the batches, of which the first n_values asked for values."""
    near = findings.near
    changed = []
    for i, (batch, outcome) in enumerate(zip(batches, outcomes, strict=True)):
        if near is None or i >= n_values or isinstance(outcome, NodeFailure) or outcome[0].status != "HD":
            _note(ctx, findings, key, batch.node, outcome, is_peek=i >= n_values)
        elif not _note_unchanged(ctx, findings, key, batch.node, outcome, near):
            changed.append(batch.node)
    if changed:
        findings.near = None
        yield from _ask(ctx, findings, key, ttl_s, changed, [])


def _note_unchanged(ctx: Context, findings: _Findings, key: bytes, node: str, replies: Replies, near: NearCopy) -> bool:
    """Note that a copy, of which the value was not sent, is the one that was seen; return False if it is not.

    A CAS value alone does not tell: it repeats after a restart, and then the node may say "unchanged" of another copy.
    """
    (reply,) = replies
    found = version(replies.life, reply.cas)
    if not near.is_copy(node, found, reply.client_flags):
        return False
    findings.copies[node] = Copy(near.size, near.record(ctx.records, key), found, reply.client_flags, reply.ttl_s)
    findings.failed.discard(node)
    ctx.counters.add("validated")
    return True


def _note(ctx: Context, findings: _Findings, key: bytes, node: str, outcome: Outcome, *, is_peek: bool) -> None:
    if isinstance(outcome, NodeFailure) or outcome[0].status == "SERVER_ERROR":
        findings.failed.add(node)
        findings.is_calm = False
        return
    reply = outcome[0]
    found = version(outcome.life, reply.cas)
    findings.failed.discard(node)
    findings.peeked.pop(node, None)
    if reply.status == "EN":
        findings.absent.add(node)
    elif is_peek:
        findings.peeked[node] = (found, reply.client_flags)
    else:
        try:
            findings.copies[node] = read_copy(ctx, outcome, key)
        except UnknownFormat as error:
            findings.unreadable[node] = error
        except CorruptRecord as error:
            findings.corrupt[node] = (found, error)
            tell_corrupt(ctx, node, error)


def _best(ctx: Context, findings: _Findings) -> Copy | None:
    """Return the copy with the highest generation (a tombstone is above all).

    A backup does not count if the home that its record names has a copy on which it does not stand: its writer lost
    there.
    """
    copies = findings.copies
    if len(copies) == 1:
        return next(iter(copies.values()))

    def counts(node: str) -> bool:
        home = ctx.topology.node_of_digest(copies[node].record.home)
        return home not in copies or copies[home].nonce in copies[node].record.lineage

    trusted = [copies[node] for node in copies if copies[node].record.is_tombstone or counts(node)]
    return max(trusted or copies.values(), key=lambda copy: copy.record.generation, default=None)


def _check_that_there_is_none(ctx: Context, session_id: SessionId, home: str, findings: _Findings) -> None:
    """Raise if the session may still be where nobody could look, or where it could not be read.

    If no more nodes than a session has backups are out of reach and the others have none, it does not exist. It has
    as many as settings.replicas, and as other nodes take any: while all are up, those for failover or draining do not.
    While a node is out of reach, one that was away before says little: the session may have been stored without it.
    """
    for error in (*findings.unreadable.values(), *(error for _, error in findings.corrupt.values())):
        raise error
    out_of_reach = findings.away | findings.failed
    if out_of_reach:
        out_of_reach.update(node for node in ctx.topology.nodes if _is_doubted(ctx, findings, node))
    if len(out_of_reach) > _n_backups(ctx, session_id):
        raise _unavailable(ctx, session_id, home, out_of_reach)


def _check_that_it_is_current(ctx: Context, session_id: SessionId, home: str, findings: _Findings, best: Copy) -> None:
    """Raise if what was found may be a leftover, while more nodes than the session has backups are out of reach."""
    out_of_reach = findings.away | findings.failed
    if len(out_of_reach) <= _n_backups(ctx, session_id):
        return
    node = next(node for node, copy in findings.copies.items() if copy is best)
    if _is_doubted(ctx, findings, node) or not _is_in_place(ctx, session_id, node, best):
        raise _unavailable(ctx, session_id, home, out_of_reach)


def _is_in_place(ctx: Context, session_id: SessionId, node: str, copy: Copy) -> bool:
    """Whether the copy is where it belongs: at its home, on its backup, or elsewhere while the backup's node was away.

    That node answered this worker after the copy was stored? Then it got the copies since, and this one is a leftover.
    """
    actual = ctx.topology.node_of_digest(copy.record.home)
    ranked = [other for other in ctx.topology.ranked(session_id.plain) if other != actual]
    backups = ranked[: ctx.settings.replicas]
    if node == actual or node in backups:
        return True
    stored_s_ago = (ctx.now_ms() - copy.record.accessed_ms) / 1000 - _CLOCK_SKEW_S
    stored_at = ctx.clock.monotonic() - stored_s_ago
    answered_at = [ctx.health.of(backup).answered_at for backup in backups]
    return all(at is None or at <= stored_at for at in answered_at)


def _n_backups(ctx: Context, session_id: SessionId) -> int:
    """Return how many backups the session has while all nodes are up."""
    return min(ctx.settings.replicas, len(ctx.topology.ranked(session_id.plain)) - 1)


def _unavailable(ctx: Context, session_id: SessionId, home: str, out_of_reach: set[str]) -> SessionUnavailable:
    ctx.counters.add("unavailable")
    nodes = tuple(sorted(out_of_reach))
    return SessionUnavailable(
        f"session {digest(session_id)} may be on node {ctx.label(home)} or its backups, and "
        f"{', '.join(ctx.label(n) for n in nodes)} cannot be reached; keep the cookie and try again",
        session=digest(session_id),
        nodes=nodes,
    )


def _build_state(ctx: Context, session_id: SessionId, home: str, findings: _Findings, best: Copy) -> SessionState:
    record = best.record
    state = SessionState(
        session_id=session_id,
        attributes=decode_attributes(ctx, session_id, record.body),
        created_ms=record.created_ms,
        accessed_ms=last_access_ms(ctx, record, best.ttl_s),
        max_inactive_s=record.max_inactive_s,
        absolute_lifetime_s=record.absolute_lifetime_s,
        stored=Stored(
            record.generation, record.lineage, _expectations(findings, best), record.body, frozenset(findings.corrupt)
        ),
        body=record.body,
        is_new=False,
        epoch=ctx.distribution.epoch,
    )
    home = follow_home(ctx, state, home, record)
    cannot_stay = home in findings.failed or home in findings.unreadable or home in ctx.topology.draining
    if cannot_stay or not ctx.health.is_up(home):
        new_home = next((n for n in ctx.topology.ranked(session_id.plain, ctx.health.is_up) if n != home), None)
        if new_home is not None:
            move_home(ctx, state, new_home)
    elif _is_out_of_step(findings, best):
        state.must_store = True
        ctx.counters.add("repaired")
    state.must_store |= not ctx.records.is_current(record)
    return state


def _is_out_of_step(findings: _Findings, best: Copy) -> bool:
    """Whether a node that should have the copy that was found has none, or another: then it is stored again."""
    other = {node for node, copy in findings.copies.items() if copy.nonce != best.nonce}
    return not findings.wanted.isdisjoint(other | findings.absent | findings.corrupt.keys())


def _expectations(findings: _Findings, best: Copy) -> dict[str, int]:
    """Return what a save may expect of each node's copy: those on which the best stands may be overwritten.

    What else a node has is unknown, to be looked at by the save: it may be newer than what the home had before.
    """
    lineage = best.record.lineage
    expected = dict.fromkeys(findings.absent, ABSENT)
    expected.update((node, found) for node, (found, nonce) in findings.peeked.items() if nonce in lineage)
    expected.update((node, found) for node, (found, _) in findings.corrupt.items())
    expected.update((node, copy.version) for node, copy in findings.copies.items() if copy.nonce in lineage)
    return expected


def _touch(ctx: Context, key: bytes, state: SessionState) -> Flow[None]:
    """Extend the life of a session whose lifetime is its own, which could not be known before it was read."""
    assert state.stored is not None
    ttl_s = ctx.ttl_s(state.max_inactive_s, state.created_ms, state.absolute_lifetime_s)
    nodes = [node for node, found in state.stored.copies.items() if found != ABSENT and ctx.health.is_up(node)]
    yield from exchange(ctx, [Batch(n, [wire.get(key, ctx.exptime(ttl_s), value=False)]) for n in nodes])


def _remember(
    ctx: Context, key: bytes, state: SessionState, best: Copy, near: NearCopy | None, *, has_asked_backups: bool
) -> None:
    """Add to the expectations what was known before, if it still holds, and keep what was learned now."""
    assert state.stored is not None
    stored = state.stored
    now = ctx.clock.monotonic()
    asked_at = now if near is None or has_asked_backups else near.asked_at
    if near is not None and near.nonce == stored.nonce:
        stored.copies = {**near.copies, **stored.copies}
    copies = {node: found for node, found in stored.copies.items() if node not in stored.corrupt}
    near = NearCopy(best.record, best.size, stored.nonce, state.max_inactive_s, copies, asked_at)
    ctx.keep_near(key, near, stored.body)
