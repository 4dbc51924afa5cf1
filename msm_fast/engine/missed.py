"""What nodes that are down have missed, to be told before they are used again."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable

from msm_fast._core.wire import Command

__all__ = ["MissedCommands"]

_MOST_PER_NODE = 100_000
"""The oldest are dropped beyond; at some 300 bytes each this is 30 MB for a node that misses that many logouts."""


class MissedCommands:
    """The tombstones that each node that is down has not got. Thread-safety: under a lock."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Command]] = {}
        self._until: dict[str, float] = {}
        """By node, when the last of the sessions that its tombstones end would be over in any case."""
        self._lock = threading.Lock()

    def add(self, node: str, commands: Iterable[Command], until: float) -> None:
        """Note commands that the node must be sent when it is back; after until (monotonic seconds) nobody needs them.

        It keeps them also while it is not configured: it may be put back.
        """
        with self._lock:
            self._until[node] = max(until, self._until.get(node, until))
            self._queues.setdefault(node, deque(maxlen=_MOST_PER_NODE)).extend(commands)

    def take(self, node: str, n: int) -> list[Command]:
        """Return and forget the next n commands for the node."""
        with self._lock:
            queue = self._queues.get(node)
            return [queue.popleft() for _ in range(min(n, len(queue)))] if queue else []

    def has_any(self, node: str) -> bool:
        """Whether there is something that the node must be told."""
        return bool(self._queues.get(node))

    def forget_gone(self, nodes: Collection[str], now: float) -> None:
        """Drop what is of no use any more to nodes that are none of these."""
        with self._lock:
            for node in [node for node, until in self._until.items() if node not in nodes and until <= now]:
                del self._until[node]
                self._queues.pop(node, None)

    def put_back(self, node: str, commands: Iterable[Command]) -> None:
        """Note commands again that could not be sent after all."""
        with self._lock:
            self._queues.setdefault(node, deque(maxlen=_MOST_PER_NODE)).extendleft(reversed(list(commands)))

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where another thread may have held it."""
        self._lock = threading.Lock()
