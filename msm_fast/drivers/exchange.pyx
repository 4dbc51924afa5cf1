"""One round trip over connections that are plain sockets, all of them at once.

It goes as far as all is well. Where a connection does anything else than answer, it is left as it is, for `Connection`
to go on with and to say what is wrong.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno
from libc.math cimport ceil
from libc.stdint cimport uint8_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from msm_fast._core.replies cimport Replies, ReplyParser, new_parser, new_replies
from msm_fast._core.wire cimport MG, Batch, Command, encode_checked

from os import set_blocking
from time import monotonic

from msm_fast._core.replies import ProtocolError

__all__ = ["PlainConnection"]

cdef extern from "<sys/socket.h>" nogil:
    struct timeval:
        long tv_sec
        long tv_usec

    int SOL_SOCKET
    int SO_RCVTIMEO
    int MSG_DONTWAIT
    int c_setsockopt "setsockopt"(int fd, int level, int name, const void *value, unsigned int n)
    ssize_t c_send "send"(int fd, const void *data, size_t n, int flags)
    ssize_t c_recv "recv"(int fd, void *data, size_t n, int flags)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents

    int c_poll "poll"(pollfd *polled, unsigned long n, int timeout_ms)
    int POLLIN

cdef enum:
    ROOM = 32768            # for what is read at once, on the stack; the rest of a large value is read into its place
    MAX_WAIT_MS = 1 << 30
    MISSES = 4              # round trips in a row that were awake in vain, after which some sleep at once
    REST = 16               # how many; twice as many after each further one, up to
    DOUBLINGS = 6

cdef enum Progress:
    INCOMPLETE      # more is to come
    COMPLETE
    BROKEN          # no more will, or it makes no sense: `Connection` says what is wrong

# A socket that may wait for less than this does not: kernels count in steps of a few milliseconds.
cdef double LEAST_PATIENCE_S = 0.05
# What is left of an operation's time when a socket has waited for its share is waited for by polling.
cdef double SHARE_OF_PATIENCE = 0.9


cdef class PlainConnection:
    """What an exchange has to know of a connection.

    fd: of a socket, which is written to and read without waiting but where this module says so; -1: of something that
    only looks like one, and is left to `Connection`.
    life, compares: of the node, as its replies carry them. opaque: of the next command. parser: of the batch that is
    under way. unsent: what is still to be written of it, or None. misses: how many round trips in a row have waited
    awake in vain. rest: how many are to come that sleep at once.
    Thread-safety: one user at a time.
    """

    def __cinit__(self):
        self.fd = -1

    def set_waiting(self, double operation_s, double busy_poll_s):
        """Set how answers are waited for: awake for at most busy_poll_s, then asleep in the socket's own `recv`.

        To sleep and be woken takes longer than a memcached on the same host, and what runs afterwards finds the
        processor's caches full of others' data. A `recv` that waits is a call of the system less than a poll; it waits
        for a share of operation_s, which is how long most answers may take, where a socket can do so.
        """
        cdef double patience_s = operation_s * SHARE_OF_PATIENCE
        cdef timeval limit
        if self.fd < 0:
            return
        self.busy_poll_s = busy_poll_s
        limit.tv_sec = <long>patience_s
        limit.tv_usec = <long>((patience_s - <double>limit.tv_sec) * 1e6)
        if patience_s >= LEAST_PATIENCE_S and not c_setsockopt(
            self.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)
        ):
            set_blocking(self.fd, True)
            self.patience_s = patience_s


cdef bint are_silent(list connections) noexcept:
    """Whether there is nothing to read on any: no reply that nobody waits for, and no end."""
    cdef pollfd[MOST_AT_ONCE] polled
    cdef Py_ssize_t i
    for i in range(len(connections)):
        polled[i].fd = (<PlainConnection>connections[i]).fd
        polled[i].events = POLLIN
        polled[i].revents = 0
    return c_poll(polled, len(connections), 0) == 0


cdef inline int milliseconds(double left_s) noexcept nogil:
    """Return how long a poll may take: never less than is left, and never for ever."""
    return <int>min(max(ceil(left_s * 1000), 0.0), <double>MAX_WAIT_MS)


cdef inline double seconds() noexcept nogil:
    """Return seconds from somewhere on, which tell how long something took."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <double>now.tv_sec + <double>now.tv_nsec * 1e-9


