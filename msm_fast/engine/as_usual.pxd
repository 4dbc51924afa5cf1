from msm_fast._core.counts cimport Counts
from msm_fast._core.session_id cimport SessionId
from msm_fast.engine.essentials cimport Essentials


cdef class UsualWay:
    cdef object _ctx            # for what else is in a Context
    cdef Essentials _own
    cdef object _health
    cdef object _distribution
    cdef object _records
    cdef object _monotonic
    cdef Counts _counts
    cdef object _settings       # what follows is true of these settings
    cdef object _topology       # and this topology
    cdef dict _nodes
    cdef bint _encodes_node
    cdef bint _is_draining
    cdef Py_ssize_t _replicas

    cdef int _look_around(self) except -1
    cdef int _read(self, topology, settings) except -1
    cdef str _home_of(self, SessionId session_id)
    cdef bint _may_be_kept_here(self) except -1


cpdef bint all_answered(dict healths, list batches, list outcomes, double now) except -1
