"""What an attribute map holds for a name, how that is read from a frame and written to one, and what has changed.

A chain is a `SerializerChain`: the functions that take one look into the tuple that it is.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy

from msm_fast._core.c_record cimport MSM_FRAME_HEAD_SIZE, msm_frame_head_write, msm_frame_t
from msm_fast._core.decoder cimport decode_value
from msm_fast._core.encoder cimport Writer, carries_type, encode_value, encoded_by, is_immutable
from msm_fast._core.record cimport check_body_size, find_frame, frame_end, index_names

from msm_fast._core import serializers
from msm_fast._core.serializers import AttributeFailure

__all__ = []

cdef object NATIVE = serializers.NATIVE
cdef object NATIVE_CHAIN = serializers.resolve_serializers("native")

cdef char NIL = b"\xc0"  # of MessagePack

cdef enum:
    NOTHING_WRITTEN
    VALUE_WRITTEN
    NULL_WRITTEN


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


cdef Slot read_slot(object chain, str name, bytes base, const msm_frame_t *frame):
    """Return what frame holds; for what can't be decoded, a failed slot with the failure as its value."""
    cdef Slot slot = make_slot(None, frame.start)
    cdef const uint8_t *buf = <const uint8_t *> PyBytes_AS_STRING(base)
    try:
        if frame.tag == 0:
            slot.value = decode_value(buf, frame.value, frame.end)
        else:
            slot.value = chain.loads(frame.tag, base[frame.value:frame.end])
    except MemoryError:  # there may be some for the next request: the value is as good as before
        raise
    except Exception as error:
        slot.value = AttributeFailure(name, "unknown", error)
        slot.is_clean = slot.is_failed = True
        return slot
    slot.is_clean = is_immutable(slot.value)
    if not slot.is_clean and (frame.tag != 0 or not is_native_first(chain)):
        slot.expected = encode_frame(chain, name, slot.value)
        if not slot.expected:
            # It was read from what another chain wrote, and stays storable in that form.
            slot.writer = chain.with_reader_of(frame.tag)
            slot.expected = encode_frame(slot.writer, name, slot.value)
    return slot


cdef object writer_of(Slot slot, object chain):
    """Return the chain that writes the slot's value. chain: the map's own."""
    return chain if slot.writer is None else slot.writer


cdef bytes encode_frame(object chain, str name, object value):
    """Return the frame chain writes for value; empty, which no frame is, when it can't encode it."""
    cdef Writer out = Writer()
    write_frame(chain, out, name, value, [])
    return PyBytes_FromStringAndSize(out.data, out.size)


cdef bytes encode_slots(object chain, bytes base, dict live, dict removed, object keep, dict nulls, list failures):
    """Return base with the changes that live and removed say; base itself if there are none.

    live, removed: as `AttributeMap` has them; live belongs to the caller alone. keep, nulls: as for its `encode`.
    """
    cdef Writer out = Writer()
    cdef list edits = []  # (start, end) in base, and the (start, end) in out that stands in its place
    cdef list touched = [(start, name, None) for name, start in removed.items() if start >= 0]
    cdef Slot slot
    cdef Py_ssize_t at, start
    cdef int written
    cdef bint is_kept
    if base:
        for name, slot in live.items():
            if slot.start >= 0 and not slot.is_clean:
                touched.append((slot.start, name, slot))
        touched.sort()
    for start, name, slot in touched:
        at = out.size
        is_kept = keep is None or keep(name)
        if slot is not None:
            written = write_value_or_null(
                writer_of(slot, chain), out, name, slot.value, nulls, failures if is_kept else []
            )
            slot.is_null |= written == NULL_WRITTEN and is_frame_of(base, start, out, at)
            if (written == VALUE_WRITTEN and is_unchanged(slot, base, start, out, at)) or (
                written == NULL_WRITTEN and slot.is_null
            ):
                out.truncate(at)
                continue
        if not is_kept:
            out.truncate(at)
        edits.append((start, frame_end(base, start), at, out.size))
    at = out.size
    for name, slot in live.items():
        if slot.start < 0 and (keep is None or keep(name)):
            write_value_or_null(writer_of(slot, chain), out, name, slot.value, nulls, failures)
    if not edits and out.size == at:
        return base
    if keep is not None:
        edits = with_others_left_out(edits, base, keep)
    return splice(base, edits, out)


