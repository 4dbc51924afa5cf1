# cython: annotation_typing=False
# Annotations are for the reader: the bodies refuse a wrong argument with an error that says what is accepted.
"""The record that stands in memcached for one session, and the session's attributes as frames in its body.

The byte layout of both is the table in src_c/msm_record.h. The trailer is the XXH3-64 of all that precedes it, seeded
with the XXH3-64 of the storage key: a record that was moved to another key is corrupt.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping

from xxhash import xxh3_64_intdigest

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_READ
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from msm_fast._core.c_record cimport *
from msm_fast._core.codec cimport Writer, decode_value, encode_value, is_immutable

from msm_fast._core.serializers import (
    NATIVE,
    AttributeFailure,
    Serializer,
    SerializerChain,
    resolve_serializers,
)
from msm_fast.errors import CorruptRecord, UnknownFormat

__all__ = [
    "AttributeFailure",
    "AttributeMap",
    "Record",
    "Serializer",
    "decode_record",
    "encode_record",
    "resolve_serializers",
]

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    str PyUnicode_FromObject(object text)  # an exact str, whatever a subclass does in __str__

cdef enum:
    NAME_SIZE_MAX = 0xFFFF
    # An index of all names costs about as much as this many searches through the frames.
    SEARCHES_BEFORE_INDEX = 32
    SEARCHES_WITHOUT_INDEX = 8

cdef object _MISSING = object()


@cython.final
cdef class Record:
    """What a record says; made by `decode_record`. body: the frames, for `AttributeMap.decode`.

    lineage: the nonces of the write itself and of those it was based on, newest first, at most 8. home: 32 bits that
    name the node which decides between writers.
    """

    cdef readonly uint64_t generation
    cdef readonly uint64_t created_ms
    cdef readonly uint64_t accessed_ms
    cdef readonly uint32_t max_inactive_s
    cdef readonly uint32_t absolute_lifetime_s
    cdef readonly bint is_tombstone
    cdef readonly bytes body
    cdef readonly uint32_t home
    cdef uint32_t _lineage[8]

    @property
    def lineage(self) -> tuple[int, ...]:
        return tuple([self._lineage[i] for i in range(MSM_RECORD_LINEAGE) if self._lineage[i]])

    def __init__(self):
        raise TypeError("a Record is made by decode_record")

    def __repr__(self):
        kind = "tombstone" if self.is_tombstone else f"body of {len(self.body)} bytes"
        return f"<Record generation={self.generation}, {kind}>"


def encode_record(
    bytes storage_key not None,
    bytes body not None,
    *,
    uint64_t generation,
    uint64_t created_ms,
    uint64_t accessed_ms,
    uint32_t max_inactive_s = 0,
    uint32_t absolute_lifetime_s = 0,
    bint is_tombstone = False,
    tuple lineage not None = (),
    uint32_t home = 0,
) -> bytes:
    """Return the record that holds body, as it is stored under storage_key.

    body: what `AttributeMap.encode` gave. max_inactive_s, absolute_lifetime_s: 0 for no limit. lineage: nonces, newest
    first, 1 to 2**32-1; those after the eighth are left out. home: 32 bits that name a node.
    Raises:  CorruptRecord when body is not made of frames, OverflowError for a number outside its field.
    """
    cdef msm_record_head_t head
    cdef Py_ssize_t n_body = PyBytes_GET_SIZE(body)
    cdef Py_ssize_t n_hashed = MSM_RECORD_HEAD_SIZE + n_body
    head.generation = generation
    head.created_ms = created_ms
    head.accessed_ms = accessed_ms
    head.max_inactive_s = max_inactive_s
    head.absolute_lifetime_s = absolute_lifetime_s
    head.flags = MSM_RECORD_TOMBSTONE if is_tombstone else 0
    for i in range(MSM_RECORD_LINEAGE):
        head.lineage[i] = lineage[i] if i < len(lineage) else 0
    head.home = home
    head.n_attributes = count_frames(body, 0)
    check_body_size(n_body)
    head.body_size = <uint32_t> n_body
    data = PyBytes_FromStringAndSize(NULL, n_hashed + MSM_RECORD_TRAILER_SIZE)
    cdef uint8_t *out = <uint8_t *> PyBytes_AS_STRING(data)
    msm_record_head_write(&head, out)
    memcpy(out + MSM_RECORD_HEAD_SIZE, PyBytes_AS_STRING(body), n_body)
    msm_store_u64(digest(out, n_hashed, storage_key), out + n_hashed)
    return data


def decode_record(bytes data not None, bytes storage_key not None) -> Record:
    """Return the record that data holds, if it was written for storage_key.

    Raises:  UnknownFormat for a version, flag or key id that this version does not know; CorruptRecord otherwise.
    Cost:    one pass over data for the digest, one over the heads of its frames, one copy of the body.
    """
    cdef msm_record_head_t head
    cdef const uint8_t *buf = <const uint8_t *> PyBytes_AS_STRING(data)
    cdef Py_ssize_t n_bytes = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t n_hashed = n_bytes - MSM_RECORD_TRAILER_SIZE
    cdef msm_status status = msm_record_head_read(buf, n_bytes, &head)
    if status == MSM_ERR_VERSION:
        raise UnknownFormat("a record of another version", 4)
    if status != MSM_OK:
        raise CorruptRecord("no record" if status == MSM_ERR_SYNTAX else "a record of a wrong length", 0)
    if msm_load_u64(buf + n_hashed) != digest(buf, n_hashed, storage_key):
        raise CorruptRecord("the trailer does not match: damaged, or the record of another key", n_hashed)
    cdef bytes body = PyBytes_FromStringAndSize(<const char *> buf + MSM_RECORD_HEAD_SIZE, head.body_size)
    if count_frames(body, MSM_RECORD_HEAD_SIZE) != head.n_attributes:
        raise CorruptRecord("the number of attributes does not match", 40)
    cdef Record record = Record.__new__(Record)
    record.generation = head.generation
    record.created_ms = head.created_ms
    record.accessed_ms = head.accessed_ms
    record.max_inactive_s = head.max_inactive_s
    record.absolute_lifetime_s = head.absolute_lifetime_s
    record.is_tombstone = head.flags & MSM_RECORD_TOMBSTONE
    for i in range(MSM_RECORD_LINEAGE):
        record._lineage[i] = head.lineage[i]
    record.home = head.home
    record.body = body
    return record


cdef uint64_t digest(const uint8_t *buf, Py_ssize_t n_bytes, bytes storage_key) except? 0:
    view = PyMemoryView_FromMemory(<char *> buf, n_bytes, PyBUF_READ)
    return xxh3_64_intdigest(view, xxh3_64_intdigest(storage_key))


cdef msm_status read_frame(bytes body, size_t start, msm_frame_t *frame) noexcept:
    return msm_frame_read(<const uint8_t *> PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), start, frame)


cdef uint32_t count_frames(bytes body, Py_ssize_t at) except? 0xFFFFFFFF:
    """Check the bounds of every frame. at: where body stands in the record, for the error's offset."""
    cdef uint32_t n_frames = 0
    cdef msm_frame_t frame
    if msm_frames_count(<const uint8_t *> PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), &n_frames) == MSM_OK:
        return n_frames
    frame.end = 0
    while read_frame(body, frame.end, &frame) == MSM_OK:
        pass
    raise CorruptRecord("a frame is cut", at + frame.end)


