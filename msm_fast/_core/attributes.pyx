# cython: annotation_typing=False
# Annotations are for the reader: the bodies refuse a wrong argument with an error that says what is accepted.
"""The attributes of one session as a mapping, over the frames in the body of its record."""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint32_t

from msm_fast._core.c_record cimport msm_frame_t
from msm_fast._core.encoder cimport Writer
from msm_fast._core.record cimport count_frames, find_frame, index_names
from msm_fast._core.slots cimport (
    Slot, encode_slots, is_unchanged, make_slot, move_slots, null_frames, read_slot, write_frame, writer_of
)

from msm_fast._core.serializers import AttributeFailure, SerializerChain, resolve_serializers
from msm_fast.errors import CorruptRecord

__all__ = ["AttributeMap"]

cdef extern from "Python.h":
    str PyUnicode_FromObject(object text)  # an exact str, whatever a subclass does in __str__
    # Each returns whether the garbage collector was at work before.
    bint PyGC_Disable()
    bint PyGC_Enable()

# Where base, index, slots and what was removed must agree, no other code may run. It does not, but for what dies when
# garbage is collected, which lets in other threads as well. Before Python 3.12 any object that is made may start that:
# so either the collector rests meanwhile, or the object is made first.

cdef enum:
    NAME_SIZE_MAX = 0xFFFF
    # An index of all names costs about as much as this many searches through the frames.
    SEARCHES_BEFORE_INDEX = 32
    SEARCHES_WITHOUT_INDEX = 8
    # Rebasing compares again what was set meanwhile, this often; then it counts as changed.
    COMPARISONS_MAX = 8

cdef object _MISSING = object()
cdef object NATIVE_CHAIN = resolve_serializers("native")


cdef object resolve_chain(object serializer):
    if type(serializer) is SerializerChain:
        return serializer
    return NATIVE_CHAIN if serializer == "native" else resolve_serializers(serializer)


cdef bint has_exact_names(dict attributes) except -1:
    for name in attributes:
        if type(name) is not str:
            return False
    return True


cdef object checked_name(object name):
    """Return name as an exact str. Raises: as AttributeMap."""
    cdef Py_ssize_t n_bytes
    if not isinstance(name, str):
        raise TypeError(f"a session attribute's name must be str, not {type(name).__name__}")
    name = PyUnicode_FromObject(name)
    try:
        PyUnicode_AsUTF8AndSize(name, &n_bytes)
    except UnicodeEncodeError:
        raise ValueError("a session attribute's name has a lone surrogate, which UTF-8 does not have") from None
    if n_bytes > NAME_SIZE_MAX:
        raise ValueError(f"a session attribute's name takes {n_bytes} bytes, more than {NAME_SIZE_MAX}")
    return name


