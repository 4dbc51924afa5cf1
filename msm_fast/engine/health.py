"""Which nodes are up: a circuit breaker each, and when to probe the ones that are not."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from msm_fast.engine.effects import FailureKind
from msm_fast.policies import Breaker, Reconnect

__all__ = ["ClusterHealth", "NodeHealth"]

_OPENS_AT_ONCE: frozenset[FailureKind] = frozenset({"refused", "reset", "unreachable", "unsupported"})
_SILENCE_S = 1.0
"""For how long a node may not be heard of before it may have been away without this process noticing: as long as it
takes until another one, which noticed, has told the node what it missed meanwhile."""

_NOT_TOLD = "it had missed a logout when it was taken out of the configuration"

_SILENT: frozenset[FailureKind] = frozenset({"timeout", "unreachable", "deadline"})
_NOT_THE_NODES: frozenset[FailureKind] = frozenset({"deadline", "exhausted", "gone"})


@dataclass(slots=True)
class NodeHealth:
    """One node's breaker. Times are monotonic seconds.

    Closed (is_up) until it opens: on one refused or lost connection, or on so many timeouts or nonsense replies in
    a row. An open one is left alone but for a probe at probe_at; a probe that is answered closes it.
    """

    is_up: bool = True
    life: int = 0
    """Grows each time the node loses its memory; 0 before it was first heard of."""
    compares: bool = False
    """In this life it leaves out values that have not changed, if asked to."""
    is_silent: bool = False
    """It is down, and neither it nor its host answers."""
    answered_at: float = -math.inf
    heard_since: float = -math.inf
    """From when on this process has heard of it again and again."""
    failures_in_a_row: int = 0
    probe_at: float = 0.0
    probe_wait: float = 0.0
    returned_at: float | None = None
    last_failure: str = ""

    def heard(self, now: float) -> None:
        """Note that it answered."""
        if now - self.answered_at > _SILENCE_S:
            self.heard_since = now
        self.answered_at = now


_GONE = NodeHealth(is_up=False)


class ClusterHealth:
    """The breakers of all nodes.

    on_change is called with (node, is_up, detail) at each opening and closing, on_restart with a node that has lost its
    memory; both outside the lock.
    Thread-safety: reading is_up takes no lock; changes are made under one.
    """

    def __init__(
        self,
        nodes: Iterable[str],
        breaker: Breaker,
        reconnect: Reconnect,
        rng: random.Random,
        on_change: Callable[[str, bool, str], None],
        on_restart: Callable[[str], None],
    ) -> None:
        self.healths = {node: NodeHealth() for node in nodes}
        """By node; to be read only. It is replaced, never changed, so readers take no lock."""
        self.is_quiet = True
        """Whether every node is up, and answered when it was last asked."""
        self.is_undisturbed = True
        """Whether that is so, and none has ever failed to answer and come back."""
        self.lacks_since = -math.inf
        """When a node last failed to answer and came back, or was found to have lost its memory, or the nodes were
        changed: one may lack copies that it had before, or should have."""
        self._last_return = -math.inf
        self._breaker = breaker
        self._reconnect = reconnect
        self._rng = rng
        self._on_change = on_change
        self._on_restart = on_restart
        self._lock = threading.Lock()

    def is_up(self, node: str) -> bool:
        """Whether requests may use the node."""
        return self.healths.get(node, _GONE).is_up

    def is_steady(self, node: str) -> bool:
        """Whether the node answered when it was last asked."""
        health = self.of(node)
        return health.is_up and not health.failures_in_a_row

    def is_calm(self, seconds: float | None, now: float) -> bool:
        """Whether every node is up, answered when it was last asked, and did not come back less than seconds ago.

        seconds: None: ever. It says of all nodes at once what is_up, is_steady and has_returned_within say of one.
        """
        if not self.is_quiet:
            return False
        return self._last_return == -math.inf or (seconds is not None and now - self._last_return >= seconds)

    def of(self, node: str) -> NodeHealth:
        """Return the node's breaker, to be read only; one that is not configured any more is down."""
        return self.healths.get(node, _GONE)

    def down(self) -> list[str]:
        """Return the nodes whose breaker is open."""
        return [node for node, health in self.healths.items() if not health.is_up]

    @property
    def is_any_up(self) -> bool:
        """Whether there is a node that requests may use."""
        return any(health.is_up for health in self.healths.values())

    def looks_lost(self, primaries: Collection[str]) -> bool:
        """Whether the cluster cannot be used: no node is up, or most of three or more primaries are silent.

        Of a process that died its host says so; when most are silent, it is more likely this host that was cut off than
        all of them, and what it would store on the rest others would not see.
        """
        if not self.is_any_up:
            return True
        silent = sum(self.of(node).is_silent for node in primaries)
        return self._breaker.suspect_self and len(primaries) >= 3 and 2 * silent > len(primaries)

    def has_returned_within(self, node: str, seconds: float | None, now: float) -> bool:
        """Whether the node failed to answer and came back less than so many seconds ago (None: ever).

        Its copies may be older than those that were written elsewhere while it was away.
        """
        returned_at = self.of(node).returned_at
        return returned_at is not None and (seconds is None or now - returned_at < seconds)

    def was_silent_since(self, node: str, since: float, now: float) -> bool:
        """Whether this process has not heard of the node for a while, until now or until some time after since.

        The node may have been away, and others may have stored or ended sessions without it.
        """
        health = self.of(node)
        return since < health.heard_since or now - health.answered_at > _SILENCE_S

    def succeeded(self, node: str, life: int, now: float, compares: bool = False) -> None:
        """Note that the node answered a request, in this life; compares: what it can do in it.

        It does not close an open breaker: the answer is from before it opened, and the node may have missed something.
        """
        health = self.healths.get(node)
        if health is None:
            return
        health.heard(now)
        if not health.failures_in_a_row and life == health.life:
            return
        with self._lock:
            was_restarted = self._begins_life(health, life, compares)
            if was_restarted:
                self.lacks_since = now
            if health.is_up and health.failures_in_a_row:
                health.returned_at = self.lacks_since = now
                health.failures_in_a_row = 0
                self._take_stock()
        if was_restarted:
            self._on_restart(node)

    def returned(self, node: str, life: int, now: float, *, compares: bool = False) -> None:
        """Note that the node answered a probe, in this life, and was told all that it had missed: close its breaker.

        compares: as for `succeeded`.
        """
        health = self.healths.get(node)
        if health is None:
            return
        with self._lock:
            was_restarted = self._begins_life(health, life, compares)
            was_open = not health.is_up
            health.returned_at = self.lacks_since = now
            health.failures_in_a_row = 0
            health.is_up, health.is_silent = True, False
            self._take_stock()
        if was_restarted:
            self._on_restart(node)
        if was_open:
            self._on_change(node, True, f"answers again after: {health.last_failure}")

    @staticmethod
    def _begins_life(health: NodeHealth, life: int, compares: bool) -> bool:
        """Note the life that the node is in; return whether it has lost its memory since it was last heard of."""
        before = health.life
        if life > before:
            health.life, health.compares = life, compares
        return 0 < before < life

    def failed(self, node: str, kind: FailureKind, detail: str, now: float, *, opens_at_once: bool = False) -> None:
        """Note that the node did not answer; open its breaker if that was enough, or if opens_at_once."""
        health = self.healths.get(node)
        if health is None:
            return
        if kind == "exhausted":
            health.last_failure = detail  # an operator who looks for what is wrong looks here
        if kind in _NOT_THE_NODES and not opens_at_once:
            return
        with self._lock:
            health.failures_in_a_row += 1
            health.last_failure = detail
            is_enough = kind in _OPENS_AT_ONCE or health.failures_in_a_row >= self._breaker.timeouts
            opens = health.is_up and (is_enough or opens_at_once)
            if opens:
                health.is_up = False
                health.probe_wait = self._reconnect.first
                health.probe_at = now + self._jittered(health.probe_wait)
            health.is_silent = not health.is_up and kind in _SILENT
            self._take_stock()
        if opens:
            self._on_change(node, False, detail)

    def due_probes(self, now: float) -> list[str]:
        """Return the nodes to probe now, and plan each one's next probe further away."""
        due = []
        with self._lock:
            for node, health in self.healths.items():
                if not health.is_up and health.probe_at <= now:
                    health.probe_wait = min(health.probe_wait * self._reconnect.factor, self._reconnect.cap)
                    health.probe_at = now + self._jittered(health.probe_wait)
                    due.append(node)
        return due

    def next_probe_at(self) -> float | None:
        """Return when the next probe is due, or None if every node is up."""
        return min((h.probe_at for h in self.healths.values() if not h.is_up), default=None)

    def change_nodes(
        self, nodes: Iterable[str], fresh: Collection[str], has_missed: Callable[[str], bool], now: float
    ) -> None:
        """Have these nodes from now on, or let others drain; fresh are those that are at another address.

        New and fresh ones are taken to be up, unless there is something that they have missed: they are told by a
        probe, and used after that.
        """
        with self._lock:
            kept = {node: health for node, health in self.healths.items() if node not in fresh}
            self.healths = {node: kept.get(node) or self._begun(not has_missed(node)) for node in nodes}
            self.lacks_since = now
            self._take_stock()

    def _begun(self, is_up: bool) -> NodeHealth:
        return NodeHealth(is_up=is_up, probe_wait=self._reconnect.first, last_failure="" if is_up else _NOT_TOLD)

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where another thread may have held it."""
        self._lock = threading.Lock()

    def _take_stock(self) -> None:
        """Bring up to date what is said of all nodes at once, under the lock."""
        healths = self.healths.values()
        returns = [health.returned_at for health in healths if health.returned_at is not None]
        self._last_return = max(returns, default=-math.inf)
        self.is_quiet = all(health.is_up and not health.failures_in_a_row for health in healths)
        self.is_undisturbed = self.is_quiet and self._last_return == -math.inf

    def _jittered(self, wait: float) -> float:
        """Vary wait by up to half of itself; a full jitter could be next to nothing and probe in a storm."""
        return wait * (0.5 + self._rng.random())
