cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t


@cython.final
cdef class Entry:
    # First what a look-up reads, so that it is in as few cache lines as may be.
    cdef Py_hash_t hash
    cdef object key
    cdef object value
    cdef double deadline    # on the cache's clock; infinity: none
    cdef uint64_t used      # the stamp of its last use
    cdef PyObject *chain    # the next of its bucket; of a dead entry: the next dead one
    cdef uint64_t placed    # the stamp by which it stands in the heap: the last one when it was put there
    cdef Py_ssize_t slot    # where it stands in the heap
    cdef size_t size
