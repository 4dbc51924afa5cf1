"""A thread of a manager's own, which lives while there is something to do in the background."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

__all__ = ["WorkerThread"]


class WorkerThread:
    """Runs work in a thread, started when there is something to do and ended when there is nothing.

    name: of the thread. work: goes on while `goes_on`, pauses by `pause`, and returns when `ends` says so. However it
    ends, the thread can be started again.
    Thread-safety: start, wake and close may be called from any thread, also from its own.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._name = name
        self._work = work
        self.is_closing = False
        self.renew()

    def renew(self) -> None:
        """Be without a thread, in a forked child to which it did not come along; what is closed stays closed."""
        # Requests wake the thread, and Ctrl-C may interrupt them anywhere: a Condition or an Event could stay locked.
        self._lock = threading.Lock()
        self._alarms: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        """The thread that runs, or is about to."""

    def start(self) -> RuntimeError | None:
        """Start unless it runs or is closed; return what keeps a thread from being had, to be tried again."""
        thread: threading.Thread | None = None
        try:
            with self._lock:
                if self.thread is not None or self.is_closing:
                    return None
                # gevent may have come after `renew`: what was made before waits for it with all greenlets.
                self._alarms = queue.SimpleQueue()
                thread = self.thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()  # and not under the lock: it waits for the thread, and other greenlets run meanwhile
        except BaseException as error:
            with self._lock:
                if self.thread is thread:
                    self.thread = None  # if it runs all the same it sees that, and ends
            if not isinstance(error, RuntimeError):
                raise
            return error
        return None

    def wake(self) -> RuntimeError | None:
        """End its pause, or start it as `start` does."""
        error = self.start()
        if self._alarms.empty():
            self._alarms.put(None)
        return error

    def close(self, timeout_s: float) -> bool:
        """Let work end, waiting for it at most timeout_s seconds; return whether it has."""
        with self._lock:
            self.is_closing = True
            thread = self.thread
        self.wake()
        if thread is not None and thread is not threading.current_thread():
            with contextlib.suppress(RuntimeError):  # it is about to be started; it sees that it is closed, and ends
                thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    # -- for work

    @property
    def goes_on(self) -> bool:
        """Whether work is to go on in the current thread."""
        return not self.is_closing and self.thread is threading.current_thread()

    def pause(self, seconds: float) -> bool:
        """Wait so long, or until it is woken; return whether it was."""
        with contextlib.suppress(queue.Empty):
            self._alarms.get(timeout=seconds)
            return True
        return False

    def ends(self, has_more: Callable[[], bool]) -> bool:
        """Return whether work is to return: it is closed, or has no more to do. Who starts it then has a new thread."""
        with self._lock:
            if self.goes_on and has_more():
                return False
            self._leave()
        return True

    def _run(self) -> None:
        try:
            self._work()
        finally:
            with self._lock:
                self._leave()

    def _leave(self) -> None:
        if self.thread is threading.current_thread():
            self.thread = None
