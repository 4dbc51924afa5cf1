from libc.stdint cimport uint64_t

from msm_fast._core.replies cimport ReplyParser


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
