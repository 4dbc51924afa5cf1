# cython: nonecheck=True
"""Finding a session as usual: what its home and its backups are asked, and whether the answers are enough."""

cimport cython

from msm_fast._core.attributes cimport decode_frames
from msm_fast._core.record cimport Record
from msm_fast._core.replies cimport Replies, Reply
from msm_fast._core.session_id cimport SessionId, parse_issued
from msm_fast._core.state cimport NearCopy, SessionState, Stored
from msm_fast._core.wire cimport Batch, get, new_batch
from msm_fast.engine.as_usual cimport UsualWay, all_answered
from msm_fast.engine.copies cimport is_over, last_access_ms, question
from msm_fast.engine.versions cimport version

from functools import partial

from msm_fast.errors import CorruptRecord

__all__ = ["Question", "UsualLoading"]


@cython.final
@cython.freelist(8)
cdef class Question:
    """What a session's home is asked first, and maybe its backups: for CAS value and nonce only.

    near: what was seen of the session before. max_inactive_s: the lifetime by which its copies are touched.
    """

    cdef readonly list batches
    cdef readonly SessionId session_id
    cdef readonly bytes key
    cdef readonly str home
    cdef readonly NearCopy near
    cdef readonly long max_inactive_s

    @property
    def asks_backups(self):
        """Whether its backups are asked, too."""
        return len(self.batches) > 1


