"""A TLS socket that does not block, with the manners of a plain one."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Sequence

from msm_fast.drivers.failures import handshake_failed

__all__ = ["SecureSocket", "UnshakenContext"]

_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


class UnshakenContext:
    """A TLS context for a client that connects and leaves the handshake to `SecureSocket`.

    hostname: the name that the server's certificate must have.
    """

    def __init__(self, context: ssl.SSLContext, hostname: str) -> None:
        self._context = context
        self._hostname = hostname

    def wrap_socket(self, sock: socket.socket, server_hostname: str) -> ssl.SSLSocket:
        """Return a socket that speaks TLS once it is connected and the handshake is done."""
        return self._context.wrap_socket(sock, server_hostname=self._hostname, do_handshake_on_connect=False)


class SecureSocket:
    """Sends and receives as a plain socket that does not block, and polls itself as one.

    TLS may have to write before it can read, and read before it can write; and what it has read and not given out yet
    no poll of the descriptor tells. Here all that is known, so that a user may wait for what it would on a plain
    socket.
    Thread-safety: one user at a time.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._poller = select.poll()
        self._poller.register(sock, _READABLE)
        self._asked = self._polled = _READABLE
        self._recv_must_write = False
        self._send_must_read = False
        self._lengths: deque[int] = deque()

    def handshake(self, deadline: float) -> None:
        """Agree on keys and see to it that the server is who it should be. deadline: of time.monotonic().

        Raises: ConnectionFailed.
        """
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                self._poll_for(_READABLE)
            except ssl.SSLWantWriteError:
                self._poll_for(_READABLE | select.POLLOUT)
            except (OSError, ValueError) as error:
                raise handshake_failed(error) from error
            else:
                self._poll_for(self._asked)
                return
            wait_s = deadline - time.monotonic()
            if wait_s <= 0 or not self._poller.poll(math.ceil(wait_s * 1000)):
                raise handshake_failed(TimeoutError())

    def cut(self, lengths: Sequence[int]) -> None:
        """Let so many bytes of what is sent next have records of their own, and then so many; see tls_records."""
        self._lengths = deque(lengths)

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Send what can be sent at once, return how much that was. flags: as for a socket; it never waits anyway.

        Raises: OSError; BlockingIOError if nothing can be sent.
        """
        left = memoryview(data)
        self._send_must_read = False
        try:
            while left:
                left = left[self._send_to_cut(left) :]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            self._send_must_read = isinstance(error, ssl.SSLWantReadError)
            if len(left) == len(data):
                raise BlockingIOError from None
        except OSError:
            self._raise_alert()
            raise
        finally:
            self._update()
        return len(data) - len(left)

    def _raise_alert(self) -> None:
        """Raise what the server has said at its end, if anything: to who writes, OpenSSL tells only of the end."""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._sock.recv(1)

    def _send_to_cut(self, data: memoryview) -> int:
        """Send no further than to the next cut. OpenSSL wants to be given the same again if it could not."""
        if not self._lengths:
            return self._sock.send(data)
        n = self._sock.send(data[: self._lengths[0]])
        self._lengths[0] -= n
        if not self._lengths[0]:
            self._lengths.popleft()
        return n

    def recv(self, n_bytes: int, flags: int = 0) -> bytes:
        """Return what is there, b"" at its end. flags: as for `send`.

        Raises: OSError; BlockingIOError if there is nothing yet.
        """
        self._recv_must_write = False
        try:
            return self._sock.recv(n_bytes)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLWantWriteError:
            self._recv_must_write = True
            raise BlockingIOError from None
        finally:
            self._update()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._sock.fileno()

    def poll(self, timeout_ms: int) -> list[tuple[int, int]]:
        """Wait until something of what was asked for may be tried; nothing: it was not until the end of the time."""
        if self._sock.pending():
            return [(self.fileno(), select.POLLIN)]
        return self._poller.poll(timeout_ms)

    def be_waited_for(self, poller: select.poll, events: int) -> bool:
        """Have poller wait until something of these events may be tried; return whether something was read already."""
        self.modify(self, events)
        poller.register(self._sock, self._polled)
        return self._sock.pending() > 0

    def modify(self, sock: object, events: int) -> None:
        """Wait for these events from now on. sock: itself."""
        self._asked = events
        self._update()

    def _update(self) -> None:
        events = self._asked
        if self._send_must_read:
            events &= ~select.POLLOUT
        if self._recv_must_write:
            events |= select.POLLOUT
        self._poll_for(events)

    def _poll_for(self, events: int) -> None:
        if events != self._polled:
            self._poller.modify(self._sock, events)
            self._polled = events
