"""Which of its lives each node is in: it begins a new one when it has lost its memory."""

from __future__ import annotations

import threading
from collections.abc import Container

from msm_fast.logs import Log

__all__ = ["NodeLives"]

_log = Log("msm_fast.node_lives")


class NodeLives:
    """Numbers the lives of nodes, by the tokens that they give when they are greeted. Thread-safety: under a lock."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes | None, int]] = {}
        self._lock = threading.Lock()
        self.turn = 0
        """How often a life has begun."""
        self.nodes: Container[str] = ()
        """Those that are configured: two of them in one life are one server, which is logged."""

    def number(self, node: str, token: bytes | None) -> int:
        """Return the number of the node's life, from 1 on; a node that gives no token begins a new one each time."""
        with self._lock:
            known, life = self._known.get(node, (None, 0))
            if token is not None and token == known:
                return life
            others = {} if token is None else self._known
            twins = [other for other, (its, _) in others.items() if its == token and other in self.nodes]
            life += 1
            self._known[node] = (token, life)
            self.turn += 1
        if twins:
            _log.warning("nodes %s and %s are one server: no session has a copy on another", twins[0], node)
        return life

    def is_current(self, node: str, life: int) -> bool:
        """Whether the node has begun no other life since, as far as is known."""
        return self._known[node][1] == life

    def renew_after_fork(self) -> None:
        """Replace the lock in a forked child, where another thread may have held it."""
        self._lock = threading.Lock()
