# cython: nonecheck=True
"""Storing a session as usual: what is written to its home and its backups, and whether all of them took it."""

cimport cython

from msm_fast._core.replies cimport Replies, Reply
from msm_fast._core.state cimport NO_COPY, UNKNOWN_COPY, NearCopy, SessionState, Stored
from msm_fast._core.wire cimport Batch
from msm_fast.engine.as_usual cimport UsualWay, all_answered
from msm_fast.engine.copies cimport encode_state, next_generation, put
from msm_fast.engine.versions cimport version

from msm_fast.policies import SaveResult

__all__ = ["LINEAGE", "UsualSaving", "Writing"]

LINEAGE = 8
"""How many writes a record's lineage names, itself included."""

cdef dict NOWHERE = {}
cdef frozenset NONE = frozenset()


@cython.final
@cython.freelist(8)
cdef class Writing:
    """What stores a session on its home and its backups, all in one round trip.

    expected: per node the version of the copy that its batch replaces, or ABSENT. spares: further nodes for backups.
    epoch: of the distribution when it was planned.
    """

    cdef readonly list batches
    cdef readonly SessionState state
    cdef readonly bytes key
    cdef readonly bytes record
    cdef readonly bytes body
    cdef readonly object generation
    cdef readonly tuple lineage
    cdef readonly str home
    cdef readonly dict expected
    cdef readonly list spares
    cdef readonly object exptime
    cdef readonly object epoch


