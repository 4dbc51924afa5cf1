"""A TCP proxy in front of a server that counts what a client writes."""

from __future__ import annotations

import contextlib
import socket
import threading


class CountingProxy:
    """Passes bytes on between a client and one server.

    turns: how often a client began to write after it had been answered (or for the first time), so the number of
    round trips on the wire, however many commands or system calls each was.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.turns = 0
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            self._threads.append(threading.Thread(target=self._serve, args=(client, server), daemon=True))
            self._threads[-1].start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        state = {"client_turn": False}
        back = threading.Thread(target=self._pass_on, args=(server, client, state, False), daemon=True)
        self._threads.append(back)
        back.start()
        self._pass_on(client, server, state, True)

    def _pass_on(self, source: socket.socket, target: socket.socket, state: dict[str, bool], is_client: bool) -> None:
        try:
            while data := source.recv(65536):
                if is_client and not state["client_turn"]:
                    self.turns += 1
                state["client_turn"] = is_client
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass
