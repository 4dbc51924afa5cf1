# cython: nonecheck=True
"""The way that nearly every request goes: every node is up, and each answers what was expected of it.

A session is found in one round trip and stored in another. Where something is not as usual, the functions here say so
by None; what follows then is up to the flows that know all cases, which go on from the same answers. They wait for
nothing, so a driver that asks them itself needs no flow for such a request.

Compiled, since each request comes here; all that it decides is decided in the flows too.
"""

cimport cython

from msm_fast._core.attributes cimport decode_frames
from msm_fast._core.counts cimport Counts
from msm_fast._core.record cimport Record
from msm_fast._core.replies cimport Replies, Reply
from msm_fast._core.session_id cimport SessionId, parse_issued
from msm_fast._core.state cimport NO_COPY, UNKNOWN_COPY, NearCopy, SessionState, Stored
from msm_fast._core.wire cimport Batch, get, new_batch
from msm_fast.engine.copies cimport encode_state, is_over, last_access_ms, next_generation, put, question
from msm_fast.engine.essentials cimport Essentials
from msm_fast.engine.versions cimport version

from functools import partial

from msm_fast.errors import CorruptRecord
from msm_fast.local_store import MemoryStore
from msm_fast.policies import SaveResult

__all__ = ["LINEAGE", "Question", "UsualWay", "Writing", "all_answered"]

LINEAGE = 8
"""How many writes a record's lineage names, itself included."""

cdef dict NOWHERE = {}


cpdef bint all_answered(dict healths, list batches, list outcomes, double now) except -1:
    """Whether every node answered its batch, in the life that it was in before; if so, note that, else nothing.

    healths: of all nodes, by id; now: monotonic seconds.
    """
    cdef Py_ssize_t i
    cdef bint are_well = True
    for i in range(len(batches)):
        health = healths.get((<Batch?>batches[i]).node)
        if health is None or type(outcomes[i]) is not Replies or (<Replies>outcomes[i]).life != health.life:
            return False
    for i in range(len(batches)):
        health = healths[(<Batch>batches[i]).node]
        health.heard(now)
        if health.failures_in_a_row:
            are_well = False
    return are_well


@cython.final
@cython.freelist(8)
cdef class Question:
    """What a session's home is asked first, and maybe its backups: for CAS value and nonce only.

    near: what was seen of the session before. max_inactive_s: the lifetime by which its copies are touched.
    """

    @property
    def asks_backups(self):
        """Whether its backups are asked, too."""
        return len(self.batches) > 1


@cython.final
@cython.freelist(8)
cdef class Writing:
    """What stores a session on its home and its backups, all in one round trip.

    expected: per node the version of the copy that its batch replaces, or ABSENT. spares: further nodes for backups.
    epoch: of the distribution when it was planned.
    """


@cython.final
cdef class UsualWay:
    """Finds and stores sessions as long as all is as usual.

    Thread-safety: shared by all flows and threads.
    """

    cdef object _ctx            # for what else is in a Context
    cdef Essentials _own
    cdef object _health
    cdef object _distribution
    cdef object _records
    cdef object _serializers
    cdef object _monotonic
    cdef Counts _counts
    cdef dict _results          # what saves of one node have said last: the same again, mostly
    cdef bint _is_sticky
    cdef bint _are_sealed       # records, with secrets
    cdef object _settings       # what follows is true of these settings
    cdef object _topology       # and this topology
    cdef dict _nodes
    cdef bint _encodes_node
    cdef bint _is_draining
    cdef bint _defers_backups
    cdef bint _nulls_attributes
    cdef bint _tags_sessions
    cdef object _rank
    cdef dict _by_digest
    cdef Py_ssize_t _replicas
    cdef Py_ssize_t _validate_over
    cdef object _max_inactive

    def __init__(self, ctx):
        self._ctx, self._own = ctx, ctx.essentials
        self._health = ctx.health
        self._distribution = ctx.distribution
        self._records = ctx.records
        self._serializers = ctx.serializers
        self._monotonic = ctx.clock.monotonic
        self._counts = ctx.counters
        self._results = {}
        self._is_sticky = ctx.settings.sticky
        self._are_sealed = ctx.records.seals

    cdef int _look_around(self) except -1:
        """Read settings and nodes again if they have been replaced."""
        topology, settings = self._ctx.topology, self._ctx.settings
        if topology is self._topology and settings is self._settings:
            return 0
        self._nodes = topology.nodes
        self._encodes_node = topology.encodes_node
        self._is_draining = bool(topology.draining)
        self._defers_backups = settings.backup == "async" and not settings.sticky
        self._nulls_attributes = settings.on_unserializable == "blacklist"
        self._tags_sessions = settings.on_unserializable == "local_session"
        self._rank = topology.rank_primaries
        self._by_digest = topology.by_digest
        self._replicas = settings.replicas
        self._validate_over = settings.near_cache.validate_over
        self._max_inactive = settings.max_inactive
        self._results = {}
        self._topology, self._settings = topology, settings
        return 0

    cdef str _home_of(self, SessionId session_id):
        """Return the node that the id names, or None if it is none that is in use."""
        cdef str node = session_id.node_part()
        if node is None:
            if self._encodes_node:
                return None
            node = ""
        return node if node in self._nodes else None

    # -- finding

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

    cdef bint _may_be_kept_here(self) except -1:
        local = self._ctx.local
        return type(local) is not MemoryStore or len(local.records) > 0

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
        if home is None or not (
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
            or (self._is_draining and home in self._topology.draining)
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

    # -- storing

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
            or state.has_moved
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
        """Do as `stored`, and count it: nothing else is to be done."""
        cdef bint was_new = writing.state.stored is None
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
            and before.nonce == state.stored.lineage[0]
        )
        state.attributes.mark_saved(body)
        state.note_lifetimes_stored()
        state.stored = Stored(generation, lineage, copies, body)
        state.body = body
        state.must_store = state.has_moved = False
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


cdef frozenset NONE = frozenset()


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
