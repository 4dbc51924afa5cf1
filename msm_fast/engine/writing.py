"""Writing one record to a session's nodes, each copy by compare-and-swap.

One node decides between writers: the home, or, if that has no copy any more, the first backup that has one. It is
written in one round trip with those nodes that are known to hold the same base; all others only once it is won. A copy
that is not the base is looked at before it is overwritten. Its lineage, the nonces of the writes it is based on, tells
what it is: one that this write already stands on, one that stands on this write, or somebody else's. So no copy is lost
unseen, and of two writers of one base only one succeeds.

A write that took several rounds looks once more at what it wrote first: a node may have been restarted meanwhile.
"""

from __future__ import annotations

from typing import Literal

from msm_fast._core import wire
from msm_fast._core.replies import Reply
from msm_fast.engine.attempts import Write
from msm_fast.engine.context import Context
from msm_fast.engine.copies import Copy, put, read_copy, tell_corrupt, tell_unreadable
from msm_fast.engine.effects import Batch, Flow, NodeFailure, Outcome, Replies
from msm_fast.engine.exchanging import exchange, let_live
from msm_fast.engine.topology import home_digest
from msm_fast.engine.versions import version
from msm_fast.errors import CorruptRecord, UnknownFormat
from msm_fast.session import ABSENT, UNKNOWN

__all__ = ["write_copies", "write_deferred"]

_ROUNDS = 10
"""Enough to ask, write, be refused, ask, overwrite and look again, with a node or two failing between."""

Verdict = Literal["stored", "superseded", "conflict", "ended", "gone", "home_lost", "unreadable", "unsettled"]


def write_deferred(ctx: Context, write: Write) -> Flow[bool]:
    """Write the backups of a write whose home is done; what fails is mended by the session's next request."""
    write.take_in_deferred()
    yield from write_copies(ctx, write)
    return True


def write_copies(ctx: Context, write: Write, begun: tuple[list[Batch], list[Outcome]] | None = None) -> Flow[Verdict]:
    """Carry write out.

    begun: its first round, and what the nodes have answered, if that was made already.
    stored: on the home, and on every other node that could be used. superseded: it was, and another write that
    stands on it is there now. conflict: `newer` has what was stored meanwhile.
    ended: a tombstone stands in its place. gone: it has vanished from every node. home_lost: the home failed; others
    may be `done`. unreadable: what the node that decides has is of another format, and may be newer. unsettled: too
    much happened meanwhile; try again.
    """
    for _ in range(_ROUNDS):
        if begun is None:
            batches = _next_round(write)
            if not batches:
                return _verdict(write)
            outcomes = yield from exchange(ctx, batches)
        else:
            batches, outcomes = begun
            begun = None
        decider = write.decider()
        if any(batch.commands[0].verb == "ms" for batch in batches):
            write.forget_looks()
        for batch, outcome in zip(batches, outcomes, strict=True):
            _take(ctx, write, batch, outcome)
        if write.unreadable:
            yield from let_live(ctx, write.key, write.unreadable)  # their session may have a lifetime of its own
            if write.decider() in write.unreadable:
                return "unreadable"
            _do_without_unreadable(write)
        if write.decider() != decider:
            write.forget_looks()  # what was won while another node decided proves nothing
        _judge_strangers(write)
        if write.tombstone is not None:
            return "ended"
        if write.newer:
            return "conflict"
        if write.home in write.failed:
            return "home_lost"
    return "unsettled"


def _verdict(write: Write) -> Verdict:
    """Return what came of it when nothing is left to do."""
    if write.superseded_by is None:
        return "stored" if write.home in write.done else "gone"
    if all(node in write.done or node in write.failed for node in write.expected):
        return "superseded"
    write.newer[write.home] = write.superseded_by  # not safe yet on the others: store it with what stands on it
    return "conflict"


# -- what to do next


def _next_round(write: Write) -> list[Batch]:
    """Return the batches of the next round; none when all is done."""
    if write.needs_deferred():
        write.take_in_deferred()
    expected = write.expected
    left = [node for node in expected if node not in write.done and node not in write.failed]
    unknown = [node for node in left if expected[node] == UNKNOWN]
    if unknown:
        return _looks(write, unknown, value=True)
    if write.superseded_by is not None:
        return []
    decider = write.decider()
    stale = [node for node, written in write.done.items() if node not in write.fresh and written != UNKNOWN]
    if decider != write.home and decider in stale:
        return _looks(write, [decider], value=False)
    ready = [node for node in left if _may_be_written(write, node)]
    if decider in stale and not write.strange.keys().isdisjoint(ready):
        return _looks(write, [decider], value=False)
    if ready:
        return [put(n, write.key, write.record, write.nonce, write.exptime, write.expected[n]) for n in ready]
    return _looks(write, stale, value=False)


def _looks(write: Write, nodes: list[str], *, value: bool) -> list[Batch]:
    return [Batch(node, [wire.get(write.key, write.exptime, value=value)]) for node in nodes]


def _may_be_written(write: Write, node: str) -> bool:
    """Whether it is this node's turn.

    One that is not known to hold the base waits for the node that decides: else a writer that loses there would leave a
    copy that looks newer than the winner's and lacks what that one was told is stored.
    """
    decider = write.decider()
    if write.is_new or node == decider or decider in write.done:
        return True
    is_base = node not in write.strange and node not in write.corrupt and write.expected[node] != ABSENT
    return decider is not None and is_base


