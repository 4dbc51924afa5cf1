"""memcached's meta protocol without I/O: what is asked. Batches of commands become bytes; `replies` reads the answers.

Servers from 1.6.18: from then on a miss carries its opaque too.
Source: doc/protocol.txt of memcached.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.number cimport PyNumber_Index
from libc.stdint cimport UINT32_MAX, UINT64_MAX, uint8_t, uint64_t
from libc.string cimport memcpy

from msm_fast._core.c_wire cimport MSM_WIRE_MAX_VALUE_LEN

from math import ceil, isfinite

__all__ = ["Batch", "Command", "delete", "encode", "exptime", "get", "noop", "store", "version"]

cdef enum:
    MAX_KEY_LEN = 250
    MAX_HEAD = 400                  # the longest head of a command: key, and five numbers of 20 digits at most
    MAX_RELATIVE_S = 30 * 24 * 3600
    MIN_UNIX_TIME = 1_000_000_000   # above it an exptime can only be meant as a time of day
    MAX_UNIX_TIME = 2_147_483_647   # memcached reads 32 bits with a sign: one more, and the item is gone at once


cdef tuple VERBS = ("mg", "ms", "md", "mn", "version")


@cython.final
@cython.freelist(16)
cdef class Command:
    """One request, checked when it was made. Made by get, store, delete, noop and version.

    verb: "mg", "ms", "md", "mn" or "version". key: the storage key; empty for the last two.
    Thread-safety: immutable.
    """

    def __init__(self):
        raise TypeError("a command is made by get, store, delete, noop or version")

    def __repr__(self):
        return f"<Command {self.verb}>"


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
    if key is None:
        raise TypeError("a key is bytes, not None")
    cdef const uint8_t *text = <const uint8_t *>PyBytes_AS_STRING(key)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(key)
    cdef Py_ssize_t i
    if not 0 < n <= MAX_KEY_LEN:
        raise ValueError(f"a key of {n} bytes: a key has 1 to {MAX_KEY_LEN}")
    for i in range(n):
        if not 0x21 <= text[i] <= 0x7e:
            raise ValueError(f"byte 0x{text[i]:02x} at {i} of a key: a key is printable ASCII without blanks")
    return _put(at, <const char *>text, <size_t>n)


cdef uint64_t checked_number(str name, object number, uint64_t maximum) except? 0:
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


cpdef Command get(bytes key, object exptime=None, bint value=True, object cas=None):
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
        at = _put_number(at, b" C", 2, checked_number("cas", cas, UINT64_MAX))
    cdef Command command = _command(MG, key, head, at, None)
    command._needs_value = value and cas is None
    return command


cpdef Command store(bytes key, bytes value, object client_flags, object exptime, object cas=None, bint add=False):
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
    if value is None:
        raise TypeError("a value is bytes, not None")
    if <size_t>PyBytes_GET_SIZE(value) > MSM_WIRE_MAX_VALUE_LEN:
        raise ValueError(f"a value of {len(value)} bytes: at most {MSM_WIRE_MAX_VALUE_LEN}")
    at = _put_number(at, b" ", 1, <uint64_t>PyBytes_GET_SIZE(value))
    at = _put_number(at, b" c F", 4, checked_number("client_flags", client_flags, UINT32_MAX))
    at = _put_number(at, b" T", 2, _checked_exptime(exptime))
    if cas is not None:
        at = _put_number(at, b" C", 2, checked_number("cas", cas, UINT64_MAX))
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
        at = _put_number(at, b" C", 2, checked_number("cas", cas, UINT64_MAX))
    return _command(MD, key, head, at, None)


cdef Command _NOOP = _command(MN, b"", <const uint8_t *>b"mn", <const uint8_t *>b"mn" + 2, None)
cdef Command _VERSION = _command(VERSION, b"", <const uint8_t *>b"version", <const uint8_t *>b"version" + 7, None)


def noop():
    """Return the command that only asks for a reply: mn. It carries no opaque."""
    return _NOOP


def version():
    """Return the command that asks for the server's version. It carries no opaque."""
    return _VERSION


