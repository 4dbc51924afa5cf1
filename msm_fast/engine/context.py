"""What every flow of one manager shares."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from msm_fast._core import wire
from msm_fast._core.attributes import AttributeMap
from msm_fast._core.near_cache import NearCache
from msm_fast._core.serializers import resolve_serializers
from msm_fast._core.session_id import SessionId
from msm_fast.engine.events import Event, EventKind, Events
from msm_fast.engine.health import ClusterHealth
from msm_fast.engine.missed import MissedCommands
from msm_fast.engine.retries import RetryBudget
from msm_fast.engine.topology import Topology
from msm_fast.policies import DistributionState
from msm_fast.session import SessionState
from msm_fast.settings import Settings
from msm_fast.statistics import Counters

__all__ = ["Clock", "Context", "KnownCopies", "digest"]

_TTL_MARGIN_S = 1
"""memcached counts in whole seconds and may drop an item one early."""
_UNLIMITED_CHECK_S = 3 * 3600.0
"""How long the copies of a session that never expires are taken to be in step."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from. monotonic: for intervals. wall: seconds since the epoch, for what is stored."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


@dataclass(frozen=True, slots=True)
class KnownCopies:
    """What this process last saw of a session's copies; right as long as the primary still has this nonce."""

    nonce: int
    copies: dict[str, int]
    max_inactive_s: int


def digest(session_id: SessionId) -> str:
    """Return what logs, errors and events call the session: 12 hex digits, the same in every worker, not reversible."""
    return hashlib.blake2b(session_id.plain.encode(), digest_size=6, person=b"msm_fast log").hexdigest()


class Context:
    """Settings, topology, health, counters, events, clock and randomness of one manager.

    rng: must not repeat itself in a forked child (random.SystemRandom), since writes are told apart by their nonce.
    Thread-safety: shared by all flows; each part says for itself how.
    """

    def __init__(self, settings: Settings, clock: Clock, rng: random.Random) -> None:
        self.settings = settings
        self.clock = clock
        self.rng = rng
        self.counters = Counters()
        self.events = Events()
        self.topology = Topology(settings.nodes, settings.failover_nodes)
        self.health = ClusterHealth(self.topology.nodes, settings.breaker, settings.reconnect, rng, self._node_changed)
        self.retry_budget = RetryBudget(settings.retry.budget)
        self.missed = MissedCommands()
        self.serializers = resolve_serializers(settings.serializer)
        self.default_max_inactive_s = int(settings.max_inactive or 0)
        self.known: NearCache = NearCache(settings.near_cache.max_sessions, clock=clock.monotonic)
        self.is_stopped = False
        self._state = self._current_state()

    # -- sessions

    def new_state(self) -> SessionState:
        """Return a new, empty session, placed on the node that ranks first of those that are up."""
        session_id = SessionId.generate()
        home = next(iter(self.topology.ranked(session_id.plain, self.health.is_up)), None)
        now_ms = self.now_ms()
        return SessionState(
            session_id=session_id.with_node(home) if home else session_id,
            attributes=AttributeMap(serializer=self.serializers),
            created_ms=now_ms,
            accessed_ms=now_ms,
            max_inactive_s=self.default_max_inactive_s,
            absolute_lifetime_s=int(self.settings.absolute_lifetime or 0),
        )

    def storage_key(self, session_id: SessionId) -> bytes:
        """Return the key of the session's item, the same on every node: its node and route are no part of it."""
        return (self.settings.key_prefix + session_id.plain).encode()

    def remember(self, key: bytes, known: KnownCopies) -> None:
        """Keep what is known of a session's copies for a tenth of its lifetime; then they are asked again."""
        ttl = known.max_inactive_s / 10 if known.max_inactive_s else _UNLIMITED_CHECK_S
        self.known.put(key, known, ttl=ttl)

    # -- time

    def now_ms(self) -> int:
        """Return the wall-clock time in milliseconds, as records carry it."""
        return int(self.clock.wall() * 1000)

    def nonce(self) -> int:
        """Return a random number that tells one write from every other, 1 to 2**32-1."""
        return self.rng.randrange(1, 2**32)

    def ttl_s(self, max_inactive_s: int, created_ms: int = 0, absolute_lifetime_s: int = 0) -> int:
        """Return how long an item must live from now, in seconds; 0: for ever."""
        limits = [max_inactive_s + _TTL_MARGIN_S] if max_inactive_s else []
        if absolute_lifetime_s:
            age_s = max(0, self.now_ms() - created_ms) // 1000
            limits.append(max(absolute_lifetime_s - age_s, 0) + _TTL_MARGIN_S)
        return min(limits, default=0)

    def exptime(self, ttl_s: int) -> int:
        """Return ttl_s as memcached wants it."""
        return wire.exptime(ttl_s, self.clock.wall())

    # -- what happens

    def tell(self, kind: EventKind, detail: str, *, node: str | None = None, session: str | None = None) -> None:
        """Tell an event."""
        self.events.tell(Event(kind, detail, node=node, session=session))

    def label(self, node: str) -> str:
        """Return a node's name for messages, with its address."""
        return self.topology.nodes[node].label

    def state(self) -> DistributionState:
        """Return where sessions are kept now."""
        return DistributionState.STOPPED if self.is_stopped else self._state

    def renew_locks(self) -> None:
        """Make a forked child safe: a lock that another thread held at the fork would never be let go."""
        self.counters.renew_lock()
        self.health.renew_lock()
        self.retry_budget.renew_lock()
        self.missed.renew_lock()

    def _current_state(self) -> DistributionState:
        down = len(self.health.down())
        if down == len(self.topology.nodes):
            return DistributionState.LOCAL
        return DistributionState.DEGRADED if down else DistributionState.DISTRIBUTED

    def _node_changed(self, node: str, is_up: bool, detail: str) -> None:
        label = self.label(node)
        self.tell(
            "node_up" if is_up else "node_down", f"node {label} is {'up' if is_up else 'down'}: {detail}", node=node
        )
        before, self._state = self._state, self._current_state()
        if self._state is not before:
            self.tell("state_changed", f"sessions are {self._state.value} now, {before.value} before")
