"""One round trip over idle connections that are plain sockets, all of them at once.

It goes as far as all is well. Where a connection does anything else than answer, it is left as it is, for `Connection`
to go on with and to say what is wrong.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.math cimport ceil
from libc.stdint cimport uint8_t

from msm_fast._core.replies cimport ReplyParser, new_parser, new_replies
from msm_fast._core.wire cimport Batch, encode_checked

from time import monotonic

from msm_fast._core.replies import ProtocolError

__all__ = ["PlainConnection", "exchange", "give_back", "take"]

cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_send "send"(int fd, const void *data, size_t n, int flags)
    ssize_t c_recv "recv"(int fd, void *data, size_t n, int flags)
    int MSG_PEEK

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents

    int c_poll "poll"(pollfd *polled, unsigned long n, int timeout_ms)
    int POLLIN

cdef enum:
    CHUNK = 16384           # what is read at once on the stack; the rest of a large value is read into its place
    SMALL = 16384           # what is copied to the socket while other threads wait
    MAX_WAIT_MS = 1 << 30


cdef class PlainConnection:
    """What an exchange has to know of a connection.

    fd: of a socket that does not block; -1: of something that only looks like one, and is left to `Connection`.
    life, compares: of the node, as its replies carry them. opaque: of the next command. parser: of the batch that is
    under way. unsent: what is still to be written of it, or None.
    Thread-safety: one user at a time.
    """

    def __cinit__(self):
        self.fd = -1


def take(dict idle not None, batches):
    """Take an idle connection for each batch; None, and take none, where one is missing or is no plain one.

    idle: per node a list of connections. batches: of which two may be for one node.
    Call it under the lock that idle has.
    """
    cdef list taken = []
    cdef PlainConnection connection
    for batch in batches:
        stack = idle.get((<Batch?>batch).node)
        if not stack:
            break
        connection = (<list?>stack)[len(<list>stack) - 1]
        if connection.fd < 0 or not (batch.life is None or batch.life == connection.life):
            break
        taken.append((<list>stack).pop())
    else:
        return taken
    for batch, connection in zip(batches, taken):
        (<list>idle[batch.node]).append(connection)
    return None


def give_back(dict idle not None, batches, list connections not None, Py_ssize_t most):
    """Give connections back that `take` has taken from idle for these batches; under the same lock.

    most: how many a node keeps. Returns: those that are too many.
    """
    cdef list surplus = []
    for batch, connection in zip(batches, connections):
        stack = <list?>idle[(<Batch?>batch).node]
        (<list>stack if len(<list>stack) < most else surplus).append(connection)
    return surplus


def exchange(batches, list connections not None, double until_s):
    """Write every batch, then wait for every reply; return a list of Replies.

    connections: as `take` gave them, for the same batches; not one of them was used since. until_s: of
        time.monotonic().
    Returns: None in the place of replies that did not come as they should: go on with `Connection.finish`. None
        altogether if a connection has been closed, or has said something: nothing was written.
    Raises:  what a signal's handler raises; replies are on their way then.
    """
    cdef Py_ssize_t i
    cdef PlainConnection connection
    cdef list outcomes
    for connection in connections:
        if not _is_silent(connection.fd):
            return None
    for i in range(len(connections)):
        _start(connections[i], <Batch?>batches[i])
    outcomes = []
    for i in range(len(connections)):
        outcomes.append(_finish(connections[i], until_s, i == 0))
    return outcomes


cdef bint _is_silent(int fd) noexcept:
    """Whether there is nothing to read: no reply that nobody waits for, and no end."""
    cdef uint8_t byte
    return c_recv(fd, &byte, 1, MSG_PEEK) < 0 and errno == EAGAIN


cdef int _start(PlainConnection connection, Batch batch) except -1:
    """Write a batch as far as the socket takes it; an error shows again when the rest is written."""
    cdef bytes data = encode_checked(batch.commands, connection.opaque)
    cdef const char *at = PyBytes_AS_STRING(data)
    cdef size_t size = <size_t>PyBytes_GET_SIZE(data)
    cdef ssize_t n
    connection.parser = new_parser(batch.commands, connection.opaque)
    connection.opaque += <size_t>len(batch.commands)
    if size <= SMALL:
        n = c_send(connection.fd, at, size, 0)
    else:
        with nogil:
            n = c_send(connection.fd, at, size, 0)
    if n < <ssize_t>size:
        connection.unsent = memoryview(data)[n if n > 0 else 0:]
    return 0


cdef object _finish(PlainConnection connection, double until_s, bint must_wait):
    """Return the replies, or None.

    must_wait: there can be nothing to read yet.
    """
    cdef ReplyParser parser = connection.parser
    cdef uint8_t[CHUNK] chunk
    cdef uint8_t *into
    cdef size_t size
    cdef ssize_t n
    cdef bint is_complete = False
    if connection.unsent is not None:
        return None
    while not is_complete:
        if must_wait and not _wait(connection.fd, until_s):
            return None
        into = parser.room(&size)
        if into is NULL:
            n = c_recv(connection.fd, chunk, CHUNK, 0)
        else:
            n = c_recv(connection.fd, into, size, 0)
        if n <= 0:
            if must_wait or n == 0:
                return None
            must_wait = True
            continue
        try:
            is_complete = parser.take(chunk, <size_t>n) if into is NULL else parser.take_filled(<size_t>n)
        except ProtocolError:
            return None
        must_wait = True
    connection.parser = None
    return new_replies(parser.replies, connection.life, connection.compares)


cdef bint _wait(int fd, double until_s) except -1:
    """Wait until there is something to read; False: not in time, or it cannot be told."""
    cdef pollfd polled
    cdef double left_ms
    cdef int n
    cdef int error
    polled.fd = fd
    polled.events = POLLIN
    while True:
        left_ms = min(max(ceil((until_s - <double>monotonic()) * 1000), 0.0), <double>MAX_WAIT_MS)
        polled.revents = 0
        with nogil:
            n = c_poll(&polled, 1, <int>left_ms)
            error = errno
        if n >= 0:
            return n > 0
        if error != EINTR:
            return False
        PyErr_CheckSignals()
