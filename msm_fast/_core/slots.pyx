"""What an attribute map holds for a name, how that is read from a frame and written to one, and what has changed.

A chain is a `SerializerChain`: the functions that take one look into the tuple that it is.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy

from msm_fast._core.c_record cimport MSM_FRAME_HEAD_SIZE, msm_frame_head_write, msm_frame_t
from msm_fast._core.codec cimport Writer, decode_value, encode_value, is_immutable
from msm_fast._core.record cimport check_body_size, frame_end

from msm_fast._core import serializers
from msm_fast._core.serializers import AttributeFailure

__all__ = []

cdef object NATIVE = serializers.NATIVE


@cython.final
@cython.freelist(64)
cdef class Slot:
    pass


cdef Slot make_slot(object value, Py_ssize_t start):
    cdef Slot slot = Slot.__new__(Slot)
    slot.value = value
    slot.start = start
    return slot


cdef bint is_native_first(object chain) noexcept:
    return PyTuple_GET_ITEM(chain, 0) == <PyObject *> NATIVE


cdef Slot read_slot(object chain, str name, bytes base, const msm_frame_t *frame, list failures):
    """Return what frame holds; a value that can't be decoded is None, and one more of the failures."""
    cdef Slot slot = make_slot(None, frame.start)
    cdef const uint8_t *buf = <const uint8_t *> PyBytes_AS_STRING(base)
    try:
        if frame.tag == 0:
            slot.value = decode_value(buf, frame.value, frame.end)
        else:
            slot.value = chain.loads(frame.tag, base[frame.value:frame.end])
    except Exception as error:
        failures.append(AttributeFailure(name, "unknown", error))
        slot.is_clean = slot.is_failed = True
        return slot
    slot.is_clean = is_immutable(slot.value)
    if not slot.is_clean and (frame.tag != 0 or not is_native_first(chain)):
        slot.expected = encode_frame(chain, name, slot.value)
    return slot


cdef bytes encode_frame(object chain, str name, object value):
    """Return the frame chain writes for value; empty, which no frame is, when it can't encode it."""
    cdef Writer out = Writer()
    write_frame(chain, out, name, value, [])
    return PyBytes_FromStringAndSize(out.data, out.size)


cdef bint write_frame(object chain, Writer out, str name, object value, list failures) except -1:
    """Append a frame, or nothing and a failure."""
    cdef Py_ssize_t n_name, n_value
    cdef Py_ssize_t frame = out.size
    cdef const char *utf8 = PyUnicode_AsUTF8AndSize(name, &n_name)
    out.reserve(MSM_FRAME_HEAD_SIZE + n_name)
    out.size += MSM_FRAME_HEAD_SIZE
    out.write(utf8, n_name)
    n_value = out.size
    try:
        tag = write_value(chain, out, value)
        n_value = out.size - n_value
        if n_value > 0xFFFFFFFF:
            raise ValueError("the value takes more than 4 GiB")
    except Exception as error:
        out.truncate(frame)
        kind = type(value)
        failures.append(AttributeFailure(name, f"{kind.__module__}.{kind.__qualname__}", error))
        return False
    msm_frame_head_write(<uint16_t> n_name, tag, <uint32_t> n_value, <uint8_t *> out.data + frame)
    return True


cdef int write_value(object chain, Writer out, object value) except -1:
    """Append value as the first serializer that can encode it does; return the tag of its frames."""
    cdef Py_ssize_t start = out.size
    cdef bytes payload
    if is_native_first(chain) and PyTuple_GET_SIZE(chain) == 1:
        encode_value(out, value)
        return 0
    failure = None
    for serializer, (tag, prefix) in zip(chain, chain.heads):
        try:
            if serializer is NATIVE:
                encode_value(out, value)
                return tag
            payload = prefix + serializer.dumps(value)
            out.write(PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
            return tag
        except Exception as error:
            out.truncate(start)
            failure = error
    raise failure


cdef bint is_equal(const char *one, Py_ssize_t n_one, const char *other, Py_ssize_t n_other) noexcept nogil:
    return n_one == n_other and memcmp(one, other, n_one) == 0


cdef bint is_unchanged(Slot slot, bytes base, Py_ssize_t start, Writer out, Py_ssize_t at) except -1:
    """Tell whether the frame just written at `at` of out is the one at start of base."""
    cdef Py_ssize_t end = frame_end(base, start)
    cdef const char *frame = out.data + at
    cdef Py_ssize_t n_frame = out.size - at
    if slot.expected is not None:
        return is_equal(frame, n_frame, PyBytes_AS_STRING(slot.expected), PyBytes_GET_SIZE(slot.expected))
    if not is_equal(frame, n_frame, PyBytes_AS_STRING(base) + start, end - start):
        return False
    slot.is_clean = slot.start >= 0 and is_immutable(slot.value)
    return True


cdef bytes splice(bytes base, list edits, Writer out):
    """Return base with pieces of out in place of pieces of its own, and the rest of out after it."""
    cdef Py_ssize_t start, end, out_start, out_end = 0, done = 0
    cdef Py_ssize_t n_bytes = PyBytes_GET_SIZE(base) + out.size
    for start, end, _, _ in edits:
        n_bytes -= end - start
        if start < done or end > PyBytes_GET_SIZE(base):
            raise RuntimeError("the map was saved or rebased by another thread meanwhile")
        done = end
    check_body_size(n_bytes)
    body = PyBytes_FromStringAndSize(NULL, n_bytes)
    cdef const char *source = PyBytes_AS_STRING(base)
    cdef char *target = PyBytes_AS_STRING(body)
    done = 0
    for start, end, out_start, out_end in edits:
        memcpy(target, source + done, start - done)
        target += start - done
        memcpy(target, out.data + out_start, out_end - out_start)
        target += out_end - out_start
        done = end
    memcpy(target, source + done, PyBytes_GET_SIZE(base) - done)
    target += PyBytes_GET_SIZE(base) - done
    memcpy(target, out.data + out_end, out.size - out_end)
    if is_equal(PyBytes_AS_STRING(body), n_bytes, source, PyBytes_GET_SIZE(base)):
        return base
    return body


cdef list in_map_order(dict live):
    """Return the items of live: those with a frame in the base by its place, then the others as they were set."""
    cdef Slot slot
    based = [(slot.start, name, slot) for name, slot in live.items() if slot.start >= 0]
    based.sort()
    items = [(name, slot) for _, name, slot in based]
    return items + [(name, slot) for name, slot in live.items() if slot.start < 0]
