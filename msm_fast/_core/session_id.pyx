"""Session ids: plain[-node][.route], and the keys under which their sessions are stored."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from hashlib import blake2b
from os import urandom

from msm_fast.errors import InvalidSessionId

__all__ = ["SessionId", "StorageKeys"]

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    const uint8_t *PyUnicode_1BYTE_DATA(object text)
    # Unlike the two above, this also takes a string that is not in its final form yet (before Python 3.12),
    # and puts it there.
    Py_ssize_t PyUnicode_GetLength(object text) except -1

cdef extern from "msm_session_id.h" nogil:
    ctypedef enum msm_status:
        MSM_OK

    enum:
        MSM_SESSION_ID_MAX_LEN
        MSM_SESSION_ID_MAX_ROUTE

    msm_status msm_session_id_scan(const uint8_t *buf, size_t len, msm_session_id_t *out) noexcept

# Entropy of a generated id.
cdef enum:
    RANDOM_BYTES = 16


cdef bint _scan(object text, msm_session_id_t *parts) except -1:
    """Tell whether text is a session id. The length comes first, so the cost is bounded."""
    if type(text) is not str:
        return False
    cdef Py_ssize_t n = PyUnicode_GetLength(text)
    if n > MSM_SESSION_ID_MAX_LEN or not PyUnicode_IS_ASCII(text):
        return False
    return msm_session_id_scan(PyUnicode_1BYTE_DATA(text), <size_t>n, parts) == MSM_OK


@cython.final
@cython.freelist(32)
cdef class SessionId:
    """A session id: plain[-node][.route], at most 200 characters.

    plain: what identifies the session, 1 to 128 of A-Z a-z 0-9 _ ~
    node: the id of the memcached node that keeps it, 1 to 32 of A-Z a-z 0-9 _
    route: the worker a sticky load balancer sends it to, 1 to 64 of A-Z a-z 0-9 _ -

    Node and route are hints from outside, never trusted. An id is a secret: repr() does not show it, str() does.
    SessionId(text) is for text that must be an id; text from a client goes through parse().
    Raises:  InvalidSessionId.
    Thread-safety: immutable.
    """

    def __init__(self, text):
        if self._text is not None:
            raise TypeError("a session id does not change")
        if not _scan(text, &self._parts):
            raise InvalidSessionId("text that is no session id (its value is a secret and is not shown)")
        self._text = text

    @staticmethod
    def parse(text):
        """Return the session id that text is, or None if it is not one, whatever it is.

        text: any object; only a str (no subclass) that matches the grammar from end to end is an id.
        Raises:  nothing.
        Cost:    at most 200 characters are read.
        """
        return parse(text)

    @staticmethod
    def parse_issued(text):
        """Return the session id that text is, or None if it is not one of the form that generate() gives.

        All of those are equally long: none that belongs to one key_prefix has the key of one with another.
        Raises, cost:  as parse.
        """
        return parse_issued(text)

    @staticmethod
    def generate(node=None, route=None):
        """Return a new id of 128 bits from the operating system's random source: 32 lower-case hex digits.

        node, route: as with_node, with_route.
        Raises:  InvalidSessionId for a node or route that does not fit its alphabet or length.
        """
        return _composed(urandom(RANDOM_BYTES).hex(), node, route)

    @property
    def plain(self):
        """Return the part that identifies the session."""
        return self.plain_part()

    @property
    def node(self):
        """Return the node id, or None."""
        return self.node_part()

    @property
    def route(self):
        """Return the route, or None."""
        if self._parts.route_len == 0:
            return None
        return self._text[len(self._text) - self._parts.route_len:]

    cdef bint has_issued_form(self):
        cdef const uint8_t *plain = PyUnicode_1BYTE_DATA(self._text)
        cdef Py_ssize_t i
        if self._parts.plain_len != 2 * RANDOM_BYTES:
            return False
        for i in range(2 * RANDOM_BYTES):
            if not (c"0" <= plain[i] <= c"9" or c"a" <= plain[i] <= c"f"):
                return False
        return True

    cdef str plain_part(self):
        return self._text[:self._parts.plain_len]

    cdef str node_part(self):
        cdef Py_ssize_t start = self._parts.plain_len + 1
        if self._parts.node_len == 0:
            return None
        return self._text[start:start + self._parts.node_len]

    def with_node(self, node):
        """Return this id with another node; None: without.

        Raises:  InvalidSessionId for a node that does not fit its alphabet or length.
        """
        return _composed(self.plain, node, self.route)

    def with_route(self, route):
        """Return this id with another route; None: without.

        Raises:  InvalidSessionId for a route that does not fit its alphabet or length.
        """
        return _composed(self.plain, self.node, route)

    def __str__(self):
        return self._text

    def __repr__(self):
        return f"<SessionId \N{HORIZONTAL ELLIPSIS}{self._text[self._parts.plain_len:]}>"

    def __hash__(self):
        return hash(self._text)

    def __eq__(self, other):
        if type(other) is not SessionId:
            return NotImplemented
        return self._text == (<SessionId>other)._text

    def __reduce__(self):
        return SessionId, (self._text,)


@cython.final
cdef class StorageKeys:
    """Makes storage keys: a prefix and the plain part of a session's id, the same on every node.

    prefix: ASCII. hashes_ids: with a digest in place of the plain part, so that the key tells nobody an id. Its digits
    are upper-case: a worker that does not hash ids takes it for none, either.
    Thread-safety: immutable.
    """

    def __init__(self, str prefix not None, bint hashes_ids):
        self._prefix = prefix.encode("ascii")
        self._hashes_ids = hashes_ids

    cpdef bytes of(self, SessionId session_id):
        """Return the key of the session's items."""
        if session_id is None or session_id._text is None:
            raise TypeError("a session's key is made of its id")
        cdef const uint8_t *plain = PyUnicode_1BYTE_DATA(session_id._text)
        cdef Py_ssize_t n_prefix = PyBytes_GET_SIZE(self._prefix)
        cdef Py_ssize_t n_plain = session_id._parts.plain_len
        cdef bytes key
        if self._hashes_ids:
            digest = blake2b(plain[:n_plain], digest_size=16, person=b"msm_fast id")
            return self._prefix + digest.hexdigest().upper().encode()
        key = PyBytes_FromStringAndSize(NULL, n_prefix + n_plain)
        memcpy(PyBytes_AS_STRING(key), PyBytes_AS_STRING(self._prefix), <size_t>n_prefix)
        memcpy(PyBytes_AS_STRING(key) + n_prefix, plain, <size_t>n_plain)
        return key


