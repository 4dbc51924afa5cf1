"""The floor: a store that asks memcached for the session of each request, and does nothing else.

Sessions are in a dict of the process and never encoded. A load is one bare round trip, of a command that brings no
value; a save is another, which sends the bytes that the session had when it was new. Nothing is kept safe by it.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any

_LONGEST_REPLY = 4096


class Sessions:
    """Sessions by id, and the commands that a store would send. Of one thread, or one event loop."""

    def __init__(self) -> None:
        self._sessions: dict[str, dict[str, Any]] = {}
        self._stores: dict[str, bytes] = {}

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._sessions

    def get(self, session_id: str) -> dict[str, Any]:
        """Return a copy of the session, an empty one if there is none."""
        return dict(self._sessions.get(session_id, ()))

    def put(self, session_id: str, session: Mapping[str, Any]) -> bytes:
        """Keep a session and return the command that stores it."""
        if session_id not in self._stores:
            data = pickle.dumps(dict(session))
            self._stores[session_id] = b"ms floor-%s %d\r\n%s\r\n" % (session_id.encode(), len(data), data)
        self._sessions[session_id] = dict(session)
        return self._stores[session_id]

    def drop(self, session_id: str) -> None:
        """Forget a session."""
        self._sessions.pop(session_id, None)


def question(session_id: str) -> bytes:
    """Return the command that asks for a session's CAS value."""
    return b"mg floor-%s c\r\n" % session_id.encode()


class BareSocket:
    """Round trips on a socket."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, command: bytes) -> None:
        """Send a command and wait for its reply, a line."""
        self._socket.sendall(command)
        while not self._socket.recv(_LONGEST_REPLY).endswith(b"\r\n"):
            pass


class BareProtocol(asyncio.Protocol):
    """Round trips on a connection that the requests of an event loop share."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\n")):
            self._waiting.popleft().set_result(None)

    def ask(self, command: bytes) -> asyncio.Future[None]:
        """Send a command; the future is done with its reply, a line."""
        reply: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(reply)
        self._transport.write(command)
        return reply
