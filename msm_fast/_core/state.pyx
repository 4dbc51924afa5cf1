# cython: nonecheck=True
"""What the engine knows of one session: plain values, compiled since each request makes some and reads them often."""

cimport cython

from msm_fast._core.attributes cimport AttributeMap
from msm_fast._core.record cimport Record
from msm_fast._core.session_id cimport SessionId

__all__ = ["ABSENT", "UNKNOWN", "NearCopy", "SessionState", "Stored"]

ABSENT = NO_COPY
UNKNOWN = UNKNOWN_COPY
cdef frozenset NOTHING = frozenset()


@cython.final
@cython.freelist(16)
cdef class Stored:
    """What the store holds of a session, as far as this view of it knows.

    generation: grows with each save. lineage: the nonces of the write that this view is based on and of those before
    it, newest first; the copies of one write have one nonce. copies: per node id the version of its copy, or ABSENT; a
    node that is not there is UNKNOWN. body: the encoded attributes of that generation. corrupt: nodes whose copy nobody
    can read. lifetimes: its max_inactive_s and absolute_lifetime_s; None: those that the session was found with.
    """

    def __init__(
        self,
        generation,
        tuple lineage not None,
        dict copies not None,
        bytes body not None,
        frozenset corrupt not None=NOTHING,
        tuple lifetimes=None,
    ):
        self.generation = generation
        self.lineage = lineage
        self.copies = copies
        self.body = body
        self.corrupt = corrupt
        self.lifetimes = lifetimes

    @property
    @cython.boundscheck(True)
    def nonce(self):
        """The nonce of the write that this view is based on. Raises: IndexError if its lineage names none."""
        return self.lineage[0]

    def __repr__(self):
        return f"<Stored generation {self.generation}, copies {self.copies}>"


@cython.final
@cython.freelist(16)
cdef class NearCopy:
    """What this process last saw of a session in the cluster.

    content: its record, or that as it was written, to be decoded when it is first looked at. size: of the encoded
    record. generation, nonce: of the write. copies: what was known of the nodes' copies; right as long as the home
    still has this nonce. asked_at: when the backups were asked last, monotonic seconds. has_lasted: the one before it
    was still right when this process came back to the session, so this one most likely will be.
    Thread-safety: shared by all requests of the session, which read it only; decoding it twice does no harm.
    """

    def __init__(
        self,
        content,
        size,
        generation,
        nonce,
        max_inactive_s,
        dict copies not None,
        double asked_at,
        bint has_lasted=False,
    ):
        self.content = content
        self.size = size
        self.generation = generation
        self.nonce = nonce
        self.max_inactive_s = max_inactive_s
        self.copies = copies
        self.asked_at = asked_at
        self.has_lasted = has_lasted

    cpdef Record record(self, object records, bytes key):
        """Return the record. records: what reads it (RecordFormat). key: that of its item."""
        content = self.content
        if isinstance(content, bytes):
            content = self.content = records.decode(content, key)
        return content

    cpdef bint is_copy(self, str node, object version, object nonce) except -1:
        """Whether a node that has a copy of this version and nonce has what was seen, byte for byte."""
        return self.nonce == nonce and self.copies.get(node) == version


