"""What a manager in an event loop does in the background, in tasks that live only while there is something to do."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from msm_fast.drivers.event_loop import LoopHome, start_task
from msm_fast.drivers.prober import has_work
from msm_fast.drivers.write_behind import (
    GATHERED_FOR_S,
    Outcomes,
    can_write,
    finish,
    give_up,
    sweep_or_log,
)
from msm_fast.engine.behind import Job
from msm_fast.engine.context import Context
from msm_fast.engine.effects import Flow
from msm_fast.engine.kept_locks import KeptLocks
from msm_fast.engine.locking import SessionLock, release, renew
from msm_fast.engine.together import together
from msm_fast.logs import Log

__all__ = ["LockKeeperTask", "ProberTask", "WriterTask"]

_log = Log("msm_fast.background")
_PAUSE_AFTER_ERROR_S = 1.0


class _Task:
    """A task in a manager's loop that is started when there is work and ends when there is none.

    Thread-safety: start and wake may be called from any thread.
    """

    def __init__(self, home: LoopHome, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._home = home
        self._name = name
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._alarm: asyncio.Event | None = None
        self.is_closing = False

    def start(self) -> None:
        """Start it if it does not run."""
        self._home.call(self._start)

    def wake(self) -> None:
        """Start it, or end its pause."""
        self._home.call(self._wake)

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until it is woken."""
        assert self._alarm is not None
        waiting = asyncio.ensure_future(self._alarm.wait())
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            waiting.cancel()
        self._alarm.clear()

    async def close(self, timeout_s: float) -> None:
        """End it: after what it is doing, or after timeout_s by breaking that off."""
        self.is_closing = True
        task = self._task
        if task is None or task.done():
            return
        self._wake()
        if not (await asyncio.wait([task], timeout=timeout_s))[0]:
            task.cancel()
            await asyncio.wait([task])

    def start_anew(self) -> None:
        """Forget a task that is no more: its loop is closed, or its process was forked."""
        self._task = None

    def _start(self) -> None:
        if not self.is_closing and (self._task is None or self._task.done()):
            self._alarm = asyncio.Event()
            self._task = start_task(self._work(), self._name)

    def _wake(self) -> None:
        self._start()
        if self._alarm is not None:
            self._alarm.set()


