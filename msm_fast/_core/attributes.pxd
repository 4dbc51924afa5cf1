cimport cython
from libc.stdint cimport uint32_t

from msm_fast._core.c_record cimport msm_frame_t
from msm_fast._core.encoder cimport Writer
from msm_fast._core.slots cimport Slot


@cython.final
cdef class AttributeMap:
    cdef bytes _base        # the frames last decoded or saved
    cdef uint32_t _n_base   # how many
    cdef dict _index        # name → start of its frame in the base; None until it pays
    cdef int _n_searches
    cdef dict _live         # name → Slot, for every name read or set, in that order
    cdef dict _removed      # name → start of its frame in the base or -1, for every name removed since
    cdef list _failures
    cdef object _chain
    cdef object _on_failure

    cdef bytes encode_into(self, object keep, dict nulls, list failures)
    cdef bint _is_own_change(self, str name, Slot slot, bytes base, Writer out, bint if_unencodable) except -1
    cdef int _adopt(self, bytes body, dict judged, set own) except -1
    cdef bint _find(self, bytes base, object name, msm_frame_t *frame) except -1
    cdef int _make_index(self) except -1
    cdef Slot _slot(self, object name)
    cdef bint _remove(self, object name) except -1
    cdef list _names(self)


cdef AttributeMap decode_frames(bytes body, object chain, object on_failure)
