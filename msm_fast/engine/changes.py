"""What a request changed: whether it must be stored, and how it is laid over what another request stored first."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.record import Record
from msm_fast._core.session_id import SessionId
from msm_fast.engine.context import Context, digest
from msm_fast.errors import ConflictError
from msm_fast.session import SessionState, Stored

__all__ = [
    "Base",
    "carry_over",
    "differing",
    "follow",
    "join",
    "lay_over",
    "merge",
    "needs_storing",
    "note_conflict",
    "take_up",
]


def needs_storing(state: SessionState, body: bytes) -> bool:
    """Whether a session with the encoded attributes body differs from what is stored.

    A new session to which nothing was written, or nothing that may be stored, is not stored at all; unless ids that it
    had before are to be ended.
    """
    if not state.is_kept:
        return state.must_store or body != b"" or bool(state.retired)
    return state.must_store or body is not state.body


@dataclass(frozen=True, slots=True)
class Base:
    """The write that a request's changes lie over: its generation, its nonce, and the lineage it stands in."""

    generation: int
    nonce: int
    lineage: Collection[int]

    @classmethod
    def of(cls, stored: Stored) -> Base:
        """Return the write that a state knows as stored."""
        return cls(stored.generation, stored.nonce, stored.lineage)

    def is_beside(self, winner: Record | Stored) -> bool:
        """Whether the winner certainly does not stand on this write: both were stored on nodes that some did not reach.

        A winner that goes back to what this write stands on, but not to this write, was made beside it. One with
        another lineage altogether is a later one, unless its generation says that it cannot be.
        """
        if self.nonce in winner.lineage:
            return False
        return winner.generation <= self.generation or self._is_related_to(winner)

    def prevails_over(self, winner: Record | Stored) -> bool:
        """Whether, of two writes that were made beside each other, this one's values count."""
        return self.generation >= winner.generation and self._is_related_to(winner)

    def _is_related_to(self, winner: Record | Stored) -> bool:
        return not set(self.lineage).isdisjoint(winner.lineage)


def lay_over(
    attributes: AttributeMap, base: AttributeMap, mine: AttributeMap, *, sparing: Collection[str] = ()
) -> None:
    """Make the changes to attributes that lead from base to mine; what cannot be decoded is no change.

    sparing: names of attributes that stay as they are.
    """
    for name, value in mine.items():
        is_unreadable = value is None and any(failure.name == name for failure in mine.failures)
        if name not in sparing and not is_unreadable and (name not in base or base[name] != value):
            attributes[name] = value
    for name in base:
        if name not in mine and name not in sparing:
            attributes.pop(name, None)


def differing(one: AttributeMap, other: AttributeMap) -> set[str]:
    """Return the names of the attributes that only one of both has, or that have another value there."""
    in_both = one.keys() & other.keys()
    return (one.keys() ^ other.keys()) | {name for name in in_both if one[name] != other[name]}


def carry_over(ctx: Context, base: bytes, mine: bytes, theirs: bytes) -> bytes:
    """Return theirs with the changes that lead from base to mine; all are encoded attributes."""
    if mine == base:
        return theirs
    if theirs == base:
        return mine
    attributes = AttributeMap.decode(base, serializer=ctx.serializers)
    lay_over(
        attributes,
        AttributeMap.decode(base, serializer=ctx.serializers),
        AttributeMap.decode(mine, serializer=ctx.serializers),
    )
    attributes.rebase(theirs)
    return attributes.encode()[0]


def take_up(ctx: Context, state: SessionState, base: Stored, found: SessionState) -> bool:
    """Lay what a session has over what others have stored since base, if anything; return whether they have.

    For one that will not meet it in the cluster, since it is stored elsewhere.
    Raises: ConflictError if settings.on_conflict is "error".
    """
    if found.stored is None or found.stored.nonce in base.lineage:
        return False
    if not ctx.settings.sticky:  # there it is most likely what this worker has written behind the requests before
        note_conflict(ctx, found.session_id)
    body = carry_over(ctx, base.body, state.body, found.body)
    state.attributes.rebase(body)
    state.take_lifetimes(found.max_inactive_s, found.absolute_lifetime_s)
    state.body = body
    return True


def follow(state: SessionState, body: bytes, winner: Record) -> None:
    """Take over a record that stands on an earlier attempt to store body: the changes in that are in it already.

    Laid over it once more they would undo what it changed after them.
    """
    state.attributes.mark_saved(body)
    state.attributes.rebase(winner.body)
    state.note_lifetimes_stored()
    state.take_lifetimes(winner.max_inactive_s, winner.absolute_lifetime_s)
    state.merge_base = None


def note_conflict(ctx: Context, session_id: SessionId, *, is_lost: bool = True) -> None:
    """Note that another request has stored the session first.

    Raises: ConflictError if settings.on_conflict says so, and is_lost: this one has come too late with its changes.
    """
    ctx.counters.add("conflicts")
    ctx.tell_session("conflict", session_id, "was changed by another request first")
    if is_lost and ctx.settings.on_conflict == "error":
        name = digest(session_id)
        raise ConflictError(
            f"session {name} was changed by another request first; nothing was saved. Load it and try again",
            session=name,
        )


def merge(ctx: Context, state: SessionState, winner: Record, base: Base | None = None) -> None:
    """Lay this request's changes over the record that another one stored first.

    Two requests that changed different attributes both win; of one attribute the later value stays. If the winner was
    stored beside the base, not over it, no attribute of either is dropped, and where they differ the winner counts,
    unless both go back to one write and the base has the higher generation.
    Raises: ConflictError if settings.on_conflict is "error" and the winner has built on what this one was to change.
        Copies that were stored beside each other are joined all the same: they would fail each request from then on.
    """
    is_beside = base is not None and base.is_beside(winner)
    if state.merge_base is not None:
        before = AttributeMap.decode(state.merge_base, serializer=ctx.serializers)
        mine_now, state.attributes = state.attributes, AttributeMap.decode(state.merge_base, serializer=ctx.serializers)
        lay_over(state.attributes, before, mine_now)
        state.merge_base = None
    note_conflict(ctx, state.session_id, is_lost=base is None or not (is_beside or _only_puts_back(state)))
    state.take_lifetimes(winner.max_inactive_s, winner.absolute_lifetime_s)
    if base is not None and is_beside:
        _lay_beside(state.attributes, winner.body, prevails=base.prevails_over(winner))
    else:
        state.attributes.rebase(winner.body)


def _only_puts_back(state: SessionState) -> bool:
    """Whether a request has changed nothing, and stores what it has found: a copy is missing, or belongs elsewhere."""
    lifetimes = (state.max_inactive_s, state.absolute_lifetime_s)
    are_as_found = lifetimes == (state.stored_max_inactive_s, state.stored_absolute_lifetime_s)
    return are_as_found and not any(state.attributes.changed_names())


def join(ctx: Context, mine: bytes, theirs: bytes, *, prevails: bool) -> bytes:
    """Return what two writes that were made beside each other have together; all are encoded attributes.

    prevails: where they differ mine counts.
    """
    attributes = AttributeMap.decode(mine, serializer=ctx.serializers)
    _lay_beside(attributes, theirs, prevails=prevails)
    return attributes.encode()[0]


def _lay_beside(attributes: AttributeMap, theirs: bytes, *, prevails: bool) -> None:
    mine = dict(attributes)
    unreadable = {failure.name for failure in attributes.failures}
    attributes.rebase(theirs)
    for name, value in mine.items():
        if value is None and name in unreadable:
            continue
        if prevails or name not in attributes:
            attributes[name] = value
