"""Connections that nobody uses for a while stay alive, and those that are dead are found before they are used."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["keep_alive"]

_OPTIONS = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""After 30 seconds, then every 10; the third that is not answered ends the connection. macOS has the second name."""


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel say something on a TCP connection that is idle, so that what is between remembers it.

    Firewalls and load balancers forget, without a word, what is silent for a few minutes. All connections of a process
    would be dead then after a quiet night, and its first requests would take the cluster for lost.
    """
    with contextlib.suppress(OSError):  # without it a connection can be used all the same
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _OPTIONS.items():
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
