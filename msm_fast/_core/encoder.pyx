"""Values to bytes: the writing half of the codec, whose module has the table of the format."""

from decimal import Decimal
from fractions import Fraction
from uuid import UUID

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.complex cimport PyComplex_ImagAsDouble, PyComplex_RealAsDouble
from cpython.datetime cimport date, datetime, import_datetime, time, timedelta
from cpython.dict cimport PyDict_Copy
from cpython.list cimport PyList_AsTuple
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport UINT32_MAX, int8_t, uint8_t, uint64_t
from libc.string cimport memcpy, memmove

from msm_fast._core.c_msgpack cimport *
from msm_fast._core.collisions cimport EQUAL_HASHES_MAX, is_crowded
from msm_fast._core.extensions cimport *
from msm_fast._core.moments cimport *

from msm_fast._core.zones import encode_zone

__all__ = []

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object number) except? 0xFFFFFFFFFFFFFFFF
    unsigned long long PyLong_AsUnsignedLongLongMask(object number) except? 0xFFFFFFFFFFFFFFFF
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef enum:
    # How often, in all, somebody else's code is called on a value that another thread changes meanwhile.
    CALLS_MAX = 8

import_datetime()

cdef dict encoders = {}
cdef frozenset _SCALARS = frozenset({
    type(None), bool, int, float, complex, str, bytes, datetime, date, time,
    timedelta, Decimal, Fraction, UUID,
})
cdef frozenset BUILT_IN = _SCALARS | {bytearray, list, tuple, dict, set, frozenset}


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


cdef object encoded_by(object encode, object value):
    """Return what encode, which is not ours, makes of value.

    Where it has a loop over a dict or a set, and another thread changes that meanwhile, Python raises a RuntimeError:
    no fault of the value's.
    """
    cdef int _
    for _ in range(CALLS_MAX - 1):
        try:
            return encode(value)
        except RuntimeError as error:
            if "during iteration" not in str(error):
                raise
    return encode(value)


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
        return write_bytes(out, MSM_TOKEN_BIN, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if kind is dict or kind is list or kind is tuple or kind is set or kind is frozenset:
        return write_container(out, value, kind, depth)
    return write_extension(out, value, kind, depth)


cdef int write_byte(Writer out, uint8_t byte) except -1:
    return out.write(&byte, 1)


cdef int write_head(Writer out, msm_token_kind kind, Py_ssize_t length, int8_t ext_code=0) except -1:
    if length > <Py_ssize_t> UINT32_MAX:
        raise ValueError("a part of the value is longer than MessagePack allows (4 GiB)")
    out.reserve(MSM_HEAD_SIZE_MAX)
    out.size += msm_head_write(kind, <uint32_t> length, ext_code, <uint8_t *> out.data + out.size)
    return 0


cdef int write_str(Writer out, object text) except -1:
    cdef Py_ssize_t n_bytes
    cdef const char *utf8 = PyUnicode_AsUTF8AndSize(text, &n_bytes)
    return write_bytes(out, MSM_TOKEN_STR, utf8, n_bytes)


cdef int write_bytes(
    Writer out, msm_token_kind kind, const char *source, Py_ssize_t n_bytes, int8_t ext_code=0
) except -1:
    if n_bytes > <Py_ssize_t> UINT32_MAX:
        raise ValueError("a part of the value is longer than MessagePack allows (4 GiB)")
    out.reserve(MSM_HEAD_SIZE_MAX + n_bytes)
    out.size += msm_head_write(kind, <uint32_t> n_bytes, ext_code, <uint8_t *> out.data + out.size)
    memcpy(out.data + out.size, source, n_bytes)
    out.size += n_bytes
    return 0


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
    return write_bytes(out, MSM_TOKEN_EXT, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), ext_code)


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
    return close_extension(out, <int8_t> (EXT_SET if kind is set else EXT_FROZENSET), payload)


cdef int check_depth(int depth) except -1:
    if depth >= DEPTH_LIMIT:
        raise ValueError(f"the value is nested deeper than {DEPTH_LIMIT} levels, or contains itself")
    return 0


cdef int check_hashes(object keys) except -1:
    """Refuse what no reader takes: see collisions.pxd."""
    cdef dict counts = {}
    for key in keys:
        if is_crowded(counts, key):
            raise ValueError(f"more than {EQUAL_HASHES_MAX} keys of a dict, or elements of a set, have one hash")
    return 0