@cython.final
@cython.freelist(16)
cdef class SessionState:
    """The session behind a `Session`: what the engine loads, changes and saves. Times are wall-clock milliseconds.

    stored: what the cluster holds; None for a session that was never there, or may be but cannot be reached. body: the
    encoded attributes as they were found, or last saved here or there. stored_max_inactive_s,
    stored_absolute_lifetime_s: its lifetimes, likewise; where it has others now a request has set them. local_kind: why
    it is kept locally; None for a distributed session. local_generation: of its record in the local store; 0: there is
    none. unencodable: what of its attributes cannot be encoded, by name, as it was found or last kept in this process;
    None where all can. must_store: save even if no attribute changed: the session moved, a copy is missing, a lifetime
    was set. moved_from: the node that it leaves with its next save, since that could not be used, or drains: its next
    generation must beat any that the old node may still accept; None: none. is_being_saved: a save of it is on its way,
    so that its id must stay as it is. must_store_again: what was set meanwhile is for the next save. retired: ids this
    session had before it was invalidated or got a new one; their copies go when it is saved. retired_max_inactive_s:
    how long those may live unused; 0: for ever. is_new: made in this request, not loaded. is_ended: invalidated, here
    or by another request, and nothing written since. rotated_from: what was stored under the id before the new one, as
    far as it is known. merge_base: the encoded attributes that its own changes go back to, where the attributes
    themselves do not know. epoch: how often the distribution had been taken up again when it was found.

    Of a sticky session there is one in a worker, which all its requests share. is_live: it lives in this worker, which
    has the last word on whether it exists. was_ended: another request that shares it has ended it; nothing of it is
    stored any more. used_at: when it was last asked for, or changed, monotonic seconds. touch_at: when the lives of its
    copies are to be extended next, monotonic seconds. revision: grows with each change that is to be written.
    written_revision: the revision that the cluster has. turn: whose turn it is to write; the next one waits for that.
    own_nonces: of writes whose outcome is not known. unsettled: what such a write was to store; it is tried again, as
    it was, before anything newer.
    """

    def __cinit__(self):
        self.body = b""
        self.local_generation = self.revision = self.written_revision = self.epoch = 0
        self.retired = ()
        self.own_nonces = NOTHING
        self.is_new = True

    def __init__(
        self,
        SessionId session_id not None,
        AttributeMap attributes not None,
        created_ms,
        accessed_ms,
        max_inactive_s,
        absolute_lifetime_s,
        *,
        Stored stored=None,
        bytes body not None=b"",
        str local_kind=None,
        local_generation=0,
        bint must_store=False,
        str moved_from=None,
        bint is_new=True,
        bint is_live=False,
        bytes merge_base=None,
        epoch=0,
        used_at=None,
        revision=0,
    ):
        self.session_id = session_id
        self.attributes = attributes
        self.created_ms = created_ms
        self.accessed_ms = accessed_ms
        self.max_inactive_s = max_inactive_s
        self.absolute_lifetime_s = absolute_lifetime_s
        self.note_lifetimes_stored()
        self.stored = stored
        self.body = body
        self.local_kind = local_kind
        self.local_generation = local_generation
        self.must_store = must_store
        self.moved_from = moved_from
        self.is_new = is_new
        self.is_live = is_live
        self.merge_base = merge_base
        self.epoch = epoch
        self.used_at = used_at
        self.revision = revision

    cdef bint kept(self):
        return self.stored is not None or self.is_live or self.local_generation > 0

    @property
    def is_kept(self):
        """Whether there is a session of this id, stored in the cluster or kept here."""
        return self.kept()

    @property
    def keeps_id(self):
        """Whether the client keeps its id: the session is kept, or may be where it cannot be reached."""
        return self.kept() or self.local_kind == "provisional"

    @property
    def may_need_saving(self):
        """Whether there is something that a save would store; what is not kept may have it in vain."""
        return self.must_store or bool(self.retired) or self.unencodable is not None or self.attributes.is_changed

    cpdef int note_lifetimes_stored(self) except -1:
        """Note that it is stored with the lifetimes that it has now."""
        self.stored_max_inactive_s = self.max_inactive_s
        self.stored_absolute_lifetime_s = self.absolute_lifetime_s
        return 0

    def take_lifetimes(self, long max_inactive_s, long absolute_lifetime_s):
        """Have the lifetimes that another request has stored; what was set here since it was found stays."""
        if self.max_inactive_s == self.stored_max_inactive_s:
            self.max_inactive_s = max_inactive_s
        if self.absolute_lifetime_s == self.stored_absolute_lifetime_s:
            self.absolute_lifetime_s = absolute_lifetime_s
        self.stored_max_inactive_s, self.stored_absolute_lifetime_s = max_inactive_s, absolute_lifetime_s

    cpdef long longest_max_inactive_s(self) except -1:
        """How long its copies, and those of the ids it had before, may live unused; 0: for ever."""
        cdef long longest_s = max(self.max_inactive_s, self.stored_max_inactive_s)
        if not self.max_inactive_s or not self.stored_max_inactive_s:
            return 0
        if not self.retired:
            return longest_s
        return max(longest_s, self.retired_max_inactive_s) if self.retired_max_inactive_s else 0

    def part_with(self):
        """Return a state with the same attributes that is no other request's."""
        cdef SessionState twin = SessionState.__new__(SessionState)
        twin.session_id, twin.attributes = self.session_id, self.attributes.copy()
        twin.created_ms, twin.accessed_ms = self.created_ms, self.accessed_ms
        twin.max_inactive_s, twin.absolute_lifetime_s = self.max_inactive_s, self.absolute_lifetime_s
        twin.stored_max_inactive_s = self.stored_max_inactive_s
        twin.stored_absolute_lifetime_s = self.stored_absolute_lifetime_s
        twin.stored, twin.body, twin.epoch = self.stored, self.body, self.epoch
        twin.local_kind, twin.local_generation = self.local_kind, self.local_generation
        twin.unencodable = self.unencodable
        twin.must_store, twin.moved_from = self.must_store, self.moved_from
        twin.retired, twin.retired_max_inactive_s = self.retired, self.retired_max_inactive_s
        twin.is_new, twin.is_ended, twin.rotated_from = self.is_new, self.is_ended, self.rotated_from
        twin.is_live, twin.was_ended, twin.touch_at = self.is_live, self.was_ended, self.touch_at
        twin.merge_base = self.merge_base
        return twin

    def __repr__(self):
        return f"<SessionState {self.session_id!r}>"
