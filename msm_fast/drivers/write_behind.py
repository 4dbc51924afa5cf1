"""The thread that does what requests left behind: writes and touches of sessions. It lives only while there is any."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from msm_fast.engine.behind import Job
from msm_fast.engine.context import Context
from msm_fast.engine.effects import Flow
from msm_fast.engine.exchanging import wait_before_retry

__all__ = ["WriteBehind"]

_log = logging.getLogger("msm_fast.write_behind")
_IDLE_S = 1.0
"""How long the thread waits for more before it ends; a new one costs more than the wait."""


class WriteBehind:
    """Carries out the jobs of a context's queue in the background, one after the other.

    run: carries out the flow of one job within the time it may take, and returns whether it is done.
    Thread-safety: wake and close may be called from any thread.
    """

    def __init__(self, ctx: Context, run: Callable[[Flow[bool]], bool]) -> None:
        self._ctx = ctx
        self._run = run
        self._wake = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._close_at = 0.0

    def wake(self) -> None:
        """See to it that what is in the queue will be done. Costs next to nothing while there is nothing."""
        if not len(self._ctx.behind):
            return
        with self._wake:
            if self._thread is None and not self._is_closing:
                self._thread = threading.Thread(target=self._work, name="msm-fast-write-behind", daemon=True)
                self._thread.start()
            self._wake.notify()

    def close(self, timeout_s: float) -> None:
        """Do what is left, in at most timeout_s; tell what could not be done."""
        self.wake()
        with self._wake:
            self._is_closing = True
            self._close_at = time.monotonic() + timeout_s
            thread = self._thread
            self._wake.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s + 1)
        n = self._ctx.behind.clear()
        if n:
            self._ctx.counters.add("dropped", n)
            self._ctx.tell("dropped", f"{n} session(s) could not be written before the end")

    def renew(self) -> None:
        """Start anew in a forked child, to which the thread did not come along."""
        self._wake = threading.Condition(threading.Lock())
        self._thread = None

    def _work(self) -> None:
        while True:
            job = self._ctx.behind.take(time.monotonic()) if self._can_write() else None
            if job is not None:
                self._carry_out(job)
            elif not self._wait():
                return

    def _can_write(self) -> bool:
        return self._ctx.distribution.is_on

    def _carry_out(self, job: Job) -> None:
        is_done = False
        try:
            is_done = self._run(job.run())
        except Exception:  # noqa: BLE001 - whatever it was: without this thread nothing would be written any more
            _log.exception("a session could not be written; it is tried again")
        now = time.monotonic()
        retry_at = None if is_done else now + wait_before_retry(self._ctx, job.attempts)
        self._ctx.behind.finish(job, retry_at)

    def _wait(self) -> bool:
        """Wait for something to do; return whether to go on."""
        with self._wake:
            now = time.monotonic()
            next_at = self._ctx.behind.next_at()
            if self._is_closing and (next_at is None or now >= self._close_at or not self._can_write()):
                self._thread = None
                return False
            wait_s = _IDLE_S if next_at is None or not self._can_write() else max(next_at - now, 0.001)
            was_woken = self._wake.wait(min(wait_s, max(self._close_at - now, 0.001)) if self._is_closing else wait_s)
            if not was_woken and not len(self._ctx.behind):
                self._thread = None
                return False
            return True
