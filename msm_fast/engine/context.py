"""What every flow of one manager shares."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.near_cache import NearCache
from msm_fast._core.serializers import AttributeFailure, resolve_serializers
from msm_fast._core.session_id import SessionId
from msm_fast._core.state import SessionState
from msm_fast.blacklist import Blacklist
from msm_fast.engine.behind import WorkBehind
from msm_fast.engine.distribution import DistributionSwitch
from msm_fast.engine.effects import Flow
from msm_fast.engine.essentials import Essentials
from msm_fast.engine.events import Event, EventKind, Events
from msm_fast.engine.health import ClusterHealth
from msm_fast.engine.limits import ItemLimits
from msm_fast.engine.missed import MissedCommands
from msm_fast.engine.retries import RetryBudget
from msm_fast.engine.topology import Topology
from msm_fast.engine.usual_loading import UsualLoading
from msm_fast.engine.usual_saving import UsualSaving
from msm_fast.errors import SessionUnavailable
from msm_fast.forks import take_each
from msm_fast.local_store import LocalStore, MemoryStore
from msm_fast.policies import DistributionState
from msm_fast.settings import Settings
from msm_fast.statistics import Counters

__all__ = ["TELL_AGAIN_S", "Clock", "Context", "digest"]

TELL_AGAIN_S = 60.0
"""How often something that each request may meet is told."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from. monotonic: for intervals. wall: seconds since the epoch, for what is stored."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


def _replay_none(key: bytes, generation: int) -> Flow[bool]:
    """Stand for what a worker does whose sessions do not live in it."""
    yield from ()
    return False


def digest(session_id: SessionId) -> str:
    """Return what logs, errors and events call the session: 12 hex digits, the same in every worker, not reversible."""
    return hashlib.blake2b(session_id.plain.encode(), digest_size=6, person=b"msm_fast log").hexdigest()


