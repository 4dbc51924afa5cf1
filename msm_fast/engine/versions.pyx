"""The version of a node's copy: its CAS value, and the life of the node in which that was given.

memcached counts CAS values from the same start in each process, so after a restart they repeat.
Source: seen in memcached 1.6.18 and 1.6.45, where the first write after a restart got the CAS of the first one before.
"""

__all__ = ["cas_of", "life_of", "version"]

cdef int CAS_BITS = 64
cdef object CAS_MASK = (1 << 64) - 1


cpdef object version(object life, object cas):
    """Return the version of a copy with this CAS value in this life of its node; over 0, as both count from 1."""
    return life << CAS_BITS | cas


cpdef object cas_of(object version):
    """Return the CAS value of a version."""
    return version & CAS_MASK


cpdef object life_of(object version):
    """Return the life that a version belongs to; None for ABSENT and UNKNOWN, which belong to none."""
    return version >> CAS_BITS if version > 0 else None
