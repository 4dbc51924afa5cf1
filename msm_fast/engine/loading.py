"""Finding a session: at its node in one round trip, at its backups when that node cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msm_fast._core import wire
from msm_fast._core.session_id import SessionId
from msm_fast._core.state import NearCopy
from msm_fast.engine.context import Context
from msm_fast.engine.copies import Copy, is_over, last_access_ms, question, read_copy, tell_corrupt, tell_unreadable
from msm_fast.engine.effects import Batch, Exchange, Flow, NodeFailure, Outcome, Replies
from msm_fast.engine.exchanging import NO_END, exchange, let_live, settle
from msm_fast.engine.findings import (
    Findings,
    Unreadable,
    best_of,
    check_that_it_is_current,
    check_that_none_is_newer,
    check_that_there_is_none,
    doubtful,
    expectations,
    is_doubted,
    is_out_of_step,
    moved_to,
)
from msm_fast.engine.relocation import follow_home, leave_home
from msm_fast.engine.serialization import decode_attributes
from msm_fast.engine.usual_loading import Question
from msm_fast.engine.versions import version
from msm_fast.errors import CorruptRecord, SessionUnavailable, UnknownFormat
from msm_fast.session import ABSENT, SessionState, Stored

__all__ = ["Asked", "is_known_to_be_ended", "load", "was_ended"]

_HAS_ITEM = ("HD", "VA")


class Asked(NamedTuple):
    """A first round trip that is over, in which the home was asked for its copy."""

    question: Question
    outcomes: list[Outcome]


def load(
    ctx: Context, session_id: SessionId, expect_write: bool, asked: Asked | None = None
) -> Flow[SessionState | None]:
    """Return the session, its life extended by this request, or None if there is none.

    expect_write: also ask the backups for their CAS values in the same round trip, so that a save needs only one
    more. An id that names no node of ours costs no round trip. asked: what was done of it without a flow, in vain.
    Raises: SessionUnavailable if not all nodes that may have a copy could be asked, CorruptRecord if no copy can be
        read.
    """
    if asked is None:
        answer = yield from _ask_as_usual(ctx, session_id, expect_write)
        if isinstance(answer, SessionState):
            return answer
        asked = answer
    home = _home_of(ctx, session_id)
    if home is None:
        ctx.counters.add("refused_ids")
        return None
    if home and session_id.node is None:
        session_id = session_id.with_node(home)
    key = ctx.storage_key(session_id)
    near = asked.question.near if asked else ctx.near_copy(key)
    max_inactive_s = near.max_inactive_s if near else ctx.default_max_inactive_s
    ask_backups = (
        asked.question.asks_backups if asked else expect_write or ctx.usual_loading.must_ask_backups(near, home)
    )
    ttl_s = ctx.ttl_s(max_inactive_s)
    findings = _start(ctx, near, is_calm=asked is not None)
    yield from _find(ctx, findings, key, session_id.plain, home, ttl_s, ask_backups, asked)
    best = best_of(ctx, findings)
    try:
        if best is None:
            check_that_there_is_none(ctx, session_id, home, findings)
        else:
            check_that_none_is_newer(ctx, home, findings, best)
    except UnknownFormat:
        ctx.forget(key)  # what was seen here is older: it may have been ended since
        raise
    if best is None or best.record.is_tombstone or is_over(ctx.essentials, best.record):
        yield from _let_tombstones_live(ctx, key, findings, ttl_s)
        ctx.counters.add("not_found")
        ctx.forget(key)
        return None
    if findings.away or findings.failed:
        check_that_it_is_current(ctx, session_id, home, findings, best)
    state = _build_state(ctx, session_id, home, findings, best)
    if state.max_inactive_s != max_inactive_s and not (yield from _touch(ctx, key, state)):
        state.must_store = True
    _remember(ctx, key, state, best, near, has_asked_backups=bool(findings.peeked or findings.absent))
    ctx.counters.add("loaded")
    return state


def _ask_as_usual(ctx: Context, session_id: SessionId, expect_write: bool) -> Flow[SessionState | Asked | None]:
    """Return the session, if it is found as usual; or what was asked; or None, if nothing was."""
    question = ctx.usual_loading.ask(session_id, expect_write)
    if question is None:
        return None
    outcomes: list[Outcome] = yield Exchange(question.batches)
    return ctx.usual_loading.found(question, outcomes) or Asked(question, outcomes)


def was_ended(ctx: Context, session_id: SessionId) -> Flow[bool]:
    """Whether the session has a tombstone; False as well where it is just not found."""
    home = _home_of(ctx, session_id)
    if home is None:
        return False
    key = ctx.storage_key(session_id)
    ttl_s = ctx.ttl_s(ctx.default_max_inactive_s)
    findings = _start(ctx, ctx.near_copy(key), is_calm=False)
    yield from _find(ctx, findings, key, session_id.plain, home, ttl_s, False)
    yield from _let_tombstones_live(ctx, key, findings, ttl_s)
    return any(copy.record.is_tombstone for copy in findings.copies.values())


def is_known_to_be_ended(ctx: Context, session_id: SessionId) -> Flow[bool]:
    """Whether a session was ended, as was_ended; False also where nobody can tell."""
    try:
        return (yield from was_ended(ctx, session_id))
    except (SessionUnavailable, CorruptRecord):
        return False


def _home_of(ctx: Context, session_id: SessionId) -> str | None:
    """Return the node to ask first, or None if the id names one that is none of ours."""
    if session_id.node is None and ctx.topology.encodes_node:  # it was made while no node could be reached
        return ctx.topology.first(session_id.plain)
    return ctx.topology.home(session_id.node)


def _start(ctx: Context, near: NearCopy | None, *, is_calm: bool) -> Findings:
    findings = Findings(near, is_calm=is_calm)
    if not is_calm:
        findings.away.update(ctx.health.down())
    return findings


def _find(
    ctx: Context,
    findings: Findings,
    key: bytes,
    plain: str,
    home: str,
    ttl_s: int,
    ask_backups: bool,
    asked: Asked | None = None,
) -> Flow[None]:
    """Ask the home, and where it has no answer that can be trusted, the nodes that a backup may be on.

    asked: the first round trip, if it was made already.
    """
    is_calm = findings.is_calm
    is_up = None if is_calm else ctx.health.is_up
    backups = ctx.topology.backups(plain, home, is_up)
    others = [node for node in ctx.topology.ranked_with_failover(plain, is_up) if node != home]
    unsteady: set[str] = set()
    if not is_calm:
        unsteady.update(node for node in others if not ctx.health.is_steady(node))
        backups.sort(key=unsteady.__contains__)
    backups = backups[: ctx.settings.replicas]
    # One that has just not answered takes no place of another; it may have the newest copy all the same.
    others = ctx.topology.searched(others, home, ctx.settings.replicas, unsteady)
    findings.wanted, findings.leaving = {home, *backups}, ctx.topology.draining - {home}
    if asked is not None:
        outcomes = yield from settle(ctx, asked.question.batches, asked.outcomes)
        yield from _take(ctx, findings, key, ttl_s, asked.question.batches, 1, outcomes)
    elif ctx.health.is_up(home):
        leaving = [node for node in others if node in findings.leaving]
        # Where nothing else has another copy, what is left on a node that drains has to follow each change.
        asks = ask_backups or not backups
        peeks = others if is_doubted(ctx, findings, home) else [*backups, *leaving] if asks else []
        yield from _ask(ctx, findings, key, ttl_s, [home], peeks)
    found = findings.copies.get(home)
    if found is None:
        yield from _ask(ctx, findings, key, ttl_s, others, [])
    elif not found.record.is_tombstone:
        # What is older than what this process has seen was put back late, or is left over.
        is_old = found.record.generation < findings.seen_generation
        further = [*doubtful(ctx, findings, home, found), *moved_to(ctx, findings, home, found)]
        if is_old:
            further = list(dict.fromkeys([*further, *others]))
        if further:
            yield from _ask(ctx, findings, key, ttl_s, [home, *further], [])
    if findings.unreadable:
        yield from _let_unreadable_live(ctx, key, findings, ttl_s)


def _ask(
    ctx: Context, findings: Findings, key: bytes, ttl_s: int, values: Sequence[str], peeks: Sequence[str]
) -> Flow[None]:
    """Ask some nodes for their copy and others for its CAS value and nonce only, all at once, and note the answers.

    A large copy that has changed since it was seen costs a second round trip, unless its node can compare.
    """
    exptime = ctx.touch_exptime(ttl_s)
    near = findings.near
    # Of a node that was peeked at before it is known that it has another.
    healths, validate_over = ctx.health.healths, ctx.settings.near_cache.validate_over
    batches = []
    for node in values:
        seen = None if node in findings.peeked else near
        batches.append(Batch(node, (question(healths, validate_over, seen, node, key, exptime),)))
    batches += [Batch(node, (wire.get(key, exptime, value=False),)) for node in peeks]
    if batches:
        outcomes = yield from exchange(ctx, batches)
        yield from _take(ctx, findings, key, ttl_s, batches, len(values), outcomes)


def _take(
    ctx: Context,
    findings: Findings,
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
        if not isinstance(outcome, NodeFailure) and outcome[0].status in _HAS_ITEM:
            findings.lives.setdefault(batch.node, outcome[0].ttl_s)  # if it is asked again, this was what it had
        if near is None or i >= n_values or isinstance(outcome, NodeFailure) or outcome[0].status != "HD":
            _note(ctx, findings, key, batch.node, outcome, is_peek=i >= n_values)
        elif not _note_unchanged(ctx, findings, key, batch.node, outcome, near):
            changed.append(batch.node)
    if changed:
        findings.near = None
        yield from _ask(ctx, findings, key, ttl_s, changed, [])


def _note_unchanged(ctx: Context, findings: Findings, key: bytes, node: str, replies: Replies, near: NearCopy) -> bool:
    """Note that a copy, of which the value was not sent, is the one that was seen; return False if it is not.

    A CAS value alone does not tell: it repeats after a restart, and then the node may say "unchanged" of another copy.
    """
    (reply,) = replies
    found = version(replies.life, reply.cas)
    if not near.is_copy(node, found, reply.client_flags):
        return False
    findings.copies[node] = Copy(near.size, near.record(ctx.records, key), found, reply.client_flags)
    findings.failed.discard(node)
    ctx.counters.add("validated")
    return True


def _note(ctx: Context, findings: Findings, key: bytes, node: str, outcome: Outcome, *, is_peek: bool) -> None:
    if isinstance(outcome, NodeFailure) or outcome[0].status == "SERVER_ERROR":
        findings.failed.add(node)
        findings.is_calm = False
        return
    reply = outcome[0]
    found = version(outcome.life, reply.cas)
    findings.failed.discard(node)
    findings.peeked.pop(node, None)
    if reply.status == "EN":
        findings.absent.add(node)  # what it had when it was asked before still counts: another may have less
    elif is_peek:
        findings.peeked[node] = (found, reply.client_flags)
    else:
        findings.absent.discard(node)
        try:
            findings.copies[node] = read_copy(ctx, outcome, key)
        except UnknownFormat as error:
            findings.unreadable[node] = Unreadable(reply.client_flags, error)
            tell_unreadable(ctx, node, error)
        except CorruptRecord as error:
            findings.corrupt[node] = (found, error)
            tell_corrupt(ctx, node, error)


def _build_state(ctx: Context, session_id: SessionId, home: str, findings: Findings, best: Copy) -> SessionState:
    record = best.record
    state = SessionState(
        session_id=session_id,
        attributes=decode_attributes(ctx, session_id, record.body),
        created_ms=record.created_ms,
        accessed_ms=last_access_ms(ctx.essentials, record, findings.lives[findings.node_of(best)]),
        max_inactive_s=record.max_inactive_s,
        absolute_lifetime_s=record.absolute_lifetime_s,
        stored=Stored(
            record.generation, record.lineage, expectations(findings, best), record.body, frozenset(findings.corrupt)
        ),
        body=record.body,
        is_new=False,
        epoch=ctx.distribution.epoch,
    )
    home = follow_home(ctx, state, home, record)
    is_lost = home in findings.failed or home in findings.unreadable or not ctx.health.is_up(home)
    is_moving = leave_home(ctx, state, home, is_lost=is_lost)
    if not is_moving and not is_lost and is_out_of_step(ctx, findings, best):
        state.must_store = True
        ctx.counters.add("repaired")
    state.must_store |= not ctx.records.is_current(record)
    return state


def _touch(ctx: Context, key: bytes, state: SessionState) -> Flow[bool]:
    """Extend the life of a session whose lifetime is its own, which could not be known before it was read.

    Return whether every node has done so: where one has not, its copy has been left the usual lifetime.
    """
    assert state.stored is not None
    ttl_s = ctx.ttl_s(state.max_inactive_s, state.created_ms, state.absolute_lifetime_s)
    nodes = [node for node, found in state.stored.copies.items() if found != ABSENT and ctx.health.is_up(node)]
    batches = [Batch(n, [wire.get(key, ctx.exptime(ttl_s), value=False)]) for n in nodes]
    outcomes = yield from exchange(ctx, batches)
    return not any(isinstance(outcome, NodeFailure) for outcome in outcomes)


def _let_tombstones_live(ctx: Context, key: bytes, findings: Findings, ttl_s: int) -> Flow[None]:
    """Give the session's tombstones their life back, if asking with ttl_s has left them less than they need.

    Each has to outlive any copy that is left, which may live for longer than ttl_s, or was just touched as well.
    """
    ended = {node: copy for node, copy in findings.copies.items() if copy.record.is_tombstone}
    if not ended:
        return
    nonces = {copy.nonce for copy in ended.values()}
    has_left_any = len(ended) < len(findings.copies) or any(n not in nonces for _, n in findings.peeked.values())
    if not ttl_s or (not has_left_any and all(findings.lives[node] <= ttl_s for node in ended)):
        return
    exptime = ctx.exptime(max(ctx.tombstone_ttl_s(copy.record.max_inactive_s) for copy in ended.values()))
    nodes = [*ended, *(node for node, (_, nonce) in findings.peeked.items() if nonce in nonces)]
    yield from exchange(ctx, [Batch(node, [wire.get(key, exptime, value=False)]) for node in nodes])


def _let_unreadable_live(ctx: Context, key: bytes, findings: Findings, ttl_s: int) -> Flow[None]:
    """Give copies that cannot be read their life back, if asking with ttl_s has made it shorter.

    Their session may have a longer lifetime of its own: nobody here can tell.
    """
    lives = {node: findings.lives[node] for node in findings.unreadable}
    shortened = {node: life_s for node, life_s in lives.items() if life_s == NO_END or life_s > ttl_s}
    if ttl_s and shortened:
        yield from let_live(ctx, key, shortened)


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
    near = NearCopy(best.record, best.size, stored.generation, stored.nonce, state.max_inactive_s, copies, asked_at)
    ctx.keep_near(key, near, stored.body)