cdef bytes null_frames(bytes body, object names):
    """Return body with null as the value of each of names, all of which are in it."""
    cdef Writer out = Writer()
    cdef list edits = []
    cdef Py_ssize_t at
    cdef dict index = index_names(body)
    for name in sorted(names, key=index.__getitem__):
        at = out.size
        write_null(out, name)
        edits.append((index[name], frame_end(body, index[name]), at, out.size))
    return splice(body, edits, out)


cdef str type_name(object value):
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


cdef int write_value_or_null(object chain, Writer out, str name, object value, dict nulls, list failures) except -1:
    """Append a frame, of null if the value is not wanted or fails; with nulls None append nothing if it fails.

    nulls: name → type names of the values that are not wanted.
    """
    types = None if nulls is None else nulls.get(name)
    if types is not None and type_name(value) in types:
        write_null(out, name)
        return NULL_WRITTEN
    if write_frame(chain, out, name, value, failures):
        return VALUE_WRITTEN
    if nulls is None:
        return NOTHING_WRITTEN
    write_null(out, name)
    return NULL_WRITTEN


cdef bint write_null(Writer out, str name) except -1:
    return write_frame(NATIVE_CHAIN, out, name, None, [])


cdef bint write_frame(object chain, Writer out, str name, object value, list failures) except -1:
    """Append a frame, or nothing and a failure. Raises: MemoryError."""
    cdef Py_ssize_t n_name, n_value
    cdef Py_ssize_t frame = out.size
    cdef int tag
    cdef const char *utf8 = PyUnicode_AsUTF8AndSize(name, &n_name)
    out.reserve(MSM_FRAME_HEAD_SIZE + n_name)
    out.size += MSM_FRAME_HEAD_SIZE
    out.write(utf8, n_name)
    n_value = out.size
    try:
        tag = write_value(chain, out, value)
        n_value = out.size - n_value
        if n_value > <Py_ssize_t> UINT32_MAX:
            raise ValueError("the value takes more than 4 GiB")
    except MemoryError:  # as in read_slot
        raise
    except Exception as error:
        out.truncate(frame)
        failures.append(AttributeFailure(name, type_name(value), error, carries_type(type(value))))
        return False
    msm_frame_head_write(<uint16_t> n_name, <uint8_t> tag, <uint32_t> n_value, <uint8_t *> out.data + frame)
    return True