cpdef object exptime(object ttl_s, object now_s):
    """Return the exptime that makes an item live ttl_s from now_s.

    ttl_s: seconds; None or 0: for ever. Part seconds are rounded up.
    now_s: unix time of the servers' clock; it counts only above 30 days, which memcached takes as a time of day.
        A time of day after 2038-01-19 is cut to that: memcached would take it as long past.
    Raises:  ValueError for a ttl that is negative or not finite, or a now_s that is no unix time where it counts.
    """
    if ttl_s is None or ttl_s == 0:
        return 0
    if type(ttl_s) is int and 0 < ttl_s <= MAX_RELATIVE_S:
        return ttl_s
    if not isfinite(ttl_s) or ttl_s < 0:
        raise ValueError(f"ttl_s={ttl_s!r}: 0 or more seconds, or None")
    if ttl_s <= MAX_RELATIVE_S:
        return ceil(ttl_s)
    if not isfinite(now_s) or now_s <= MIN_UNIX_TIME:
        raise ValueError(f"now_s={now_s!r}: a unix time")
    return min(ceil(now_s + ttl_s), MAX_UNIX_TIME)


cdef tuple checked_commands(object commands):
    cdef tuple checked = tuple(commands)
    for command in checked:
        # _head: an instance that no function of this module made has none.
        if type(command) is not Command or (<Command>command)._head is None:
            raise TypeError(f"a batch is of commands, not {type(command).__name__}")
    return checked


@cython.final
@cython.freelist(16)
cdef class Batch:
    """Commands for one node, written together.

    life: send them only if the node has not lost its memory since this life: CAS values from before mean nothing after.
    Raises:  TypeError for what is no command.
    Thread-safety: immutable.
    """

    def __init__(self, str node not None, commands, life=None):
        if self.node is not None:
            raise TypeError("a batch does not change")
        self.commands = checked_commands(commands)
        self.life = life
        self.node = node

    def __repr__(self):
        return f"<Batch for {self.node}: {', '.join([command.verb for command in self.commands])}>"


cdef Batch new_batch(str node, Command command, object life):
    """Return Batch(node, (command,), life)."""
    cdef Batch batch = Batch.__new__(Batch)
    batch.commands = (command,)
    batch.life = life
    batch.node = node
    return batch


def encode(commands, first_opaque):
    """Return the bytes of one batch: one write to one node.

    first_opaque: 64 bits. The command at index i carries first_opaque + i (modulo 2^64), as "O" and digits.
    Raises:  TypeError for what is no command, ValueError for first_opaque.
    Cost:    each value is copied once.
    """
    return encode_checked(checked_commands(commands), checked_number("first_opaque", first_opaque, UINT64_MAX))


cdef bytes encode_checked(tuple commands, uint64_t first_opaque):
    """Do what `encode` does with commands that were checked before."""
    cdef uint64_t opaque = first_opaque
    cdef Py_ssize_t size = 0
    cdef Command command
    cdef uint8_t[24] token
    for command in commands:
        size += PyBytes_GET_SIZE(command._head) + 2
        if has_opaque(command._verb):
            size += _put_number(token, b" O", 2, opaque) - token
        if command._value is not None:
            size += PyBytes_GET_SIZE(command._value) + 2
        opaque += 1

    cdef bytes encoded = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t *at = <uint8_t *>PyBytes_AS_STRING(encoded)
    opaque = first_opaque
    for command in commands:
        at = _put(at, PyBytes_AS_STRING(command._head), <size_t>PyBytes_GET_SIZE(command._head))
        if has_opaque(command._verb):
            at = _put_number(at, b" O", 2, opaque)
        at = _put(at, b"\r\n", 2)
        if command._value is not None:
            at = _put(at, PyBytes_AS_STRING(command._value), <size_t>PyBytes_GET_SIZE(command._value))
            at = _put(at, b"\r\n", 2)
        opaque += 1
    return encoded
