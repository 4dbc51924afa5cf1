"""The thread that asks nodes that are down whether they answer again, and goes back to the cluster when they do."""

from __future__ import annotations

import time
from collections.abc import Callable

from msm_fast.drivers.worker_thread import WorkerThread
from msm_fast.engine.context import Context
from msm_fast.logs import Log

__all__ = ["Prober", "has_work"]

_log = Log("msm_fast.prober")
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
        self._worker = WorkerThread("msm-fast-prober", self._work)
        self.is_wanted = False
        """Whether there is something to do, and there was no thread to be had for it: to be woken again."""

    def wake(self) -> None:
        """Start if there is something to do, or look again at what is to be done first."""
        if not has_work(self._ctx):
            return
        error = self._worker.wake()
        if error is not None and not self.is_wanted:
            _log.error("no thread can be started to probe nodes that are down; it is tried again: %s", error)
        self.is_wanted = error is not None

    def close(self, timeout_s: float) -> None:
        """Stop, waiting at most timeout_s for a probe on its way."""
        self._worker.close(timeout_s)

    def renew(self) -> None:
        """Start anew in a forked child, to which the thread did not come along."""
        self._worker.renew()
        self.is_wanted = False
        self.wake()

    def _work(self) -> None:
        while not self._worker.ends(lambda: has_work(self._ctx)):
            try:
                self._do_next()
            except Exception:  # noqa: BLE001 - whatever it was: without this thread no node would ever come back
                if self._ctx.is_closed:
                    return  # it was broken off
                _log.exception("a probe or a reconnection failed; it is tried again")
                self._worker.pause(_PAUSE_AFTER_ERROR_S)

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
            self._worker.pause(left_s)  # or until something else may have to be done first
            return
        for node in self._ctx.health.due_probes(time.monotonic()):
            self._run_probe(node)
