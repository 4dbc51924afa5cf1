"""What the nodes said of a session when it was looked for, and what may be made of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from msm_fast._core.session_id import SessionId
from msm_fast._core.state import NearCopy
from msm_fast.engine.context import Context
from msm_fast.engine.copies import Copy
from msm_fast.errors import CorruptRecord, SessionUnavailable, UnknownFormat
from msm_fast.session import ABSENT, UNKNOWN

__all__ = [
    "Findings",
    "Unreadable",
    "best_of",
    "check_that_it_is_current",
    "check_that_none_is_newer",
    "check_that_there_is_none",
    "doubtful",
    "expectations",
    "is_doubted",
    "is_out_of_step",
    "moved_to",
]

_CLOCK_SKEW_S = 1.0
"""How far the clocks of two workers' hosts may be apart."""

_UNDER_WAY_S = 2.0
"""How old what a home has may be while its backups are still to get it."""


class Unreadable(NamedTuple):
    """A copy of another format, and why it cannot be read."""

    nonce: int
    error: UnknownFormat


class Findings:
    """What the nodes answered so far.

    near: what was seen before, which stands in for copies that are still the same; None once one is not.
    seen_generation: of what was seen before; 0: nothing was. is_calm: no node was away lately. wanted: the nodes that
    should have a copy. leaving: those that drain. copies: readable ones. peeked: (version, nonce) where no value was
    asked for. corrupt: (version, error). unreadable: of another format, to be left alone. lives: what was left of an
    item's life before this request, in seconds, or NO_END. failed: no answer. away: down, and not asked, even if they
    came back meanwhile.
    """

    __slots__ = (
        "absent",
        "away",
        "copies",
        "corrupt",
        "failed",
        "is_calm",
        "leaving",
        "lives",
        "near",
        "peeked",
        "seen_generation",
        "unreadable",
        "wanted",
    )

    def __init__(self, near: NearCopy | None, *, is_calm: bool) -> None:
        self.near = near
        self.seen_generation = near.generation if near is not None else 0
        self.is_calm = is_calm
        self.wanted: set[str] = set()
        self.leaving: frozenset[str] = frozenset()
        self.copies: dict[str, Copy] = {}
        self.peeked: dict[str, tuple[int, int]] = {}
        self.absent: set[str] = set()
        self.corrupt: dict[str, tuple[int, CorruptRecord]] = {}
        self.unreadable: dict[str, Unreadable] = {}
        self.lives: dict[str, int] = {}
        self.failed: set[str] = set()
        self.away: set[str] = set()

    def node_of(self, found: Copy) -> str:
        """Return the node that a copy was found on."""
        return next(node for node, copy in self.copies.items() if copy is found)


def doubtful(ctx: Context, findings: Findings, home: str, found: Copy) -> list[str]:
    """Return the nodes that were peeked at and may have something newer than what was found at home."""
    lineage = found.record.lineage
    return [
        node
        for node, (_, peeked) in findings.peeked.items()
        if peeked not in lineage
        or (peeked != lineage[0] and (is_doubted(ctx, findings, home) or is_doubted(ctx, findings, node)))
    ]


def moved_to(ctx: Context, findings: Findings, home: str, found: Copy) -> list[str]:
    """Return the node that the home's copy names as the session's home, if that is another and can be asked.

    The client came with an id from before the session was moved away; what is left here may be old.
    """
    actual = ctx.topology.node_of_digest(found.record.home)
    if actual is None or actual == home or actual in findings.copies or not ctx.health.is_up(actual):
        return []
    return [actual]


def is_doubted(ctx: Context, findings: Findings, node: str) -> bool:
    """Whether the node was away for a while, or did not answer lately: its copy may be older than another node's."""
    if findings.is_calm and node in ctx.topology.nodes:
        return False
    now = ctx.clock.monotonic()
    return not ctx.health.is_steady(node) or ctx.health.has_returned_within(node, ctx.settings.max_inactive, now)


def best_of(ctx: Context, findings: Findings) -> Copy | None:
    """Return the copy with the highest generation (a tombstone is above all).

    A backup does not count if the home that its record names has another copy: its writer lost there, or has not won
    yet; unless it stands on that copy, and the home was away or has less than this process has seen: then it is behind.
    """
    copies = findings.copies
    if len(copies) == 1:
        return next(iter(copies.values()))

    def counts(node: str) -> bool:
        home = ctx.topology.node_of_digest(copies[node].record.home)
        if home is None or home not in copies or home in findings.absent or copies[home].nonce == copies[node].nonce:
            return True
        is_behind = is_doubted(ctx, findings, home) or copies[home].record.generation < findings.seen_generation
        return is_behind and copies[home].nonce in copies[node].record.lineage

    trusted = [copies[node] for node in copies if copies[node].record.is_tombstone or counts(node)]
    return max(trusted or copies.values(), key=lambda copy: copy.record.generation, default=None)


