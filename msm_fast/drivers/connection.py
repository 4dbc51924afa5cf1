"""A blocking connection to one node, and how several are waited for at once."""

from __future__ import annotations

import _socket
import math
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pymemcache.client.base import Client

from msm_fast._core import wire
from msm_fast._core.replies import ProtocolError, ReplyParser
from msm_fast._core.wire import Command
from msm_fast.drivers.access import OPEN_ACCESS, Access
from msm_fast.drivers.addresses import Address
from msm_fast.drivers.exchange import PlainConnection
from msm_fast.drivers.failures import ConnectionFailed, cannot_connect, handshake_failed
from msm_fast.drivers.greeting import FIRST_FREE_OPAQUE
from msm_fast.drivers.keepalive import keep_alive
from msm_fast.drivers.secure_socket import SecureSocket, UnshakenContext
from msm_fast.drivers.tls_records import lengths_of_writes
from msm_fast.engine.effects import Replies
from msm_fast.node import Node

__all__ = ["Connection", "finish"]

_CHUNK = 65536
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


class Connection(PlainConnection):
    """A socket to one node on which one batch at a time is written and answered.

    Deadlines are values of time.monotonic(). Each failure, and each exception of whatever kind between a write and
    its last reply, leaves replies on the way: close the connection then, never use it again.
    Thread-safety: one user at a time.
    """

    __slots__ = ("__weakref__", "_client", "_poller", "_sock", "address", "node")

    def __init__(self, node: Node, client: Client, address: Address | None, secured: SecureSocket | None) -> None:
        self.node = node
        self.address = address
        self.life = 0  # the driver learns it, and what the node compares, from the greeting
        self._client = client
        self._sock: socket.socket | SecureSocket = secured or client.sock
        self._poller: select.poll | SecureSocket = secured or _poller_of(client.sock)
        self.opaque = FIRST_FREE_OPAQUE
        if isinstance(self._sock, _socket.socket):  # nothing has patched it
            self.fd = self._sock.fileno()

    @classmethod
    def open(cls, node: Node, address: Address | None, timeout_s: float, access: Access = OPEN_ACCESS) -> Connection:
        """Connect to node at this address of its host; it must be greeted before it is used.

        address: None for a unix socket. timeout_s: for the TLS handshake too, if access asks for one.
        Raises: ConnectionFailed.
        """
        deadline = time.monotonic() + timeout_s
        context = access.context_for(node)
        client = _Dialer(
            node.host if address is None else (node.host, node.port),
            connect_timeout=timeout_s,
            timeout=timeout_s,
            no_delay=True,
            socket_module=_Resolved(address),
            tls_context=None if context is None else UnshakenContext(context, access.name_of(node)),
        )
        try:
            client.dial()
        except TimeoutError:
            raise ConnectionFailed("timeout", False, f"no connection within {timeout_s:.3f} s") from None
        except ValueError as error:  # a name that stands in no certificate
            raise handshake_failed(error) from error
        except OSError as error:
            raise cannot_connect(error) from error
        if address is not None:
            keep_alive(client.sock)
        if context is None:
            return cls(node, client, address, None)
        try:
            secured = SecureSocket(client.sock)
            secured.handshake(deadline)
        except BaseException:
            client.close()
            raise
        return cls(node, client, address, secured)

    @property
    def is_secure(self) -> bool:
        """Whether TLS is spoken on it."""
        return isinstance(self._sock, SecureSocket)

    def start(self, commands: Sequence[Command]) -> None:
        """Write a batch as far as the socket takes it at once. Raises: ConnectionFailed."""
        data = wire.encode(commands, self.opaque)
        if isinstance(self._sock, SecureSocket):
            self._sock.cut(lengths_of_writes(data, commands, self.opaque))
        self.parser = ReplyParser(commands, self.opaque)
        self.opaque += len(commands)
        self.write(data)

    def write(self, data: bytes) -> None:
        """Write as much of data as the socket takes, and keep the rest for later. Raises: ConnectionFailed."""
        try:
            n = self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            n = 0
        except OSError as error:
            raise ConnectionFailed("reset", True, f"connection lost while writing: {error}") from error
        if n < len(data):
            self.unsent = memoryview(data)[n:]

    def go_on(self) -> Replies | None:
        """Write what is left and read what is there; return the batch's replies once they are complete.

        Raises: ConnectionFailed.
        """
        return self._take(self._write_and_read())

    def look_back(self) -> Replies | None:
        """Do what `go_on` does, for what was read already: it may make no sense. Raises: ConnectionFailed."""
        return self._take(b"")

    def read(self, deadline: float) -> bytes:
        """Wait for what the server says next, writing what is left meanwhile; at least one byte.

        Raises: ConnectionFailed.
        """
        while (wait_s := deadline - time.monotonic()) > 0:
            data = self._write_and_read() if self.wait(math.ceil(wait_s * 1000)) else b""
            if data:
                return data
        raise ConnectionFailed("timeout", True, "no answer in time")

    def wait(self, timeout_ms: int) -> bool:
        """Wait until it can be gone on with; False: not in time."""
        if self.unsent is not None:
            self._poller.modify(self._sock, _READABLE | select.POLLOUT)
        return bool(self._poller.poll(timeout_ms))

    def be_waited_for(self, poller: select.poll) -> bool:
        """Have poller wait until it can be gone on with; return whether it can be now, whatever poller finds."""
        events = _READABLE if self.unsent is None else _READABLE | select.POLLOUT
        if isinstance(self._sock, SecureSocket):
            return self._sock.be_waited_for(poller, events)
        poller.register(self._sock, events)
        return False

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._sock.fileno()

    def _take(self, data: bytes) -> Replies | None:
        parser = self.parser
        assert parser is not None
        try:
            is_complete = parser.feed(data)
        except ProtocolError as error:
            raise ConnectionFailed("protocol", True, f"the answer makes no sense: {error.reason}") from error
        if not is_complete:
            return None
        self.parser = None
        return Replies(parser.replies, self.life, self.compares)

    def _write_and_read(self) -> bytes:
        """Write and read what can be at once; b"": there is nothing to read yet."""
        try:
            if self.unsent is not None:
                self._send_rest(self.unsent)
            data = self._sock.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise ConnectionFailed("reset", True, f"connection lost: {error}") from error
        if not data:
            raise ConnectionFailed("reset", True, "the server closed the connection")
        return data

    def _send_rest(self, unsent: memoryview) -> None:
        try:
            n = self._sock.send(unsent, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        self.unsent = unsent[n:] if n < len(unsent) else None
        if self.unsent is None:
            self._poller.modify(self._sock, _READABLE)

    def is_stale(self) -> bool:
        """Whether the idle connection was closed by the server, or has bytes that nobody asked for."""
        return bool(self._poller.poll(0))

    @property
    def is_open(self) -> bool:
        """Whether it was not closed here."""
        return self._client.sock is not None

    def close(self) -> None:
        """Close the socket; may be called again."""
        self.fd = -1
        self._client.close()


def finish(
    connections: Iterable[Connection], deadline: float
) -> Iterator[tuple[Connection, Replies | ConnectionFailed]]:
    """Wait for the replies on all connections, writing what is left meanwhile; yield them as they are complete.

    All are waited for at once: a node that reads and says nothing does not keep another one waiting, which would be
    late then. What is there at the deadline is still read, once: a node that goes on and on would never let it end.
    """
    unfinished = list(connections)
    ready = unfinished.copy()
    step: Callable[[Connection], Replies | None] = Connection.look_back
    is_over = False
    while True:
        for connection in ready:
            answer: Replies | ConnectionFailed | None
            try:
                answer = step(connection)
            except ConnectionFailed as failure:
                answer = failure
            if answer is not None:
                unfinished.remove(connection)
                yield connection, answer
        if is_over or not unfinished:
            break
        wait_s = deadline - time.monotonic()
        is_over = wait_s <= 0
        ready, step = _wait_for_any(unfinished, max(wait_s, 0)), Connection.go_on
    for connection in unfinished:
        yield connection, ConnectionFailed("timeout", True, "no answer in time")


def _wait_for_any(connections: Sequence[Connection], seconds: float) -> list[Connection]:
    """Wait until some of the connections can be gone on with, and return those; none: not in time."""
    timeout_ms = math.ceil(seconds * 1000)
    if len(connections) == 1:
        return list(connections) if connections[0].wait(timeout_ms) else []
    poller = select.poll()
    ready = {connection.fileno() for connection in connections if connection.be_waited_for(poller)}
    ready.update(fd for fd, _ in poller.poll(0 if ready else timeout_ms))
    return [connection for connection in connections if connection.fileno() in ready]


def _poller_of(sock: socket.socket) -> select.poll:
    sock.setblocking(False)
    poller = select.poll()
    poller.register(sock, _READABLE)
    return poller


class _Dialer(Client):  # type: ignore[misc]
    """pymemcache's client, which makes and closes the connection; what is said on it is `wire`'s."""

    def dial(self) -> None:
        self._connect()


class _Resolved:
    """The socket module for a client that is to try one address, and look up none."""

    def __init__(self, address: Address | None) -> None:
        self._address = address

    def getaddrinfo(self, *host: object) -> list[Address | None]:
        return [self._address]

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)
