"""The one thread of a manager: asks nodes that are down whether they answer again. It lives only while one is down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from msm_fast.engine.context import Context

__all__ = ["Prober"]


class Prober:
    """Probes nodes when they are due, in the background.

    run_probe: carries out the flow of one probe within the time it may take.
    Thread-safety: wake and close may be called from any thread, also from the prober's own.
    """

    def __init__(self, ctx: Context, run_probe: Callable[[str], object]) -> None:
        self._ctx = ctx
        self._run_probe = run_probe
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Start probing if a node is down and nobody does yet."""
        with self._lock:
            if self._thread is None and not self._closing.is_set() and self._ctx.health.down():
                self._thread = threading.Thread(target=self._probe_until_all_up, name="msm-fast-prober", daemon=True)
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

    def _probe_until_all_up(self) -> None:
        while not self._closing.is_set():
            with self._lock:
                next_probe_at = self._ctx.health.next_probe_at()
                if next_probe_at is None:
                    self._thread = None
                    return
            self._closing.wait(max(next_probe_at - time.monotonic(), 0))
            if not self._closing.is_set():
                for node in self._ctx.health.due_probes(time.monotonic()):
                    self._run_probe(node)
