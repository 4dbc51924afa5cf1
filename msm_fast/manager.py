"""The public face: a manager gives each request its session and stores what the request made of it."""

from __future__ import annotations

import atexit
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from msm_fast._core.session_id import SessionId
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.drivers.lock_keeper import LockKeeper
from msm_fast.drivers.prober import Prober
from msm_fast.drivers.sqlite_store import SqliteStore
from msm_fast.drivers.write_behind import WriteBehind
from msm_fast.engine.context import Clock, Context
from msm_fast.engine.effects import Flow
from msm_fast.engine.events import Event
from msm_fast.engine.exchanging import probe
from msm_fast.engine.local import find_locally, keep_unless_back
from msm_fast.engine.locking import SessionLock, find_locked, release, store_locked, wait_for_lock
from msm_fast.engine.reconnecting import reconnect
from msm_fast.engine.request_rules import RequestRules
from msm_fast.engine.serving import find, store
from msm_fast.engine.sticky import StickySessions
from msm_fast.errors import ApplicationStopped, ConfigurationError
from msm_fast.local_store import LocalStore
from msm_fast.node import Node, parse_failover_nodes, parse_nodes
from msm_fast.policies import DistributionState, SaveResult
from msm_fast.request_scope import RequestScope, TimeBudget
from msm_fast.session import Session, SessionState
from msm_fast.settings import Settings
from msm_fast.statistics import NodeStatus, Statistics

__all__ = ["Distribution", "RequestScope", "SessionManager"]

T = TypeVar("T")

_AT_EXIT_S = 5.0
"""How long the end of the interpreter may wait for writes that requests left behind."""


class Distribution:
    """Whether sessions are distributed; an operator can stop and start it while the application serves."""

    __slots__ = ("_ctx", "_wake")

    def __init__(self, ctx: Context, wake: Callable[[], None]) -> None:
        self._ctx = ctx
        self._wake = wake

    @property
    def state(self) -> DistributionState:
        """Where sessions are kept now."""
        return self._ctx.state()

    def stop(self, reason: str = "stopped by the operator") -> None:
        """Serve everything from this host until `start`. What the cluster has stays there."""
        self._ctx.distribution.stop(reason)

    def start(self) -> None:
        """Take distribution up again, in the background: `state` tells when it is on.

        What was kept on this host is dumped or replayed first, as after an outage: settings.reconnect.
        """
        self._ctx.distribution.start()
        self._wake()


