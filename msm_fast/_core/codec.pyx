# cython: annotation_typing=False
# Annotations are for the reader: the bodies refuse a wrong argument with an error that says what is accepted.
"""The value codec ``native``: MessagePack, and application extension types for what MessagePack lacks.

=====  ==========  =========================================================================
 code  type        payload (numbers big-endian, as everywhere in MessagePack)
=====  ==========  =========================================================================
    1  int         beyond 64 bits: two's complement, as few bytes as hold it
    2  complex     two float 64
    3  bytearray   its bytes
    4  tuple       an array
    5  set         an array, its elements in the order of their encodings
    6  frozenset   as set
    7  datetime    moments.pxd, then its zone: `msm_fast._core.zones`
    8  date        moments.pxd
    9  time        moments.pxd, then its zone: `msm_fast._core.zones`
   10  timedelta   moments.pxd
   11  Decimal     its text
   12  Fraction    an array of numerator and denominator
   13  UUID        16 bytes
   14  registered  an array of the registered name and the value that its encoder gave
=====  ==========  =========================================================================

Sets are sorted because their own order differs from process to process: a set that was only read
must give the bytes it came from.
"""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.complex cimport PyComplex_FromDoubles, PyComplex_ImagAsDouble, PyComplex_RealAsDouble
from cpython.datetime cimport date, datetime, import_datetime, time, timedelta
from cpython.dict cimport PyDict_Copy
from cpython.list cimport PyList_AsTuple, PyList_New, PyList_SET_ITEM
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int8_t, int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from msm_fast._core.c_msgpack cimport *
from msm_fast._core.moments cimport *

from msm_fast._core.zones import decode_zone, encode_zone
from msm_fast.errors import ConfigurationError, CorruptRecord

__all__ = ["dumps", "loads", "register_type"]

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object number) except? 0xFFFFFFFFFFFFFFFF
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    object PyUnicode_DecodeUTF8(const char *buf, Py_ssize_t size, const char *errors)

import_datetime()

cdef enum:
    DEPTH_LIMIT = 64
    EXT_INT = 1
    EXT_COMPLEX = 2
    EXT_BYTEARRAY = 3
    EXT_TUPLE = 4
    EXT_SET = 5
    EXT_FROZENSET = 6
    EXT_DATETIME = 7
    EXT_DATE = 8
    EXT_TIME = 9
    EXT_TIMEDELTA = 10
    EXT_DECIMAL = 11
    EXT_FRACTION = 12
    EXT_UUID = 13
    EXT_REGISTERED = 14

# A type's registration is (name, encode); a name's is decode. Reading a dict is atomic, so no lock is needed.
cdef dict _encoders = {}
cdef dict _decoders = {}

cdef frozenset _SCALARS = frozenset({
    type(None), bool, int, float, complex, str, bytes, datetime, date, time,
    timedelta, Decimal, Fraction, UUID,
})
cdef frozenset _BUILT_IN = _SCALARS | {bytearray, list, tuple, dict, set, frozenset}


def dumps(value: object) -> bytes:
    """Return value as one MessagePack value.

    Raises:  TypeError for a type that is neither built in nor registered (a subclass is neither); ValueError
             for more than 64 levels of nesting, text with a lone surrogate, a part beyond 4 GiB; whatever a
             registered encoder raises.
    Source:  https://github.com/msgpack/msgpack/blob/master/spec.md; extension codes in the module's docstring.
    Thread-safety: a container another thread changes meanwhile is written as it stood at one moment.
    """
    cdef Writer out = Writer()
    encode_value(out, value)
    return PyBytes_FromStringAndSize(out.data, out.size)


def loads(bytes data not None) -> object:
    """Return the value that data holds, equal to what went into `dumps`, type included.

    Raises:  CorruptRecord, whatever is wrong. No length takes memory before it is known to fit the data.
    """
    return decode_value(<const uint8_t *> PyBytes_AS_STRING(data), 0, PyBytes_GET_SIZE(data))


