"""TCP proxies in front of a server."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""For SO_LINGER: on, for no time. Closing such a socket sends a reset, whatever is still unsent."""


@dataclass(eq=False)
class Link:
    """One client's connection through a proxy, and the proxy's own to the server."""

    client: socket.socket
    server: socket.socket
    client_turn: bool = False
    is_gone: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        """End both connections in order: the other sides read what is on its way, then an end of file."""
        self._end(with_reset=False)

    def reset(self) -> None:
        """End both connections at once, with a reset."""
        self._end(with_reset=True)

    def _end(self, *, with_reset: bool) -> None:
        self.is_gone.set()
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                if with_reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                # A thread that waits in recv would keep the socket open: this wakes it, and SHUT_RD sends nothing.
                sock.shutdown(socket.SHUT_RD if with_reset else socket.SHUT_RDWR)
            sock.close()


class Proxy:
    """Passes bytes on between clients and one server on this machine, each direction of a connection in a thread.

    A subclass says in `carry` what happens to them on the way.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._links: list[Link] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.port = 0
        self.n_connections = 0
        """How many clients have connected so far."""
        self.listen()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Accept connections; again on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def stop_listening(self) -> None:
        """Let new connections be refused; those that are there stay."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
        self._listener.close()

    def close(self) -> None:
        self.stop_listening()
        for link in self.links():
            link.close()
        for thread in self._threads:
            thread.join(5)

    def links(self) -> list[Link]:
        """Return the connections that are open now."""
        with self._lock:
            self._links = [link for link in self._links if not link.is_gone.is_set()]
            return list(self._links)

    def carry(self, data: bytes, link: Link, *, is_reply: bool) -> None:
        """Do with what arrived on link as the proxy does. Raises: OSError if the other side is gone."""
        (link.client if is_reply else link.server).sendall(data)

    def end(self, link: Link, *, with_reset: bool) -> None:
        """Pass on that one side has ended the connection."""
        if with_reset:
            link.reset()
        else:
            link.close()

    def _start(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.n_connections += 1
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, socket.socket())
            try:
                link.server.connect(("127.0.0.1", self._target_port))
            except OSError:
                link.reset()
                continue
            link.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._links.append(link)
            self._start(self._pass_on, link, False)
            self._start(self._pass_on, link, True)

    def _pass_on(self, link: Link, is_reply: bool) -> None:
        source = link.server if is_reply else link.client
        try:
            while data := source.recv(65536):
                self.carry(data, link, is_reply=is_reply)
        except OSError:
            if not link.is_gone.is_set():
                self.end(link, with_reset=True)
        else:
            self.end(link, with_reset=False)


class CountingProxy(Proxy):
    """Counts what clients write.

    turns: how often a client began to write after it had been answered (or for the first time), so the number of
    round trips on the wire, however many commands or system calls each was.
    """

    def __init__(self, target_port: int) -> None:
        self.turns = 0
        super().__init__(target_port)

    def carry(self, data: bytes, link: Link, *, is_reply: bool) -> None:
        if not is_reply and not link.client_turn:
            self.turns += 1
        link.client_turn = not is_reply
        super().carry(data, link, is_reply=is_reply)
