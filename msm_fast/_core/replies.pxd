from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from msm_fast._core.c_wire cimport msm_wire_head_t


cdef class Reply:
    cdef readonly str status
    cdef readonly bytes value
    cdef readonly uint64_t cas
    cdef readonly uint32_t client_flags
    cdef readonly int64_t ttl_s
    cdef readonly str text


cdef class Replies(list):
    cdef readonly object life
    cdef readonly bint compares


cdef class ReplyParser:
    cdef readonly list replies
    cdef tuple _commands
    cdef Py_ssize_t _turn           # index of the command whose reply is next
    cdef uint64_t _opaque           # and its opaque
    cdef bytes _carry               # the start of a head line whose end has not arrived
    cdef Reply _reply               # VA: its value has not fully arrived
    cdef PyObject *_value           # that value as far as it goes: bytes that nobody else has seen
    cdef size_t _filled
    cdef size_t _value_len
    cdef str _failure

    cdef bint take(self, const uint8_t *text, size_t n) except -1
    cdef size_t take_own(self, const uint8_t *text, size_t n) except? 0
    cdef uint8_t *room(self, size_t *n) except? NULL
    cdef bint take_filled(self, size_t n) except -1
    cdef size_t _read(self, const uint8_t *text, size_t n) except? 0
    cdef size_t _read_carried(self, const uint8_t *text, size_t n) except? 0
    cdef size_t _read_head(self, const uint8_t *text, size_t n) except? 0
    cdef size_t _read_value(self, const uint8_t *text, size_t n) except? 0
    cdef int _end_value(self) except -1
    cdef int _check_turn(self, const msm_wire_head_t *head, const uint8_t *text) except -1
    cdef int _end_turn(self, Reply reply) except -1


cdef ReplyParser new_parser(tuple commands, uint64_t first_opaque)
cdef Replies new_replies(list replies, object life, bint compares)
