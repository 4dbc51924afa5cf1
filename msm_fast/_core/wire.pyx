"""memcached's meta protocol without I/O: batches of commands to bytes, bytes to replies.

Servers from 1.6.18: from then on a miss carries its opaque too.
Source: doc/protocol.txt of memcached.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport UINT32_MAX, UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy

from math import ceil, isfinite

cdef extern from "Python.h":
    # These two keep the one reference in a pointer, which Cython's own declarations cannot say.
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *text, Py_ssize_t n) except NULL
    int _PyBytes_Resize(PyObject **text, Py_ssize_t n) except -1
    char *bytes_start "PyBytes_AS_STRING"(PyObject *text)

cdef extern from "msm_wire.h" nogil:
    ctypedef enum msm_status:
        MSM_OK
        MSM_INCOMPLETE
        MSM_ERR_LIMIT
        MSM_ERR_DUPLICATE

    ctypedef enum msm_wire_code:
        MSM_WIRE_HD
        MSM_WIRE_VA
        MSM_WIRE_EN
        MSM_WIRE_NF
        MSM_WIRE_NS
        MSM_WIRE_EX
        MSM_WIRE_MN
        MSM_WIRE_VERSION
        MSM_WIRE_SERVER_ERROR
        MSM_WIRE_CLIENT_ERROR

    enum:
        MSM_WIRE_MAX_HEAD_LEN

    size_t MSM_WIRE_MAX_VALUE_LEN

    ctypedef struct msm_wire_head_t:
        msm_wire_code code
        size_t head_len
        size_t text_offset
        size_t text_len
        size_t value_len
        uint64_t cas
        uint64_t opaque
        int64_t ttl_s
        uint32_t client_flags
        uint32_t has_opaque

    msm_status msm_wire_scan_head(const uint8_t *buf, size_t len, msm_wire_head_t *out) noexcept

cdef enum Verb:
    MG
    MS
    MD
    MN
    VERSION

cdef enum:
    MAX_KEY_LEN = 250
    MAX_HEAD = 400                  # the longest head of a command: key, and five numbers of 20 digits at most
    MAX_TEXT = 200                  # of a server's message
    MAX_RELATIVE_S = 30 * 24 * 3600
    MIN_UNIX_TIME = 1_000_000_000   # above it an exptime can only be meant as a time of day
    MAX_UNIX_TIME = 2_147_483_647   # memcached reads 32 bits with a sign: one more, and the item is gone at once
    FIRST_CAPACITY = 1 << 20        # of a value that arrives in pieces; it doubles as bytes do arrive

cdef tuple VERBS = ("mg", "ms", "md", "mn", "version")
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
cdef class Command:
    """One request, checked when it was made. Made by get, store, delete, noop and version.

    verb: "mg", "ms", "md", "mn" or "version". key: the storage key; empty for the last two.
    Thread-safety: immutable.
    """

    cdef readonly str verb
    cdef readonly bytes key
    cdef Verb _verb
    cdef bytes _head        # the request line without opaque and line end
    cdef bytes _value       # None: no data block

    def __init__(self):
        raise TypeError("a command is made by get, store, delete, noop or version")

    def __repr__(self):
        return f"<Command {self.verb}>"


cdef inline bint _has_opaque(Verb verb) noexcept:
    return verb <= MD


# Writing a request line: each of these writes at `at` and returns what follows.

cdef inline uint8_t *_put(uint8_t *at, const char *text, size_t n) noexcept nogil:
    memcpy(at, text, n)
    return at + n


cdef inline uint8_t *_put_number(uint8_t *at, const char *flag, size_t flag_len, uint64_t number) noexcept nogil:
    cdef uint8_t[20] digits
    cdef int first = 20
    while True:
        first -= 1
        digits[first] = <uint8_t>(48 + number % 10)
        number //= 10
        if number == 0:
            break
    at = _put(at, flag, flag_len)
    return _put(at, <const char *>&digits[first], 20 - first)


cdef Command _command(Verb verb, bytes key, const uint8_t *head, const uint8_t *end, bytes value):
    cdef Command command = Command.__new__(Command)
    command.verb = VERBS[<Py_ssize_t>verb]
    command.key = key
    command._verb = verb
    command._head = PyBytes_FromStringAndSize(<const char *>head, end - head)
    command._value = value
    return command


cdef uint8_t *_put_key(uint8_t *at, bytes key) except NULL:
    """Write a key. One that memcached would not take ends the line early, and the rest would be commands."""
    cdef const uint8_t *text = <const uint8_t *>PyBytes_AS_STRING(key)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(key)
    cdef Py_ssize_t i
    if not 0 < n <= MAX_KEY_LEN:
        raise ValueError(f"a key of {n} bytes: a key has 1 to {MAX_KEY_LEN}")
    for i in range(n):
        if not 0x21 <= text[i] <= 0x7e:
            raise ValueError(f"byte 0x{text[i]:02x} at {i} of a key: a key is printable ASCII without blanks")
    return _put(at, <const char *>text, <size_t>n)


cdef uint64_t _checked_number(str name, object number, uint64_t maximum) except? 0:
    number = PyNumber_Index(number)
    if not 0 <= number <= maximum:
        raise ValueError(f"{name}={number!r}: 0 to {maximum}")
    return number


cdef uint64_t _checked_exptime(object exptime) except? 0:
    exptime = PyNumber_Index(exptime)
    if not (0 <= exptime <= MAX_RELATIVE_S or MIN_UNIX_TIME < exptime <= MAX_UNIX_TIME):
        raise ValueError(
            f"exptime={exptime!r}: 0 (never), 1 to {MAX_RELATIVE_S} (seconds), "
            f"or a unix time above {MIN_UNIX_TIME}, at most {MAX_UNIX_TIME}"
        )
    return exptime


def get(bytes key not None, exptime=None, value=True, cas=None):
    """Return the command that reads an item: mg <key> [v] c f t [T<exptime>] [C<cas>].

    exptime: None, or what the item's expiry becomes, as memcached takes it (see exptime()). The reply's ttl_s is
        what was left before.
    value: whether the reply brings the value.
    cas: 64 bits: leave the value out if the item still has this one (HD, not VA). memcached understands it from 1.6.40;
        1.6.18 passes over it.
    Raises:  ValueError for a key, exptime or cas that memcached would not take as meant; for cas without a value.
    """
    cdef uint8_t[MAX_HEAD] head
    cdef uint8_t *at = _put_key(_put(head, b"mg ", 3), key)
    if value:
        at = _put(at, b" v", 2)
    at = _put(at, b" c f t", 6)
    if exptime is not None:
        at = _put_number(at, b" T", 2, _checked_exptime(exptime))
    if cas is not None:
        if not value:
            raise ValueError("cas says when to leave the value out; without value there is none")
        at = _put_number(at, b" C", 2, _checked_number("cas", cas, UINT64_MAX))
    return _command(MG, key, head, at, None)


def store(bytes key not None, bytes value not None, client_flags, exptime, cas=None, add=False):
    """Return the command that writes an item: ms <key> <length> c F<client_flags> T<exptime> [C<cas>] [ME].

    value: at most 1 GiB; the server's own limit is lower, and going over it deletes the item.
    client_flags: 32 bits. exptime: as memcached takes it (see exptime()).
    cas: 64 bits: only if the item still has this one (else EX; NF if there is none).
    add: only if there is no item (else NS).
    Raises:  ValueError for what memcached would not take as meant; for cas and add together.
    """
    cdef uint8_t[MAX_HEAD] head
    cdef uint8_t *at = _put_key(_put(head, b"ms ", 3), key)
    if cas is not None and add:
        raise ValueError("cas and add exclude each other")
    if <size_t>PyBytes_GET_SIZE(value) > MSM_WIRE_MAX_VALUE_LEN:
        raise ValueError(f"a value of {len(value)} bytes: at most {MSM_WIRE_MAX_VALUE_LEN}")
    at = _put_number(at, b" ", 1, <uint64_t>PyBytes_GET_SIZE(value))
    at = _put_number(at, b" c F", 4, _checked_number("client_flags", client_flags, UINT32_MAX))
    at = _put_number(at, b" T", 2, _checked_exptime(exptime))
    if cas is not None:
        at = _put_number(at, b" C", 2, _checked_number("cas", cas, UINT64_MAX))
    if add:
        at = _put(at, b" ME", 3)
    return _command(MS, key, head, at, value)


def delete(bytes key not None, cas=None):
    """Return the command that deletes an item: md <key> [C<cas>].

    cas: 64 bits: only if the item still has this one (else EX).
    Raises:  ValueError for a key or cas that memcached would not take as meant.
    """
    cdef uint8_t[MAX_HEAD] head
    cdef uint8_t *at = _put_key(_put(head, b"md ", 3), key)
    if cas is not None:
        at = _put_number(at, b" C", 2, _checked_number("cas", cas, UINT64_MAX))
    return _command(MD, key, head, at, None)


cdef Command _NOOP = _command(MN, b"", <const uint8_t *>b"mn", <const uint8_t *>b"mn" + 2, None)
cdef Command _VERSION = _command(VERSION, b"", <const uint8_t *>b"version", <const uint8_t *>b"version" + 7, None)


def noop():
    """Return the command that only asks for a reply: mn. It carries no opaque."""
    return _NOOP


def version():
    """Return the command that asks for the server's version. It carries no opaque."""
    return _VERSION


