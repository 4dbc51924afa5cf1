"""One request's session, from its cookie to its save."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msm_fast.engine.effects import Budget
from msm_fast.engine.locking import SessionLock, new_lock
from msm_fast.errors import MsmError, WrongEventLoop
from msm_fast.policies import SaveResult
from msm_fast.session import Session, SessionState

if TYPE_CHECKING:
    from msm_fast.async_manager import AsyncSessionManager
    from msm_fast.manager import SessionManager

__all__ = ["ELSEWHERE", "AsyncRequestScope", "Elsewhere", "RequestScope"]


class Elsewhere(Enum):
    """The answer of who would have to wait for the network."""

    ELSEWHERE = 0


ELSEWHERE: Final = Elsewhere.ELSEWHERE

_UNCHANGED = SaveResult("unchanged")

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods whose requests are taken to read only (RFC 9110, 9.2.1). Those that write all the same may need one round
trip more."""


class _Found(NamedTuple):
    """The session as it was when it was looked up, to tell later whether the request has changed it."""

    state: SessionState
    plain: str
    body: bytes
    max_inactive_s: int

    @classmethod
    def of(cls, state: SessionState) -> _Found:
        return cls(state, state.session_id.plain, state.body, state.max_inactive_s)


class RequestLife(Budget):
    """What is known of one request from its cookie to its save, and all that waits for nothing.

    manager: whose it is. is_ignored: settings.ignore_requests matches: nothing is stored, and the client's cookie must
    stay as it is. takes_lock: False is for who cannot promise to call close, or has called it. is_open_ended: it goes
    on behind its response's headers, perhaps for hours: each save has timeouts.request for itself. is_refused: it was
    looked up in vain, by a thread.
    """

    __slots__ = (
        "_cookie_value",
        "_ctx",
        "_expects_write",
        "_found",
        "_loaded",
        "_lock",
        "_method",
        "_rules",
        "_turn",
        "_uri",
        "is_ignored",
        "is_open_ended",
        "is_refused",
        "manager",
        "session",
        "takes_lock",
    )

    def __init__(
        self, manager: SessionManager | AsyncSessionManager, cookie_value: str | None, method: str, uri: str
    ) -> None:
        ctx, rules = manager._ctx, manager._rules
        self.manager = manager
        if not ctx.retry_budget.is_full:
            ctx.retry_budget.earn()
        self.left_s = ctx.settings.timeouts.request
        self._ctx = ctx
        self._rules = rules
        self._cookie_value = cookie_value
        self._method = method
        self._uri = uri
        self._expects_write = method not in _SAFE_METHODS and method.upper() not in _SAFE_METHODS
        self._lock: SessionLock | None = None
        self._found: _Found | None = None
        self._loaded: SessionState | MsmError | Elsewhere | None = ELSEWHERE
        self._turn = self._new_turn()
        self.takes_lock = True
        self.is_open_ended = self.is_refused = False
        self.is_ignored = rules.ignores and rules.is_ignored(self._name[1])
        self.session = Session(self._find, manager._mint, cookie_value)

    def take_over(self, other: RequestLife) -> None:
        """Go on with the session as other has it, which is of another manager that this one shares its memory with.

        Its lock goes along, to be let go with the session's save and not before; other's manager goes on renewing it.
        """
        self.session = other.session
        self.session.state.epoch = self._ctx.distribution.epoch
        self._lock = other._give_lock()

    @property
    def is_learned_of(self) -> bool:
        """Whether a save tells something even if it stores nothing: locking="auto" learns what requests do."""
        return self._rules.learns

    def _new_turn(self) -> Any:
        """Return the lock of the thread, or task, of those of this request, that looks the session up or saves it."""
        raise NotImplementedError

    def _find(self) -> SessionState | None:
        """Look the session up, when it is first used."""
        raise NotImplementedError

    @property
    def _name(self) -> tuple[str, str]:
        """What rules know the request by: its method and its path."""
        return self._method.upper(), self._uri.partition("?")[0]

    def _want_lock(self) -> SessionLock | None:
        """Return the lock that the request needs, if it needs one: the same, should it look once more.

        A listener, or the log, may look in the midst of that, and would wait for the lock of its own request.
        """
        if self._lock is None and self.takes_lock and not self.is_ignored and self._rules.needs_lock(*self._name):
            self._lock = new_lock(self._ctx)
        return self._lock

    def _give_lock(self) -> SessionLock | None:
        """Return the lock to let go, once."""
        lock, self._lock = self._lock, None
        return lock

    def _note_found(self, state: SessionState | None) -> None:
        if state is not None:
            self._found = _Found.of(state)

    def _learn(self, state: SessionState, result: SaveResult) -> None:
        """Take note of what the request did to its session; a change that was not stored tells nothing."""
        has_changed = result.status != "unchanged" and (self._found is None or _Found.of(state) != self._found)
        is_lost = result.status in ("invalidated", "failed")
        if has_changed or (self._found is not None and not is_lost):
            self._rules.learn(*self._name, has_changed=has_changed)

    def _tell_ignored_change(self, state: SessionState) -> None:
        """Tell once that an ignored request writes to its session: most likely somebody expects it to be stored."""
        if self._rules.is_ignored_change_told or not (state.attributes.is_changed or state.is_ended):
            return
        self._rules.is_ignored_change_told = True
        self._ctx.tell(
            "ignored_change",
            f"{' '.join(self._name)!r} has changed its session, but settings.ignore_requests matches it: the change is "
            "not stored. This is told once",
        )


