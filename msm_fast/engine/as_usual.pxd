cimport cython

from msm_fast._core.state cimport NearCopy, SessionState
from msm_fast._core.session_id cimport SessionId


@cython.final
cdef class Question:
    cdef readonly list batches
    cdef readonly SessionId session_id
    cdef readonly bytes key
    cdef readonly str home
    cdef readonly NearCopy near
    cdef readonly long max_inactive_s


@cython.final
cdef class Writing:
    cdef readonly list batches
    cdef readonly SessionState state
    cdef readonly bytes key
    cdef readonly bytes record
    cdef readonly bytes body
    cdef readonly object generation
    cdef readonly tuple lineage
    cdef readonly str home
    cdef readonly dict expected
    cdef readonly list spares
    cdef readonly object exptime
    cdef readonly object epoch