cdef SessionId parse(object text):
    """Do what `SessionId.parse` does."""
    cdef SessionId parsed
    cdef msm_session_id_t parts
    if not _scan(text, &parts):
        return None
    parsed = SessionId.__new__(SessionId)
    parsed._text = text
    parsed._parts = parts
    return parsed


cdef SessionId _composed(str plain, object node, object route):
    """Return plain[-node][.route].

    The lengths that the scan finds must be those of the parts: "n1.r" is no node, though "plain-n1.r" is an id.
    """
    cdef SessionId made
    cdef msm_session_id_t parts
    cdef str text = plain
    if node is not None:
        text = f"{text}-{_checked_part('node', node)}"
    if route is not None:
        text = f"{text}.{_checked_part('route', route)}"
    if not _scan(text, &parts):
        raise InvalidSessionId(f"node={node!r}, route={route!r}: one does not fit a session id")
    if parts.node_len != (0 if node is None else len(node)):
        raise InvalidSessionId(f"node={node!r} is not a node id of a session id")
    made = SessionId.__new__(SessionId)
    made._text = text
    made._parts = parts
    return made


cdef str _checked_part(str name, object part):
    """Refuse what is no text or far too long before it is copied or shown."""
    if type(part) is not str:
        raise InvalidSessionId(f"a {name} is a str or None, not {type(part).__name__}")
    if not 0 < len(part) <= MSM_SESSION_ID_MAX_ROUTE:
        raise InvalidSessionId(f"a {name} of {len(part)} characters; it has 1 to {MSM_SESSION_ID_MAX_ROUTE}")
    return part


cdef SessionId parse_issued(object text):
    cdef SessionId session_id = parse(text)
    return session_id if session_id is not None and session_id.has_issued_form() else None