def exptime(ttl_s, now_s):
    """Return the exptime that makes an item live ttl_s from now_s.

    ttl_s: seconds; None or 0: for ever. Part seconds are rounded up.
    now_s: unix time of the servers' clock; it counts only above 30 days, which memcached takes as a time of day.
        A time of day after 2038-01-19 is cut to that: memcached would take it as long past.
    Raises:  ValueError for a ttl that is negative or not finite, or a now_s that is no unix time where it counts.
    """
    if ttl_s is None or ttl_s == 0:
        return 0
    if not isfinite(ttl_s) or ttl_s < 0:
        raise ValueError(f"ttl_s={ttl_s!r}: 0 or more seconds, or None")
    if ttl_s <= MAX_RELATIVE_S:
        return ceil(ttl_s)
    if not isfinite(now_s) or now_s <= MIN_UNIX_TIME:
        raise ValueError(f"now_s={now_s!r}: a unix time")
    return min(ceil(now_s + ttl_s), MAX_UNIX_TIME)


cdef tuple _checked_commands(object commands):
    cdef tuple checked = tuple(commands)
    for command in checked:
        # _head: an instance that no function of this module made has none.
        if type(command) is not Command or (<Command>command)._head is None:
            raise TypeError(f"a batch is of commands, not {type(command).__name__}")
    return checked