# -- what the nodes say


def _take(ctx: Context, write: Write, batch: Batch, outcome: Outcome) -> None:
    """Note one node's answer."""
    node = batch.node
    if isinstance(outcome, NodeFailure) and outcome.kind == "restarted":
        write.expect(node, UNKNOWN)
    elif isinstance(outcome, NodeFailure) or outcome[0].status == "SERVER_ERROR":
        # After a failed store the server may have dropped the old value as well: its copy counts as gone.
        if not isinstance(outcome, NodeFailure):
            _note_refusal(ctx, write, node, outcome[0].text)
        elif outcome.kind == "deadline":
            write.is_out_of_time = True
        _give_up(write, node)
    elif batch.commands[0].verb == "ms":
        _take_written(write, node, outcome)
    elif node in write.done:
        _take_second_look(write, node, outcome[0])
    else:
        _take_copy(ctx, write, node, outcome)


def _note_refusal(ctx: Context, write: Write, node: str, text: str) -> None:
    write.refused |= {node}
    ctx.tell_seldom(
        "refused",
        f"node {ctx.label(node)} cannot store a session ({text}): another node has to, or this host. Is it full?",
        node=node,
    )


def _take_written(write: Write, node: str, replies: Replies) -> None:
    (reply,) = replies
    if reply.status == "HD":
        write.done[node] = version(replies.life, reply.cas)
        write.fresh |= {node}
        if node == write.home:
            write.won_in = replies.life
    else:  # EX, NS: it has something else than was expected
        write.expect(node, ABSENT if reply.status == "NF" else UNKNOWN)


def _take_second_look(write: Write, node: str, reply: Reply) -> None:
    if reply.status == "HD" and reply.client_flags == write.nonce:
        write.fresh |= {node}
        return
    doubtful = {node}
    if node == write.home:  # what counted as done because the home had it is to be judged once more
        doubtful.update(other for other, written in write.done.items() if written == UNKNOWN)
    for other in doubtful:
        del write.done[other]
        write.expect(other, UNKNOWN)


def _take_copy(ctx: Context, write: Write, node: str, replies: Replies) -> None:
    """Note a copy that was asked for because it is not, or not known to be, the expected one."""
    (reply,) = replies
    if reply.status == "EN":
        write.expected[node] = ABSENT
        return
    write.expected[node] = version(replies.life, reply.cas)
    try:
        copy = read_copy(ctx, replies, write.key)
    except UnknownFormat as error:
        write.unreadable = {**write.unreadable, node: reply.ttl_s}
        tell_unreadable(ctx, node, error)
        return
    except CorruptRecord as error:
        write.corrupt |= {node}
        tell_corrupt(ctx, node, error)
        return
    if copy.record.is_tombstone:
        write.tombstone = copy.record
        return
    if copy.nonce == write.nonce:
        write.done[node] = copy.version
        write.fresh |= {node}
    elif copy.nonce in write.own_nonces or copy.nonce == write.base_nonce:
        pass
    elif not (write.is_under(copy) or (node == write.home and write.was_outrun_by(copy, replies.life))):
        _note_stranger(write, node, copy)
    elif copy.record.home == home_digest(node):
        write.superseded_by = copy
        write.done[node] = UNKNOWN
        for other in write.expected.keys() - write.done.keys():
            write.expect(other, UNKNOWN)  # has it gone another way?
    elif write.home in write.done and (
        write.nonce in copy.record.lineage or copy.record.home == home_digest(write.home)
    ):
        write.done[node] = UNKNOWN  # its writer has built on what the home has, and is still at work
    else:
        _note_stranger(write, node, copy)


def _note_stranger(write: Write, node: str, copy: Copy) -> None:
    """Note a copy that is not the base.

    Before it is overwritten as that of a writer that lost, the node that decided is asked once more: it may have lost
    what was written there, and the other may have won after that.
    """
    write.strange[node] = copy
    write.forget_looks()


def _judge_strangers(write: Write) -> None:
    """Decide which copies that are not the base are newer; the others will be overwritten.

    Older is what the base stands on already, and any lower generation. Where the race is decided anything else is
    newer, and so is what goes back to a write that the base stands on too: then both were made side by side, and the
    generation, which a move advances, says nothing. Elsewhere it is the copy of a writer that lost there, where this
    one won; unless it was written by one for whom another node was the home: one that could not reach this one and
    moved the session away. What stands on this very write is newer wherever it is: where that had won has lost it.
    """
    decider = write.decider()
    for node, copy in write.strange.items():
        is_fork = node == decider and not write.lineages_differ(copy)
        is_older = copy.nonce in write.lineage or (copy.record.generation < write.base_generation and not is_fork)
        if is_older or node in write.done:
            continue
        stands_on_this = write.is_under(copy)
        moved = decider in write.done and copy.record.home != home_digest(write.home)
        if node == decider or stands_on_this or moved or write.is_new:
            write.newer[node] = copy


def _do_without_unreadable(write: Write) -> None:
    for node in write.unreadable:
        _give_up(write, node)
    write.unreadable = {}


def _give_up(write: Write, node: str) -> None:
    """Do without a node; a spare takes the place of one that was to hold a backup."""
    write.failed |= {node}
    write.done.pop(node, None)
    spare = next((n for n in write.spares if n not in write.expected), None)
    if spare is not None and node != write.home:
        write.expected[spare] = ABSENT if write.is_new else UNKNOWN
