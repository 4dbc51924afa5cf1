cimport cython
from libc.stdint cimport uint8_t


cdef extern from "msm_session_id.h":
    ctypedef struct msm_session_id_t:
        uint8_t plain_len
        uint8_t node_len
        uint8_t route_len


@cython.final
cdef class SessionId:
    cdef str _text
    cdef msm_session_id_t _parts

    cdef bint has_issued_form(self)
    cdef str plain_part(self)
    cdef str node_part(self)


@cython.final
cdef class StorageKeys:
    cdef bytes _prefix
    cdef bint _hashes_ids

    cpdef bytes of(self, SessionId session_id)


cdef SessionId parse(object text)
cdef SessionId parse_issued(object text)