@cython.final
cdef class UsualLoading(UsualWay):
    """Finds sessions as long as all is as usual.

    Thread-safety: shared by all flows and threads.
    """

    cdef object _serializers
    cdef bint _is_sticky
    cdef bint _are_sealed       # records, with secrets
    cdef dict _by_digest        # of the topology
    cdef Py_ssize_t _validate_over
    cdef object _max_inactive

    def __init__(self, ctx):
        UsualWay.__init__(self, ctx)
        self._serializers = ctx.serializers
        self._is_sticky = ctx.settings.sticky
        self._are_sealed = ctx.records.seals

    cdef int _read(self, topology, settings) except -1:
        UsualWay._read(self, topology, settings)
        self._by_digest = topology.by_digest
        self._validate_over = settings.near_cache.validate_over
        self._max_inactive = settings.max_inactive
        return 0

    def ask_for(self, text, bint expect_write):
        """Return the Question that finds the session of a request that came with text, or None.

        text: what the client sent as its id, whatever it is. expect_write: as for `ask`.
        """
        cdef SessionId session_id
        if self._is_sticky or not self._distribution.is_on:
            return None
        if self._may_be_kept_here():
            return None
        session_id = parse_issued(text)
        return None if session_id is None else self.ask(session_id, expect_write)

    def ask(self, SessionId session_id not None, bint expect_write):
        """Return the Question that finds the session, or None.

        expect_write: also ask the backups for their CAS values in the same round trip, so that a save needs only one
        more; unless what was last seen of them is most likely still right.
        """
        cdef Question asked
        cdef NearCopy near
        cdef str home, node
        cdef long max_inactive_s
        cdef object until
        self._look_around()
        home = self._home_of(session_id)
        if home is None or self._is_draining or not (
            self._health.is_undisturbed or self._health.is_calm(self._max_inactive, self._monotonic())
        ):
            return None
        key = self._own.storage_keys.of(session_id)
        near = self._own.near_copy(key)
        max_inactive_s = self._own.default_max_inactive_s if near is None else near.max_inactive_s
        until = self._own.touch_exptime(self._own.ttl_s(max_inactive_s))
        asked = Question.__new__(Question)
        asked.session_id, asked.key, asked.home, asked.near = session_id, key, home, near
        asked.max_inactive_s = max_inactive_s
        command = question(self._health.healths, self._validate_over, near, home, key, until)
        asked.batches = [new_batch(home, command, None)]
        if self._replicas and (
            (expect_write and not (near is not None and near.has_lasted)) or self.must_ask_backups(near, home)
        ):
            peek = get(key, until, False)
            for node in self._topology.backups(session_id.plain_part(), home)[:self._replicas]:
                asked.batches.append(new_batch(node, peek, None))
        return asked

    cpdef bint must_ask_backups(self, NearCopy near, str home) except -1:
        """Whether a request that only reads asks the backups, too.

        It is their turn, or the home may have been away, or one of them lacks what it had when they were asked last.
        """
        if self._own.must_ask_backups(near) or near.asked_at <= self._health.lacks_since:
            return True
        return self._health.was_silent_since(home, near.asked_at, self._monotonic())

    def found(self, Question asked not None, list outcomes not None):
        """Return the session, if its home has a good copy of it and every backup that was asked has the same; or None.

        outcomes: of the question's batches.
        """
        cdef Replies replies
        cdef Reply reply
        cdef Record record
        cdef NearCopy near = asked.near
        cdef Py_ssize_t size
        cdef str home = asked.home
        cdef tuple lineage
        cdef dict copies
        cdef bint has_lasted
        cdef double now = self._monotonic()
        if not all_answered(self._health.healths, asked.batches, outcomes, now):
            return None
        replies = outcomes[0]
        reply = replies[0]
        nonce = reply.client_flags
        seen = version(replies.life, reply.cas)
        if reply.value is not None:
            try:
                record, size = self._records.decode(reply.value, asked.key), len(reply.value)
            except CorruptRecord:
                return None
        elif near is not None and reply.status == "HD" and near.is_copy(home, seen, nonce):
            record, size = near.record(self._records, asked.key), near.size
        else:
            return None
        lineage = record.nonces()
        if (
            record.is_tombstone
            or record.max_inactive_s != asked.max_inactive_s
            or not lineage
            or lineage[0] != nonce
            or (near is not None and record.generation < near.generation)
            or self._topology is not self._ctx.topology
            or self._by_digest.get(record.home) != home
            or is_over(self._own, record)
            or (self._are_sealed and not self._records.is_current(record))
        ):
            return None
        copies = self._copies_of(asked, outcomes, seen, nonce)
        if copies is None:
            return None
        has_lasted = near is not None and near.nonce == nonce
        if has_lasted:
            copies = {**near.copies, **copies}
        if near is not None and len(asked.batches) == 1:
            now = near.asked_at
        near = NearCopy(record, size, record.generation, nonce, asked.max_inactive_s, copies, now, has_lasted)
        self._own.keep_near(asked.key, near, record.body)
        self._counts.count("round_trips")
        if reply.value is None:
            self._counts.count("validated")
        self._counts.count("loaded")
        return self._state(asked.session_id, record, lineage, copies, reply.ttl_s)

    cdef dict _copies_of(self, Question asked, list outcomes, object seen, object nonce):
        """Return the versions of the copies, or None if a backup that was asked has not the same as the home."""
        cdef dict copies = {asked.home: seen}
        cdef Py_ssize_t i
        cdef Reply reply
        for i in range(1, len(outcomes)):
            reply = (<Replies>outcomes[i])[0]
            if reply.status != "HD" or reply.client_flags != nonce:
                return None
            copies[(<Batch>asked.batches[i]).node] = version((<Replies>outcomes[i]).life, reply.cas)
        return copies

    cdef SessionState _state(self, SessionId session_id, Record record, tuple lineage, dict copies, long long ttl_s):
        cdef SessionState state = SessionState.__new__(SessionState)
        on_failure = partial(self._ctx.tell_undecodable, session_id)
        state.session_id = session_id
        state.attributes = decode_frames(record.body, self._serializers, on_failure)
        state.created_ms = record.created_ms
        state.accessed_ms = last_access_ms(self._own, record, ttl_s)
        state.max_inactive_s = record.max_inactive_s
        state.absolute_lifetime_s = record.absolute_lifetime_s
        state.note_lifetimes_stored()
        state.stored = Stored(record.generation, lineage, copies, record.body)
        state.body = record.body
        state.is_new = False
        state.epoch = self._distribution.epoch
        return state
