# A type's registration is (name, encode). Reading a dict is atomic, so no lock is needed.
cdef dict encoders
cdef frozenset BUILT_IN


cdef class Writer:
    cdef char *data
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity

    cdef int reserve(self, Py_ssize_t n_bytes) except -1
    cdef int write(self, const void *source, Py_ssize_t n_bytes) except -1
    cdef void truncate(self, Py_ssize_t size) noexcept


cdef int encode_value(Writer out, object value) except -1
cdef object encoded_by(object encode, object value)
cdef bint is_immutable(object value) except -1
cdef bint carries_type(object kind) except -1