class RequestScope(RequestLife):
    """One request's session, from its cookie to its save.

    As a context manager it gives the session, and saves it when the block ends without an exception. An adapter that
    must save earlier, before the response's headers leave, calls `save` itself, and `close` however the request ends.
    With the first `save` the session's lock is let go: a response may stream for hours.
    """

    __slots__ = ()

    manager: SessionManager
    _loaded: SessionState | Elsewhere | None

    def save(self) -> SaveResult:
        """Store what changed; a session that the request never looked at costs nothing.

        Threads of the request may save at once, and go on with the session meanwhile: each waits for those before.

        Raises: SessionUnavailable, SerializationError, ConflictError.
        """
        session = self.session
        if not session.was_used:
            return _UNCHANGED
        if self.is_ignored:
            self._tell_ignored_change(session.state)
            return _UNCHANGED
        with self._turn:
            state = session.state
            result = self.manager._save(session, state, self, self._lock)
            if self._lock is not None:  # it may still be held: of a session that is kept on this host by now
                self.close()
        if self._rules.learns:
            self._learn(state, result)
        return result

    def close(self) -> None:
        """Let the session's lock go if it was not saved, and take none later; may be called more than once.

        Who looks at the session later, as a body or a thread that was left behind may, could not let one go.
        """
        self.takes_lock = False
        lock = self._give_lock()
        if lock is not None:
            self.manager._release(lock, self)

    def abandon(self) -> None:
        """As close, but have the lock, if any is left, let go in the background."""
        self.takes_lock = False
        lock = self._give_lock()
        if lock is not None:
            self.manager._leave(lock)

    def _new_turn(self) -> threading.RLock:
        return threading.RLock()  # a listener of this thread may look, too

    def _find(self) -> SessionState | None:
        if not self._rules.locks:
            return self._look_up(None)
        with self._turn:  # of two threads that ask at once one has the lock, for which the other would wait in vain
            if self._loaded is ELSEWHERE:
                lock = self._want_lock()
                self._loaded = self._look_up(lock)
                if lock is not None and not self.takes_lock:  # the request has ended meanwhile, in another thread
                    self.manager._release(lock, self)
            return self._loaded

    def _look_up(self, lock: SessionLock | None) -> SessionState | None:
        try:
            state = self.manager._find(self._cookie_value, self._expects_write, self, lock)
        except BaseException:
            self.is_refused = True
            raise
        if self._rules.learns:
            self._note_found(state)
        return state

    def __enter__(self) -> Session:
        return self.session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.save()
        finally:
            self.close()


class AsyncRequestScope(RequestLife):
    """One request's session, from its cookie to its save, in an event loop.

    `async with` gives the session, looked up already since a mapping cannot wait, and saves it when the block ends
    without an exception. An adapter calls `load` before the application, `save` before the response's headers leave,
    and `close` however the request ends. With the first `save` the session's lock is let go.

    What the lookup could not do (SessionUnavailable, CorruptRecord, LockTimeout) is raised when the session is first
    used: a request that never looks at it is not harmed.
    """

    __slots__ = ()

    manager: AsyncSessionManager

    async def load(self) -> Session:
        """Look the session up and return it; once: further calls return it at once."""
        if self._loaded is ELSEWHERE:
            if not self._rules.locks:
                await self._look_up(None)
                return self.session
            async with self._turn:  # as in RequestScope
                if self._loaded is ELSEWHERE:
                    await self._look_up(self._want_lock())
        return self.session

    async def _look_up(self, lock: SessionLock | None) -> None:
        try:
            state = await self.manager._find(self._cookie_value, self._expects_write, self, lock)
            self._loaded = state
            if self._rules.learns:
                self._note_found(state)
        except WrongEventLoop:
            raise
        except MsmError as error:
            self._loaded = error  # for who uses the session
        finally:
            if self._loaded is ELSEWHERE:
                self.abandon()

    async def save(self) -> SaveResult:
        """Store what changed; a session that the request never looked at costs nothing.

        Tasks of the request may save at once, and go on with the session meanwhile: each waits for those before.

        Raises: SessionUnavailable, SerializationError, ConflictError.
        """
        session = self.session
        if not session.was_used:
            if self._found is not None:
                self._rules.learn(*self._name, has_changed=False)  # its session was looked up, and locked, in vain
            if self._lock is not None:
                await self.close()
            return _UNCHANGED
        if self.is_ignored:
            self._tell_ignored_change(session.state)
            return _UNCHANGED
        async with self._turn:
            state = session.state
            if self.is_open_ended:
                self.left_s = self._ctx.settings.timeouts.request
            result = await self.manager._save(session, state, self, self._lock)
            if self._lock is not None:  # as in RequestScope
                await self.close()
        if self._rules.learns:
            self._learn(state, result)
        return result

    async def close(self) -> None:
        """Let the session's lock go if it was not saved; may be called more than once."""
        lock = self._give_lock()
        if lock is not None:
            await self.manager._release(lock, self)

    def _new_turn(self) -> asyncio.Lock:
        return asyncio.Lock()

    def _find(self) -> SessionState | None:
        if isinstance(self._loaded, MsmError):
            raise self._loaded
        if self._loaded is ELSEWHERE:
            raise RuntimeError("the session is not looked up yet: await scope.load() first, or use `async with`")
        return self._loaded

    def __aenter__(self) -> Awaitable[Session]:
        return self.load()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.save()
        finally:
            if self._lock is not None:
                self.abandon()

    def abandon(self) -> None:
        """Have the lock, if any is left, let go in the background: a request that was broken off has no time for it."""
        lock = self._give_lock()
        if lock is not None:
            self.manager._leave(lock)
