cimport cython

from msm_fast._core.counts cimport Counts
from msm_fast._core.session_id cimport StorageKeys
from msm_fast._core.state cimport NearCopy, SessionState


@cython.final
cdef class Essentials:
    cdef readonly object clock
    cdef readonly object rng
    cdef readonly Counts counters
    cdef readonly StorageKeys storage_keys
    cdef readonly object storage_key
    cdef readonly long default_max_inactive_s
    cdef object _monotonic
    cdef object _wall
    cdef object _near
    cdef list _nonces

    cpdef NearCopy near_copy(self, bytes key)
    cpdef int keep_near(self, bytes key, NearCopy near, bytes body) except -1
    cpdef bint must_ask_backups(self, NearCopy near) except -1
    cpdef long long now_ms(self) except? -1
    cpdef object nonce(self)
    cpdef long long ttl_s(
        self, long long max_inactive_s, long long created_ms=*, long long absolute_lifetime_s=*
    ) except? -1
    cpdef long long life_s(self, SessionState state) except? -1
    cpdef double idle_s(self, SessionState state) except? -1.0
    cpdef object exptime(self, long long ttl_s)
    cpdef object touch_exptime(self, long long ttl_s)
    cdef list _draw_nonces(self)
