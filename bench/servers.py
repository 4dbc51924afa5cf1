"""Round trips need servers, connections to them, and a processor that does not fall asleep between two of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from tests.memcached import Memcached

STAY_AWAKE = """
import os
if hasattr(os, "SCHED_IDLE"):
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
else:
    os.nice(19)
while os.getppid() == PARENT:
    for _ in range(100000):
        pass
"""


@contextmanager
def processor_kept_awake() -> Iterator[None]:
    """Run a process of the lowest priority beside the block."""
    awake = subprocess.Popen([sys.executable, "-c", f"PARENT = {os.getpid()}{STAY_AWAKE}"])
    try:
        yield
    finally:
        awake.kill()
        awake.wait()


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
    return stack.enter_context(closing(kind(nodes, no_delay=True, timeout=1, default_noreply=False)))


def nodes_setting(servers: list[Memcached]) -> str:
    """Return the servers as our setting `nodes`."""
    return ",".join(f"n{i}:{server.address}" for i, server in enumerate(servers, 1))
