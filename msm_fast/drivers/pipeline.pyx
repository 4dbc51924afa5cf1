"""What is on its way in an event loop: on each connection a pipeline of batches, and round trips that wait for them.

There is no I/O here: bytes to write are returned, and those that came are given.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport INFINITY
from libc.stdint cimport uint8_t

from msm_fast._core.replies cimport new_parser, new_replies
from msm_fast._core.wire cimport Batch, encode_checked

from collections import deque
from time import monotonic

from msm_fast._core.replies import ProtocolError

__all__ = ["Agenda", "PendingBatch", "Pipeline", "RoundTrip"]


cdef class Agenda:
    """Which round trips are on their way, and when each is to be looked at; and the clock of all who wait in a loop.

    The clock shows the time that the loop had for them. It is looked at every few milliseconds, and between two looks
    goes on by no more than most_s: the rest of that time, the loop was held up. While nobody is in due it stands still.

    loop: that in which `start` was called first. operation_s: how long a node may say nothing. due: when each is to be
    looked at, by this clock; inf: never, it only needs the clock. next_at: nothing is due before that. read_until: what
    has come until then has been read.
    Thread-safety: of one event loop.
    """

    def __init__(self, double operation_s, double most_s):
        self.operation_s = operation_s
        self.due = {}
        self.next_at = INFINITY
        self._most_s = most_s
        self._looked_at = monotonic()

    def now(self):
        """Return the time by this clock, in seconds."""
        return self._now()

    cdef double _now(self) except -1:
        cdef double passed_s = <double>monotonic() - self._looked_at
        return self._at_look + min(passed_s, self._most_s)

    def start(self):
        """Have the clock looked at from now on, while anybody is in due."""
        raise NotImplementedError

    cpdef int look(self) except -1:
        """Note that the loop is there: it has read what had come when this was called before."""
        cdef double now = monotonic()
        self.read_until = self._at_look
        self._at_look += min(now - self._looked_at, self._most_s)
        self._looked_at = now
        return 0

    cpdef int look_at(self, object waiting, double at) except -1:
        """Look at it then; inf: never."""
        if not self.due:
            self.start()
        self.due[waiting] = at
        self.next_at = min(self.next_at, at)
        return 0

    cdef int expect(self, RoundTrip round_trip) except -1:
        """Give up what has no answer in time from now, or from when it was sent, until `forget`."""
        return self.look_at(round_trip, min(round_trip.sent_at + self.operation_s, round_trip.deadline))

    cpdef int forget(self, object waiting) except -1:
        """Do not look after it any more."""
        self.due.pop(waiting, None)
        return 0


@cython.final
cdef class RoundTrip:
    """The batches of one exchange, and who waits for them.

    deadline: by the agenda's clock, as all times here. agenda: who looks at it until it is closed.
    pending: the batches on their way. has_ended: a future, done once each of them has an outcome.
    sent_at: when the last of them was sent; while n_unsent are not, when it began.
    waits_for_connection: what was noted when it was looked at.
    Thread-safety: of one event loop.
    """

    def __init__(self, batches, double deadline, Agenda agenda not None):
        self.deadline = deadline
        self._agenda = agenda
        self.sent_at = agenda._now()
        self.pending = [_pending(batch, self) for batch in batches]
        self.n_unsent = self._n_open = len(self.pending)
        agenda.expect(self)
        self.has_ended = agenda.loop.create_future()
        if not self.pending:
            self.has_ended.set_result(None)

    @property
    def outcomes(self):
        """The outcomes that there are, in the order of the batches."""
        cdef PendingBatch pending
        return [pending.outcome for pending in self.pending if pending.outcome is not None]

    @property
    def left_s(self):
        """What is left of the time until its deadline, before it is closed.

        It is charged until it ended, however late who waits for it wakes up.
        """
        return self.deadline - (self._ended_at or self._agenda._now())

    def close(self):
        """Want no outcome any more of what has none yet."""
        cdef PendingBatch pending
        for pending in self.pending:
            pending.is_over = True
            pending._round_trip = None  # a cycle would be left to the garbage collector
        self._agenda.forget(self)

    cdef int _batch_sent(self) except -1:
        self.n_unsent -= 1
        return self._begin_to_count()

    cdef int _batch_ended(self, bint was_sent) except -1:
        self._n_open -= 1
        if self._n_open == 0:
            self._ended_at = self._agenda._now()
            if not self.has_ended.done():
                self.has_ended.set_result(None)
        elif not was_sent:
            self.n_unsent -= 1
            self._begin_to_count()
        return 0

    cdef int _begin_to_count(self) except -1:
        if self.n_unsent == 0:
            self.sent_at = self._agenda._now()
            if self.waits_for_connection:
                self._agenda.expect(self)
        return 0


@cython.final
@cython.freelist(64)
cdef class PendingBatch:
    """A batch on its way, until it has an outcome or nobody wants one any more. Made by RoundTrip.

    connection: on which it was sent; None: on none yet. is_over: it has an outcome, or nobody waits for one: not sent
    yet, it never is; else its replies are read and dropped.
    """

    def __cinit__(self):
        self.is_over = True  # until _pending has made it what it is

    def __init__(self):
        raise TypeError("a pending batch is made by RoundTrip")

    def end(self, outcome not None):
        """Give the outcome; a second one is dropped."""
        if not self.is_over:
            self.is_over = True
            self.outcome = outcome
            self._round_trip._batch_ended(self.connection is not None)

    cdef int _sent_on(self, object connection) except -1:
        """Note that it was written; from now on a failure leaves it unknown whether it was carried out."""
        self.connection = connection
        if self._round_trip is None:  # closed meanwhile, by a finalizer
            return 0
        return self._round_trip._batch_sent()


cdef PendingBatch _pending(Batch batch, RoundTrip round_trip):
    cdef PendingBatch pending = PendingBatch.__new__(PendingBatch)
    pending.batch = batch
    pending._round_trip = round_trip
    pending.is_over = False
    return pending


@cython.final
cdef class _Group:
    """Batches that were written together: one write, one parser, replies in their order."""

    cdef bint give(self, object life, bint compares) except -1:
        """Give the batches their replies that are complete; return whether any were."""
        cdef Py_ssize_t end
        cdef Py_ssize_t n_before = self.n_ended
        cdef PendingBatch pending
        while self.n_ended < len(self.batches):
            pending = self.batches[self.n_ended]
            end = self.n_given + len(pending.batch.commands)
            if end > len(self.parser.replies):
                break
            if not pending.is_over:
                pending.end(new_replies(self.parser.replies[self.n_given:end], life, compares))
            self.n_given = end
            self.n_ended += 1
        return self.n_ended > n_before


@cython.final
cdef class Pipeline:
    """The batches of one connection: those to be written next, and those whose replies are to come.

    Batches that are written together are a group; groups follow each other without waiting. Replies come in the order
    of the commands, and each carries the opaque of its command, so that a stream that went wrong is noticed.

    first_opaque: of the first command.
    Thread-safety: of one event loop.
    """

    def __init__(self, first_opaque):
        self._opaque = first_opaque
        self._unsent = []
        self._groups = deque()

    @property
    def is_idle(self):
        """Whether there is nothing to write, and nothing to come."""
        return not self._unsent and not self._groups

    def add(self, PendingBatch pending not None):
        """Have a batch written next; return whether it is the first to be."""
        self._unsent.append(pending)
        return len(self._unsent) == 1

    def write(self, connection):
        """Return what to write now on the connection, the commands in it and the opaque of their first; or None."""
        cdef PendingBatch pending
        cdef list batches = self.pop_unsent()
        cdef list commands = []
        cdef _Group group
        if not batches:
            return None
        for pending in batches:
            commands.extend(pending.batch.commands)
        group = _Group.__new__(_Group)
        group.batches = batches
        group.parser = new_parser(tuple(commands), self._opaque)
        self._groups.append(group)
        written = encode_checked(tuple(commands), self._opaque), commands, self._opaque
        self._opaque += <unsigned long long>len(commands)
        for pending in batches:
            pending._sent_on(connection)
        return written

    def take(self, bytes data not None, life, bint compares):
        """Give each batch its replies that are complete, with the node's life and what it can do (see Replies).

        data: any piece of the stream. Returns: whether a batch was answered.
        Raises:  ProtocolError; what came before the nonsense has been given.
        """
        cdef const uint8_t *text = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef size_t at = 0
        cdef size_t n = <size_t>PyBytes_GET_SIZE(data)
        cdef bint has_given = False
        cdef _Group group
        while at < n:
            if not self._groups:
                raise ProtocolError("bytes that nobody asked for")
            group = self._groups[0]
            try:
                at += group.parser.take_own(text + at, n - at)
            finally:
                has_given |= group.give(life, compares)
            if group.n_ended == len(group.batches):
                self._groups.popleft()
        return has_given

    def pop_unsent(self):
        """Return and forget the batches that are to be written and still wanted."""
        cdef PendingBatch pending
        cdef list unsent = self._unsent
        self._unsent = []
        return [pending for pending in unsent if not pending.is_over]

    def pop_sent(self):
        """Return and forget the batches that were written and have no outcome yet, but for those nobody wants."""
        cdef _Group group
        cdef PendingBatch pending
        cdef list sent = []
        for group in self._groups:
            sent += [pending for pending in group.batches if not pending.is_over]
        self._groups.clear()
        return sent