cdef int check_body_size(Py_ssize_t n_bytes) except -1:
    if n_bytes > 0xFFFFFFFF:
        raise ValueError("the attributes take more than 4 GiB")
    return 0


cdef bint find_frame(bytes body, dict index, object name, msm_frame_t *frame) except -1:
    cdef const uint8_t *buf = <const uint8_t *> PyBytes_AS_STRING(body)
    cdef Py_ssize_t n_name
    cdef const char *utf8
    if index is not None:
        start = index.get(name)
        return start is not None and read_frame(body, start, frame) == MSM_OK
    if not isinstance(name, str):
        return False
    try:
        utf8 = PyUnicode_AsUTF8AndSize(name, &n_name)
    except UnicodeEncodeError:
        return False
    return msm_frames_find(buf, PyBytes_GET_SIZE(body), <const uint8_t *> utf8, n_name, frame) == MSM_OK


cdef dict index_names(bytes body):
    """Return where the frame of each name starts, in the order of the frames."""
    cdef dict index = {}
    cdef msm_frame_t frame
    cdef const char *buf = PyBytes_AS_STRING(body)
    frame.end = 0
    while read_frame(body, frame.end, &frame) == MSM_OK:
        try:
            name = buf[frame.name:frame.value].decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorruptRecord("a name is not UTF-8", frame.name) from error
        if name in index:
            raise CorruptRecord("a name stands twice", frame.start)
        index[name] = frame.start
    return index


