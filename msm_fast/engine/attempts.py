"""The attempts of one save: what each of them writes, where, and what is known between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from msm_fast._core.record import Record
from msm_fast.engine.context import Context
from msm_fast.engine.copies import Copy, encode_state, next_generation
from msm_fast.engine.relocation import move_home
from msm_fast.engine.topology import home_digest
from msm_fast.engine.usual_saving import LINEAGE, Writing
from msm_fast.errors import SessionUnavailable
from msm_fast.session import ABSENT, UNKNOWN, SessionState, Stored

__all__ = ["BEATS_THE_OLD_HOME", "Progress", "Write", "next_write", "outrun", "unavailable", "unreadable", "write_of"]

BEATS_THE_OLD_HOME = 1 << 16
"""How far the generation of a session that moves is advanced. Its old home, if others still reach it, may accept some
generations more from writers that do not know of the move yet; of two copies the higher generation counts."""

_NO_NODES: frozenset[str] = frozenset()
_NO_LIVES: Mapping[str, int] = {}
"""Most writes meet no trouble, and need nothing to note it in."""


class Write:
    """One attempt to store one record.

    lineage: nonces, this write's first. own_nonces: those of all attempts of this save, and of the copies that it has
    been merged with before: two may name each other's node as their home. attempts: of the attempts since its changes
    were last merged with another's, this one included: what stands on one of them has all that this one has.
    base_generation, base_nonce: of the copy that the record is based on; 0 and None for a new session. recreates: it
    is put back even if no node has a copy any more. expected: per node to write to, its copy's version, ABSENT or
    UNKNOWN; brought up to date as answers come. spares: nodes for backups whose node fails, best first. deferred:
    backups that are written behind the request, as `expected`. corrupt: nodes whose copy nobody can read: what it was
    is as unknown as if it were gone.

    What comes of it. done: what was written: the copy's new version, or UNKNOWN where another write already stands on
    this one. won_in: the life of the home in which it took it. superseded_by: what stands on this write at its own
    home: this one had succeeded, and nothing more is to be written. newer: what was stored by others meanwhile, for the
    caller to merge with. strange: copies that are not the base. tombstone: what says that it was ended. fresh: nodes
    written or looked at since the last write. refused: of the nodes that failed, those that answered that they cannot
    store it. is_out_of_time: the request's time was over, which is no node's fault. unreadable: nodes whose copy is of
    another format, and was just met, each with what was left of its item's life before that.
    """

    __slots__ = (
        "attempts",
        "base_generation",
        "base_nonce",
        "corrupt",
        "deferred",
        "done",
        "expected",
        "exptime",
        "failed",
        "fresh",
        "generation",
        "home",
        "is_out_of_time",
        "key",
        "lineage",
        "newer",
        "own_nonces",
        "record",
        "recreates",
        "refused",
        "spares",
        "strange",
        "superseded_by",
        "tombstone",
        "unreadable",
        "won_in",
    )

    def __init__(
        self,
        key: bytes,
        record: bytes,
        *,
        generation: int,
        lineage: tuple[int, ...],
        own_nonces: frozenset[int],
        attempts: frozenset[int],
        exptime: int,
        base_generation: int,
        base_nonce: int | None,
        home: str,
        expected: dict[str, int],
        spares: list[str],
        corrupt: frozenset[str] = _NO_NODES,
        deferred: dict[str, int] | None = None,
        recreates: bool = False,
    ) -> None:
        self.key = key
        self.record = record
        self.generation = generation
        self.lineage = lineage
        self.own_nonces = own_nonces
        self.attempts = attempts
        self.exptime = exptime
        self.base_generation = base_generation
        self.base_nonce = base_nonce
        self.home = home
        self.expected = expected
        self.spares = spares
        self.corrupt = corrupt
        self.deferred = deferred or {}
        self.recreates = recreates
        self.done: dict[str, int] = {}
        self.won_in: int | None = None
        self.superseded_by: Copy | None = None
        self.failed = _NO_NODES
        self.refused = _NO_NODES
        self.newer: dict[str, Copy] = {}
        self.strange: dict[str, Copy] = {}
        self.tombstone: Record | None = None
        self.unreadable = _NO_LIVES
        self.is_out_of_time = False
        self.fresh = _NO_NODES

    @property
    def nonce(self) -> int:
        """The random number that tells this write from every other."""
        return self.lineage[0]

    @property
    def backups(self) -> tuple[str, ...]:
        """The nodes other than the home that have it."""
        return tuple([node for node in self.done if node != self.home])

    @property
    def is_new(self) -> bool:
        """Whether it is the first of its session."""
        return self.base_nonce is None

    def lineages_differ(self, copy: Copy) -> bool:
        """Whether no write that this one stands on is one that the copy stands on, as far as lineages reach."""
        return set(self.lineage).isdisjoint(copy.record.lineage)

    def is_under(self, copy: Copy) -> bool:
        """Whether the copy stands on this write, or on an attempt before it that had all that this one has.

        Its lineage says so, or that it is related to what stands on this write at its home.
        """
        over = self.superseded_by
        lineage = copy.record.lineage
        return not self.attempts.isdisjoint(lineage) or (
            over is not None and not set(lineage).isdisjoint(over.record.lineage)
        )

    def was_outrun_by(self, copy: Copy, life: int) -> bool:
        """Whether what the home has, in this life of it, is so many writes later that its lineage cannot name this one.

        The home took this write in that life. One that was evicted there meanwhile is not told from that.
        """
        n_since = copy.record.generation - self.generation
        is_at_home = copy.record.home == home_digest(self.home)
        return life == self.won_in and is_at_home and LINEAGE <= n_since < BEATS_THE_OLD_HOME // 2

    def expect(self, node: str, copy: int) -> None:
        """Expect this of a node from now on, whatever it was found to have before. copy: as in `expected`."""
        self.expected[node] = copy
        self.strange.pop(node, None)
        self.corrupt -= {node}

    def forget_looks(self) -> None:
        """Count no node as looked at since the last write."""
        self.fresh = _NO_NODES

    def take_in_deferred(self) -> None:
        """Let the backups that were left for later be written now."""
        self.expected.update(self.deferred)
        self.deferred = {}

    def needs_deferred(self) -> bool:
        """Whether it is for the backups to decide, also those left for later: the home has no copy that can be read."""
        if not self.deferred or self.is_new or self.home in self.done:
            return False
        return self.expected[self.home] == ABSENT or self.home in self.corrupt

    def decider(self) -> str | None:
        """Return the node that decides between writers, or None if no node has a copy any more and none is to get one.

        One whose copy cannot be read decides only if no other has one.
        A session that was ended leaves tombstones, so a copy that is just gone was evicted, flushed or lost in a
        restart. It is put back only after another node, where the session lives, was won.
        """
        if self.is_new or self.home in self.done:
            return self.home
        with_copy = [n for n, copy in self.expected.items() if copy != ABSENT and n not in self.failed]
        with_copy.sort(key=lambda n: (n in self.corrupt, n != self.home))
        if with_copy:
            return with_copy[0]
        return self.home if self.recreates else None


@dataclass(slots=True)
class Progress:
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

    @classmethod
    def over(cls, stored: Stored | None, own_nonces: frozenset[int] = frozenset()) -> Progress:
        """Return what is known at the beginning: what the session was when it was loaded, or stored last."""
        if stored is None:
            return cls(own_nonces=own_nonces, attempts=own_nonces)
        return cls(
            own_nonces=own_nonces,
            attempts=own_nonces,
            generation=stored.generation,
            base_generation=stored.generation,
            base_nonce=stored.nonce,
            lineage=stored.lineage,
            expected=dict(stored.copies),
            corrupt=stored.corrupt,
        )

    def learn(self, write: Write) -> None:
        """Note what an attempt that was not enough has found out, and what it may have left behind."""
        self.generation = write.generation
        self.lineage = write.lineage
        self.own_nonces |= {write.nonce}
        self.attempts |= {write.nonce}
        unsettled = dict.fromkeys(write.strange, UNKNOWN)  # to be looked at again, not to be overwritten
        self.expected = {**write.expected, **unsettled, **write.done}
        self.lost |= write.failed
        self.refused |= write.refused
        self.corrupt = write.corrupt

    def stand_on(self, write: Write, winner: Copy) -> None:
        """Let the next attempt stand on what another request stored first."""
        assert self.expected is not None
        self.expected.update((n, copy.version) for n, copy in write.strange.items() if copy.nonce == winner.nonce)
        if self.base_nonce is not None:
            self.merged |= {self.base_nonce}
        self.base_generation = winner.record.generation
        self.base_nonce = winner.nonce
        self.generation = max(self.generation, winner.record.generation)
        self.lineage = winner.record.lineage
        self.attempts = frozenset()


def write_of(writing: Writing) -> Write:
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


def next_write(ctx: Context, state: SessionState, body: bytes, progress: Progress) -> Write:
    """Choose the nodes to write to and make the record.

    Raises: SessionUnavailable if there is no node left.
    """
    home, others = _nodes(ctx, state, progress)
    unseen = ABSENT if progress.expected is None else UNKNOWN
    known = progress.expected or {}
    generation = next_generation(progress.generation)
    if state.moved_from is not None:
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


def _nodes(ctx: Context, state: SessionState, progress: Progress) -> tuple[str, list[str]]:
    """Return the home, another one if the session has to move, and the nodes for backups, best first."""
    health = ctx.health
    progress.away.update(health.down())
    ranked = ctx.topology.ranked(state.session_id.plain, health.is_up)
    if progress.lost:
        ranked = [node for node in ranked if node not in progress.lost]
    home = ctx.topology.home(state.session_id.node)
    if home is None or home in progress.lost or not health.is_up(home):
        if not ranked:
            raise unavailable(ctx, state, progress)
        home = ranked[0]
        move_home(ctx, state, home)
    others = [node for node in ranked if node != home]
    others.sort(key=lambda node: not health.is_steady(node))
    return home, others


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


def unavailable(ctx: Context, state: SessionState, progress: Progress) -> SessionUnavailable:
    """Return the error of a session for which no node is left, to be raised; count it."""
    down = ctx.health.down()
    nodes = {*down, *progress.lost}
    refused = progress.refused.difference(down)
    reasons = (
        (refused, "cannot store it, most likely being out of memory (SERVER_ERROR)"),
        (nodes - refused, "cannot be reached in the request's time"),
    )
    why = " and ".join(f"{', '.join(map(ctx.label, sorted(group)))} {reason}" for group, reason in reasons if group)
    what = f"could not be saved: {why}; what is stored may be as it was, or as it is now"
    return ctx.unavailable(state.session_id, what, nodes)


def unreadable(ctx: Context, state: SessionState, nodes: Collection[str]) -> SessionUnavailable:
    """Return the error of a session that others have stored in another format meanwhile, to be raised; count it."""
    where = ", ".join(ctx.label(node) for node in sorted(nodes))
    return ctx.unavailable(
        state.session_id,
        f"could not be saved: others have stored it on {where} in a form that this process cannot read; that is left "
        "as it is",
        nodes,
    )


def outrun(ctx: Context, state: SessionState, progress: Progress) -> SessionUnavailable:
    """Return the error of a request that lost to others until its time was over, to be raised; count it."""
    return ctx.unavailable(
        state.session_id,
        f"could not be saved in the request's time (timeouts.request): others had changed it {progress.n_conflicts} "
        "times meanwhile; what is stored may be as it was, or as it is now. Let fewer requests of one session write at "
        "once, or set locking",
        progress.lost,
    )