class Context:
    """Settings, topology, health, counters, events, clock and randomness of one manager.

    rng: must not repeat itself in a forked child (random.SystemRandom), since writes are told apart by their nonce.
    Thread-safety: shared by all flows; each part says for itself how.
    """

    def __init__(
        self, settings: Settings, clock: Clock, rng: random.Random, local_store: LocalStore | None = None
    ) -> None:
        own = self.essentials = Essentials(settings, clock, Counters(), rng)
        # What of it the flows use, under the names by which they do.
        self.clock, self.rng, self.counters = clock, rng, own.counters
        self.storage_key = own.storage_key
        self.default_max_inactive_s = own.default_max_inactive_s
        self.near_copy, self.keep_near = own.near_copy, own.keep_near
        self.forget, self.forget_all = own.forget, own.forget_all
        self.now_ms, self.nonce = own.now_ms, own.nonce
        self.exptime, self.touch_exptime = own.exptime, own.touch_exptime
        self.ttl_s, self.life_s = own.ttl_s, own.life_s
        self.idle_s, self.tombstone_ttl_s = own.idle_s, own.tombstone_ttl_s
        self.settings = settings
        self.events = Events()
        self.topology = Topology(settings.nodes, settings.failover_nodes)
        self.health = ClusterHealth(
            self.topology.nodes, settings.breaker, settings.reconnect, rng, self._node_changed, self._node_restarted
        )
        self.retry_budget = RetryBudget(settings.retry.budget)
        self.missed = MissedCommands()
        self.item_limits = ItemLimits()
        self.records = settings.record_format()
        self.serializers = resolve_serializers(settings.serializer)
        self.keeps_attribute = re.compile(settings.attribute_filter).fullmatch if settings.attribute_filter else None
        """Tells of an attribute's name whether it is stored; None: all are."""
        self.blacklist = Blacklist(settings.blacklist_path, self._tell_blacklist_problem, clock.monotonic)
        self.told: NearCache = NearCache(settings.near_cache.max_sessions, clock=clock.monotonic)
        """What was told of a node, a session or its attribute, and is not told again at every request."""
        self.local: LocalStore = (
            MemoryStore(settings.near_cache, clock=clock.monotonic) if local_store is None else local_store
        )
        self.is_local_shared = local_store is not None
        """Whether other workers of this host may have the same."""
        self.local_failing_since: float | None = None
        """Since when a reconnection has found that the local store, or part of it, cannot be read; None: it can."""
        self.distribution = DistributionSwitch(
            self.health,
            self._looks_lost,
            self._falls_back,
            on_change=self._state_changed,
        )
        self.behind = WorkBehind(settings.near_cache.max_sessions)
        self.dump_live: Callable[[bool], int] = lambda discards: 0
        """Sticky: drops the live sessions that an outage has touched, or all; returns how many changes are lost."""
        self.replay_live: Callable[[bytes, int], Flow[bool]] = _replay_none
        """Sticky: writes the live session that the local store has under that generation; returns whether there is."""
        self.is_stopped = False
        self.is_closed = False
        self.usual_loading = UsualLoading(self)
        self.usual_saving = UsualSaving(self)

    def share_memory(self, other: Context) -> None:
        """Have what other has seen of sessions, keep them on this host where it does, and have its black list.

        What is in a file is shared as it is.
        """
        self.essentials.see_as(other.essentials)
        if self.settings.blacklist_path is None:
            self.blacklist = other.blacklist
        if isinstance(other.local, MemoryStore):
            self.local = other.local

    # -- sessions

    def new_state(self) -> SessionState:
        """Return a new, empty session, placed on the node that ranks first of those that are up.

        While the cluster is not used its id names no node: it is placed when it is first stored there.
        """
        session_id = SessionId.generate(route=self.settings.route)
        is_on = self.distribution.is_on
        home = next(iter(self.topology.ranked(session_id.plain, self.health.is_up)), None) if is_on else None
        now_ms = self.now_ms()
        return SessionState(
            session_id=session_id.with_node(home) if home else session_id,
            attributes=AttributeMap(serializer=self.serializers),
            created_ms=now_ms,
            accessed_ms=now_ms,
            max_inactive_s=self.default_max_inactive_s,
            absolute_lifetime_s=int(self.settings.absolute_lifetime or 0),
            local_kind=None if is_on else "local",
            epoch=self.distribution.epoch,
        )

    def session_id_of(self, plain: str, home: int) -> SessionId:
        """Return the id of a session that is kept here. home: as its record names it."""
        session_id = SessionId(plain)
        node = self.topology.node_of_digest(home)
        return session_id.with_node(node) if node else session_id

    # -- what happens

    def tell(self, kind: EventKind, detail: str, *, node: str | None = None, session: str | None = None) -> None:
        """Tell an event."""
        self.events.tell(Event(kind, detail, node=node, session=session))

    def tell_session(self, kind: EventKind, session_id: SessionId, what: str, *, node: str | None = None) -> None:
        """Tell an event of a session. what: what its sentence says after the session's name."""
        name = digest(session_id)
        self.tell(kind, f"session {name} {what}", node=node, session=name)

    def unavailable(self, session_id: SessionId, what: str, nodes: Iterable[str]) -> SessionUnavailable:
        """Return the error of a session that cannot be found, stored or ended now, to be raised; count it.

        what: as for `tell_session`. nodes: those at fault.
        """
        self.counters.add("unavailable")
        name = digest(session_id)
        return SessionUnavailable(f"session {name} {what}", session=name, nodes=tuple(sorted(nodes)))

    def tell_seldom(self, kind: EventKind, detail: str, *, node: str | None) -> None:
        """Tell an event of a node (None: this host), unless one of that kind was told of it within the last minute."""
        if self.is_first_time((kind, node), TELL_AGAIN_S):
            self.tell(kind, detail, node=node)

    def is_first_time(self, what: object, ttl_s: float | None = None) -> bool:
        """Whether this was not told before, or ttl_s seconds ago."""
        if what in self.told:
            return False
        self.told.put(what, True, ttl=ttl_s)
        return True

    def tell_undecodable(self, session_id: SessionId, failure: AttributeFailure) -> None:
        """Tell of a value that cannot be decoded: each request meets it; if a type is gone, all sessions do."""
        self.counters.add("unserializable")
        if not self.is_first_time(("undecodable", failure.name), TELL_AGAIN_S):
            return
        name = digest(session_id)
        self.tell(
            "unserializable",
            f"session {name}: attribute {failure.name!r} cannot be read and is None: {failure.cause}. What is stored "
            "stays until another value is set. Was its serializer or its registered type taken away?",
            session=name,
        )

    def label(self, node: str) -> str:
        """Return a node's name for messages, with its address."""
        return self.topology.label(node)

    def state(self) -> DistributionState:
        """Return where sessions are kept now."""
        return DistributionState.STOPPED if self.is_stopped else self.distribution.state

    def renew_locks(self) -> None:
        """Make a forked child safe: a lock that another thread held at the fork would never be let go.

        Its writes get nonces of its own.
        """
        take_each(
            self.essentials.forget_nonces,
            self.blacklist.renew_lock,
            self.health.renew_lock,
            self.retry_budget.renew_lock,
            self.missed.renew_lock,
            self.distribution.renew_lock,
            self.behind.renew_after_fork,
            self.local.renew_after_fork,
        )

    def change_topology(self, settings: Settings, draining: Collection[str]) -> None:
        """Use other nodes from now on; what is under way with the old ones may end there.

        settings: with the new nodes. An id that names a node that is gone is looked for on the others.
        """
        before = self.topology
        former = {**before.former, **before.nodes}.values()
        topology = Topology(settings.nodes, settings.failover_nodes, draining, former)
        moved = {id_ for id_, node in topology.nodes.items() if before.nodes.get(id_, node).address != node.address}
        now = self.clock.monotonic()
        self.missed.forget_gone(topology.nodes, now)
        self.health.change_nodes(topology.nodes, moved, self.missed.has_any, now)
        self.settings, self.topology = settings, topology
        names = ", ".join(node.label for node in topology.nodes.values()) or "none"
        self.tell("nodes_changed", f"the nodes are {names}; draining: {', '.join(sorted(topology.draining)) or 'none'}")
        self.distribution.refresh("the nodes were changed")

    def _looks_lost(self) -> bool:
        return self.health.looks_lost(self.topology.primaries)

    def _falls_back(self) -> bool:
        return self.settings.on_cluster_lost == "local" or not self.settings.nodes

    def _node_changed(self, node: str, is_up: bool, detail: str) -> None:
        if not is_up:
            self.told.pop(("node_restarted", node))  # how it comes back is news, however lately it did before
        sentence = f"node {self.label(node)} is {'up' if is_up else 'down'}"
        self.tell("node_up" if is_up else "node_down", f"{sentence}: {detail}", node=node)
        self.distribution.refresh(sentence, has_node_returned=is_up)

    def _node_restarted(self, node: str) -> None:
        self.counters.add("restarts")
        detail = f"node {self.label(node)} has lost its memory: restarted, flushed, or short of it"
        self.tell_seldom("node_restarted", detail, node=node)

    def _state_changed(self, state: DistributionState, before: DistributionState, reason: str) -> None:
        self.tell("state_changed", f"sessions are {state.value} now, {before.value} before: {reason}")

    def _tell_blacklist_problem(self, detail: str) -> None:
        self.tell("blacklist_problem", detail)