# What the map holds for a name that was read or set. A slot is replaced, never changed, but for is_clean, which
# only ever becomes true: so an encoding under way keeps seeing what it began with.
@cython.final
@cython.freelist(64)
cdef class Slot:
    cdef object value
    cdef Py_ssize_t start  # where the frame of this name stands in the base; -1 when it has none
    cdef bint is_clean     # the frame holds the value and always will: it is immutable, or could not be decoded
    cdef bint is_failed    # the frame could not be decoded; value is None
    cdef bytes expected    # how the frame would look if this chain had written it; None when it has


cdef Slot make_slot(object value, Py_ssize_t start):
    cdef Slot slot = Slot.__new__(Slot)
    slot.value = value
    slot.start = start
    return slot


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


cdef Py_ssize_t frame_end(bytes base, Py_ssize_t start) except -1:
    cdef msm_frame_t frame
    if read_frame(base, start, &frame) != MSM_OK:
        raise RuntimeError("the map was saved or rebased by another thread meanwhile")
    return frame.end


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


@cython.final
cdef class AttributeMap:
    """The attributes of one session: a mutable mapping from str to any value, kept as the frames it came from.

    mapping: a mapping or pairs, as for dict. serializer: as for `resolve_serializers`.

    A value is decoded when it is first read and stays the same object from then on. Changes inside it are found
    when the map is encoded. A name is at most 65,535 bytes of UTF-8.

    Raises:  TypeError for a name that is not str, ValueError for one that is too long or has a lone surrogate,
             ConfigurationError for a wrong serializer.
    Thread-safety: single operations are atomic as those of a dict are; `rebase` must not run beside others.
    """

    cdef bytes _base        # the frames last decoded or saved
    cdef uint32_t _n_base   # how many
    cdef dict _index        # name → start of its frame in the base; None until it pays
    cdef int _n_searches
    cdef dict _live         # name → Slot, for every name read or set, in that order
    cdef dict _removed      # name → start of its frame in the base or -1, for every name removed since
    cdef list _failures
    cdef object _chain
    cdef bint _is_native_first

    def __cinit__(self):
        self._base = b""
        self._live = {}
        self._removed = {}
        self._failures = []

    def __init__(
        self, mapping: Mapping[str, object] | Iterable[tuple[str, object]] = (), serializer: object = "native"
    ) -> None:
        self._set_serializer(serializer)
        self.update(mapping)

    @classmethod
    def decode(cls, bytes body not None, serializer: object = "native") -> AttributeMap:
        """Return the map whose frames are body.

        Raises:  CorruptRecord when a frame is cut; a value that is broken shows only when it is read: `failures`.
        Cost:    one pass over the heads of the frames; no object per attribute.
        """
        cdef AttributeMap attributes = AttributeMap.__new__(AttributeMap)
        attributes._set_serializer(serializer)
        attributes._n_base = count_frames(body, 0)
        attributes._base = body
        return attributes

    cdef int _set_serializer(self, object serializer) except -1:
        self._chain = serializer if type(serializer) is SerializerChain else resolve_serializers(serializer)
        self._is_native_first = self._chain[0] is NATIVE
        return 0

    def encode(self) -> tuple[bytes, tuple[AttributeFailure, ...]]:
        """Return the frames of all attributes, and those attributes that no serializer could encode.

        The latter are left out of the frames and keep their value in the map. When nothing differs from what
        was decoded or saved last, that very bytes object is returned.

        Raises:  ValueError when the frames take more than 4 GiB.
        Cost:    what was set, and what was read and is mutable, is encoded; all else is copied in runs.
        """
        cdef bytes base = self._base
        cdef dict live = self._live.copy()
        cdef Writer out = Writer()
        cdef list failures = []
        cdef list edits = []  # (start, end) in base, and the (start, end) in out that stands in its place
        cdef list touched = [(start, name, None) for name, start in self._removed.items() if start >= 0]
        cdef Slot slot
        cdef Py_ssize_t at, start
        for name, slot in live.items():
            if slot.start >= 0 and not slot.is_clean:
                touched.append((slot.start, name, slot))
        touched.sort()
        for start, name, slot in touched:
            at = out.size
            if slot is not None and self._write_frame(out, name, slot.value, failures) and is_unchanged(
                slot, base, start, out, at
            ):
                out.truncate(at)
            else:
                edits.append((start, frame_end(base, start), at, out.size))
        at = out.size
        for name, slot in live.items():
            if slot.start < 0:
                self._write_frame(out, name, slot.value, failures)
        if not edits and out.size == at:
            return base, tuple(failures)
        return splice(base, edits, out), tuple(failures)

    cdef bint _write_frame(self, Writer out, str name, object value, list failures) except -1:
        """Append a frame, or nothing and a failure."""
        cdef Py_ssize_t n_name, n_value
        cdef Py_ssize_t frame = out.size
        cdef const char *utf8 = PyUnicode_AsUTF8AndSize(name, &n_name)
        out.reserve(MSM_FRAME_HEAD_SIZE + n_name)
        out.size += MSM_FRAME_HEAD_SIZE
        out.write(utf8, n_name)
        n_value = out.size
        try:
            tag = self._write_value(out, value)
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

    cdef int _write_value(self, Writer out, object value) except -1:
        """Append value as the first serializer that can encode it does; return the tag of its frames."""
        cdef Py_ssize_t start = out.size
        cdef bytes payload
        if self._is_native_first and len(self._chain) == 1:
            encode_value(out, value)
            return 0
        failure = None
        for serializer, (tag, prefix) in zip(self._chain, self._chain.heads):
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

    @property
    def failures(self) -> tuple[AttributeFailure, ...]:
        """The values that could not be decoded so far. Each is read as None; its frame stays until replaced."""
        return tuple(self._failures)

    @property
    def is_changed(self) -> bool:
        """Whether `encode` would give other frames than those decoded or saved last. It costs as much."""
        return self.encode()[0] is not self._base

    def changed_names(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the names set, replaced or changed inside, and the names deleted, since the last decode or save.

        A name whose value would be stored as the same bytes again is in neither; nor is a new one that no
        serializer can encode.
        """
        cdef Writer out = Writer()
        cdef Slot slot
        cdef set changed = set()
        for name, slot in list(self._live.items()):
            if self._is_own_change(name, slot, out, False):
                changed.add(name)
        deleted = frozenset(
            name for name, start in list(self._removed.items()) if start >= 0 and name not in self._live
        )
        return frozenset(changed), deleted

    cdef bint _is_own_change(self, str name, Slot slot, Writer out, bint if_unencodable) except -1:
        """Tell whether slot differs from the base. if_unencodable: the answer for a new value that fails."""
        cdef Py_ssize_t start = slot.start
        cdef Py_ssize_t at = out.size
        cdef bint is_own
        if slot.is_clean:
            return False
        if start < 0:
            start = self._removed.get(name, -1)
        if not self._write_frame(out, name, slot.value, []):
            return if_unencodable or start >= 0
        is_own = start < 0 or not is_unchanged(slot, self._base, start, out, at)
        out.truncate(at)
        return is_own

    def rebase(self, bytes body not None) -> None:
        """Take body, which another writer stored, as what was decoded, and lay this map's own changes over it.

        Own changes are the names set, changed inside or deleted. Every other name takes its value from body; an
        object handed out for it stays in use only if body holds the same bytes for it.

        Raises:  CorruptRecord, and the map is as it was.
        """
        cdef Writer out = Writer()
        cdef Slot slot
        cdef dict own = {
            name: slot for name, slot in list(self._live.items()) if self._is_own_change(name, slot, out, True)
        }
        removed = [name for name, start in self._removed.items() if start >= 0 and name not in self._live]
        self._adopt(body, own, removed)

    def mark_saved(self, bytes body not None) -> None:
        """Take body, which `encode` gave, as what is stored. What changed since that `encode` stays changed.

        Raises:  CorruptRecord, and the map is as it was.
        """
        if body is not self._base:
            self._adopt(body, self._live, [name for name in self._removed if name not in self._live])

    cdef int _adopt(self, bytes body, dict own, list removed) except -1:
        """Make body the base. own: whose value stands whatever body holds; removed: what is not to be seen."""
        cdef uint32_t n_frames = count_frames(body, 0)
        cdef dict index = index_names(body) if len(self._live) + len(removed) > SEARCHES_WITHOUT_INDEX else None
        cdef dict live = {}
        cdef dict still_removed = {}
        cdef msm_frame_t frame
        cdef Slot slot, moved
        cdef bint is_same
        for name, slot in in_map_order(self._live):
            if not find_frame(body, index, name, &frame):
                if name in own and not slot.is_failed:
                    live[name] = make_slot(slot.value, -1)
                continue
            is_same = slot.start >= 0 and is_equal(
                PyBytes_AS_STRING(body) + frame.start, frame.end - frame.start,
                PyBytes_AS_STRING(self._base) + slot.start, frame_end(self._base, slot.start) - slot.start,
            )
            if is_same or (name in own and not slot.is_failed):
                moved = make_slot(slot.value, frame.start)
                if is_same:
                    moved.is_clean = slot.is_clean
                    moved.is_failed = slot.is_failed
                    moved.expected = slot.expected
                live[name] = moved
        for name in removed:
            if find_frame(body, index, name, &frame):
                still_removed[name] = frame.start
        # Values that die here may run code of their own: let them die when the map is whole again.
        previous = self._live
        self._base, self._n_base, self._index, self._n_searches = body, n_frames, index, 0
        self._live, self._removed = live, still_removed
        return 0

    cdef bint _find(self, bytes base, object name, msm_frame_t *frame) except -1:
        """Find a name's frame; after many searches, by an index of all names."""
        if self._index is None:
            if self._n_searches >= SEARCHES_BEFORE_INDEX:
                self._index = index_names(self._base)
            self._n_searches += 1
        return find_frame(base, self._index, name, frame)

    cdef Slot _slot(self, object name):
        """Return the slot of name, decoding its value if need be; None when the map has no such name."""
        cdef Slot slot = self._live.get(name)
        cdef msm_frame_t frame
        while slot is None:
            base = self._base
            if PyBytes_GET_SIZE(base) == 0 or name in self._removed or not self._find(base, name, &frame):
                return None
            text = PyUnicode_FromObject(name)
            slot = self._decode_frame(text, base, &frame)
            # Decoding may run other code, which may have saved, read or removed this name meanwhile.
            if base is self._base and text not in self._removed:
                return self._live.setdefault(text, slot)
            slot = self._live.get(name)
        return slot

    cdef Slot _decode_frame(self, str name, bytes base, const msm_frame_t *frame):
        cdef Slot slot = make_slot(None, frame.start)
        cdef const uint8_t *buf = <const uint8_t *> PyBytes_AS_STRING(base)
        try:
            if frame.tag == 0:
                slot.value = decode_value(buf, frame.value, frame.end)
            else:
                slot.value = self._chain.loads(frame.tag, base[frame.value:frame.end])
        except Exception as error:
            self._failures.append(AttributeFailure(name, "unknown", error))
            slot.is_clean = slot.is_failed = True
            return slot
        slot.is_clean = is_immutable(slot.value)
        if not slot.is_clean and (frame.tag != 0 or not self._is_native_first):
            slot.expected = self._encode_frame(name, slot.value)
        return slot

    cdef bytes _encode_frame(self, str name, object value):
        """Return the frame this chain writes for value; empty, which no frame is, when it can't encode it."""
        cdef Writer out = Writer()
        self._write_frame(out, name, value, [])
        return PyBytes_FromStringAndSize(out.data, out.size)

    cdef list _names(self):
        cdef Slot slot
        if self._index is None:
            self._index = index_names(self._base)
        names = [name for name in self._index if name not in self._removed]
        names += [name for name, slot in self._live.items() if slot.start < 0]
        return names

    def __len__(self) -> int:
        cdef Slot slot
        cdef Py_ssize_t n_names = self._n_base
        for start in self._removed.values():
            n_names -= start >= 0
        for slot in self._live.values():
            n_names += slot.start < 0
        return n_names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._names())

    def __contains__(self, name: object) -> bool:
        cdef msm_frame_t frame
        return name in self._live or (name not in self._removed and self._find(self._base, name, &frame))

    def __getitem__(self, name: str) -> object:
        cdef Slot slot = self._slot(name)
        if slot is None:
            raise KeyError(name)
        return slot.value

    def get(self, name: str, default: object = None) -> object:
        """Return the value of name, or default when there is none."""
        cdef Slot slot = self._slot(name)
        return default if slot is None else slot.value

    def __setitem__(self, name: str, value: object) -> None:
        cdef Py_ssize_t n_bytes
        cdef msm_frame_t frame
        if not isinstance(name, str):
            raise TypeError(f"a session attribute's name must be str, not {type(name).__name__}")
        name = PyUnicode_FromObject(name)
        PyUnicode_AsUTF8AndSize(name, &n_bytes)
        if n_bytes > NAME_SIZE_MAX:
            raise ValueError(f"a session attribute's name takes {n_bytes} bytes, more than {NAME_SIZE_MAX}")
        cdef Slot slot = self._live.get(name)
        if slot is not None:
            self._live[name] = make_slot(value, slot.start)
        elif name not in self._removed and self._find(self._base, name, &frame):
            self._live[name] = make_slot(value, frame.start)
        else:
            self._live[name] = make_slot(value, -1)

    def __delitem__(self, name: str) -> None:
        cdef msm_frame_t frame
        cdef Slot slot = self._live.pop(name, None)
        if slot is None:
            if name in self._removed or not self._find(self._base, name, &frame):
                raise KeyError(name)
            self._removed[PyUnicode_FromObject(name)] = frame.start
        # A name that had a frame and was set again after its removal keeps that frame on record.
        elif slot.start >= 0 or name not in self._removed:
            self._removed[name] = slot.start

    def pop(self, name: str, default: object = _MISSING) -> object:
        """Remove name and return its value, or default when there is none.

        Raises:  KeyError when there is neither.
        """
        cdef Slot slot = self._slot(name)
        if slot is not None:
            del self[name]
            return slot.value
        if default is _MISSING:
            raise KeyError(name)
        return default

    def popitem(self) -> tuple[str, object]:
        """Remove the last attribute and return its name and value.

        Raises:  KeyError when the map is empty.
        """
        for name in reversed(self._names()):
            return name, self.pop(name)
        raise KeyError("popitem(): the map is empty")

    def clear(self) -> None:
        """Remove every attribute."""
        for name in self._names():
            del self[name]

    def copy(self) -> AttributeMap:
        """Return another map of the very same values, with the same base to tell changes by."""
        cdef AttributeMap twin = AttributeMap.__new__(AttributeMap)
        for name in self._names():
            self._slot(name)
        twin._set_serializer(self._chain)
        twin._base, twin._n_base, twin._index = self._base, self._n_base, self._index
        twin._live, twin._removed = self._live.copy(), self._removed.copy()
        twin._failures = self._failures.copy()
        return twin

    def update(
        self, mapping: Mapping[str, object] | Iterable[tuple[str, object]] = (), /, **values: object
    ) -> None:
        """Set the attributes of mapping, or of pairs, then those given by keyword."""
        cdef dict attributes = dict(mapping, **values)
        for name, value in attributes.items():
            self[name] = value

    __copy__ = copy
    setdefault = MutableMapping.setdefault
    keys = Mapping.keys
    items = Mapping.items
    values = Mapping.values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.items()) == dict(other.items())

    def __or__(self, other: Mapping[str, object]) -> AttributeMap:
        if not isinstance(other, Mapping):
            return NotImplemented
        union = self.copy()
        union.update(other)
        return union

    def __ror__(self, other: Mapping[str, object]) -> AttributeMap:
        if not isinstance(other, Mapping):
            return NotImplemented
        union = AttributeMap(other, self._chain)
        union.update(self)
        return union

    def __ior__(self, other: Mapping[str, object] | Iterable[tuple[str, object]]) -> AttributeMap:
        self.update(other)
        return self

    def __reduce__(self):
        raise TypeError("an AttributeMap is not pickled: encode() gives its bytes")

    def __repr__(self) -> str:
        try:
            return f"<AttributeMap {', '.join(map(repr, self._names()))}>"
        except CorruptRecord as error:
            return f"<AttributeMap {error}>"


MutableMapping.register(AttributeMap)
