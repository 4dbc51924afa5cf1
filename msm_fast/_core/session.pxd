from msm_fast._core.state cimport SessionState


cdef class Session:
    cdef object _find
    cdef object _mint
    cdef object _presented
    cdef SessionState _state
    cdef readonly bint was_used

    cdef SessionState _now(self)
    cdef SessionState _look_up(self)
