"""memcached's meta protocol without I/O: what was answered. Bytes become replies, each to the command whose turn it is.

Source: doc/protocol.txt of memcached.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy

from msm_fast._core.c_wire cimport *
from msm_fast._core.wire cimport Command, checked_commands, checked_number, has_opaque

__all__ = ["ProtocolError", "Replies", "Reply", "ReplyParser"]

cdef extern from "Python.h":
    # These two keep the one reference in a pointer, which Cython's own declarations cannot say.
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *text, Py_ssize_t n) except NULL
    int _PyBytes_Resize(PyObject **text, Py_ssize_t n) except -1
    char *bytes_start "PyBytes_AS_STRING"(PyObject *text)

cdef enum:
    MAX_TEXT = 200                  # of a server's message
    FIRST_CAPACITY = 1 << 20        # of a value that arrives in pieces; it doubles as bytes do arrive

cdef tuple STATUSES = ("HD", "VA", "EN", "NF", "NS", "EX", "MN", "VERSION", "SERVER_ERROR")

# Which codes answer which verb, as bits. A CLIENT_ERROR or ERROR answers none: after it replies can no longer be
# told apart.
cdef uint32_t[5] ANSWERS = [
    1 << MSM_WIRE_HD | 1 << MSM_WIRE_VA | 1 << MSM_WIRE_EN | 1 << MSM_WIRE_SERVER_ERROR,
    1 << MSM_WIRE_HD | 1 << MSM_WIRE_NS | 1 << MSM_WIRE_EX | 1 << MSM_WIRE_NF | 1 << MSM_WIRE_SERVER_ERROR,
    1 << MSM_WIRE_HD | 1 << MSM_WIRE_NF | 1 << MSM_WIRE_EX | 1 << MSM_WIRE_SERVER_ERROR,
    1 << MSM_WIRE_MN | 1 << MSM_WIRE_SERVER_ERROR,
    1 << MSM_WIRE_VERSION | 1 << MSM_WIRE_SERVER_ERROR,
]


class ProtocolError(Exception):
    """The server's bytes are no answer to what was asked: the connection is poisoned, close it.

    reason: what was wrong, in words.
    """

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


@cython.final
@cython.freelist(16)
cdef class Reply:
    """One reply.

    status: "HD" "VA" "EN" "NF" "NS" "EX" "MN" "VERSION" or "SERVER_ERROR".
    value: with VA; else None.
    cas: 0 when the reply has none. client_flags: 32 bits.
    ttl_s: seconds; -1: the item has no expiry, or the reply does not say.
    text: of VERSION the version, of SERVER_ERROR the message (printable ASCII, at most 200 characters), else "".
    Thread-safety: immutable.
    """

    def __init__(self, str status not None, bytes value=None, cas=0, client_flags=0, ttl_s=-1, str text not None=""):
        if self.status is not None:
            raise TypeError("a reply does not change")
        self.value = value
        self.cas = cas
        self.client_flags = client_flags
        self.ttl_s = ttl_s
        self.text = text
        self.status = status

    def __repr__(self):
        size = "" if self.value is None else f" {len(self.value)} bytes"
        return f"<Reply {self.status}{size} cas={self.cas} ttl_s={self.ttl_s}{self.text and ' '}{self.text}>"


@cython.final
cdef class Replies(list):
    """The replies to one batch.

    life: of the node that gave them; it grows each time the node loses its memory. compares: the node leaves out a
    value that has not changed, if a command says which CAS value is known (memcached 1.6.40).
    """

    def __init__(self, replies=(), life=1, compares=False):
        list.__init__(self, replies)
        self.life = life
        self.compares = compares


cdef Replies new_replies(list replies, object life, bint compares):
    """Return Replies(replies, life, compares)."""
    cdef Replies made = Replies.__new__(Replies)
    made.extend(replies)
    made.life = life
    made.compares = compares
    return made


cdef str _printable(const uint8_t *text, size_t n):
    """Return at most 200 bytes of what a server said, with ? for what is not printable ASCII."""
    cdef size_t i
    cdef uint8_t[MAX_TEXT] clean
    n = min(n, <size_t>MAX_TEXT)
    for i in range(n):
        clean[i] = text[i] if 0x20 <= text[i] <= 0x7e else <uint8_t>b"?"
    return clean[:n].decode("ascii")


@cython.final
cdef class ReplyParser:
    """Read the replies to one batch.

    commands, first_opaque: as given to encode().
    replies: what has been read so far, in the order of the commands.
    Raises:  as encode().
    Thread-safety: none; it belongs to one exchange.
    """

    def __cinit__(self):
        self._carry = b""
        self.replies = []

    def __init__(self, commands, first_opaque):
        if self._commands is not None:
            raise TypeError("a parser reads the replies to one batch")
        self._commands = checked_commands(commands)
        self._opaque = checked_number("first_opaque", first_opaque, UINT64_MAX)

    def __dealloc__(self):
        Py_XDECREF(self._value)

    def feed(self, bytes data not None):
        """Take what arrived. True: every reply of the batch is complete.

        data: any piece of the stream; how it is cut makes no difference.
        Raises:  ProtocolError, now and in every later call: the connection is poisoned.
        Cost:    linear in the stream; a value that arrives whole is copied once.
        """
        return self.take(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))

    cdef bint take(self, const uint8_t *text, size_t n) except -1:
        """Do what `feed` does."""
        if self.take_own(text, n) < n:
            self._failure = "bytes after the last reply"
            raise ProtocolError(self._failure)
        return self._turn == len(self._commands)

    cdef size_t take_own(self, const uint8_t *text, size_t n) except? 0:
        """Take what belongs to the batch, and return how much of text that was: all of it, or what its replies end."""
        if self._failure is not None:
            raise ProtocolError(self._failure)
        try:
            return self._read(text, n)
        except BaseException as error:
            self._failure = error.reason if isinstance(error, ProtocolError) else "reading was broken off"
            raise

    cdef uint8_t *room(self, size_t *n) except? NULL:
        """Return where the next bytes of a value that is arriving may be written, and how many; NULL: none is."""
        cdef size_t capacity
        if self._reply is None or self._failure is not None:
            return NULL
        capacity = <size_t>PyBytes_GET_SIZE(<object>self._value)
        if self._filled == capacity:
            capacity = min(capacity * 2, self._value_len + 2)
            _PyBytes_Resize(&self._value, <Py_ssize_t>capacity)
        n[0] = capacity - self._filled
        return <uint8_t *>bytes_start(self._value) + self._filled

    cdef bint take_filled(self, size_t n) except -1:
        """Take n bytes that were written where `room` said. True: as for `feed`."""
        self._filled += n
        try:
            if self._filled == self._value_len + 2:
                self._end_value()
        except BaseException as error:
            self._failure = error.reason if isinstance(error, ProtocolError) else "reading was broken off"
            raise
        return self._turn == len(self._commands)

    cdef size_t _read(self, const uint8_t *text, size_t n) except? 0:
        cdef size_t at = 0
        while at < n and self._turn < len(self._commands):
            if self._reply is not None:
                at += self._read_value(text + at, n - at)
            elif self._carry:
                at += self._read_carried(text + at, n - at)
            else:
                at += self._read_head(text + at, n - at)
        return at

    cdef size_t _read_carried(self, const uint8_t *text, size_t n) except? 0:
        """Complete the head line that began in an earlier piece. Returns how much of text belongs to it."""
        cdef size_t held = <size_t>len(self._carry)
        cdef size_t wanted = min(n, MSM_WIRE_MAX_HEAD_LEN - held)
        cdef const uint8_t *newline = <const uint8_t *>memchr(text, b"\n", wanted)
        if newline is not NULL:
            wanted = <size_t>(newline - text) + 1
        cdef bytes line = self._carry + PyBytes_FromStringAndSize(<const char *>text, <Py_ssize_t>wanted)
        self._carry = b""
        self._read_head(<const uint8_t *>PyBytes_AS_STRING(line), held + wanted)
        return wanted

    cdef size_t _read_head(self, const uint8_t *text, size_t n) except? 0:
        """Read a head line, and its value if that is there too. Returns how much of text they took."""
        cdef msm_wire_head_t head
        cdef msm_status status = msm_wire_scan_head(text, n, &head)
        cdef Reply reply
        if status == MSM_INCOMPLETE:
            self._carry = PyBytes_FromStringAndSize(<const char *>text, <Py_ssize_t>n)
            return n
        if status != MSM_OK:
            raise ProtocolError(_malformed(status))
        self._check_turn(&head, text)
        reply = Reply.__new__(Reply)
        reply.status = STATUSES[<Py_ssize_t>head.code]
        reply.cas = head.cas
        reply.client_flags = head.client_flags
        reply.ttl_s = head.ttl_s
        reply.text = ""
        if head.code == MSM_WIRE_VERSION or head.code == MSM_WIRE_SERVER_ERROR:
            reply.text = _printable(text + head.text_offset, head.text_len)
        if head.code != MSM_WIRE_VA:
            self._end_turn(reply)
        elif n - head.head_len >= head.value_len + 2:
            _check_value_end(text[head.head_len + head.value_len], text[head.head_len + head.value_len + 1])
            reply.value = PyBytes_FromStringAndSize(
                <const char *>text + head.head_len, <Py_ssize_t>head.value_len
            )
            self._end_turn(reply)
            return head.head_len + head.value_len + 2
        else:
            self._value = new_bytes(NULL, <Py_ssize_t>min(head.value_len + 2, <size_t>FIRST_CAPACITY))
            self._value_len = head.value_len
            self._filled = 0
            self._reply = reply
        return head.head_len

    cdef size_t _read_value(self, const uint8_t *text, size_t n) except? 0:
        """Take what text has of the value that is arriving, with its line end. Returns how much that was."""
        cdef size_t taken = 0
        cdef uint8_t *at = self.room(&taken)
        taken = min(n, taken)
        memcpy(at, text, taken)
        self._filled += taken
        if self._filled == self._value_len + 2:
            self._end_value()
        return taken

    cdef int _end_value(self) except -1:
        cdef const char *end = bytes_start(self._value) + self._value_len
        _check_value_end(<uint8_t>end[0], <uint8_t>end[1])
        _PyBytes_Resize(&self._value, <Py_ssize_t>self._value_len)
        self._reply.value = <bytes>self._value
        Py_XDECREF(self._value)
        self._value = NULL
        self._end_turn(self._reply)
        self._reply = None
        return 0

    cdef int _check_turn(self, const msm_wire_head_t *head, const uint8_t *text) except -1:
        """Refuse a head that cannot answer the command whose turn it is."""
        cdef Command command = self._commands[self._turn]
        if head.code == MSM_WIRE_CLIENT_ERROR:
            raise ProtocolError(f"the server refused {command.verb}: {_printable(text, head.head_len - 2)}")
        if not ANSWERS[<int>command._verb] >> <int>head.code & 1:
            raise ProtocolError(f"{STATUSES[<Py_ssize_t>head.code]} does not answer {command.verb}")
        if head.code == MSM_WIRE_HD and command._needs_value:
            raise ProtocolError("HD does not answer mg with v: it has no value")
        if not has_opaque(command._verb) or head.code == MSM_WIRE_SERVER_ERROR:
            return 0
        if not head.has_opaque:
            raise ProtocolError("a reply without its opaque")
        if head.opaque != self._opaque:
            raise ProtocolError("a reply with the opaque of another command")
        return 0

    cdef int _end_turn(self, Reply reply) except -1:
        self.replies.append(reply)
        self._turn += 1
        self._opaque += 1
        return 0


cdef ReplyParser new_parser(tuple commands, uint64_t first_opaque):
    """Return ReplyParser(commands, first_opaque) for commands that were checked before."""
    cdef ReplyParser parser = ReplyParser.__new__(ReplyParser)
    parser._commands = commands
    parser._opaque = first_opaque
    return parser


cdef int _check_value_end(uint8_t first, uint8_t second) except -1:
    if first != 13 or second != 10:
        raise ProtocolError("a value that does not end with CR LF")
    return 0


cdef str _malformed(msm_status status):
    if status == MSM_ERR_LIMIT:
        return f"a reply line over {MSM_WIRE_MAX_HEAD_LEN} bytes, or a value over {MSM_WIRE_MAX_VALUE_LEN}"
    if status == MSM_ERR_DUPLICATE:
        return "a return flag that stands twice"
    return "a line that is no reply"
