"""The thread that asks nodes that are down whether they answer again, and goes back to the cluster when they do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

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
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Start if there is something to do and nobody does it yet."""
        with self._lock:
            if self._thread is None and not self._closing.is_set() and has_work(self._ctx):
                self._thread = threading.Thread(target=self._work, name="msm-fast-prober", daemon=True)
                self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Stop, waiting at most timeout_s for a probe on its way."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def renew(self) -> None:
        """Start anew in a forked child, to which the thread did not come along."""
        is_closed = self._closing.is_set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = None
        if is_closed:
            self._closing.set()
        self.wake()

    def _work(self) -> None:
        while not self._closing.is_set():
            with self._lock:
                if not has_work(self._ctx):
                    self._thread = None
                    return
            try:
                self._do_next()
            except Exception:  # noqa: BLE001 - whatever it was: without this thread no node would ever come back
                _log.exception("a probe or a reconnection failed; it is tried again")
                self._closing.wait(_PAUSE_AFTER_ERROR_S)

    def _do_next(self) -> None:
        """Reconnect if that is possible, or else wait for the next probe and send it."""
        if self._ctx.distribution.can_reconnect:
            self._run_reconnect()
            return
        next_probe_at = self._ctx.health.next_probe_at()
        if next_probe_at is None:
            return
        self._closing.wait(max(next_probe_at - time.monotonic(), 0))
        if not self._closing.is_set():
            for node in self._ctx.health.due_probes(time.monotonic()):
                self._run_probe(node)