class SessionManager:
    """Keeps the sessions of an application in memcached, or without nodes in this process.

    nodes: "n1:10.0.0.1:11211,n2:10.0.0.2:11211", or Node objects, or a Settings; nothing: local. settings: the fields
    of `Settings`, by name. No node needs to be in reach: connections are made by the first request.
    Raises: ConfigurationError.
    Thread-safety: shared by all threads of a process; a forked child makes connections of its own.
    """

    def __init__(self, nodes: str | Iterable[str | Node] | Settings | None = None, **settings: Any) -> None:
        if isinstance(nodes, Settings):
            if settings:
                raise ConfigurationError(
                    "settings", sorted(settings), "a Settings object, or settings by name, not both"
                )
            self.settings = nodes
        else:
            self.settings = Settings.build(nodes, **settings)
        clock = Clock(monotonic=time.monotonic, wall=time.time)
        self._ctx = Context(self.settings, clock, random.SystemRandom(), _open_local_store(self.settings))
        self._driver = BlockingDriver(self._ctx.topology.nodes, self.settings.timeouts, self._ctx.item_limits.learn)
        self._prober = Prober(self._ctx, self._probe, self._reconnect)
        self._sticky = StickySessions(self._ctx) if self.settings.sticky else None
        self._writer = WriteBehind(self._ctx, self._driver.run, self._sticky.sweep if self._sticky else None)
        self.blacklist = self._ctx.blacklist
        self._rules = RequestRules(self.settings, clock.monotonic)
        self._lock_keeper = LockKeeper(self._ctx, self._run_in_background)
        self._change_lock = threading.Lock()
        self._stop_lock = threading.Lock()
        self._was_stopped = False
        self._ctx.events.subscribe(self._react)
        self.distribution = Distribution(self._ctx, self._prober.wake)
        _managers.add(self)

    # -- the life of a request

    def request(self, cookie_value: str | None, method: str = "GET", uri: str = "") -> RequestScope:
        """Return the scope of one request: `with manager.request(cookie) as session: …`.

        cookie_value: as the client sent it, any text; what is no id of a session gives a new one. method: of HTTP.
        uri: the path, for settings that go by it; what follows a "?" does not count. Where the pattern of a route is
        known, it serves better: locking="auto" then learns of all its paths at once.
        Raises: ApplicationStopped; what the session's use and save raise.
        """
        self._refuse_if_stopped()
        self._ctx.counters.add("requests")
        return RequestScope(self, self._ctx, self._rules, cookie_value, method, uri)

    def load(self, session_id: str | SessionId) -> Session | None:
        """Return the session, or None: it does not exist. It is not locked, whatever settings.locking is.

        Raises: SessionUnavailable if it may exist where nobody can look, CorruptRecord, ApplicationStopped.
        """
        self._refuse_if_stopped()
        state = self._find(str(session_id), True, self._new_budget())
        if state is None:
            return None
        return self._session_of(state, presented=str(session_id))

    def create(self) -> Session:
        """Return a new, empty session; it is stored once it is saved with something in it."""
        self._refuse_if_stopped()
        return self._session_of(self._new_state(), presented=None)

    def save(self, session: Session) -> SaveResult:
        """Store what changed.

        Raises: SessionUnavailable, SerializationError, SessionTooLarge, ConflictError, ApplicationStopped.
        """
        self._refuse_if_stopped()
        return self._save(session.state, self._new_budget())

    def invalidate(self, session: Session) -> SaveResult:
        """End the session and remove its copies now. Raises: SessionUnavailable if no node could be told."""
        session.invalidate()
        return self.save(session)

    def rotate_id(self, session: Session) -> SaveResult:
        """Give the session a new id now, store it under that and remove the old one's copies."""
        session.rotate_id()
        return self.save(session)

    # -- operation

    def nodes(self) -> list[NodeStatus]:
        """Return each node's address and health."""
        return [
            NodeStatus(
                node_id=node.node_id,
                address=node.address,
                is_up=self._ctx.health.is_up(node.node_id),
                is_failover=node.node_id in self.settings.failover_nodes,
                is_draining=node.node_id in self._ctx.topology.draining,
                last_failure=self._ctx.health.of(node.node_id).last_failure,
            )
            for node in self.settings.nodes
        ]

    def set_nodes(
        self, nodes: str | Iterable[str | Node] | None, failover_nodes: str | Iterable[str] | None = None
    ) -> None:
        """Use these nodes from now on; one that is in both lists keeps its id, its health and whether it drains.

        Sessions of a node that is gone are found by their backup copies and move at their next request: drain a node
        before you remove it, and remove no more nodes at once than sessions have backups.
        nodes, failover_nodes: as for the manager itself.
        Raises: ConfigurationError, and nothing has changed.
        """
        parsed = parse_nodes(nodes)
        failover = parse_failover_nodes(failover_nodes, parsed)
        self._change_topology(
            replace(self.settings, nodes=parsed, failover_nodes=failover), self._ctx.topology.draining
        )

    def drain(self, node_id: str, is_draining: bool = True) -> None:
        """Give the node no session any more, and let its sessions move at their next request; False takes it back.

        Raises: ConfigurationError for an id that no node has, or if no other node would be left.
        """
        ids = {node.node_id for node in self.settings.nodes}
        if node_id not in ids:
            raise ConfigurationError("drain", node_id, f"the id of a node: {', '.join(sorted(ids)) or 'there is none'}")
        draining = self._ctx.topology.draining - {node_id} | ({node_id} if is_draining else set())
        if draining == ids:
            raise ConfigurationError("drain", node_id, "a node that is not the last one in use")
        self._change_topology(self.settings, draining)

    def statistics(self) -> Statistics:
        """Return the counts of this process since the manager was made."""
        return self._ctx.counters.snapshot()

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call listener with each event, in the thread in which it happens; it must be quick and must not raise."""
        self._ctx.events.subscribe(listener)

    def close(self, timeout: float = 5.0) -> None:
        """Write what is still to be written, waiting at most timeout seconds for it, and close all connections."""
        self._writer.close(timeout)
        self._ctx.is_closed = True
        self._prober.close(timeout)
        self._lock_keeper.close(timeout)
        self._driver.close()
        self._ctx.local.close()

    def __enter__(self) -> SessionManager:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- for RequestScope

    def _find(
        self, text: str | None, expect_write: bool, budget: TimeBudget, lock: SessionLock | None = None
    ) -> SessionState | None:
        """Look a session up by what a client sent; what is no id costs no round trip.

        lock: to be held then, if the session is in the cluster; waiting for it is not charged to the budget.
        """
        session_id = SessionId.parse(text)
        if session_id is None:
            if text:
                self._ctx.counters.add("refused_ids")
            return None
        live = self._sticky.find_at_once(session_id) if self._sticky is not None else None
        if live is not None:
            return live
        if not self._ctx.distribution.is_on:
            return find_locally(self._ctx, session_id)
        if self._sticky is not None:
            return self._run(self._sticky.find(session_id, expect_write), budget)
        if lock is not None:
            return self._find_locked(session_id, expect_write, budget, lock)
        return self._run(find(self._ctx, session_id, expect_write), budget)

    def _find_locked(
        self, session_id: SessionId, expect_write: bool, budget: TimeBudget, lock: SessionLock
    ) -> SessionState | None:
        while True:
            state = self._run(find_locked(self._ctx, session_id, expect_write, lock), budget)
            if lock.is_held:
                self._lock_keeper.keep(lock)
            if not lock.is_wanted:
                return state
            self._driver.run(wait_for_lock(self._ctx, lock), lock.wait_until)

    def _save(self, state: SessionState, budget: TimeBudget, lock: SessionLock | None = None) -> SaveResult:
        self._refuse_if_stopped()
        if self._sticky is not None:
            result = self._sticky.store_at_once(state)
            return result if result is not None else self._run(self._sticky.store(state), budget)
        epoch = self._ctx.distribution.epoch
        if not self._ctx.distribution.is_on:
            kept = keep_unless_back(self._ctx, state, epoch)
            if kept is not None:
                return kept
        return self._run(store(self._ctx, state) if lock is None else store_locked(self._ctx, state, lock), budget)

    def _release(self, lock: SessionLock, budget: TimeBudget) -> None:
        """Let a lock go, in the background what takes longer than the request may."""
        if lock.items:
            self._run(release(self._ctx, lock), budget)
        if lock.items:
            self._lock_keeper.release(lock)

    def _new_state(self) -> SessionState:
        return self._ctx.new_state()

    # -- inside

    def _session_of(self, state: SessionState, presented: str | None) -> Session:
        return Session(find=None, mint=self._new_state, presented=presented, state=state)

    def _new_budget(self) -> TimeBudget:
        self._ctx.retry_budget.earn()
        return TimeBudget(self.settings.timeouts.request)

    def _run(self, flow: Flow[T], budget: TimeBudget) -> T:
        started = time.monotonic()
        try:
            return self._driver.run(flow, started + budget.left_s)
        finally:
            budget.left_s -= time.monotonic() - started

    def _probe(self, node: str) -> None:
        self._driver.look_up(node)
        self._run_in_background(probe(self._ctx, node))

    def _run_in_background(self, flow: Flow[object]) -> None:
        """Carry a flow out that no request waits for, within the time of one exchange."""
        timeouts = self.settings.timeouts
        self._driver.run(flow, time.monotonic() + timeouts.connect + timeouts.operation)

    def _change_topology(self, settings: Settings, draining: Collection[str]) -> None:
        with self._change_lock:
            self._driver.change_nodes({node.node_id: node for node in settings.nodes})
            self._ctx.change_topology(settings, draining)
            self.settings = settings
        self._prober.wake()

    def _reconnect(self) -> None:
        self._driver.run(reconnect(self._ctx), math.inf)
        self._writer.wake()

    def _refuse_if_stopped(self) -> None:
        if self._ctx.is_stopped:
            raise ApplicationStopped(
                'a session could not be stored and on_unserializable is "stop_application"; mend the cause, which was '
                "logged, and start the application again"
            )

    def _react(self, event: Event) -> None:
        if event.kind == "node_down":
            self._prober.wake()
        elif event.kind == "application_stopped":
            with self._stop_lock:
                is_first, self._was_stopped = not self._was_stopped, True
            if is_first and self.settings.on_stop is not None:
                self.settings.on_stop()

    def _renew_after_fork(self) -> None:
        self._stop_lock, self._change_lock = threading.Lock(), threading.Lock()
        self._ctx.renew_locks()
        self._driver.abandon_connections()
        if self._sticky is not None:
            self._sticky.renew_after_fork()
        self._prober.renew()
        self._writer.renew()
        self._lock_keeper.renew_after_fork()


def _open_local_store(settings: Settings) -> LocalStore | None:
    """Return the store that settings.local_store names, or None for memory."""
    _, is_sqlite, path = settings.local_store.partition("sqlite:///")
    return SqliteStore(path, settings.near_cache) if is_sqlite else None


_managers: weakref.WeakSet[SessionManager] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for manager in list(_managers):
        manager._renew_after_fork()


def _at_exit() -> None:
    """Write what the queues of all managers still hold."""
    for manager in list(_managers):
        manager._writer.close(_AT_EXIT_S)


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
