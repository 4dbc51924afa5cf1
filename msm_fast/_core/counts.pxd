cdef class Counts:
    cdef dict _counts

    cdef int count(self, str name) except -1