def encode(commands, first_opaque):
    """Return the bytes of one batch: one write to one node.

    first_opaque: 64 bits. The command at index i carries first_opaque + i (modulo 2^64), as "O" and digits.
    Raises:  TypeError for what is no command, ValueError for first_opaque.
    Cost:    each value is copied once.
    """
    cdef tuple batch = _checked_commands(commands)
    cdef uint64_t opaque = _checked_number("first_opaque", first_opaque, UINT64_MAX)
    cdef Py_ssize_t size = 0
    cdef Command command
    cdef uint8_t[24] token
    for command in batch:
        size += PyBytes_GET_SIZE(command._head) + 2
        if _has_opaque(command._verb):
            size += _put_number(token, b" O", 2, opaque) - token
        if command._value is not None:
            size += PyBytes_GET_SIZE(command._value) + 2
        opaque += 1

    cdef bytes encoded = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t *at = <uint8_t *>PyBytes_AS_STRING(encoded)
    opaque -= <uint64_t>len(batch)
    for command in batch:
        at = _put(at, PyBytes_AS_STRING(command._head), <size_t>PyBytes_GET_SIZE(command._head))
        if _has_opaque(command._verb):
            at = _put_number(at, b" O", 2, opaque)
        at = _put(at, b"\r\n", 2)
        if command._value is not None:
            at = _put(at, PyBytes_AS_STRING(command._value), <size_t>PyBytes_GET_SIZE(command._value))
            at = _put(at, b"\r\n", 2)
        opaque += 1
    return encoded


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

    cdef readonly str status
    cdef readonly bytes value
    cdef readonly uint64_t cas
    cdef readonly uint32_t client_flags
    cdef readonly int64_t ttl_s
    cdef readonly str text

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

    def __cinit__(self, commands, first_opaque):
        self._commands = _checked_commands(commands)
        self._opaque = _checked_number("first_opaque", first_opaque, UINT64_MAX)
        self._carry = b""
        self.replies = []

    def __dealloc__(self):
        Py_XDECREF(self._value)

    def feed(self, bytes data not None):
        """Take what arrived. True: every reply of the batch is complete.

        data: any piece of the stream; how it is cut makes no difference.
        Raises:  ProtocolError, now and in every later call: the connection is poisoned.
        Cost:    linear in the stream; a value that arrives whole is copied once.
        """
        if self._failure is not None:
            raise ProtocolError(self._failure)
        try:
            self._read(data)
        except BaseException as error:
            self._failure = error.reason if isinstance(error, ProtocolError) else "reading was broken off"
            raise
        return self._turn == len(self._commands)

    cdef int _read(self, bytes data) except -1:
        cdef const uint8_t *text = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef size_t n = <size_t>PyBytes_GET_SIZE(data)
        cdef size_t at = 0
        while at < n:
            if self._turn == len(self._commands):
                raise ProtocolError("bytes after the last reply")
            if self._reply is not None:
                at += self._read_value(text + at, n - at)
            elif self._carry:
                at += self._read_carried(text + at, n - at)
            else:
                at += self._read_head(text + at, n - at)
        return 0

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
        cdef size_t wanted = self._value_len + 2
        cdef size_t capacity = <size_t>PyBytes_GET_SIZE(<object>self._value)
        cdef size_t taken
        cdef const char *end
        if self._filled == capacity:
            capacity = min(capacity * 2, wanted)
            _PyBytes_Resize(&self._value, <Py_ssize_t>capacity)
        taken = min(n, capacity - self._filled)
        memcpy(bytes_start(self._value) + self._filled, text, taken)
        self._filled += taken
        if self._filled == wanted:
            end = bytes_start(self._value) + self._value_len
            _check_value_end(<uint8_t>end[0], <uint8_t>end[1])
            _PyBytes_Resize(&self._value, <Py_ssize_t>self._value_len)
            self._reply.value = <bytes>self._value
            Py_XDECREF(self._value)
            self._value = NULL
            self._end_turn(self._reply)
            self._reply = None
        return taken

    cdef int _check_turn(self, const msm_wire_head_t *head, const uint8_t *text) except -1:
        """Refuse a head that cannot answer the command whose turn it is."""
        cdef Verb verb = (<Command>self._commands[self._turn])._verb
        if head.code == MSM_WIRE_CLIENT_ERROR:
            raise ProtocolError(f"the server refused {VERBS[<Py_ssize_t>verb]}: {_printable(text, head.head_len - 2)}")
        if not ANSWERS[<int>verb] >> <int>head.code & 1:
            raise ProtocolError(f"{STATUSES[<Py_ssize_t>head.code]} does not answer {VERBS[<Py_ssize_t>verb]}")
        if not _has_opaque(verb) or head.code == MSM_WIRE_SERVER_ERROR:
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