cdef struct Writing:
    int fd
    double busy_poll_s
    double patience_s
    int misses      # how many in a row have waited awake in vain
    int rest        # how many are not to try that
    const char *at
    size_t size
    ssize_t n       # what the socket took; an error shows again when the rest is written
    ssize_t n_read  # what has come, in its share of the room


cdef list write_and_read(list connections, batches, double until_s):
    """Write each batch as far as its socket takes it, and read the answers, as long as all is well.

    Where a socket does not take all of its batch nothing is read: nobody may wait for one node while another one waits
    for the rest.
    The GIL is let go of once, before anything is written: what other threads do then they do while the answers are on
    their way, and are done with it, most likely, when those come.
    Returns: the outcomes, a list of Replies; None where some did not come as they should.
    """
    cdef uint8_t[ROOM] room
    cdef size_t share = ROOM // <size_t>len(connections) if connections else ROOM
    cdef Writing[MOST_AT_ONCE] writings
    cdef Py_ssize_t i
    cdef Py_ssize_t n = len(connections)
    cdef PlainConnection connection
    cdef Batch batch
    cdef bytes data
    cdef list texts = []
    cdef bint is_written = True
    cdef bint is_large = False
    cdef bint was_interrupted = False
    cdef double started_s = seconds()
    cdef double left_s = until_s - <double>monotonic()
    for i in range(n):
        connection, batch = connections[i], batches[i]
        data = encode_checked(batch.commands, connection.opaque)
        texts.append(data)
        writings[i].fd = connection.fd
        writings[i].busy_poll_s, writings[i].patience_s = connection.busy_poll_s, connection.patience_s
        writings[i].rest, writings[i].misses = connection.rest, connection.misses
        writings[i].at = PyBytes_AS_STRING(data)
        writings[i].size = <size_t>PyBytes_GET_SIZE(data)
        writings[i].n_read = 0
        connection.parser = new_parser(batch.commands, connection.opaque)
        connection.opaque += <size_t>len(batch.commands)
        is_large = is_large or (n > 1 and _ask_for_a_value(batch.commands))
    with nogil:
        for i in range(n):
            writings[i].n = c_send(writings[i].fd, writings[i].at, writings[i].size, MSG_DONTWAIT)
            is_written = is_written and writings[i].n == <ssize_t>writings[i].size
        for i in range(n if is_written else 0):
            writings[i].n_read = _read_awake(&writings[i], room + <size_t>i * share, share, started_s)
            if writings[i].n_read > 0:
                continue
            if is_large:
                break
            writings[i].n_read = _read(
                &writings[i], room + <size_t>i * share, share, left_s - (seconds() - started_s)
            )
            if writings[i].n_read < 0:
                was_interrupted = errno == EINTR
                break
    if was_interrupted:
        PyErr_CheckSignals()
    for i in range(n):
        connection = connections[i]
        connection.rest, connection.misses = writings[i].rest, writings[i].misses
        if writings[i].n < <ssize_t>writings[i].size:
            connection.unsent = memoryview(texts[i])[max(writings[i].n, 0):]
    if not is_written:
        return [None] * n
    return _finish(connections, writings, room, share, until_s)


cdef bint _ask_for_a_value(tuple commands) except -1:
    """Whether an answer may be larger than what a socket holds, so that its node waits for a reader."""
    cdef Command command
    for command in commands:
        if command._verb == MG:
            return True
    return False


cdef inline ssize_t _read_awake(Writing *writing, uint8_t *into, size_t n, double started_s) noexcept nogil:
    """Read what comes first, as long as that is soon; -1: it was not, or is not to be expected."""
    cdef ssize_t n_read
    if writing.busy_poll_s <= 0:
        return -1
    if writing.rest:
        writing.rest -= 1
        return -1
    while True:
        n_read = c_recv(writing.fd, into, n, MSG_DONTWAIT)
        if n_read >= 0:
            writing.misses = 0
            return n_read
        if seconds() - started_s >= writing.busy_poll_s:
            writing.misses += 1
            if writing.misses >= MISSES:
                writing.rest = REST << min(writing.misses - MISSES, DOUBLINGS)
            return -1
        sched_yield()