class ProberTask:
    """Probes nodes when they are due, and reconnects.

    run_probe: carries out the flow of one probe within the time it may take. run_reconnect: that of a reconnection.
    Thread-safety: wake may be called from any thread.
    """

    def __init__(
        self,
        ctx: Context,
        home: LoopHome,
        run_probe: Callable[[str], Coroutine[Any, Any, None]],
        run_reconnect: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._ctx = ctx
        self._run_probe = run_probe
        self._run_reconnect = run_reconnect
        self._task = _Task(home, "msm-fast-prober", self._work)
        self.close = self._task.close

    def wake(self) -> None:
        """See to it that what there is to do will be done."""
        if has_work(self._ctx):
            self._task.wake()

    def start_anew(self) -> None:
        """Go on in another loop."""
        self._task.start_anew()
        self.wake()

    async def _work(self) -> None:
        while not self._task.is_closing and has_work(self._ctx):
            try:
                await self._do_next()
            except Exception:  # noqa: BLE001 - whatever it was: without this task no node would ever come back
                if self._ctx.is_closed:
                    return  # it was broken off
                _log.exception("a probe or a reconnection failed; it is tried again")
                await self._task.pause(_PAUSE_AFTER_ERROR_S)

    async def _do_next(self) -> None:
        """Reconnect if that is possible, or else wait for the next probe and send it."""
        if self._ctx.distribution.can_reconnect:
            await self._run_reconnect()
            return
        next_probe_at = self._ctx.health.next_probe_at()
        if next_probe_at is None:
            return
        await self._task.pause(max(next_probe_at - time.monotonic(), 0))
        if not self._task.is_closing:
            for node in self._ctx.health.due_probes(time.monotonic()):
                await self._run_probe(node)


class WriterTask:
    """Carries out the jobs of a context's queue behind the requests, those that come together in shared round trips.

    run: carries a flow out until a deadline of time.monotonic(). sweep: as for WriteBehind.
    Thread-safety: wake may be called from any thread.
    """

    def __init__(
        self,
        ctx: Context,
        home: LoopHome,
        run: Callable[[Flow[Outcomes], float], Coroutine[Any, Any, Outcomes]],
        sweep: Callable[[], None] | None = None,
    ) -> None:
        self._ctx = ctx
        self._run = run
        self._sweep = sweep
        self._task = _Task(home, "msm-fast-write-behind", self._work)
        ctx.behind.on_work = self.wake

    def wake(self) -> None:
        """See to it that what is in the queue will be done. Costs next to nothing while there is nothing."""
        if len(self._ctx.behind):
            self._task.wake()

    def start_anew(self) -> None:
        """Go on in another loop."""
        self._task.start_anew()
        self.wake()

    async def close(self, timeout_s: float) -> None:
        """Do what is left, in at most timeout_s; tell what could not be done."""
        deadline = time.monotonic() + timeout_s
        await self._task.close(timeout_s)
        try:
            await self._write(deadline, asyncio.sleep)
        finally:
            give_up(self._ctx)

    async def _work(self) -> None:
        await asyncio.sleep(GATHERED_FOR_S)
        await self._write(math.inf, self._task.pause)

    async def _write(self, until: float, wait: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        """Do what is in the queue until it is empty, the time is over, or the cluster cannot be used any more.

        The task ends early when it is closed; who closes it does the rest.
        """
        is_task = math.isinf(until)
        while can_write(self._ctx) and not (is_task and self._task.is_closing) and (now := time.monotonic()) < until:
            jobs = self._ctx.behind.take(now)
            if jobs:
                await self._carry_out(jobs, min(now + self._ctx.settings.timeouts.request, until))
                if is_task and not self._ctx.behind.fills_a_round:
                    await asyncio.sleep(GATHERED_FOR_S)
            else:
                next_at = self._ctx.behind.next_at()
                if next_at is None or next_at >= until:
                    return
                await wait(max(next_at - now, 0))
            sweep_or_log(self._sweep)

    async def _carry_out(self, jobs: Sequence[Job], deadline: float) -> None:
        outcomes = None
        try:
            outcomes = await self._run(together([job.run() for job in jobs]), deadline)
        except Exception:  # noqa: BLE001 - whatever it was: without this task nothing would be written any more
            _log.exception("sessions could not be written; they are tried again")
        finally:
            finish(self._ctx, jobs, outcomes)


class LockKeeperTask:
    """Renews each held lock until it is let go, and lets go those that could not be let go in time.

    run: carries out a flow within the time of one exchange.
    Thread-safety: of one event loop.
    """

    def __init__(self, ctx: Context, home: LoopHome, run: Callable[[Flow[None]], Coroutine[Any, Any, None]]) -> None:
        self._ctx = ctx
        self._run = run
        self._locks = KeptLocks(ctx)
        self._task = _Task(home, "msm-fast-lock-keeper", self._work)
        self.close = self._task.close

    def keep(self, lock: SessionLock) -> None:
        """Renew a lock for as long as it is held."""
        self._locks.keep(lock)
        self._task.start()

    def release(self, lock: SessionLock) -> None:
        """Let a lock go, now if its node can be asked, and at the latest when its lifetime is over."""
        self._locks.release(lock)
        self._task.wake()

    def start_anew(self, *, after_fork: bool) -> None:
        """Go on in another loop; in a forked child with no lock, since all are its parent's."""
        self._task.start_anew()
        if after_fork:
            self._locks.renew_after_fork()
        elif self._locks.has_any():
            self._task.wake()

    async def _work(self) -> None:
        is_last = False
        while not is_last and self._locks.has_any():
            is_last = self._task.is_closing  # requests that were broken off at the end have just left theirs
            try:
                await self._tick()
            except Exception:  # noqa: BLE001 - whatever it was: without this task every lock would be lost
                _log.exception("a lock could not be renewed; it is tried again")
            if not is_last:
                await self._task.pause(self._locks.tick_s)

    async def _tick(self) -> None:
        held, left = self._locks.due()
        for lock in left:
            await self._run(release(self._ctx, lock))
        self._locks.forget_released()
        for lock in held:
            await self._run(renew(self._ctx, lock))
