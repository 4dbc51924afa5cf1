cimport cython

from msm_fast._core.attributes cimport AttributeMap
from msm_fast._core.record cimport Record
from msm_fast._core.session_id cimport SessionId

cdef enum Expected:
    UNKNOWN_COPY = -1   # nothing is known, ask first
    NO_COPY = 0         # there is none; memcached counts CAS values from 1


@cython.final
cdef class Stored:
    cdef public object generation
    cdef public tuple lineage
    cdef public dict copies
    cdef public bytes body
    cdef public frozenset corrupt
    cdef public tuple lifetimes


@cython.final
cdef class NearCopy:
    cdef public object content
    cdef public Py_ssize_t size
    cdef public unsigned long long generation
    cdef public object nonce
    cdef public long max_inactive_s
    cdef public dict copies
    cdef public double asked_at
    cdef public bint has_lasted

    cpdef Record record(self, object records, bytes key)
    cpdef bint is_copy(self, str node, object version, object nonce) except -1


@cython.final
cdef class SessionState:
    cdef object __weakref__
    cdef public SessionId session_id
    cdef public AttributeMap attributes
    cdef public long long created_ms
    cdef public long long accessed_ms
    cdef public long max_inactive_s
    cdef public long absolute_lifetime_s
    cdef public long stored_max_inactive_s
    cdef public long stored_absolute_lifetime_s
    cdef public Stored stored
    cdef public bytes body
    cdef public str local_kind
    cdef public object local_generation
    cdef public dict unencodable
    cdef public bint must_store
    cdef public bint is_being_saved
    cdef public bint must_store_again
    cdef public str moved_from
    cdef public tuple retired
    cdef public long retired_max_inactive_s
    cdef public bint is_new
    cdef public bint is_ended
    cdef public Stored rotated_from
    cdef public bint is_live
    cdef public bint was_ended
    cdef public object used_at
    cdef public double touch_at
    cdef public object revision
    cdef public object written_revision
    cdef public object turn
    cdef public frozenset own_nonces
    cdef public SessionState unsettled
    cdef public bytes merge_base
    cdef public object epoch

    cdef bint kept(self)
    cpdef int note_lifetimes_stored(self) except -1
    cpdef long longest_max_inactive_s(self) except -1
