cimport cython
from libc.stdint cimport uint64_t

cdef enum Verb:
    MG
    MS
    MD
    MN
    VERSION


@cython.final
cdef class Command:
    cdef readonly str verb
    cdef readonly bytes key
    cdef Verb _verb
    cdef bytes _head        # the request line without opaque and line end
    cdef bytes _value       # None: no data block
    cdef bint _needs_value  # a reply without one is no answer


@cython.final
cdef class Batch:
    cdef readonly str node
    cdef readonly tuple commands
    cdef readonly object life


cdef inline bint has_opaque(Verb verb) noexcept:
    return verb <= MD


cdef tuple checked_commands(object commands)
cdef uint64_t checked_number(str name, object number, uint64_t maximum) except? 0
cdef bytes encode_checked(tuple commands, uint64_t first_opaque)
cdef Batch new_batch(str node, Command command, object life)

cpdef Command get(bytes key, object exptime=*, bint value=*, object cas=*)
cpdef Command store(bytes key, bytes value, object client_flags, object exptime, object cas=*, bint add=*)
cpdef object exptime(object ttl_s, object now_s)
