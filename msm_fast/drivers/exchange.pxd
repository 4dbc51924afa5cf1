from libc.stdint cimport uint64_t

from msm_fast._core.replies cimport ReplyParser


cdef enum:
    MOST_AT_ONCE = 4        # connections, which share the room for what is read


cdef class PlainConnection:
    cdef public int fd
    cdef double busy_poll_s
    cdef double patience_s
    cdef readonly int misses
    cdef readonly int rest
    cdef public object life
    cdef public bint compares
    cdef public uint64_t opaque
    cdef public ReplyParser parser
    cdef public object unsent


cdef bint are_silent(list connections) noexcept
cdef list write_and_read(list connections, batches, double until_s)
