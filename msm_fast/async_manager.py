"""The public face in an event loop: what `SessionManager` does, awaited."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from typing import Any, ParamSpec, TypeVar

from msm_fast._core.session_id import SessionId
from msm_fast.drivers.asynchronous import AsyncDriver
from msm_fast.drivers.background import LockKeeperTask, ProberTask, WriterTask
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.drivers.event_loop import LoopHome
from msm_fast.drivers.sqlite_store import SqliteStore
from msm_fast.drivers.threads import Threads
from msm_fast.drivers.write_behind import WriteBehind
from msm_fast.engine.effects import Budget, Flow
from msm_fast.engine.exchanging import probe
from msm_fast.engine.loading import Asked
from msm_fast.engine.locking import SessionLock, release, wait_for_lock
from msm_fast.engine.reconnecting import reconnect
from msm_fast.engine.saving import Begun
from msm_fast.engine.usual_saving import Writing
from msm_fast.forks import take_each
from msm_fast.node import Node
from msm_fast.operations import Operations
from msm_fast.policies import SaveResult
from msm_fast.request_scope import ELSEWHERE, AsyncRequestScope
from msm_fast.session import Session, SessionState
from msm_fast.settings import Settings

__all__ = ["AsyncSessionManager"]

P = ParamSpec("P")
T = TypeVar("T")


class AsyncSessionManager(Operations):
    """Keeps the sessions of an application in memcached, for asyncio; as `SessionManager` does for threads.

    nodes, settings: as for `SessionManager`. All tasks share one connection to each node.

    It lives in one event loop, that of its first request; `async with`, or `await manager.close()`, leaves nothing of
    it there. When that loop is closed it may be used in another, and a forked child may use it in its own.
    Raises: ConfigurationError; WrongEventLoop from what is awaited in two loops at once.
    Thread-safety: of one event loop.
    """

    _driver: AsyncDriver
    _prober: ProberTask

    def __init__(self, nodes: str | Iterable[str | Node] | Settings | None = None, **settings: Any) -> None:
        super().__init__(nodes, settings)
        self._home = LoopHome(self._move_to_loop)
        self._threads = Threads()
        self._is_local_in_file = isinstance(self._ctx.local, SqliteStore)
        self.blacklist.use_file_in_background(self._threads.start)
        threads = self._threads if self._is_local_in_file else None
        self._driver = AsyncDriver(
            self._ctx.topology.nodes, self.settings.timeouts, self._ctx.item_limits.learn, threads, self._access
        )
        self._prober = ProberTask(self._ctx, self._home, self._probe, self._reconnect)
        self._writer = WriterTask(self._ctx, self._home, self._driver.run, self._sticky.sweep if self._sticky else None)
        self._lock_keeper = LockKeeperTask(self._ctx, self._home, self._run_in_background)
        self._register()

    # -- the life of a request

    def request(self, cookie_value: str | None, method: str = "GET", uri: str = "") -> AsyncRequestScope:
        """Return the scope of one request: `async with manager.request(cookie) as session: …`.

        cookie_value, method, uri: as for SessionManager.request.
        Raises: ApplicationStopped; what the session's use and save raise.
        """
        if self._ctx.is_stopped:
            self._refuse_if_stopped()
        self._ctx.counters.add("requests")
        return AsyncRequestScope(self, cookie_value, method, uri)

    async def load(self, session_id: str | SessionId) -> Session | None:
        """Return the session, or None: it does not exist. It is not locked, whatever settings.locking is.

        Raises: SessionUnavailable if it may exist where nobody can look, CorruptRecord, ApplicationStopped.
        """
        self._refuse_if_stopped()
        state = await self._find(str(session_id), True, self._new_budget())
        if state is None:
            return None
        return self._session_of(state, presented=str(session_id))

    async def save(self, session: Session) -> SaveResult:
        """Store what changed.

        Raises: SessionUnavailable, SerializationError, SessionTooLarge, ConflictError, ApplicationStopped.
        """
        self._refuse_if_stopped()
        return await self._save(session, session.state, self._new_budget())

    async def invalidate(self, session: Session) -> SaveResult:
        """End the session and remove its copies now. Raises: SessionUnavailable if no node could be told."""
        session.invalidate()
        return await self.save(session)

    async def rotate_id(self, session: Session) -> SaveResult:
        """Give the session a new id now, store it under that and remove the old one's copies."""
        session.rotate_id()
        return await self.save(session)

    async def close(self, timeout: float = 5.0) -> None:
        """Write what is still to be written, waiting at most timeout seconds for it, and close all connections.

        For the end of the process, as `SessionManager.close`: a node that is down then is not probed any more.
        """
        deadline = time.monotonic() + timeout
        self._home.enter()
        try:
            await self._writer.close(timeout)
        finally:
            self._ctx.is_closed = True
            for task in (self._prober, self._lock_keeper):
                await task.close(max(deadline - time.monotonic(), 0))
            await self._driver.close(max(deadline - time.monotonic(), 0))
            if not self.blacklist.is_saved:
                await self._threads.call(self.blacklist.save)
            self._threads.close()
            self._ctx.local.close()

    async def disconnect(self, timeout: float = 1.0) -> None:
        """Close all connections, for a loop that ends; the manager may go on in another one."""
        await self._driver.close(timeout)
        self._driver.start_anew()

    async def __aenter__(self) -> AsyncSessionManager:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # -- for AsyncRequestScope

    async def _find(
        self, text: str | None, expect_write: bool, budget: Budget, lock: SessionLock | None = None
    ) -> SessionState | None:
        """Look a session up by what a client sent.

        lock: to be held then, if the session is in the cluster; waiting for it is not charged to the budget.
        """
        self._home.enter()
        asked: Asked | None = None
        question = self._usual_loading.ask_for(text, expect_write) if lock is None else None
        if question is not None:
            outcomes = await self._driver.exchange(question.batches, budget)
            state = self._usual_loading.found(question, outcomes)
            if state is not None:
                return state
            session_id, asked = question.session_id, Asked(question, outcomes)
        else:
            parsed = self._parse(text)
            if parsed is None:
                return None
            session_id = parsed
            if self._looks_into_file:
                found = await self._threads.call(self._find_here, session_id)
            else:
                found = self._find_here(session_id)
            if found is not ELSEWHERE:
                return found
        while True:
            state = await self._driver.run_within(self._finding(session_id, expect_write, lock, asked), budget)
            if lock is not None and lock.is_held:
                self._lock_keeper.keep(lock)
            if lock is None or not lock.is_wanted:
                return state
            await self._driver.run(wait_for_lock(self._ctx, lock), lock.wait_until)

    async def _save(
        self, session: Session, state: SessionState, budget: Budget, lock: SessionLock | None = None
    ) -> SaveResult:
        """Save a session's state, and have what is done to the session meanwhile saved the next time."""
        self._home.enter()
        state.is_being_saved = True
        try:
            writing = self._usual_saving.begin(state) if lock is None and self._sticky is None else None
            if isinstance(writing, SaveResult):
                return writing
            result = await self._store(state, budget, lock, writing)
        finally:
            state.is_being_saved = False
        self._note_saved(session, state, result)
        return result

    async def _store(
        self, state: SessionState, budget: Budget, lock: SessionLock | None, writing: Writing | None
    ) -> SaveResult:
        begun: Begun | None = None
        if writing is not None:
            outcomes = await self._driver.exchange(writing.batches, budget)
            saved = self._usual_saving.saved(writing, outcomes)
            if saved is not None:
                return saved
            begun = Begun(writing, outcomes)
        else:
            if self._looks_into_file:
                result = await self._threads.call(self._store_here, state)
            else:
                result = self._store_here(state)
            if result is not ELSEWHERE:
                return result
        return await self._driver.run_within(self._storing(state, lock, begun), budget)

    async def _release(self, lock: SessionLock, budget: Budget) -> None:
        """Let a lock go, in the background what takes longer than the request may."""
        try:
            if lock.items:
                await self._driver.run_within(release(self._ctx, lock), budget)
        finally:
            self._leave(lock)

    def _leave(self, lock: SessionLock) -> None:
        """Have a lock let go in the background."""
        if lock.items:
            self._lock_keeper.release(lock)

    # -- inside

    @property
    def _looks_into_file(self) -> bool:
        """Whether sessions are on this host now, in a file: then a look at them is for a thread."""
        return self._is_local_in_file and not self._ctx.distribution.is_on

    async def _probe(self, node: str) -> None:
        await self._driver.look_up(node)
        await self._run_in_background(probe(self._ctx, node))

    async def _run_in_background(self, flow: Flow[Any]) -> None:
        """Carry a flow out that no request waits for, within the time of one exchange."""
        await self._driver.run(flow, self._end_of_one_exchange())

    async def _reconnect(self) -> None:
        await self._driver.run(reconnect(self._ctx), math.inf)
        self._writer.wake()

    def _move_to_loop(self) -> None:
        """Begin in a loop; what belonged to the one before went with it."""
        self._driver.start_anew()
        self._prober.start_anew()
        self._writer.start_anew()
        self._lock_keeper.start_anew(after_fork=False)

    def _renew_after_fork(self) -> None:
        take_each(
            # First: whatever becomes of the rest, its parent's connections are not used.
            partial(self._driver.start_anew, after_fork=True),
            self._home.leave,
            self._renew_locks_after_fork,
            partial(self._lock_keeper.start_anew, after_fork=True),
            self._threads.start_anew,
        )

    def _write_at_exit(self, timeout_s: float) -> None:
        """Write what is left in the queue when the loop is gone, as a manager of threads would."""
        if len(self._ctx.behind):
            nodes, timeouts, learn = self._ctx.topology.nodes, self.settings.timeouts, self._ctx.item_limits.learn
            with closing(BlockingDriver(nodes, timeouts, learn, self._access)) as driver:
                WriteBehind(self._ctx, driver.run).close(timeout_s)
