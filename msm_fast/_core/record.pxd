from libc.stdint cimport uint32_t

from msm_fast._core.c_record cimport msm_frame_t


cdef uint32_t count_frames(bytes body, Py_ssize_t at) except? 0xFFFFFFFF
cdef int check_body_size(Py_ssize_t n_bytes) except -1
cdef bint find_frame(bytes body, dict index, object name, msm_frame_t *frame) except -1
cdef dict index_names(bytes body)
cdef Py_ssize_t frame_end(bytes base, Py_ssize_t start) except -1
