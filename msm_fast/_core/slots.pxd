cimport cython

from msm_fast._core.c_record cimport msm_frame_t
from msm_fast._core.encoder cimport Writer


# What the map holds for a name that was read or set. A slot is replaced, never changed, but for is_clean and is_null,
# which only ever become true: so an encoding under way keeps seeing what it began with.
@cython.final
cdef class Slot:
    cdef object value
    cdef Py_ssize_t start  # where the frame of this name stands in the base; -1 when it has none
    cdef bint is_clean     # the frame holds the value and always will: it is immutable, or could not be decoded
    cdef bint is_null      # null was stored in place of the value, which was not set again since
    cdef bint is_failed    # the frame could not be decoded; value is None, and before the map has it the failure
    cdef bytes expected    # how the frame would look if this chain had written it; None when it has
    cdef object writer     # the chain that writes the value, where it was read and the map's own cannot; else None


cdef Slot make_slot(object value, Py_ssize_t start)
cdef Slot read_slot(object chain, str name, bytes base, const msm_frame_t *frame)
cdef bytes encode_slots(object chain, bytes base, dict live, dict removed, object keep, dict nulls, list failures)
cdef bytes null_frames(bytes body, object names)
cdef object writer_of(Slot slot, object chain)
cdef bint write_frame(object chain, Writer out, str name, object value, list failures) except -1
cdef bint is_unchanged(Slot slot, bytes base, Py_ssize_t start, Writer out, Py_ssize_t at) except -1
cdef dict move_slots(dict live, bytes base, bytes body, dict index, dict judged, set own)
