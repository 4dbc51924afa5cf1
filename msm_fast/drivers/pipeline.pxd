from msm_fast._core.replies cimport ReplyParser
from msm_fast._core.wire cimport Batch


cdef class Agenda:
    cdef public object loop
    cdef readonly double operation_s
    cdef readonly dict due
    cdef public double next_at
    cdef readonly double read_until
    cdef double _most_s
    cdef double _looked_at      # of time.monotonic()
    cdef double _at_look        # what the clock showed then

    cdef double _now(self) except -1
    cpdef int look(self) except -1
    cpdef int look_at(self, object waiting, double at) except -1
    cdef int expect(self, RoundTrip round_trip) except -1
    cpdef int forget(self, object waiting) except -1


cdef class RoundTrip:
    cdef readonly list pending
    cdef readonly object has_ended
    cdef readonly double deadline
    cdef readonly double sent_at
    cdef readonly Py_ssize_t n_unsent
    cdef public bint waits_for_connection
    cdef Agenda _agenda
    cdef Py_ssize_t _n_open
    cdef double _ended_at

    cdef int _batch_sent(self) except -1
    cdef int _batch_ended(self, bint was_sent) except -1
    cdef int _begin_to_count(self) except -1


cdef class PendingBatch:
    cdef readonly Batch batch
    cdef readonly object connection
    cdef readonly object outcome
    cdef readonly bint is_over
    cdef RoundTrip _round_trip

    cdef int _sent_on(self, object connection) except -1


cdef class _Group:
    cdef list batches           # of PendingBatch, in the order of their commands
    cdef ReplyParser parser
    cdef Py_ssize_t n_ended     # of the batches
    cdef Py_ssize_t n_given     # of the replies

    cdef bint give(self, object life, bint compares) except -1


cdef class Pipeline:
    cdef list _unsent
    cdef object _groups
    cdef unsigned long long _opaque
