cimport cython

from msm_fast._core.record cimport Record
from msm_fast._core.replies cimport Replies
from msm_fast._core.state cimport NearCopy, SessionState
from msm_fast._core.wire cimport Batch, Command
from msm_fast.engine.essentials cimport Essentials


@cython.final
cdef class Copy:
    cdef readonly Py_ssize_t size
    cdef readonly Record record
    cdef readonly object version
    cdef readonly object nonce


cpdef bint is_over(Essentials own, Record record) except -1
cpdef object last_access_ms(Essentials own, Record record, long long ttl_s)
cpdef unsigned long long next_generation(unsigned long long generation, unsigned long long n_steps=*) noexcept
cpdef bytes encode_state(
    Essentials own, object records, bytes key, SessionState state, bytes body, object generation, tuple lineage
)
cpdef Command question(dict healths, Py_ssize_t validate_over, NearCopy near, str node, bytes key, object exptime)
cpdef Batch put(str node, bytes key, bytes record, object nonce, object exptime, object expected)
