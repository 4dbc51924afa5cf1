"""Round trips need servers, connections to them, and a processor that does not fall asleep meanwhile."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from msm_fast import Timeouts
from tests.memcached import Memcached

PATIENCE_S = 10.0
PATIENT = Timeouts(connect=PATIENCE_S, operation=PATIENCE_S, request=PATIENCE_S)
"""On a machine that is busy with other things nobody is to give up."""


@contextmanager
def on_one_processor() -> Iterator[None]:
    """Keep this process, and those that it starts, on one processor, where the system can.

    A round trip between two processors wakes one that sleeps, which costs more than all that is measured here, and
    twice as much at one time as at another. One processor that has the client and the servers never sleeps.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def connect(server: Memcached, stack: ExitStack) -> socket.socket:
    """Return a bare socket: what the floors talk on."""
    sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def receive(sock: socket.socket, n_at_least: int = 0) -> bytes:
    """Return an answer of at least so many bytes, with the end of its last line."""
    data = sock.recv(65536)
    while len(data) < n_at_least or not data.endswith(b"\r\n"):
        data += sock.recv(65536)
    return data


def pymemcache_client(kind: Callable[..., Any], server: Memcached, stack: ExitStack) -> Any:
    """Return one of pymemcache's clients. kind: HashClient takes a list of servers, the others one."""
    address = ("127.0.0.1", server.port)
    nodes = [address] if kind.__name__ == "HashClient" else address
    return stack.enter_context(closing(kind(nodes, no_delay=True, timeout=PATIENCE_S, default_noreply=False)))


def nodes_setting(servers: list[Memcached]) -> str:
    """Return the servers as our setting `nodes`."""
    return ",".join(f"n{i}:{server.address}" for i, server in enumerate(servers, 1))