cdef int write_value(object chain, Writer out, object value) except -1:
    """Append value as the first serializer that can encode it does; return the tag of its frames.

    If none can, what the last one says is raised, but of a type that the native one carries what that says: the others,
    which may know nothing of it, would say that it is the type.
    """
    cdef Py_ssize_t start = out.size
    cdef bytes payload
    if is_native_first(chain) and PyTuple_GET_SIZE(chain) == 1:
        encode_value(out, value)
        return 0
    failure = told = None
    for serializer, (tag, prefix) in zip(chain, chain.heads):
        try:
            if serializer is NATIVE:
                encode_value(out, value)
                return tag
            payload = prefix + encoded_by(serializer.dumps, value)
            out.write(PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
            return tag
        except MemoryError:  # another serializer may need less, and then the value is stored in another form
            raise
        except Exception as error:
            out.truncate(start)
            failure = error
            if serializer is NATIVE and carries_type(type(value)):
                told = error
    raise failure if told is None else told


cdef bint is_equal(const char *one, Py_ssize_t n_one, const char *other, Py_ssize_t n_other) noexcept nogil:
    return n_one == n_other and memcmp(one, other, n_one) == 0


cdef bint is_frame_of(bytes base, Py_ssize_t start, Writer out, Py_ssize_t at) except -1:
    """Tell whether the frame just written at `at` of out is, byte for byte, the one at start of base."""
    cdef Py_ssize_t end = frame_end(base, start)
    return is_equal(out.data + at, out.size - at, PyBytes_AS_STRING(base) + start, end - start)


cdef bint is_unchanged(Slot slot, bytes base, Py_ssize_t start, Writer out, Py_ssize_t at) except -1:
    """Tell whether the value just written at `at` of out is what the frame at start of base holds."""
    if slot.expected is not None:
        return is_equal(
            out.data + at, out.size - at, PyBytes_AS_STRING(slot.expected), PyBytes_GET_SIZE(slot.expected)
        )
    if not is_frame_of(base, start, out, at):
        return False
    slot.is_clean = slot.start >= 0 and is_immutable(slot.value)
    return True


cdef bint is_null_frame(bytes body, const msm_frame_t *frame) noexcept:
    """Tell whether a frame of body is as write_null writes it."""
    return frame.tag == 0 and frame.end - frame.value == 1 and PyBytes_AS_STRING(body)[frame.value] == NIL


cdef list with_others_left_out(list edits, bytes base, object keep):
    """Return edits, in their order, with one more for each other frame of base whose name is not to be kept."""
    cdef dict edit_at = {edit[0]: edit for edit in edits}
    cdef list result = []
    cdef Py_ssize_t out_end = 0
    for name, start in index_names(base).items():
        edit = edit_at.get(start)
        if edit is None and not keep(name):
            edit = (start, frame_end(base, start), out_end, out_end)
        if edit is not None:
            result.append(edit)
            out_end = edit[3]
    return result


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


cdef dict move_slots(dict live, bytes base, bytes body, dict index, dict judged, set own):
    """Return the slots of live as they are over body instead of base, without those whose value body replaces.

    A value stands, whatever body holds, if its name is in own, or if its slot is not the one in judged: then it was set
    meanwhile. judged None: all values stand, and body is what was stored of them. index: of the names in body, or None.
    """
    cdef dict moved_slots = {}
    cdef msm_frame_t frame
    cdef Slot slot, moved
    cdef bint is_same, stands
    for name, slot in in_map_order(live):
        stands = not slot.is_failed
        if judged is not None:
            stands = stands and name in own if judged.get(name) is slot else not slot.is_clean
        if not find_frame(body, index, name, &frame):
            if stands:
                moved_slots[name] = move_slot(slot, -1)
            continue
        is_same = slot.start >= 0 and is_equal(
            PyBytes_AS_STRING(body) + frame.start, frame.end - frame.start,
            PyBytes_AS_STRING(base) + slot.start, frame_end(base, slot.start) - slot.start,
        )
        if is_same or stands:
            moved = move_slot(slot, frame.start)
            moved.is_null = judged is None and slot.value is not None and is_null_frame(body, &frame)
            if is_same:
                moved.is_null |= slot.is_null
                moved.is_clean = slot.is_clean
                moved.is_failed = slot.is_failed
                moved.expected = slot.expected
            moved_slots[name] = moved
    return moved_slots


cdef Slot move_slot(Slot slot, Py_ssize_t start):
    cdef Slot moved = make_slot(slot.value, start)
    moved.writer = slot.writer
    return moved


cdef list in_map_order(dict live):
    """Return the items of live: those with a frame in the base by its place, then the others as they were set."""
    cdef Slot slot
    based = [(slot.start, name, slot) for name, slot in live.items() if slot.start >= 0]
    based.sort()
    items = [(name, slot) for _, name, slot in based]
    return items + [(name, slot) for name, slot in live.items() if slot.start < 0]