@cython.final
cdef class UsualSaving(UsualWay):
    """Stores sessions as long as all is as usual.

    Thread-safety: shared by all flows and threads.
    """

    cdef dict _results          # what saves of one node have said last: the same again, mostly
    cdef bint _defers_backups
    cdef bint _nulls_attributes
    cdef bint _tags_sessions
    cdef object _rank           # of the topology

    cdef int _read(self, topology, settings) except -1:
        UsualWay._read(self, topology, settings)
        self._defers_backups = settings.backup == "async" and not settings.sticky
        self._nulls_attributes = settings.on_unserializable == "blacklist"
        self._tags_sessions = settings.on_unserializable == "local_session"
        self._rank = topology.rank_primaries
        self._results = {}
        return 0

    def begin(self, SessionState state not None):
        """Return what stores the session, or a SaveResult if there is nothing to store, or None.

        Raises: nothing; what cannot be encoded, or is too large, is not as usual.
        """
        cdef bytes body
        cdef list failures = []
        self._look_around()
        if (
            state.retired
            or state.is_ended
            or state.rotated_from is not None
            or state.local_generation
            or state.local_kind is not None
            or self._nulls_attributes
            or self._ctx.is_stopped
            or not self._distribution.is_on
            or (self._tags_sessions and self._may_be_kept_here())
        ):
            return None
        body = state.attributes.encode_into(self._ctx.keeps_attribute, None, failures)
        if failures or len(body) + self._records.overhead > self._ctx.item_limits.least_record_bytes:
            return None
        if not state.must_store and (body is state.body if state.kept() else len(body) == 0):
            self._counts.count("unchanged")
            return self._result("unchanged", state.session_id.node_part(), ())
        return self.plan(state, body)

    def plan(self, SessionState state not None, bytes body not None):
        """Return the Writing that stores the session on the node that its id names and on its backups, or None.

        body: its attributes, encoded.
        """
        cdef Writing writing
        cdef Stored stored = state.stored
        cdef str home, node
        cdef list others
        self._look_around()
        home = self._home_of(state.session_id)
        if (
            home is None
            or not self._health.is_quiet
            or self._is_draining
            or self._defers_backups
            or state.moved_from is not None
            or state.own_nonces
            or (stored is not None and stored.corrupt)
        ):
            return None
        ranked = self._rank(state.session_id.plain_part()) or self._topology.ranked(state.session_id.plain_part())
        others = [node for node in ranked if node != home]
        writing = Writing.__new__(Writing)
        writing.expected = _expectations(stored, home, others[:self._replicas])
        if writing.expected is None:
            return None
        writing.state, writing.body, writing.home, writing.spares = state, body, home, others[self._replicas:]
        writing.key = self._own.storage_keys.of(state.session_id)
        nonce = self._own.nonce()
        if stored is None:
            writing.generation, writing.lineage = 1, (nonce,)
        else:
            writing.generation = next_generation(stored.generation)
            writing.lineage = (nonce, *stored.lineage)[:LINEAGE]
        if state.is_live:
            state.own_nonces = frozenset((nonce,))
        writing.record = encode_state(
            self._own, self._records, writing.key, state, body, writing.generation, writing.lineage
        )
        writing.exptime = self._own.exptime(self._own.life_s(state))
        writing.epoch = self._distribution.epoch
        writing.batches = []
        for node, expected in writing.expected.items():
            writing.batches.append(put(node, writing.key, writing.record, nonce, writing.exptime, expected))
        return writing

    def stored(self, Writing writing not None, list outcomes not None):
        """Note that every node took the record and return what the save says; None: not every one did.

        outcomes: of the writing's batches.
        """
        cdef Replies replies
        cdef Reply reply
        cdef Py_ssize_t i
        cdef dict copies = {}
        cdef SessionState state = writing.state
        cdef double now = self._monotonic()
        if not all_answered(self._health.healths, writing.batches, outcomes, now):
            return None
        for i in range(len(outcomes)):
            replies = outcomes[i]
            reply = replies[0]
            if reply.status != "HD":
                return None
            copies[(<Batch>writing.batches[i]).node] = version(replies.life, reply.cas)
        self._counts.count("round_trips")
        self.commit(state, writing.key, writing.record, writing.body, writing.generation, writing.lineage, copies)
        node = writing.home or None
        return self._result("stored", node, tuple([node for node in copies if node != writing.home]))

    def saved(self, Writing writing not None, list outcomes not None):
        """Do as `stored`, and count it: nothing else is to be done. None: there may be more."""
        cdef bint was_new = writing.state.stored is None
        if self._tags_sessions and self._may_be_kept_here():
            return None  # perhaps the session is by now, and has to have there what was stored
        result = self.stored(writing, outcomes)
        if result is not None:
            self._counts.count("created" if was_new else "stored")
        return result

    def commit(
        self,
        SessionState state not None,
        bytes key not None,
        bytes record not None,
        bytes body not None,
        generation,
        tuple lineage not None,
        dict copies not None,
    ):
        """Note that the session is stored. copies: the versions of its copies, as far as they are known."""
        cdef NearCopy before = self._own.near_copy(key)
        cdef bint has_lasted = (
            before is not None and before.has_lasted and state.stored is not None
            and before.nonce == state.stored.nonce
        )
        state.attributes.mark_saved(body)
        state.note_lifetimes_stored()
        state.stored = Stored(generation, lineage, copies, body)
        state.body = body
        state.must_store, state.moved_from = False, None
        state.own_nonces = NONE
        near = NearCopy(
            record,
            len(record),
            generation,
            lineage[0],
            state.max_inactive_s,
            copies.copy(),
            self._monotonic(),
            has_lasted,
        )
        self._own.keep_near(key, near, body)

    cdef object _result(self, str status, str node, tuple backups):
        result = self._results.get((status, node))
        if result is None or result.backups != backups:
            result = self._results[(status, node)] = SaveResult(status, node, backups)
        return result


cdef dict _expectations(Stored stored, str home, list backups):
    """Return what is known of the copies on a session's nodes, or None if that of one is not."""
    cdef dict expected = {}
    cdef str node
    cdef dict known = NOWHERE if stored is None else stored.copies
    unseen = NO_COPY if stored is None else UNKNOWN_COPY
    for node in [home, *backups]:
        copy = known.get(node, unseen)
        if copy < NO_COPY or (copy == NO_COPY and stored is not None):
            return None
        expected[node] = copy
    return expected