@cython.final
cdef class AttributeMap:
    """The attributes of one session: a mutable mapping from str to any value, kept as the frames it came from.

    mapping: a mapping or pairs, as for dict. serializer: as for `resolve_serializers`.

    A value is decoded when it is first read and stays the same object from then on. Changes inside it are found
    when the map is encoded. A name is at most 65,535 bytes of UTF-8.

    Raises:  TypeError for a name that is not str, ValueError for one that is too long or has a lone surrogate,
             ConfigurationError for a wrong serializer.
    Thread-safety: single operations are atomic as those of a dict are, also beside `encode`, `rebase` and `mark_saved`;
             only one thread at a time may do these.
    """

    def __cinit__(self):
        self._base = b""
        self._live = {}
        self._removed = {}
        self._failures = []
        self._chain = NATIVE_CHAIN

    def __init__(
        self, mapping: Mapping[str, object] | Iterable[tuple[str, object]] = (), serializer: object = "native"
    ) -> None:
        self._chain = resolve_chain(serializer)
        cdef dict attributes = dict(mapping)
        if self._live or self._base or self._removed or not has_exact_names(attributes):
            self.update(attributes)
            return
        # The copy becomes the map, value by value: it need not grow.
        for name, value in attributes.items():
            attributes[checked_name(name)] = make_slot(value, -1)
        self._live = attributes

    @classmethod
    def decode(
        cls,
        bytes body not None,
        serializer: object = "native",
        on_failure: Callable[[AttributeFailure], object] | None = None,
    ) -> AttributeMap:
        """Return the map whose frames are body.

        on_failure: called once for each value that cannot be decoded, when it is first read; must not raise.

        Raises:  CorruptRecord when a frame is cut; a value that is broken shows only when it is read: `failures`.
        Cost:    one pass over the heads of the frames; no object per attribute.
        """
        return decode_frames(body, resolve_chain(serializer), on_failure)

    def encode(
        self,
        *,
        keep: Callable[[str], object] | None = None,
        nulls: dict[str, frozenset[str]] | None = None,
    ) -> tuple[bytes, tuple[AttributeFailure, ...]]:
        """Return the frames of all attributes, and those attributes that no serializer could encode.

        The latter are left out of the frames and keep their value in the map. When nothing differs from what
        was decoded or saved last, that very bytes object is returned.

        keep: tells of a name whether the attribute may be stored. What is set under other names changes nothing; a
        stored frame of such a name goes when its value is changed, or when anything is written.
        nulls: name → type names, with module, of values that are written as null unseen. With nulls, even empty, what
        cannot be encoded is written as null too.

        Raises:  ValueError when the frames take more than 4 GiB; with keep, CorruptRecord when a name stands twice;
                 MemoryError.
        Cost:    what was set, and what was read and is mutable, is encoded; all else is copied in runs.
        """
        cdef list failures = []
        return self.encode_into(keep, nulls, failures), tuple(failures)

    cdef bytes encode_into(self, object keep, dict nulls, list failures):
        """Do what `encode` does, and add to failures."""
        cdef bint collects = PyGC_Disable()
        try:
            base, live, removed = self._base, self._live.copy(), self._removed.copy()
        finally:
            if collects:
                PyGC_Enable()
        return encode_slots(self._chain, base, live, removed, keep, nulls, failures)

    def null_out(self, bytes body not None, names: Iterable[str]) -> bytes:
        """Return body, which `encode` gave, with null as the value of each of names; the map keeps their values.

        When this is what was decoded or saved last, that very bytes object is returned.
        Raises:  KeyError for a name that is not in body.
        """
        base = self._base
        nulled = null_frames(body, names)
        return base if nulled == base else nulled

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
        base = self._base
        for name, slot in self._live.copy().items():
            if self._is_own_change(name, slot, base, out, False):
                changed.add(name)
        deleted = frozenset(
            name for name, start in list(self._removed.items()) if start >= 0 and name not in self._live
        )
        return frozenset(changed), deleted

    cdef bint _is_own_change(self, str name, Slot slot, bytes base, Writer out, bint if_unencodable) except -1:
        """Tell whether slot differs from base. if_unencodable: the answer for a new value that fails."""
        cdef Py_ssize_t start = slot.start
        cdef Py_ssize_t at = out.size
        cdef bint is_own
        if slot.is_clean:
            return False
        if start < 0:
            start = self._removed.get(name, -1)
        if not write_frame(writer_of(slot, self._chain), out, name, slot.value, []):
            return if_unencodable or start >= 0
        is_own = start < 0 or not is_unchanged(slot, base, start, out, at)
        out.truncate(at)
        return is_own

    def rebase(self, bytes body not None) -> None:
        """Take body, which another writer stored, as what was decoded, and lay this map's own changes over it.

        Own changes are the names set, changed inside or deleted. Every other name takes its value from body; an
        object handed out for it stays in use only if body holds the same bytes for it. A value that null was stored in
        place of is no change any more.

        Raises:  CorruptRecord, and the map is as it was.
        """
        cdef Writer out = Writer()
        cdef Slot slot
        cdef dict judged = {}  # name → the slot that was compared with the base
        cdef set own = set()
        cdef int _
        # Comparing may run other code: what that, or another thread, has set or read meanwhile is compared as well.
        for _ in range(COMPARISONS_MAX):
            base = self._base
            fresh = [(name, slot) for name, slot in self._live.copy().items() if judged.get(name) is not slot]
            if not fresh:
                break
            for name, slot in fresh:
                judged[name] = slot
                own.discard(name)
                if not slot.is_null and self._is_own_change(name, slot, base, out, True):
                    own.add(name)
        self._adopt(body, judged, own)

    def mark_saved(self, bytes body not None) -> None:
        """Take body, which `encode` gave, as what is stored. What changed since that `encode` stays changed.

        Raises:  CorruptRecord, and the map is as it was.
        """
        if body is not self._base:
            self._adopt(body, None, None)

    cdef int _adopt(self, bytes body, dict judged, set own) except -1:
        """Make body the base. judged, own: which values stand, whatever body holds; as for `move_slots`."""
        cdef bytes base
        cdef dict before, index, live
        cdef dict still_removed = {}
        cdef list removed
        cdef uint32_t n_frames
        cdef msm_frame_t frame
        cdef bint collects = PyGC_Disable()
        try:
            base, before = self._base, self._live.copy()
            removed = [
                name
                for name, start in self._removed.items()
                if name not in before and (judged is None or start >= 0)
            ]
            n_frames = count_frames(body, 0)
            index = index_names(body) if len(before) + len(removed) > SEARCHES_WITHOUT_INDEX else None
            live = move_slots(before, base, body, index, judged, own)
            for name in removed:
                if find_frame(body, index, name, &frame):
                    still_removed[name] = frame.start
            # Values that die here may run code of their own: `before` lets them die when the map is whole again.
            self._base, self._n_base, self._index, self._n_searches = body, n_frames, index, 0
            self._live, self._removed = live, still_removed
        finally:
            if collects:
                PyGC_Enable()
        return 0

    cdef bint _find(self, bytes base, object name, msm_frame_t *frame) except -1:
        """Find a name's frame; after many searches, by an index of all names."""
        if PyBytes_GET_SIZE(base) == 0:
            return False
        if self._index is None:
            if self._n_searches >= SEARCHES_BEFORE_INDEX:
                self._make_index()
            self._n_searches += 1
        return find_frame(base, self._index, name, frame)

    cdef int _make_index(self) except -1:
        cdef bint collects = PyGC_Disable()
        try:
            self._index = index_names(self._base)
        finally:
            if collects:
                PyGC_Enable()
        return 0

    cdef Slot _slot(self, object name):
        """Return the slot of name, decoding its value if need be; None when the map has no such name."""
        cdef Slot slot = self._live.get(name)
        cdef msm_frame_t frame
        while slot is None:
            base = self._base
            if name in self._removed or not self._find(base, name, &frame):
                return None
            text = PyUnicode_FromObject(name)
            slot = read_slot(self._chain, text, base, &frame)
            if slot.is_failed:
                failure, slot.value = slot.value, None
            # Decoding may run other code, which may have saved, read or removed this name meanwhile.
            if base is self._base and text not in self._removed:
                held = self._live.setdefault(text, slot)
                if slot.is_failed and held is slot:
                    self._failures.append(failure)
                    if self._on_failure is not None:
                        self._on_failure(failure)
                return held
            slot = self._live.get(name)
        return slot

    cdef list _names(self):
        cdef Slot slot
        cdef bint collects = PyGC_Disable()
        try:
            if self._index is None:
                self._index = index_names(self._base)
            names = [name for name in self._index if name not in self._removed]
            names += [name for name, slot in self._live.items() if slot.start < 0]
        finally:
            if collects:
                PyGC_Enable()
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
        cdef msm_frame_t frame
        name = checked_name(name)
        cdef Slot made = make_slot(value, -1)
        cdef Slot slot = self._live.get(name)
        if slot is not None:
            made.start = slot.start
        elif name not in self._removed and self._find(self._base, name, &frame):
            made.start = frame.start
        self._live[name] = made

    def __delitem__(self, name: str) -> None:
        if not self._remove(name):
            raise KeyError(name)

    cdef bint _remove(self, object name) except -1:
        """Remove name; return False when there is none."""
        cdef msm_frame_t frame
        cdef Slot slot = self._live.pop(name, None)
        if slot is None:
            if name in self._removed or not self._find(self._base, name, &frame):
                return False
            self._removed[PyUnicode_FromObject(name)] = frame.start
        # A name that had a frame and was set again after its removal keeps that frame on record.
        elif slot.start >= 0 or name not in self._removed:
            self._removed[name] = slot.start
        return True

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
            self._remove(name)  # what dies with the one before it may have been first

    def copy(self) -> AttributeMap:
        """Return another map of the very same values, with the same base to tell changes by."""
        cdef AttributeMap twin = AttributeMap.__new__(AttributeMap)
        cdef bint collects
        for name in self._names():
            self._slot(name)
        twin._chain, twin._on_failure = self._chain, self._on_failure
        twin._failures = self._failures.copy()
        collects = PyGC_Disable()
        try:
            twin._base, twin._n_base, twin._index = self._base, self._n_base, self._index
            twin._live, twin._removed = self._live.copy(), self._removed.copy()
        finally:
            if collects:
                PyGC_Enable()
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


cdef AttributeMap decode_frames(bytes body, object chain, object on_failure):
    """Do what `AttributeMap.decode` does. chain: of serializers."""
    cdef AttributeMap attributes = AttributeMap.__new__(AttributeMap)
    attributes._chain = chain
    attributes._on_failure = on_failure
    attributes._n_base = count_frames(body, 0)
    attributes._base = body
    return attributes


MutableMapping.register(AttributeMap)
