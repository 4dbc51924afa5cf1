cimport cython
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from msm_fast._core.c_record cimport msm_frame_t


@cython.final
cdef class Record:
    cdef readonly uint64_t generation
    cdef readonly uint64_t created_ms
    cdef readonly uint64_t accessed_ms
    cdef readonly uint32_t max_inactive_s
    cdef readonly uint32_t absolute_lifetime_s
    cdef readonly bint is_tombstone
    cdef readonly bytes body
    cdef readonly uint32_t home
    cdef readonly uint16_t key_id
    cdef readonly bint is_encrypted
    cdef uint32_t _lineage[8]

    cdef tuple nonces(self)


cdef uint32_t count_frames(bytes body, Py_ssize_t at) except? 0xFFFFFFFF
cdef int check_body_size(Py_ssize_t n_bytes) except -1
cdef bint find_frame(bytes body, dict index, object name, msm_frame_t *frame) except -1
cdef dict index_names(bytes body, Py_ssize_t at=*)
cdef Py_ssize_t frame_end(bytes base, Py_ssize_t start) except -1
