"""What is still to be done after the requests that asked for it: a bounded queue with one entry per session."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from msm_fast.engine.effects import Flow

__all__ = ["MOST_BYTES", "MOST_JOBS", "Job", "WorkBehind"]


MOST_JOBS = 32
MOST_BYTES = 256 << 10
"""What is written to a node at once: little enough for timeouts.operation."""


def _do_nothing() -> None:
    """Stand for what nobody has asked to be told."""


@dataclass(slots=True, eq=False)
class Job:
    """One thing to do for one session.

    run: gives a new flow each time, which returns whether it is done or must be tried again. is_write: it stores what
    is stored nowhere yet; otherwise a loss of it costs nothing that was promised. size: bytes that it writes to a node,
    about. attempts: how often it has failed.
    """

    key: bytes = field(repr=False)
    run: Callable[[], Flow[bool]] = field(repr=False)
    is_write: bool
    size: int
    attempts: int = 0


class WorkBehind:
    """Jobs in the order in which they came; a later one for the same session takes the place of the earlier.

    max_jobs: what is more is refused, and done within the request.
    Thread-safety: under a lock; one thread at a time takes jobs, and finishes them before it takes more, so that those
    of one session never run side by side.
    """

    def __init__(self, max_jobs: int) -> None:
        self.max_jobs = max_jobs
        self.on_work: Callable[[], None] = _do_nothing
        """Called after each job that was added, outside the lock."""
        self._numbers = count()
        self._start_empty()

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[bytes, Job] = {}
        """All that wait. What is in the two below and not here was replaced or dropped."""
        self._due: deque[Job] = deque()
        self._later: list[tuple[float, int, Job]] = []
        self._running: list[Job] = []
        self._is_closed = False

    def add(self, key: bytes, run: Callable[[], Flow[bool]], *, size: int = 0, is_write: bool = True) -> bool:
        """Add a job; return whether there was room.

        A write takes the place of what waits for the session, and waits as long as that; anything else leaves it.
        """
        with self._lock:
            waiting = self._jobs.get(key)
            if waiting is not None and is_write:
                waiting.run, waiting.size, waiting.is_write = run, size, True
            elif waiting is None:
                if len(self._jobs) >= self.max_jobs or self._is_closed:
                    return False
                self._jobs[key] = job = Job(key, run, is_write, size)
                self._due.append(job)
        self.on_work()
        return True

    def take(self, now: float, most: int = MOST_JOBS) -> list[Job]:
        """Take the first jobs out that are due, to be carried out together. now: monotonic seconds.

        As many as most, and as MOST_BYTES, but at least one if there is any.
        """
        taken: list[Job] = []
        size = 0
        with self._lock:
            while self._later and self._later[0][0] <= now:
                self._due.append(heapq.heappop(self._later)[2])
            while self._due and len(taken) < most:
                job = self._due[0]
                if self._jobs.get(job.key) is job:
                    size += job.size
                    if taken and size > MOST_BYTES:
                        break
                    del self._jobs[job.key]
                    taken.append(job)
                self._due.popleft()
            self._running += taken
        return taken

    def finish(self, job: Job, retry_at: float | None) -> None:
        """Note the end of a job that was taken; retry_at: it failed, and comes back then.

        One that was added for the session meanwhile waits until then in its place.
        """
        with self._lock:
            self._running = [other for other in self._running if other is not job]
            if retry_at is None or self._is_closed:
                return
            newer = self._jobs.get(job.key)
            latest = newer if newer is not None and newer.is_write else job
            again = Job(job.key, latest.run, latest.is_write, latest.size, job.attempts + 1)
            self._jobs[job.key] = again
            heapq.heappush(self._later, (retry_at, next(self._numbers), again))

    def next_at(self) -> float | None:
        """Return when the next job is due (0: now), or None if there is none."""
        with self._lock:
            if not self._jobs:
                return None
            if any(self._jobs.get(job.key) is job for job in self._due):
                return 0.0
            return min(at for at, _, job in self._later if self._jobs.get(job.key) is job)

    def discard(self, key: bytes) -> None:
        """Drop the session's job, if any."""
        with self._lock:
            self._jobs.pop(key, None)
            # Its place is kept until it is its turn, which in an outage may be hours later.
            if len(self._due) > 2 * len(self._jobs) + MOST_JOBS:
                self._due = deque(job for job in self._due if self._jobs.get(job.key) is job)

    def clear(self) -> int:
        """Drop all jobs; return how many of them were writes."""
        with self._lock:
            n_writes = sum(job.is_write for job in self._jobs.values())
            self._jobs.clear()
            self._due.clear()
            self._later.clear()
            return n_writes

    def close(self) -> int:
        """Drop all jobs and take no more; return how many writes are not done, one under way included."""
        n_writes = self.clear()
        with self._lock:
            self._is_closed = True
            return n_writes + sum(job.is_write for job in self._running)

    def __len__(self) -> int:
        return len(self._jobs) + len(self._running)

    @property
    def fills_a_round(self) -> bool:
        """Whether there is as much as is carried out together, so that it is no use to wait for more."""
        return len(self) >= MOST_JOBS

    def renew_after_fork(self) -> None:
        """Start empty in a forked child: its parent does what the parent's requests asked for."""
        is_closed = self._is_closed
        self._start_empty()
        self._is_closed = is_closed
