"""The public face: a manager gives each request its session and stores what the request made of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from msm_fast._core.session_id import SessionId
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.drivers.lock_keeper import LockKeeper
from msm_fast.drivers.prober import Prober
from msm_fast.drivers.write_behind import WriteBehind
from msm_fast.engine.effects import Budget, Flow
from msm_fast.engine.exchanging import ask, probe
from msm_fast.engine.loading import Asked
from msm_fast.engine.locking import SessionLock, release, wait_for_lock
from msm_fast.engine.reconnecting import reconnect
from msm_fast.engine.saving import Begun
from msm_fast.engine.usual_saving import Writing
from msm_fast.forks import take_each
from msm_fast.node import Node
from msm_fast.operations import Distribution, Operations
from msm_fast.policies import SaveResult
from msm_fast.request_scope import ELSEWHERE, RequestScope
from msm_fast.session import Session, SessionState
from msm_fast.settings import Settings
from msm_fast.statistics import NodeStatus

__all__ = ["Distribution", "RequestScope", "SessionManager"]


class SessionManager(Operations):
    """Keeps the sessions of an application in memcached, or without nodes in this process.

    nodes: "n1:10.0.0.1:11211,n2:10.0.0.2:11211", or Node objects, or a Settings; nothing: local. settings: the fields
    of `Settings`, by name. No node needs to be in reach: connections are made by the first request.
    Raises: ConfigurationError.
    Thread-safety: shared by all threads of a process; a forked child makes connections of its own.
    """

    _driver: BlockingDriver
    _prober: Prober

    def __init__(self, nodes: str | Iterable[str | Node] | Settings | None = None, **settings: Any) -> None:
        super().__init__(nodes, settings)
        self._driver = BlockingDriver(
            self._ctx.topology.nodes, self.settings.timeouts, self._ctx.item_limits.learn, self._access
        )
        self._prober = Prober(self._ctx, self._probe, self._reconnect)
        self._writer = WriteBehind(self._ctx, self._driver.run, self._sticky.sweep if self._sticky else None)
        self._lock_keeper = LockKeeper(self._ctx, self._run_in_background)
        self._register()

    # -- the life of a request

    def request(self, cookie_value: str | None, method: str = "GET", uri: str = "") -> RequestScope:
        """Return the scope of one request: `with manager.request(cookie) as session: …`.

        cookie_value: as the client sent it, any text; what is no id of a session gives a new one. method: of HTTP.
        uri: the path, for settings that go by it; what follows a "?" does not count. Where the pattern of a route is
        known, it serves better: locking="auto" then learns of all its paths at once.
        Raises: ApplicationStopped; what the session's use and save raise.
        """
        if self._ctx.is_stopped:
            self._refuse_if_stopped()
        if self._prober.is_wanted:
            self._prober.wake()
        self._ctx.counters.add("requests")
        return RequestScope(self, cookie_value, method, uri)

    def load(self, session_id: str | SessionId) -> Session | None:
        """Return the session, or None: it does not exist. It is not locked, whatever settings.locking is.

        Raises: SessionUnavailable if it may exist where nobody can look, CorruptRecord, ApplicationStopped.
        """
        self._refuse_if_stopped()
        state = self._find(str(session_id), True, self._new_budget())
        if state is None:
            return None
        return self._session_of(state, presented=str(session_id))

    def save(self, session: Session) -> SaveResult:
        """Store what changed.

        Raises: SessionUnavailable, SerializationError, SessionTooLarge, ConflictError, ApplicationStopped.
        """
        self._refuse_if_stopped()
        return self._save(session, session.state, self._new_budget())

    def invalidate(self, session: Session) -> SaveResult:
        """End the session and remove its copies now. Raises: SessionUnavailable if no node could be told."""
        session.invalidate()
        return self.save(session)

    def rotate_id(self, session: Session) -> SaveResult:
        """Give the session a new id now, store it under that and remove the old one's copies."""
        session.rotate_id()
        return self.save(session)

    def ask_nodes(self) -> list[NodeStatus]:
        """Ask every node for an answer now, all at once, and return what `nodes` returns then.

        As often as it takes to find all nodes down that hang: where several do, one may use up the time of a round.
        """
        for _ in range(self.settings.breaker.timeouts * len(self.settings.nodes)):
            if self._driver.run(ask(self._ctx), self._end_of_one_exchange()):
                break
        return self.nodes()

    def close(self, timeout: float = 5.0) -> None:
        """Write what is still to be written, waiting at most timeout seconds for it, and close all connections.

        For the end of the process: late requests are served, each on connections of its own, but a node that is down
        then is not probed any more, so that sessions may stay on this host for good.
        Not for a signal handler: what the signal has interrupted may hold a lock that this waits for. A handler that
        calls sys.exit() is enough: what is still to be written then is, at the end of the interpreter.
        """
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
        self, text: str | None, expect_write: bool, budget: Budget, lock: SessionLock | None = None
    ) -> SessionState | None:
        """Look a session up by what a client sent.

        lock: to be held then, if the session is in the cluster; waiting for it is not charged to the budget.
        """
        asked: Asked | None = None
        question = self._usual_loading.ask_for(text, expect_write) if lock is None else None
        if question is not None:
            outcomes = self._driver.exchange(question.batches, budget)
            state = self._usual_loading.found(question, outcomes)
            if state is not None:
                return state
            session_id, asked = question.session_id, Asked(question, outcomes)
        else:
            parsed = self._parse(text)
            if parsed is None:
                return None
            session_id, found = parsed, self._find_here(parsed)
            if found is not ELSEWHERE:
                return found
        while True:
            state = self._driver.run_within(self._finding(session_id, expect_write, lock, asked), budget)
            if lock is not None and lock.is_held:
                self._lock_keeper.keep(lock)
            if lock is None or not lock.is_wanted:
                return state
            self._driver.run(wait_for_lock(self._ctx, lock), lock.wait_until)

    def _save(
        self, session: Session, state: SessionState, budget: Budget, lock: SessionLock | None = None
    ) -> SaveResult:
        """Save a session's state, and have what is done to the session meanwhile saved the next time."""
        state.is_being_saved = True
        try:
            writing = self._usual_saving.begin(state) if lock is None and self._sticky is None else None
            if isinstance(writing, SaveResult):
                return writing
            result = self._store(state, budget, lock, writing)
        finally:
            state.is_being_saved = False
        self._note_saved(session, state, result)
        return result

    def _store(
        self, state: SessionState, budget: Budget, lock: SessionLock | None, writing: Writing | None
    ) -> SaveResult:
        begun: Begun | None = None
        if writing is not None:
            outcomes = self._driver.exchange(writing.batches, budget)
            saved = self._usual_saving.saved(writing, outcomes)
            if saved is not None:
                return saved
            begun = Begun(writing, outcomes)
        else:
            result = self._store_here(state)
            if result is not ELSEWHERE:
                return result
        return self._driver.run_within(self._storing(state, lock, begun), budget)

    def _release(self, lock: SessionLock, budget: Budget) -> None:
        """Let a lock go, in the background what takes longer than the request may."""
        try:
            if lock.items:
                self._driver.run_within(release(self._ctx, lock), budget)
        finally:
            self._leave(lock)

    def _leave(self, lock: SessionLock) -> None:
        """Have a lock let go in the background."""
        if lock.items:
            self._lock_keeper.release(lock)

    # -- inside

    def _probe(self, node: str) -> None:
        self._driver.look_up(node)
        self._run_in_background(probe(self._ctx, node))

    def _run_in_background(self, flow: Flow[object]) -> None:
        """Carry a flow out that no request waits for, within the time of one exchange."""
        self._driver.run(flow, self._end_of_one_exchange())

    def _reconnect(self) -> None:
        self._driver.run(reconnect(self._ctx), math.inf)
        self._writer.wake()

    def _renew_after_fork(self) -> None:
        take_each(
            # First: whatever becomes of the rest, its parent's connections are not used.
            self._driver.abandon_connections,
            self._renew_locks_after_fork,
            self._prober.renew,
            self._writer.renew,
            self._lock_keeper.renew_after_fork,
        )

    def _write_at_exit(self, timeout_s: float) -> None:
        self._writer.close(timeout_s)
