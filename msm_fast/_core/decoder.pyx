"""Bytes to values: the reading half of the codec, whose module has the table of the format."""

from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.complex cimport PyComplex_FromDoubles
from cpython.datetime cimport import_datetime
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from msm_fast._core.c_msgpack cimport *
from msm_fast._core.collisions cimport EQUAL_HASHES_MAX, is_crowded
from msm_fast._core.extensions cimport *
from msm_fast._core.moments cimport *

from msm_fast._core.zones import decode_zone
from msm_fast.errors import CorruptRecord

__all__ = []

cdef extern from "Python.h":
    object PyUnicode_DecodeUTF8(const char *buf, Py_ssize_t size, const char *errors)

import_datetime()

cdef dict decoders = {}


# Where decoding stands. owed: how many values the containers around this one still wait for. Each takes a byte at
# least, so a length is checked against what is left without them: all lengths together can't exceed the input.
cdef struct Reader:
    const uint8_t *buf
    Py_ssize_t pos
    Py_ssize_t end
    Py_ssize_t owed


cdef object decode_value(const uint8_t *buf, Py_ssize_t start, Py_ssize_t end):
    """Return the one value that stands in buf[start:end]; the caller keeps buf alive.

    Raises:  CorruptRecord, its offset counted from buf; MemoryError, which says nothing of the value.
    """
    cdef Reader reader
    reader.buf = buf
    reader.pos = start
    reader.end = end
    reader.owed = 0
    try:
        value = read_value(&reader, 0)
    except (CorruptRecord, MemoryError):
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
    cdef dict counts = {} if length > EQUAL_HASHES_MAX else None
    if depth >= DEPTH_LIMIT:
        raise CorruptRecord(f"a value is nested deeper than {DEPTH_LIMIT} levels", reader.pos)
    reader.owed += 2 * length
    for _ in range(length):
        reader.owed -= 1
        key = read_value(reader, depth + 1)
        if counts is not None and is_crowded(counts, key):
            raise CorruptRecord(f"more than {EQUAL_HASHES_MAX} keys of a dict have one hash", reader.pos)
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
    cdef msm_token_t token
    cdef msm_status status = msm_token_read(reader.buf + start, <size_t> (reader.end - start), &token)
    # Asked before it is read: an extension in an extension, and so on, would be no deeper level, and has no end.
    if status != MSM_OK or token.kind != MSM_TOKEN_ARRAY:
        raise CorruptRecord(f"extension {code} does not hold one array", start)
    reader.pos += token.head
    values = read_list(reader, token.length, depth)
    if reader.pos != reader.end:
        raise CorruptRecord(f"bytes follow the array of extension {code}", reader.pos)
    if code == EXT_TUPLE:
        return tuple(values)
    if code == EXT_SET or code == EXT_FROZENSET:
        if len(values) > EQUAL_HASHES_MAX:
            check_hashes(values, start)
        unique = set(values) if code == EXT_SET else frozenset(values)
        if len(unique) == len(values):
            return unique
        raise CorruptRecord("an element stands twice in a set", start)
    first, second = values
    if code == EXT_REGISTERED:
        if type(first) is str and first in decoders:
            return decoders[first](second)
        raise CorruptRecord("no type is registered under the name of a value", start)
    if type(first) is int and type(second) is int and second > 0:
        if max(first.bit_length(), second.bit_length()) > FRACTION_BITS_MAX:
            raise CorruptRecord(f"a Fraction has a part of more than {FRACTION_BITS_MAX} bits", start)
        fraction = Fraction(first, second)
        if fraction.denominator == second:
            return fraction
    raise CorruptRecord("no Fraction in lowest terms", start)


cdef int check_hashes(list elements, Py_ssize_t start) except -1:
    cdef dict counts = {}
    for element in elements:
        if is_crowded(counts, element):
            raise CorruptRecord(f"more than {EQUAL_HASHES_MAX} elements of a set have one hash", start)
    return 0


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


cdef double load_double(const uint8_t *at) noexcept nogil:
    cdef uint64_t bits = msm_big_endian_read(at, 8)
    cdef double number
    memcpy(&number, &bits, 8)
    return number