cdef int write_array(Writer out, tuple items, int depth) except -1:
    write_head(out, MSM_TOKEN_ARRAY, len(items))
    for item in items:
        write_value(out, item, depth + 1)
    return 0


cdef int write_map(Writer out, dict items, int depth) except -1:
    if len(items) > EQUAL_HASHES_MAX:
        check_hashes(items)
    write_head(out, MSM_TOKEN_MAP, len(items))
    for key, item in items.items():
        write_value(out, key, depth + 1)
        write_value(out, item, depth + 1)
    return 0


cdef int write_sorted(Writer out, list items, int depth) except -1:
    cdef Py_ssize_t start
    cdef bytes encoding
    cdef list encodings = []
    if len(items) > EQUAL_HASHES_MAX:
        check_hashes(items)
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
    cdef Py_ssize_t n_bytes
    cdef const char *utf8
    cdef uint8_t[16] uuid
    if kind is datetime or kind is date or kind is time or kind is timedelta:
        return write_moment(out, value, kind)
    if kind is Decimal:
        # The context of the running thread may ask for a small e; the record has one form only.
        text = str(value).replace("e", "E")
        utf8 = PyUnicode_AsUTF8AndSize(text, &n_bytes)
        return write_bytes(out, MSM_TOKEN_EXT, utf8, n_bytes, EXT_DECIMAL)
    if kind is UUID:
        number = value.int
        msm_big_endian_write(PyLong_AsUnsignedLongLong(number >> 64), 8, uuid)
        msm_big_endian_write(PyLong_AsUnsignedLongLongMask(number), 8, uuid + 8)
        return write_bytes(out, MSM_TOKEN_EXT, <const char *> uuid, 16, EXT_UUID)
    if kind is bytearray:
        return write_payload(out, EXT_BYTEARRAY, bytes(value))
    if kind is complex:
        return write_complex(out, value)
    cdef Py_ssize_t payload = open_extension(out)
    if kind is Fraction:
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > FRACTION_BITS_MAX:
            raise ValueError(f"a Fraction has a part of more than {FRACTION_BITS_MAX} bits")
        check_depth(depth)  # of its array, as a reader counts
        write_array(out, (value.numerator, value.denominator), depth)
        return close_extension(out, EXT_FRACTION, payload)
    registered = encoders.get(kind)
    if registered is None:
        raise TypeError(
            f"{kind.__module__}.{kind.__qualname__} is not a type the codec carries: register_type adds it"
        )
    check_depth(depth)
    name, encode = registered
    write_array(out, (name, encoded_by(encode, value)), depth)
    return close_extension(out, EXT_REGISTERED, payload)


# Not by way of C's complex type, where i times infinity is not a number in its real part.
cdef int write_complex(Writer out, object number) except -1:
    cdef uint8_t payload[16]
    store_double(PyComplex_RealAsDouble(number), payload)
    store_double(PyComplex_ImagAsDouble(number), payload + 8)
    return write_bytes(out, MSM_TOKEN_EXT, <const char *> payload, 16, EXT_COMPLEX)


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
        return write_bytes(out, MSM_TOKEN_EXT, <const char *> payload, n_bytes, ext_code)
    zone_bytes = encode_zone(zone)
    write_head(out, MSM_TOKEN_EXT, n_bytes + PyBytes_GET_SIZE(zone_bytes), ext_code)
    out.write(payload, n_bytes)
    return out.write(PyBytes_AS_STRING(zone_bytes), PyBytes_GET_SIZE(zone_bytes))


cdef bint is_immutable(object value) except -1:
    """Tell whether nothing that holds value can change what its encoding would be.

    False also for what is nested too deep to be followed: only another serializer gives such a value.
    """
    return is_immutable_within(value, DEPTH_LIMIT)


cdef bint is_immutable_within(object value, int levels) except -1:
    kind = type(value)
    if kind in _SCALARS:
        return True
    if levels > 0 and (kind is tuple or kind is frozenset):
        for item in value:
            if not is_immutable_within(item, levels - 1):
                return False
        return True
    return False


cdef bint carries_type(object kind) except -1:
    """Tell whether values of exactly this type can be encoded, as a rule."""
    try:
        return kind in BUILT_IN or kind in encoders
    except Exception:  # a metaclass may refuse to be hashed
        return False
