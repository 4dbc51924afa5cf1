"""What all managers share: their settings and context, what operators ask of them, and all that waits for nothing."""

from __future__ import annotations

import atexit
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

from msm_fast._core.session_id import SessionId
from msm_fast.drivers.access import Access
from msm_fast.drivers.asynchronous import AsyncDriver
from msm_fast.drivers.background import ProberTask
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.drivers.prober import Prober
from msm_fast.drivers.process_end import end_process
from msm_fast.drivers.sqlite_store import SqliteStore
from msm_fast.engine.context import Clock, Context
from msm_fast.engine.effects import Budget, Flow
from msm_fast.engine.events import Event
from msm_fast.engine.keeping import keep_unless_back
from msm_fast.engine.loading import Asked
from msm_fast.engine.local import find_locally, is_only_in_cluster
from msm_fast.engine.locking import SessionLock, find_locked, store_locked
from msm_fast.engine.request_rules import RequestRules
from msm_fast.engine.saving import Begun
from msm_fast.engine.serving import find, store
from msm_fast.engine.sticky import StickySessions
from msm_fast.errors import ApplicationStopped, ConfigurationError
from msm_fast.forks import take_each
from msm_fast.local_store import LocalStore
from msm_fast.logs import Log
from msm_fast.node import Node, parse_failover_nodes, parse_nodes
from msm_fast.policies import DistributionState, SaveResult
from msm_fast.request_scope import ELSEWHERE, Elsewhere
from msm_fast.session import Session, SessionState
from msm_fast.settings import Settings
from msm_fast.statistics import NodeStatus, Statistics

__all__ = ["Distribution", "Operations"]

_log = Log("msm_fast.manager")
_AT_EXIT_S = 5.0
"""How long the end of the interpreter may wait for writes that requests left behind, in each manager."""


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

    def follow(self, other: Distribution) -> None:
        """Stop if other is stopped, and start if other is not."""
        is_stopped = other.state is DistributionState.STOPPED
        if is_stopped == (self.state is DistributionState.STOPPED):
            return
        if is_stopped:
            self.stop("another manager of this process was stopped")
        else:
            self.start()