def check_that_there_is_none(ctx: Context, session_id: SessionId, home: str, findings: Findings) -> None:
    """Raise if the session may still be where nobody could look, or where it could not be read.

    If no more nodes than a session has backups are out of reach and the others have none, it does not exist. It has
    as many as settings.replicas, and as other nodes take any: while all are up, those for failover or draining do not.
    While a node is out of reach, one that was away before says little: the session may have been stored without it.
    Only nodes count that the session may be on: of many some may be away for long, which is nothing to most sessions.
    """
    for copy in findings.unreadable.values():
        raise copy.error
    for _, error in findings.corrupt.values():
        raise error
    out_of_reach, doubted = _lost(ctx, session_id, home, findings)
    if out_of_reach and len(out_of_reach | doubted) > _n_backups(ctx, session_id):
        raise _unavailable(ctx, session_id, home, out_of_reach, doubted)


def check_that_none_is_newer(ctx: Context, home: str, findings: Findings, best: Copy) -> None:
    """Raise if a copy that cannot be read here may be newer than what was found, which may be a leftover then.

    Where the home has one that can be read, it decides as ever: the other's writer has lost there, or has not won yet.
    Elsewhere only what the best stands on is older. A tombstone is above all.
    """
    if not findings.unreadable or best.record.is_tombstone:
        return
    actual = ctx.topology.node_of_digest(best.record.home)
    if {home, actual} <= findings.copies.keys() and not is_doubted(ctx, findings, home):
        return
    for copy in findings.unreadable.values():
        if copy.nonce not in best.record.lineage:
            raise copy.error


def check_that_it_is_current(ctx: Context, session_id: SessionId, home: str, findings: Findings, best: Copy) -> None:
    """Raise if what was found may be a leftover, while more nodes than the session has backups are out of reach."""
    if len(findings.away | findings.failed) <= _n_backups(ctx, session_id):
        return
    out_of_reach, _ = _lost(ctx, session_id, home, findings)
    if len(out_of_reach) <= _n_backups(ctx, session_id):
        return
    node = findings.node_of(best)
    if is_doubted(ctx, findings, node) or not _is_in_place(ctx, session_id, node, best):
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
    return all(at <= stored_at for at in answered_at)


def _lost(ctx: Context, session_id: SessionId, home: str, findings: Findings) -> tuple[set[str], set[str]]:
    """Return, of the nodes that the session may be on, those out of reach, and others that may have missed it.

    It is on none that comes after enough others which were there when it was stored. Those before its home were not,
    or it would have another.
    """
    out_of_reach = findings.away | findings.failed
    if not out_of_reach:
        return set(), set()
    topology = ctx.topology
    doubted = {node for node in topology.nodes if is_doubted(ctx, findings, node)} - out_of_reach
    ranked = topology.ranked_with_failover(session_id.plain)
    before_home = ranked[: ranked.index(home)] if home in ranked else []
    others = [node for node in ranked if node != home]
    away = {*out_of_reach, *doubted, *before_home}
    places = {home, *topology.searched(others, home, ctx.settings.replicas, away)}
    return out_of_reach & places, doubted & places


def _n_backups(ctx: Context, session_id: SessionId) -> int:
    """Return how many backups the session has while all nodes are up."""
    return min(ctx.settings.replicas, len(ctx.topology.ranked(session_id.plain)) - 1)


def _unavailable(
    ctx: Context, session_id: SessionId, home: str, out_of_reach: set[str], doubted: Collection[str] = ()
) -> SessionUnavailable:
    silent, old = (", ".join(ctx.label(node) for node in sorted(nodes)) for nodes in (out_of_reach, doubted))
    why = f"{silent} cannot be reached" + (f", {old} may have missed it while away lately" if old else "")
    what = f"may be on node {ctx.label(home)} or its backups, and {why}; keep the cookie and try again"
    return ctx.unavailable(session_id, what, out_of_reach.union(doubted))


def is_out_of_step(ctx: Context, findings: Findings, best: Copy) -> bool:
    """Whether a node that should have the copy that was found has none, or another: then it is stored again.

    So it is where a draining node has another: a writer that lost, or died, may have left it there, and it would count
    once the home is out of reach. What a node has from before does not count while it may be about to be written.
    """
    other = {node for node, copy in findings.copies.items() if copy.nonce != best.nonce}
    if ctx.now_ms() - best.record.accessed_ms > _UNDER_WAY_S * 1000:
        other |= {node for node, (_, nonce) in findings.peeked.items() if nonce != best.nonce}
    is_one_left = not findings.leaving.isdisjoint(other)
    return is_one_left or not findings.wanted.isdisjoint(other | findings.absent | findings.corrupt.keys())


def expectations(findings: Findings, best: Copy) -> dict[str, int]:
    """Return what a save may expect of each node's copy: those on which the best stands may be overwritten.

    What else a node has is unknown, to be looked at by the save: it may be newer than what the home had before. Of one
    that drains that has to be said: no save would look there.
    """
    lineage = best.record.lineage
    expected = dict.fromkeys(findings.leaving & (findings.peeked.keys() | findings.copies.keys()), UNKNOWN)
    expected.update((node, found) for node, (found, nonce) in findings.peeked.items() if nonce in lineage)
    expected.update((node, found) for node, (found, _) in findings.corrupt.items())
    expected.update((node, copy.version) for node, copy in findings.copies.items() if copy.nonce in lineage)
    expected.update(dict.fromkeys(findings.absent, ABSENT))
    return expected
