# cython: nonecheck=True
"""A session's copies: the record around it, the commands that read and write it, and what they answered."""

cimport cython

from msm_fast._core.record cimport Record
from msm_fast._core.replies cimport Replies, Reply
from msm_fast._core.session_id cimport SessionId
from msm_fast._core.state cimport NO_COPY, UNKNOWN_COPY, NearCopy, SessionState
from msm_fast._core.wire cimport Batch, Command, get, new_batch, store
from msm_fast.engine.essentials cimport Essentials
from msm_fast.engine.versions cimport cas_of, life_of, version as version_of

from msm_fast._core.record import GENERATION_MAX
from msm_fast.engine.topology import home_digest
from msm_fast.errors import CorruptRecord

__all__ = [
    "Copy",
    "encode_state",
    "encode_stored",
    "encode_tombstone",
    "is_over",
    "last_access_ms",
    "next_generation",
    "put",
    "question",
    "read_copy",
    "tell_corrupt",
    "tell_unreadable",
]

cdef object BEYOND_ALL_GENERATIONS = 2**64 - 1
cdef unsigned long long LAST_GENERATION = GENERATION_MAX


@cython.final
@cython.freelist(8)
cdef class Copy:
    """One node's copy of a session, as a reply brought it.

    size: of the record as it came. version: with the node's life.
    """

    def __init__(self, size, Record record not None, version, nonce):
        self.size = size
        self.record = record
        self.version = version
        self.nonce = nonce


def read_copy(ctx, Replies replies not None, bytes key not None):
    """Return the copy in the first reply, which has a value. Raises: CorruptRecord, UnknownFormat."""
    cdef Reply reply = replies[0]
    cdef Record record = ctx.records.decode(reply.value, key)
    if not record.is_tombstone and not record.nonces():
        raise CorruptRecord("it names no write, not even its own", 48)
    return Copy(len(reply.value), record, version_of(replies.life, reply.cas), reply.client_flags)


cpdef bint is_over(Essentials own, Record record) except -1:
    """Whether the session has reached its absolute lifetime, however lately it was used."""
    cdef unsigned long long limit_s = record.absolute_lifetime_s
    return limit_s > 0 and <unsigned long long>own.now_ms() >= record.created_ms + limit_s * 1000


cpdef object last_access_ms(Essentials own, Record record, long long ttl_s):
    """Return when the session was last used: as long ago as its item's life, of which ttl_s was left, had run down.

    Never later than now, though the clock of the host that stored it may be ahead.
    """
    cdef long long idle_s, now_ms
    if ttl_s < 0 or not record.max_inactive_s:
        return record.accessed_ms
    idle_s = max(own.ttl_s(record.max_inactive_s) - ttl_s, 0)
    now_ms = own.now_ms()
    return min(max(<long long>record.accessed_ms, now_ms - idle_s * 1000), now_ms)


cpdef unsigned long long next_generation(unsigned long long generation, unsigned long long n_steps=1) noexcept:
    """Return the generation that is n_steps later, or the last one, if that comes first: it is followed by itself.

    No session comes near it by being saved; a record that somebody has forged may. Of its copies none is then known by
    its generation to be the newer one; but it is served, saved and ended as others are.
    """
    return generation + n_steps if generation < LAST_GENERATION - n_steps else LAST_GENERATION


def tell_corrupt(ctx, str node not None, error):
    """Count an item that is no copy of its session, and tell it: it is left where it is, and may be met often."""
    ctx.counters.add("corrupt")
    ctx.tell_seldom("corrupt", f"node {ctx.label(node)} has an item that cannot be used: {error}", node=node)


def tell_unreadable(ctx, str node, error):
    """Tell a record of another format, of a node or of this host (None): it is left alone, and may be met often."""
    where = "the local store" if node is None else f"node {ctx.label(node)}"
    ctx.tell_seldom(
        "unreadable",
        f"{where} has a session that this process cannot read, and leaves alone: {error}. Has it the secrets, the "
        "version and the libraries of the other workers?",
        node=node,
    )


cpdef bytes encode_state(
    Essentials own, object records, bytes key, SessionState state, bytes body, object generation, tuple lineage
):
    """Return the record of a session that is saved now, with what `encode_attributes` gave as its body.

    records: of the context.
    """
    cdef long long accessed_ms = own.now_ms() - <long long>(own.idle_s(state) * 1000)
    return records.encode(
        key,
        body,
        generation=generation,
        created_ms=state.created_ms,
        accessed_ms=accessed_ms,
        max_inactive_s=state.max_inactive_s,
        absolute_lifetime_s=state.absolute_lifetime_s,
        lineage=lineage,
        home=home_digest(state.session_id.node_part() or ""),
    )


def encode_stored(ctx, bytes key not None, SessionState state not None, home=0):
    """Return the record that the cluster holds of a session, as this view of it knows; b"" for none.

    home: as a record names the session's node; 0: none.
    """
    if state.stored is None:
        return b""
    max_inactive_s, absolute_lifetime_s = (
        state.stored.lifetimes or (state.stored_max_inactive_s, state.stored_absolute_lifetime_s)
    )
    return ctx.records.encode(
        key,
        state.stored.body,
        generation=state.stored.generation,
        created_ms=state.created_ms,
        accessed_ms=state.accessed_ms,
        max_inactive_s=max_inactive_s,
        absolute_lifetime_s=absolute_lifetime_s,
        lineage=state.stored.lineage,
        home=home,
    )


def encode_tombstone(ctx, bytes key not None, SessionId session_id not None, max_inactive_s):
    """Return the record that stands for a session that was ended. max_inactive_s: the session's own."""
    now_ms = ctx.now_ms()
    return ctx.records.encode(
        key,
        b"",
        generation=BEYOND_ALL_GENERATIONS,
        created_ms=now_ms,
        accessed_ms=now_ms,
        max_inactive_s=max_inactive_s,
        is_tombstone=True,
        home=home_digest(session_id.node_part() or ""),
    )


cpdef Command question(
    dict healths, Py_ssize_t validate_over, NearCopy near, str node, bytes key, object exptime
):
    """Return the command that asks a node for its copy, without the value if it may be the one that was seen.

    healths: of the nodes, by id. validate_over: as in NearCacheSettings. near: what was seen of the session; None if it
    is known that the node has something else.
    """
    seen = near.copies.get(node, UNKNOWN_COPY) if near is not None else UNKNOWN_COPY
    if near is not None and seen > 0:
        health = healths.get(node)
        if health is not None and health.compares:
            return get(key, exptime, True, cas_of(seen))
        if near.size > validate_over:
            return get(key, exptime, False)
    return get(key, exptime)


cpdef Batch put(str node, bytes key, bytes record, object nonce, object exptime, object expected):
    """Return the batch that writes a node's copy if it is as expected: a version, or ABSENT."""
    if expected == NO_COPY:
        return new_batch(node, store(key, record, nonce, exptime, None, True), None)
    return new_batch(node, store(key, record, nonce, exptime, cas_of(expected)), life_of(expected))
