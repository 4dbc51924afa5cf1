"""The thread that does what requests left behind: writes and touches of sessions. It lives only while there is any."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from msm_fast.drivers.worker_thread import WorkerThread
from msm_fast.engine.behind import Job
from msm_fast.engine.context import Context
from msm_fast.engine.effects import Flow
from msm_fast.engine.exchanging import wait_before_retry
from msm_fast.engine.together import together
from msm_fast.logs import Log

__all__ = [
    "GATHERED_FOR_S",
    "Outcomes",
    "WriteBehind",
    "can_write",
    "finish",
    "give_up",
    "sweep_or_log",
]

Outcomes: TypeAlias = "list[bool | Exception]"

_log = Log("msm_fast.write_behind")
_IDLE_S = 1.0
"""How long the thread waits for more before it ends; a new one costs more than the wait."""
GATHERED_FOR_S = 0.01
"""How long what is to be written waits for more of it. Requests have the processor meanwhile, a session that is changed
again is written once, and several sessions share a round trip."""


def can_write(ctx: Context) -> bool:
    """Whether it is worth a try: sessions go to the cluster, and there is a node that is up."""
    return ctx.distribution.is_on and ctx.health.is_any_up


def finish(ctx: Context, jobs: Sequence[Job], outcomes: Sequence[bool | Exception] | None) -> None:
    """Note the end of jobs; one that is not done is tried again, later each time. outcomes: None: nobody knows."""
    for job, outcome in zip(jobs, outcomes or [False] * len(jobs), strict=True):
        if isinstance(outcome, Exception):
            _log.error("a session could not be written; it is tried again", exc_info=outcome)
        retry_at = None if outcome is True else time.monotonic() + wait_before_retry(ctx, job.attempts)
        ctx.behind.finish(job, retry_at)


def sweep_or_log(sweep: Callable[[], None] | None) -> None:
    """Drop sessions that have expired; no failure there keeps others from being written."""
    try:
        if sweep is not None:
            sweep()
    except Exception:  # noqa: BLE001 - whatever it was
        _log.exception("sessions that have expired could not be dropped; it is tried again")


def give_up(ctx: Context) -> None:
    """Take no more jobs, and tell how many sessions could not be written."""
    n_dropped = ctx.behind.close()
    if n_dropped:
        ctx.counters.add("dropped", n_dropped)
        ctx.tell("dropped", f"{n_dropped} session(s) had changes that could not be written before the end")


class WriteBehind:
    """Carries out the jobs of a context's queue in the background, those that come together in shared round trips.

    run: carries a flow out until a deadline of time.monotonic(). sweep: drops live sessions that have expired; called
    again and again while there is work.
    Thread-safety: wake and close may be called from any thread.
    """

    def __init__(
        self,
        ctx: Context,
        run: Callable[[Flow[Outcomes], float], Outcomes],
        sweep: Callable[[], None] | None = None,
    ) -> None:
        self._ctx = ctx
        self._run = run
        self._sweep = sweep
        self._worker = WorkerThread("msm-fast-write-behind", self._work)
        ctx.behind.on_work = self.wake

    def wake(self) -> None:
        """See to it that what is in the queue will be done. Costs next to nothing while there is nothing."""
        if len(self._ctx.behind):
            self._worker.wake()  # where no thread is to be had, what is next in the queue tries again, or `close` does

    def close(self, timeout_s: float) -> None:
        """Do what is left, in the calling thread and in at most timeout_s; tell what could not be done."""
        deadline = time.monotonic() + timeout_s
        if self._worker.close(timeout_s):
            self._drain(deadline)
        give_up(self._ctx)

    def renew(self) -> None:
        """Start anew in a forked child, to which the thread did not come along."""
        self._worker.renew()

    def _work(self) -> None:
        while self._worker.goes_on:
            jobs = self._ctx.behind.take(time.monotonic()) if can_write(self._ctx) else []
            if jobs:
                self._carry_out(jobs, time.monotonic() + self._ctx.settings.timeouts.request)
                self._gather()
            elif not self._wait():
                return
            sweep_or_log(self._sweep)

    def _drain(self, deadline: float) -> None:
        """Do what is in the queue until it is empty, the deadline has come, or the cluster is not used any more."""
        while can_write(self._ctx) and (now := time.monotonic()) < deadline:
            jobs = self._ctx.behind.take(now)
            if jobs:
                self._carry_out(jobs, min(now + self._ctx.settings.timeouts.request, deadline))
                continue
            next_at = self._ctx.behind.next_at()
            if next_at is None or next_at >= deadline:
                return
            time.sleep(max(next_at - now, 0))

    def _carry_out(self, jobs: Sequence[Job], deadline: float) -> None:
        outcomes = None
        try:
            outcomes = self._run(together([job.run() for job in jobs]), deadline)
        except Exception:  # noqa: BLE001 - whatever it was: without this thread nothing would be written any more
            _log.exception("sessions could not be written; they are tried again")
        finish(self._ctx, jobs, outcomes)

    def _gather(self) -> None:
        """Wait for more to be written at once."""
        if not (self._ctx.behind.fills_a_round or self._worker.is_closing):
            time.sleep(GATHERED_FOR_S)

    def _wait(self) -> bool:
        """Wait for something to do; return whether to go on."""
        next_at = self._ctx.behind.next_at() if can_write(self._ctx) else None
        wait_s = _IDLE_S if next_at is None else min(max(next_at - time.monotonic(), 0), _IDLE_S)
        if self._worker.is_closing or not wait_s:
            return True
        if self._worker.pause(wait_s):
            self._gather()
            return True
        return not self._worker.ends(lambda: len(self._ctx.behind) > 0)