def register_type(
    cls: type, name: str, encode: Callable[[Any], object], decode: Callable[[Any], Any]
) -> None:
    """Let the codec carry instances of exactly cls, under name.

    name: what stands in the record; keep it when the class is renamed or moved.
    encode: gives a value the codec can carry. decode: takes that value back to an instance.
    Raises:  ConfigurationError when cls or name is taken, cls is built in, or an argument is of another kind.
    Thread-safety: may be called at any time; meant for start-up, before the first session is read.
    """
    if not isinstance(cls, type) or cls in _BUILT_IN or cls in _encoders:
        raise ConfigurationError("cls", cls, "a class neither built into the codec nor registered already")
    if type(name) is not str or not name.isprintable() or not 0 < len(name) <= 255 or name in _decoders:
        raise ConfigurationError("name", name, "1 to 255 printable characters not registered already")
    if not callable(encode) or not callable(decode):
        raise ConfigurationError("encode, decode", (encode, decode), "two callables")
    _decoders[name] = decode
    _encoders[cls] = (name, encode)


@cython.final
cdef class Writer:
    """A growing buffer, owned by one call. Truncating it to an earlier size undoes what was written since."""

    def __cinit__(self):
        self.capacity = 512
        self.data = <char *> PyMem_Malloc(self.capacity)
        if self.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef int reserve(self, Py_ssize_t n_bytes) except -1:
        """Make room for n_bytes more. Pointers into data do not survive this."""
        if self.capacity - self.size >= n_bytes:
            return 0
        cdef Py_ssize_t capacity = max(2 * self.capacity, self.size + n_bytes)
        cdef char *data = <char *> PyMem_Realloc(self.data, capacity)
        if data == NULL:
            raise MemoryError
        self.data = data
        self.capacity = capacity
        return 0

    cdef int write(self, const void *source, Py_ssize_t n_bytes) except -1:
        self.reserve(n_bytes)
        memcpy(self.data + self.size, source, n_bytes)
        self.size += n_bytes
        return 0

    cdef void truncate(self, Py_ssize_t size) noexcept:
        self.size = size


cdef int encode_value(Writer out, object value) except -1:
    """Append value. After a failure the caller truncates: part of the value may have been written."""
    return write_value(out, value, 0)


