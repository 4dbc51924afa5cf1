"""An asyncio manager for tests that are written for threads: its event loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from msm_fast import AsyncSessionManager, SaveResult, Session, SessionId
from msm_fast.request_scope import AsyncRequestScope
from msm_fast.session import SessionState

T = TypeVar("T")

LONG_S = 60.0


class LoopThread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="event loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Carry a coroutine out in the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(LONG_S)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LONG_S)
        self.loop.close()


class ThreadedScope:
    """A request's scope as RequestScope is: its session is looked up when it is first used."""

    def __init__(self, thread: LoopThread, scope: AsyncRequestScope) -> None:
        self._thread = thread
        self._scope = scope
        self.is_ignored = scope.is_ignored
        self.session = scope.session = Session(self._find, scope.manager._mint, scope._cookie_value)

    def save(self) -> SaveResult:
        return self._thread.run(self._scope.save())

    def close(self) -> None:
        self._thread.run(self._scope.close())

    def _find(self) -> SessionState | None:
        self._thread.run(self._scope.load())
        return self._scope._find()

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


class ThreadedManager:
    """An AsyncSessionManager with the methods of a SessionManager."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._manager = AsyncSessionManager(*args, **settings)
        self._threads = {os.getpid(): LoopThread()}

    @property
    def _thread(self) -> LoopThread:
        """The thread of this process; a forked child has another."""
        pid = os.getpid()
        if pid not in self._threads:
            self._threads[pid] = LoopThread()
        return self._threads[pid]

    def request(self, *args: Any, **named: Any) -> ThreadedScope:
        return ThreadedScope(self._thread, self._manager.request(*args, **named))

    def load(self, session_id: str | SessionId) -> Session | None:
        return self._thread.run(self._manager.load(session_id))

    def save(self, session: Session) -> SaveResult:
        return self._thread.run(self._manager.save(session))

    def invalidate(self, session: Session) -> SaveResult:
        return self._thread.run(self._manager.invalidate(session))

    def rotate_id(self, session: Session) -> SaveResult:
        return self._thread.run(self._manager.rotate_id(session))

    def set_nodes(self, *args: Any, **named: Any) -> None:
        self._call(self._manager.set_nodes, *args, **named)

    def drain(self, *args: Any, **named: Any) -> None:
        self._call(self._manager.drain, *args, **named)

    def close(self, timeout: float = 5.0) -> None:
        if not self._thread.loop.is_closed():
            self._thread.run(self._manager.close(timeout))
            left = self._thread.run(_others())
            self._thread.close()
            assert not left, f"tasks were left behind: {left}"

    def __enter__(self) -> ThreadedManager:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def _call(self, function: Any, *args: Any, **named: Any) -> None:
        async def call() -> None:
            function(*args, **named)

        self._thread.run(call())


def drop_connections(worker: Any) -> None:
    """Let a manager of either kind make its connections anew."""
    driver = worker._driver
    if isinstance(worker, ThreadedManager):
        worker._call(lambda: [link.suspected(open_) for link in driver._links.values() for open_ in list(link._open)])
    else:
        driver.abandon_connections()


async def _others() -> list[str]:
    """Return the names of the tasks that are not this one."""
    return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
