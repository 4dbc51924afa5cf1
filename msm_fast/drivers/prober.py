"""The thread that asks nodes that are down whether they answer again, and goes back to the cluster when they do."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from msm_fast.engine.context import Context

__all__ = ["Prober", "has_work"]

_log = logging.getLogger("msm_fast.prober")
_PAUSE_AFTER_ERROR_S = 1.0


def has_work(ctx: Context) -> bool:
    """Whether there is a node to probe, or the cluster can be taken up again."""
    return bool(ctx.health.down()) or ctx.distribution.can_reconnect


class Prober:
    """Probes nodes when they are due, and reconnects, in the background. The thread lives only while there is need.

    run_probe: carries out the flow of one probe within the time it may take. run_reconnect: that of a reconnection.
    Thread-safety: wake and close may be called from any thread, also from the prober's own.
    """

    def __init__(self, ctx: Context, run_probe: Callable[[str], object], run_reconnect: Callable[[], object]) -> None:
        self._ctx = ctx
        self._run_probe = run_probe
        self._run_reconnect = run_reconnect
        self._is_closed = False
        self._start_anew()

    def wake(self) -> None:
        """Start if there is something to do, or look again at what is to be done first."""
        with self._lock:
            if self._is_closed or not has_work(self._ctx):
                return
            if self._thread is None:
                self._start()
            else:
                self._notify()

    def close(self, timeout_s: float) -> None:
        """Stop, waiting at most timeout_s for a probe on its way."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        self._notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def renew(self) -> None:
        """Start anew in a forked child, to which the thread did not come along."""
        self._start_anew()
        self.wake()

    def _start_anew(self) -> None:
        # Requests wake the thread, and Ctrl-C may interrupt them anywhere: a Condition or an Event could stay locked.
        self._lock = threading.Lock()
        self._alarms: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.is_wanted = False
        """Whether there is something to do, and there was no thread to be had for it: to be woken again."""

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="msm-fast-prober", daemon=True)
        try:
            self._thread = thread
            thread.start()
            self.is_wanted = False
        except BaseException as error:
            self._thread = None  # if it runs all the same it sees that, and ends
            if not isinstance(error, RuntimeError):
                raise
            if not self.is_wanted:
                _log.error("no thread can be started to probe nodes that are down; it is tried again: %s", error)
            self.is_wanted = True

    def _notify(self) -> None:
        if self._alarms.empty():
            self._alarms.put(None)

    def _work(self) -> None:
        while not self._is_closed and self._thread is threading.current_thread():
            with self._lock:
                if not has_work(self._ctx):
                    self._thread = None
                    return
            try:
                self._do_next()
            except Exception:  # noqa: BLE001 - whatever it was: without this thread no node would ever come back
                _log.exception("a probe or a reconnection failed; it is tried again")
                self._wait(_PAUSE_AFTER_ERROR_S)

    def _do_next(self) -> None:
        """Reconnect if that is possible, or else send the probes that are due, or wait for the next."""
        if self._ctx.distribution.can_reconnect:
            self._run_reconnect()
            return
        next_probe_at = self._ctx.health.next_probe_at()
        if next_probe_at is None:
            return
        left_s = next_probe_at - time.monotonic()
        if left_s > 0:
            self._wait(left_s)
            return
        for node in self._ctx.health.due_probes(time.monotonic()):
            self._run_probe(node)

    def _wait(self, seconds: float) -> None:
        """Wait so long, or until something else may have to be done first."""
        with contextlib.suppress(Empty):
            self._alarms.get(timeout=seconds)