cdef inline ssize_t _read(Writing *writing, uint8_t *into, size_t n, double left_s) noexcept nogil:
    """Read what comes first, and wait for it; -1: nothing came in time, or in the time that the socket waits."""
    cdef pollfd polled
    if 0 < writing.patience_s <= left_s:
        return c_recv(writing.fd, into, n, 0)
    polled.fd = writing.fd
    polled.events = POLLIN
    polled.revents = 0
    if c_poll(&polled, 1, milliseconds(left_s)) <= 0:
        return -1
    return c_recv(writing.fd, into, n, MSG_DONTWAIT)


cdef list _finish(list connections, Writing *writings, uint8_t *room, size_t share, double until_s):
    """Return the replies that come on each connection, or None.

    room: of it each connection has its share, with as much in it as it has read already.
    """
    cdef pollfd[MOST_AT_ONCE] polled    # fd: -1 where nothing is to come, which a poll passes over
    cdef Py_ssize_t i
    cdef Py_ssize_t n_open = 0
    cdef list outcomes = []
    cdef PlainConnection connection
    cdef Progress progress
    for i in range(len(connections)):
        connection = connections[i]
        progress = INCOMPLETE
        if writings[i].n_read > 0:
            progress = _take(connection, room + <size_t>i * share, <size_t>writings[i].n_read)
        outcomes.append(_replies_of(connection) if progress == COMPLETE else None)
        polled[i].fd = connection.fd if progress == INCOMPLETE else -1
        polled[i].events = POLLIN
        n_open += progress == INCOMPLETE
    if n_open:
        _read_on(connections, outcomes, polled, n_open, room, share, until_s)
    return outcomes


cdef int _read_on(
    list connections,
    list outcomes,
    pollfd *polled,
    Py_ssize_t n_open,
    uint8_t *room,
    size_t share,
    double until_s,
) except -1:
    """Read what comes on each of the connections that are polled, until nothing is to come or the time is over.

    All are waited for at once: none that says nothing keeps another one waiting, which would be late then. What is
    there at the end is read once and no more: a node that goes on and on would never let it end.
    """
    cdef Py_ssize_t i
    cdef PlainConnection connection
    cdef Progress progress
    cdef bint is_over = False
    while n_open and not is_over:
        is_over = <double>monotonic() >= until_s
        if not _wait(polled, len(connections), until_s):
            break
        for i in range(len(connections)):
            if polled[i].fd < 0 or not polled[i].revents:
                continue
            connection = connections[i]
            progress = _read_once(connection, room + <size_t>i * share, share)
            if progress == COMPLETE:
                outcomes[i] = _replies_of(connection)
            if progress != INCOMPLETE:
                polled[i].fd = -1
                n_open -= 1
    return 0


cdef Progress _read_once(PlainConnection connection, uint8_t *room, size_t n_room) except? BROKEN:
    """Read what is there: of a value that is arriving into its place, else into the room."""
    cdef size_t size
    cdef uint8_t *into = connection.parser.room(&size)
    cdef ssize_t n
    if into is NULL:
        n = c_recv(connection.fd, room, n_room, MSG_DONTWAIT)
        return _take(connection, room, <size_t>n) if n > 0 else BROKEN
    n = c_recv(connection.fd, into, size, MSG_DONTWAIT)
    if n <= 0:
        return BROKEN
    try:
        return COMPLETE if connection.parser.take_filled(<size_t>n) else INCOMPLETE
    except ProtocolError:
        return BROKEN


cdef inline Progress _take(PlainConnection connection, const uint8_t *text, size_t n) except? BROKEN:
    """Take n bytes that came."""
    try:
        return COMPLETE if connection.parser.take(text, n) else INCOMPLETE
    except ProtocolError:
        return BROKEN


cdef inline Replies _replies_of(PlainConnection connection):
    """Return the replies of a batch that is complete."""
    cdef ReplyParser parser = connection.parser
    connection.parser = None
    return new_replies(parser.replies, connection.life, connection.compares)


cdef bint _wait(pollfd *polled, Py_ssize_t n_polled, double until_s) except -1:
    """Wait until there is something to read on any; False: not in time, or it cannot be told."""
    cdef int left_ms
    cdef int n
    cdef int error
    while True:
        left_ms = milliseconds(until_s - <double>monotonic())
        with nogil:
            n = c_poll(polled, n_polled, left_ms)
            error = errno
        if n >= 0:
            return n > 0
        if error != EINTR:
            return False
        PyErr_CheckSignals()