cdef int write_value(Writer out, object value, int depth) except -1:
    kind = type(value)
    if kind is str:
        return write_str(out, value)
    if kind is int:
        return write_int(out, value)
    if value is None:
        return write_byte(out, 0xC0)
    if kind is bool:
        return write_byte(out, 0xC3 if value is True else 0xC2)
    if kind is float:
        out.reserve(MSM_NUMBER_SIZE_MAX)
        out.size += msm_float_write(<double> value, <uint8_t *> out.data + out.size)
        return 0
    if kind is bytes:
        write_head(out, MSM_TOKEN_BIN, PyBytes_GET_SIZE(value))
        return out.write(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if kind is dict or kind is list or kind is tuple or kind is set or kind is frozenset:
        return write_container(out, value, kind, depth)
    return write_extension(out, value, kind, depth)


cdef int write_byte(Writer out, uint8_t byte) except -1:
    return out.write(&byte, 1)


cdef int write_head(Writer out, msm_token_kind kind, Py_ssize_t length, int8_t ext_code=0) except -1:
    if length > 0xFFFFFFFF:
        raise ValueError("a part of the value is longer than MessagePack allows (4 GiB)")
    out.reserve(MSM_HEAD_SIZE_MAX)
    out.size += msm_head_write(kind, <uint32_t> length, ext_code, <uint8_t *> out.data + out.size)
    return 0


cdef int write_str(Writer out, object text) except -1:
    cdef Py_ssize_t n_bytes
    cdef const char *utf8 = PyUnicode_AsUTF8AndSize(text, &n_bytes)
    write_head(out, MSM_TOKEN_STR, n_bytes)
    return out.write(utf8, n_bytes)


cdef int write_int(Writer out, object number) except -1:
    cdef int overflow = 0
    cdef long long small = PyLong_AsLongLongAndOverflow(number, &overflow)
    if overflow == 0:
        out.reserve(MSM_NUMBER_SIZE_MAX)
        out.size += msm_int_write(small, <uint8_t *> out.data + out.size)
        return 0
    if overflow > 0 and number.bit_length() <= 64:
        out.reserve(MSM_NUMBER_SIZE_MAX)
        out.size += msm_uint_write(PyLong_AsUnsignedLongLong(number), <uint8_t *> out.data + out.size)
        return 0
    n_bits = (number if overflow > 0 else ~number).bit_length()
    return write_payload(out, EXT_INT, number.to_bytes(n_bits // 8 + 1, "big", signed=True))


cdef int write_payload(Writer out, int8_t ext_code, bytes payload) except -1:
    write_head(out, MSM_TOKEN_EXT, PyBytes_GET_SIZE(payload), ext_code)
    return out.write(PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))


# An extension that holds values gets its head when its length is known: room is left for the longest head, then
# the payload moves up to the head it really has.
cdef Py_ssize_t open_extension(Writer out) except -1:
    out.reserve(MSM_HEAD_SIZE_MAX)
    out.size += MSM_HEAD_SIZE_MAX
    return out.size


cdef int close_extension(Writer out, int8_t ext_code, Py_ssize_t payload) except -1:
    cdef Py_ssize_t n_bytes = out.size - payload
    out.size = payload - MSM_HEAD_SIZE_MAX
    write_head(out, MSM_TOKEN_EXT, n_bytes, ext_code)
    memmove(out.data + out.size, out.data + payload, n_bytes)
    out.size += n_bytes
    return 0


# Each container is copied first: an encoder that was registered, or another thread, may change it meanwhile.
cdef int write_container(Writer out, object value, object kind, int depth) except -1:
    cdef Py_ssize_t payload
    check_depth(depth)
    if kind is list:
        return write_array(out, PyList_AsTuple(value), depth)
    if kind is dict:
        return write_map(out, PyDict_Copy(value), depth)
    payload = open_extension(out)
    if kind is tuple:
        write_array(out, value, depth)
        return close_extension(out, EXT_TUPLE, payload)
    write_sorted(out, list(value), depth)
    return close_extension(out, EXT_SET if kind is set else EXT_FROZENSET, payload)


cdef int check_depth(int depth) except -1:
    if depth >= DEPTH_LIMIT:
        raise ValueError(f"the value is nested deeper than {DEPTH_LIMIT} levels, or contains itself")
    return 0


cdef int write_array(Writer out, tuple items, int depth) except -1:
    write_head(out, MSM_TOKEN_ARRAY, len(items))
    for item in items:
        write_value(out, item, depth + 1)
    return 0


cdef int write_map(Writer out, dict items, int depth) except -1:
    write_head(out, MSM_TOKEN_MAP, len(items))
    for key, item in items.items():
        write_value(out, key, depth + 1)
        write_value(out, item, depth + 1)
    return 0


cdef int write_sorted(Writer out, list items, int depth) except -1:
    cdef Py_ssize_t start
    cdef bytes encoding
    cdef list encodings = []
    write_head(out, MSM_TOKEN_ARRAY, len(items))
    start = out.size
    for item in items:
        write_value(out, item, depth + 1)
        encodings.append(PyBytes_FromStringAndSize(out.data + start, out.size - start))
        out.truncate(start)
    encodings.sort()
    for encoding in encodings:
        out.write(PyBytes_AS_STRING(encoding), PyBytes_GET_SIZE(encoding))
    return 0


cdef int write_extension(Writer out, object value, object kind, int depth) except -1:
    if kind is datetime or kind is date or kind is time or kind is timedelta:
        return write_moment(out, value, kind)
    if kind is Decimal:
        # The context of the running thread may ask for a small e; the record has one form only.
        return write_payload(out, EXT_DECIMAL, str(value).replace("e", "E").encode("ascii"))
    if kind is UUID:
        return write_payload(out, EXT_UUID, value.int.to_bytes(16, "big"))
    if kind is bytearray:
        return write_payload(out, EXT_BYTEARRAY, bytes(value))
    if kind is complex:
        return write_complex(out, value)
    cdef Py_ssize_t payload = open_extension(out)
    if kind is Fraction:
        write_array(out, (value.numerator, value.denominator), depth)
        return close_extension(out, EXT_FRACTION, payload)
    registered = _encoders.get(kind)
    if registered is None:
        raise TypeError(
            f"{kind.__module__}.{kind.__qualname__} is not a type the codec carries: register_type adds it"
        )
    check_depth(depth)
    name, encode = registered
    write_array(out, (name, encode(value)), depth)
    return close_extension(out, EXT_REGISTERED, payload)


# Not by way of C's complex type, where i times infinity is not a number in its real part.
cdef int write_complex(Writer out, object number) except -1:
    cdef uint8_t payload[16]
    store_double(PyComplex_RealAsDouble(number), payload)
    store_double(PyComplex_ImagAsDouble(number), payload + 8)
    write_head(out, MSM_TOKEN_EXT, 16, EXT_COMPLEX)
    return out.write(payload, 16)


cdef double load_double(const uint8_t *at) noexcept nogil:
    cdef uint64_t bits = msm_big_endian_read(at, 8)
    cdef double number
    memcpy(&number, &bits, 8)
    return number


cdef void store_double(double number, uint8_t *out) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &number, 8)
    msm_big_endian_write(bits, 8, out)


cdef int write_moment(Writer out, object value, object kind) except -1:
    cdef uint8_t payload[DATETIME_SIZE]
    if kind is datetime:
        store_datetime(value, payload)
        return write_zoned(out, EXT_DATETIME, payload, DATETIME_SIZE, value.tzinfo)
    if kind is time:
        store_time(value, payload)
        return write_zoned(out, EXT_TIME, payload, TIME_SIZE, value.tzinfo)
    if kind is date:
        store_date(value, payload)
        return write_zoned(out, EXT_DATE, payload, DATE_SIZE, None)
    store_timedelta(value, payload)
    return write_zoned(out, EXT_TIMEDELTA, payload, TIMEDELTA_SIZE, None)


cdef int write_zoned(
    Writer out, int8_t ext_code, const uint8_t *payload, Py_ssize_t n_bytes, object zone
) except -1:
    cdef bytes zone_bytes
    if zone is None:
        write_head(out, MSM_TOKEN_EXT, n_bytes, ext_code)
        return out.write(payload, n_bytes)
    zone_bytes = encode_zone(zone)
    write_head(out, MSM_TOKEN_EXT, n_bytes + PyBytes_GET_SIZE(zone_bytes), ext_code)
    out.write(payload, n_bytes)
    return out.write(PyBytes_AS_STRING(zone_bytes), PyBytes_GET_SIZE(zone_bytes))


# Where decoding stands. owed: how many values the containers around this one still wait for. Each takes a byte at
# least, so a length is checked against what is left without them: all lengths together can't exceed the input.
cdef struct Reader:
    const uint8_t *buf
    Py_ssize_t pos
    Py_ssize_t end
    Py_ssize_t owed


cdef object decode_value(const uint8_t *buf, Py_ssize_t start, Py_ssize_t end):
    """Return the one value that stands in buf[start:end]; the caller keeps buf alive.

    Raises:  CorruptRecord, its offset counted from buf.
    """
    cdef Reader reader
    reader.buf = buf
    reader.pos = start
    reader.end = end
    reader.owed = 0
    try:
        value = read_value(&reader, 0)
    except CorruptRecord:
        raise
    except Exception as error:
        raise CorruptRecord(f"a value cannot be decoded: {type(error).__name__}", reader.pos) from error
    if reader.pos != end:
        raise CorruptRecord("bytes follow the value", reader.pos)
    return value


cdef object read_value(Reader *reader, int depth):
    cdef msm_token_t token
    cdef const char *at
    cdef msm_status status = msm_token_read(
        reader.buf + reader.pos, <size_t> (reader.end - reader.pos - reader.owed), &token
    )
    if status != MSM_OK:
        reason = "no MessagePack value" if status == MSM_ERR_SYNTAX else "a value is cut"
        raise CorruptRecord(reason, reader.pos)
    reader.pos += token.head
    at = <const char *> reader.buf + reader.pos
    if token.kind == MSM_TOKEN_STR:
        reader.pos += token.length
        return PyUnicode_DecodeUTF8(at, token.length, NULL)
    if token.kind == MSM_TOKEN_UINT:
        return token.number.u
    if token.kind == MSM_TOKEN_INT:
        return token.number.i
    if token.kind == MSM_TOKEN_NIL:
        return None
    if token.kind == MSM_TOKEN_TRUE:
        return True
    if token.kind == MSM_TOKEN_FALSE:
        return False
    if token.kind == MSM_TOKEN_FLOAT:
        return token.number.f
    if token.kind == MSM_TOKEN_BIN:
        reader.pos += token.length
        return PyBytes_FromStringAndSize(at, token.length)
    if token.kind == MSM_TOKEN_ARRAY:
        return read_list(reader, token.length, depth)
    if token.kind == MSM_TOKEN_MAP:
        return read_dict(reader, token.length, depth)
    reader.pos += token.length
    return read_extension(reader, token.ext_code, reader.pos - token.length, depth)


cdef list read_list(Reader *reader, Py_ssize_t length, int depth):
    cdef Py_ssize_t i
    if depth >= DEPTH_LIMIT:
        raise CorruptRecord(f"a value is nested deeper than {DEPTH_LIMIT} levels", reader.pos)
    cdef list items = PyList_New(length)
    reader.owed += length
    for i in range(length):
        reader.owed -= 1
        item = read_value(reader, depth + 1)
        Py_INCREF(item)
        PyList_SET_ITEM(items, i, item)
    return items


cdef dict read_dict(Reader *reader, Py_ssize_t length, int depth):
    cdef dict items = {}
    if depth >= DEPTH_LIMIT:
        raise CorruptRecord(f"a value is nested deeper than {DEPTH_LIMIT} levels", reader.pos)
    reader.owed += 2 * length
    for _ in range(length):
        reader.owed -= 1
        key = read_value(reader, depth + 1)
        reader.owed -= 1
        items[key] = read_value(reader, depth + 1)
    if len(items) != length:
        raise CorruptRecord("a key stands twice in a dict", reader.pos)
    return items


cdef object read_extension(Reader *outer, int code, Py_ssize_t start, int depth):
    cdef Reader inner
    cdef Py_ssize_t n_bytes = outer.pos - start
    cdef const uint8_t *at = outer.buf + start
    if code == EXT_DATETIME or code == EXT_DATE or code == EXT_TIME or code == EXT_TIMEDELTA:
        return read_moment(code, at, n_bytes)
    if EXT_TUPLE <= code <= EXT_FROZENSET or code == EXT_FRACTION or code == EXT_REGISTERED:
        inner.buf = outer.buf
        inner.pos = start
        inner.end = outer.pos
        inner.owed = 0
        return read_nested(&inner, code, depth)
    payload = PyBytes_FromStringAndSize(<const char *> at, n_bytes)
    if code == EXT_INT:
        return int.from_bytes(payload, "big", signed=True)
    if code == EXT_DECIMAL:
        text = payload.decode("ascii")
        number = Decimal(text)
        if str(number).replace("e", "E") == text:
            return number
        raise CorruptRecord("not the text of a Decimal", start)
    if code == EXT_UUID:
        return UUID(bytes=payload)
    if code == EXT_BYTEARRAY:
        return bytearray(payload)
    if code == EXT_COMPLEX and n_bytes == 16:
        return PyComplex_FromDoubles(load_double(at), load_double(at + 8))
    raise CorruptRecord(f"extension {code} of {n_bytes} bytes is none of this version's", start)


cdef object read_nested(Reader *reader, int code, int depth):
    cdef Py_ssize_t start = reader.pos
    values = read_value(reader, depth)
    if type(values) is not list or reader.pos != reader.end:
        raise CorruptRecord(f"extension {code} does not hold one array", start)
    if code == EXT_TUPLE:
        return tuple(values)
    if code == EXT_SET or code == EXT_FROZENSET:
        unique = set(values) if code == EXT_SET else frozenset(values)
        if len(unique) == len(values):
            return unique
        raise CorruptRecord("an element stands twice in a set", start)
    first, second = values
    if code == EXT_REGISTERED:
        if type(first) is str and first in _decoders:
            return _decoders[first](second)
        raise CorruptRecord("no type is registered under the name of a value", start)
    if type(first) is int and type(second) is int and second > 0:
        fraction = Fraction(first, second)
        if fraction.denominator == second:
            return fraction
    raise CorruptRecord("no Fraction in lowest terms", start)


cdef object read_moment(int code, const uint8_t *at, Py_ssize_t n_bytes):
    if code == EXT_DATE and n_bytes == DATE_SIZE:
        return load_date(at)
    if code == EXT_TIMEDELTA and n_bytes == TIMEDELTA_SIZE:
        return load_timedelta(at)
    if code == EXT_TIME and n_bytes >= TIME_SIZE:
        return load_time(at, read_zone(at + TIME_SIZE, n_bytes - TIME_SIZE))
    if code == EXT_DATETIME and n_bytes >= DATETIME_SIZE:
        return load_datetime(at, read_zone(at + DATETIME_SIZE, n_bytes - DATETIME_SIZE))
    raise ValueError("a date or time of a wrong size")


cdef object read_zone(const uint8_t *at, Py_ssize_t n_bytes):
    return None if n_bytes == 0 else decode_zone(PyBytes_FromStringAndSize(<const char *> at, n_bytes))


cdef bint is_immutable(object value) except -1:
    """Tell whether nothing that holds value can change what its encoding would be."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is tuple or kind is frozenset:
        for item in value:
            if not is_immutable(item):
                return False
        return True
    return False


cdef bint carries_type(object kind) except -1:
    """Tell whether values of exactly this type can be encoded, as a rule."""
    try:
        return kind in _BUILT_IN or kind in _encoders
    except Exception:  # a metaclass may refuse to be hashed
        return False
