"""What passes between a worker and its nodes while it serves one request after the other, seen by proxies.

Beside the timed turns, never in them: a proxy costs time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from tests.memcached import Memcached
from tests.proxy import Link, Proxy

HOLD_BACK_S = 0.01
"""For how long replies are held back, so that what goes out together, to two nodes, has left when the first comes."""
QUIET_S = 0.03
"""After such a silence a request has left nothing to be done."""


class Traffic(NamedTuple):
    """Per request: round trips that it waits for, connections that it makes, and bytes in both directions."""

    round_trips: float
    connections: float
    n_bytes: float


class Wire:
    """Counts what passes through its proxies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Link, int] = {}
        self._n_begun = 0
        self._answered: set[int] = set()
        self._n_bytes = 0
        self._last_at = 0.0
        self._proxies: list[_CountingProxy] = []

    def through(self, server: Memcached, stack: ExitStack) -> str:
        """Return the address of a new proxy in front of server, which is closed with stack."""
        proxy = _CountingProxy(server.port, self)
        stack.callback(proxy.close)
        self._proxies.append(proxy)
        return proxy.address

    def note(self, link: Link, n_bytes: int, *, is_reply: bool) -> None:
        """Count what passes on one connection.

        A round trip begins when a client writes while it waits for nothing, and counts when a reply comes: it may be on
        several connections at once.
        """
        with self._lock:
            self._last_at = time.monotonic()
            self._n_bytes += n_bytes
            if is_reply:
                self._answered.add(self._waiting.pop(link, 0))
            elif link not in self._waiting:
                if not self._waiting:
                    self._n_begun += 1
                self._waiting[link] = self._n_begun

    def count(self, run: Callable[[], object], n: int) -> Traffic:
        """Return what n runs of a request cost, each when the one before it has left nothing to do."""
        self._await_quiet()
        n_connections, n_bytes, round_trips = self._n_connections(), self._n_bytes, 0
        for _ in range(n):
            with self._lock:
                self._waiting.clear()
                self._answered = {0}
            run()
            round_trips += len(self._answered) - 1
            self._await_quiet()
        return Traffic(round_trips / n, (self._n_connections() - n_connections) / n, (self._n_bytes - n_bytes) / n)

    def _n_connections(self) -> int:
        return sum(proxy.n_connections for proxy in self._proxies)

    def _await_quiet(self) -> None:
        started = time.monotonic()
        while time.monotonic() - max(self._last_at, started) < QUIET_S:
            time.sleep(QUIET_S / 10)


class _CountingProxy(Proxy):
    def __init__(self, target_port: int, wire: Wire) -> None:
        self._wire = wire
        super().__init__(target_port)

    def carry(self, data: bytes, link: Link, *, is_reply: bool) -> None:
        if is_reply:
            time.sleep(HOLD_BACK_S)
        self._wire.note(link, len(data), is_reply=is_reply)
        super().carry(data, link, is_reply=is_reply)


@contextmanager
def wired(servers: list[Memcached]) -> Iterator[tuple[Wire, tuple[str, ...]]]:
    """Put proxies in front of servers; give what they count, and their addresses."""
    with ExitStack() as stack:
        wire = Wire()
        yield wire, tuple(wire.through(server, stack) for server in servers)