class Operations:
    """The base of the managers.

    A manager adds who carries flows out: a driver, and in the background a prober. Once it is whole it registers.
    """

    _driver: AsyncDriver | BlockingDriver
    _prober: Prober | ProberTask

    def __init__(self, nodes: str | Iterable[str | Node] | Settings | None, settings: dict[str, Any]) -> None:
        if isinstance(nodes, Settings):
            if settings:
                raise ConfigurationError(
                    "settings", sorted(settings), "a Settings object, or settings by name, not both"
                )
            self.settings = nodes
        else:
            self.settings = Settings.build(nodes, **settings)
        if self.settings.sticky and self.settings.nodes and self.settings.route is None:
            _log.warning(
                "sticky=True without a route: a client who has been at another worker is served here what this one has "
                "in memory, though it was changed or ended there. Unless there is one worker only, give each a route "
                "of its own"
            )
        self._access = Access.of(self.settings)
        clock = Clock(monotonic=time.monotonic, wall=time.time)
        self._ctx = Context(self.settings, clock, random.SystemRandom(), _open_local_store(self.settings))
        self._mint = self._ctx.new_state
        self._usual_loading = self._ctx.usual_loading
        self._usual_saving = self._ctx.usual_saving
        self._sticky = StickySessions(self._ctx) if self.settings.sticky else None
        self.blacklist = self._ctx.blacklist
        self._rules = RequestRules(self.settings, clock.monotonic)
        self._change_lock = threading.RLock()  # a listener that is told of a change may make another
        self._stop_lock = threading.Lock()
        self._was_stopped = False
        self._ctx.events.subscribe(self._react)
        self.distribution = Distribution(self._ctx, self._wake_prober)

    def create(self) -> Session:
        """Return a new, empty session; it is stored once it is saved with something in it."""
        self._refuse_if_stopped()
        return self._session_of(self._mint(), presented=None)

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
        before you remove it, and add or remove no more nodes at once than sessions have backups.
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

    def stop(self) -> None:
        """Serve no more: every later call raises ApplicationStopped, as after a value that could not be stored.

        For a process that has several managers, of which one was stopped so.
        """
        self._ctx.is_stopped = True

    def share_memory(self, other: Operations) -> None:
        """Know what other knows of sessions and nodes, keep on this host where it does, and have one black list.

        Both have the same settings. For a process that has a manager for threads and one for an event loop: they serve
        the same sessions without the cluster, too, and what one has found the other can store. To be called before the
        first request. A local store in a file is shared in any case, and sticky sessions never are.
        """
        self._ctx.share_memory(other._ctx)
        self.blacklist = self._ctx.blacklist
        self._driver.share_lives(other._driver.lives)

    def follow(self, other: Operations) -> None:
        """Use the nodes that other uses, drain those that it drains, and distribute sessions only while it does.

        For a process that has several managers. One of an event loop is to be told so there.
        """
        theirs, draining = other.settings, other._ctx.topology.draining
        settings = replace(self.settings, nodes=theirs.nodes, failover_nodes=theirs.failover_nodes)
        if settings != self.settings or draining != self._ctx.topology.draining:
            self._change_topology(settings, draining)
        self.distribution.follow(other.distribution)

    # -- the life of a request, where it waits for nothing

    def _find_here(self, session_id: SessionId) -> SessionState | Elsewhere | None:
        """Return the session, or None if there is none, or ELSEWHERE: `_finding` tells."""
        live = self._sticky.find_at_once(session_id) if self._sticky is not None else None
        if live is not None:
            return live
        if self._ctx.distribution.is_on or is_only_in_cluster(self._ctx, session_id):
            return ELSEWHERE
        return find_locally(self._ctx, session_id)

    def _finding(
        self, session_id: SessionId, expect_write: bool, lock: SessionLock | None, asked: Asked | None
    ) -> Flow[SessionState | None]:
        if self._sticky is not None:
            return self._sticky.find(session_id, expect_write)
        if lock is not None:
            return find_locked(self._ctx, session_id, expect_write, lock)
        return find(self._ctx, session_id, expect_write, asked)

    def _store_here(self, state: SessionState) -> SaveResult | Elsewhere:
        """Store the session without waiting, or return ELSEWHERE: `_storing` does."""
        if self._ctx.is_stopped:
            self._refuse_if_stopped()
        if self._sticky is not None:
            return self._sticky.store_at_once(state) or ELSEWHERE
        epoch = self._ctx.distribution.epoch
        if self._ctx.distribution.is_on:
            return ELSEWHERE
        return keep_unless_back(self._ctx, state, epoch) or ELSEWHERE

    def _storing(self, state: SessionState, lock: SessionLock | None, begun: Begun | None) -> Flow[SaveResult]:
        if self._sticky is not None:
            return self._sticky.store(state)
        return store(self._ctx, state, begun) if lock is None else store_locked(self._ctx, state, lock)

    def _note_saved(self, session: Session, state: SessionState, result: SaveResult) -> None:
        """Have what was done to a session while its state was being saved saved the next time.

        It may have got a new id meanwhile, and go on in another state.
        """
        has_more, state.must_store_again = state.must_store_again, False
        if state.is_live:  # then its requests may have stored more of it meanwhile
            return
        if has_more:
            state.must_store |= state.is_kept
        now, stored = session.state, state.stored
        if stored is None or now.rotated_from is None or result.status != "stored":
            return
        if now.rotated_from.nonce in stored.lineage:  # so that nothing of other requests' came with the save
            now.rotated_from = stored  # which has what the session has itself: no reason to merge the two

    def _parse(self, text: str | None) -> SessionId | None:
        """Return the id that a client sent, or None; what we never issue costs no round trip."""
        session_id = SessionId.parse_issued(text)
        if session_id is None and text:
            self._ctx.counters.add("refused_ids")
        return session_id

    def _session_of(self, state: SessionState, presented: str | None) -> Session:
        return Session(find=None, mint=self._mint, presented=presented, state=state)

    # -- inside

    def _new_budget(self) -> Budget:
        self._ctx.retry_budget.earn()
        return Budget(self.settings.timeouts.request)

    def _end_of_one_exchange(self) -> float:
        """Return the deadline of what no request waits for, of time.monotonic()."""
        return time.monotonic() + self.settings.timeouts.connect + self.settings.timeouts.operation

    def _wake_prober(self) -> None:
        self._prober.wake()

    def _change_topology(self, settings: Settings, draining: Collection[str]) -> None:
        with self._change_lock:
            before = {node.node_id: node for node in self.settings.nodes}
            after = {node.node_id: node for node in settings.nodes}
            self._driver.change_nodes({**before, **after})  # requests ask the former nodes until the context changes
            self.settings = settings
            self._ctx.change_topology(settings, draining)
            if not before.keys() <= after.keys():
                self._driver.change_nodes({node.node_id: node for node in self.settings.nodes})
        self._prober.wake()

    def _refuse_if_stopped(self) -> None:
        if self._ctx.is_stopped:
            raise ApplicationStopped(
                'a session could not be stored and on_unserializable is "stop_application"; mend the cause, which was '
                "logged, and start the application again"
            )

    def _react(self, event: Event) -> None:
        if event.kind == "node_down":
            self._prober.wake()
            if self._ctx.is_closed:
                _log.warning(
                    "this manager was closed, and is still used: node %s is not probed any more. Close a manager when "
                    "its process ends, not before",
                    event.node,
                )
        elif event.kind == "application_stopped":
            with self._stop_lock:
                is_first, self._was_stopped = not self._was_stopped, True
            if is_first:
                self._call_on_stop()

    def _call_on_stop(self) -> None:
        on_stop = self.settings.on_stop
        if callable(on_stop):
            on_stop()
        elif on_stop is not None:
            end_process()

    def _register(self) -> None:
        """Have the process write at its end what is left in the queue, and a forked child begin anew."""
        _managers.add(self)

    def _write_at_exit(self, timeout_s: float) -> None:
        raise NotImplementedError

    def _renew_after_fork(self) -> None:
        raise NotImplementedError

    def _renew_locks_after_fork(self) -> None:
        self._stop_lock, self._change_lock = threading.Lock(), threading.RLock()
        take_each(self._ctx.renew_locks, *([] if self._sticky is None else [self._sticky.renew_after_fork]))


def _open_local_store(settings: Settings) -> LocalStore | None:
    """Return the store that settings.local_store names, or None for memory."""
    _, is_sqlite, path = settings.local_store.partition("sqlite:///")
    return SqliteStore(path, settings.near_cache) if is_sqlite else None


_managers: weakref.WeakSet[Operations] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for manager in list(_managers):
        manager._renew_after_fork()


def _at_exit() -> None:
    """Write what the queues of all managers still hold."""
    for manager in list(_managers):
        manager._write_at_exit(_AT_EXIT_S)


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
