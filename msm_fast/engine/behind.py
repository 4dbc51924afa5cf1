"""What is still to be done after the requests that asked for it: a bounded queue with one entry per session."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from msm_fast.engine.effects import Flow

__all__ = ["Job", "WorkBehind"]


@dataclass(slots=True)
class Job:
    """One thing to do for one session.

    run: gives a new flow each time, which returns whether it is done or must be tried again. not_before: monotonic
    seconds. attempts: how often it has failed.
    """

    key: bytes
    run: Callable[[], Flow[bool]]
    not_before: float = 0.0
    attempts: int = 0


class WorkBehind:
    """Jobs in the order in which they came; a later one for the same session takes the place of the earlier.

    max_jobs: what is more is refused, and done within the request.
    Thread-safety: under a lock; one thread at a time takes jobs, so those of one session never run side by side.
    """

    def __init__(self, max_jobs: int) -> None:
        self._max_jobs = max_jobs
        self._jobs: OrderedDict[bytes, Job] = OrderedDict()
        self._is_running = False
        self._lock = threading.Lock()

    def add(self, key: bytes, run: Callable[[], Flow[bool]], *, replaces: bool = True) -> bool:
        """Add a job; return whether there was room. replaces: take the place of what waits, else leave that."""
        with self._lock:
            waiting = self._jobs.get(key)
            if waiting is None and len(self._jobs) >= self._max_jobs:
                return False
            if waiting is None:
                self._jobs[key] = Job(key, run)
            elif replaces:
                waiting.run = run
            return True

    def take(self, now: float) -> Job | None:
        """Return the first job that is due and take it out, or None."""
        with self._lock:
            due = next((job for job in self._jobs.values() if job.not_before <= now), None)
            if due is not None:
                del self._jobs[due.key]
                self._is_running = True
            return due

    def finish(self, job: Job, retry_at: float | None) -> None:
        """Note the end of a job that was taken; retry_at: it failed, and comes back then unless a later one waits."""
        with self._lock:
            self._is_running = False
            if retry_at is not None and job.key not in self._jobs:
                self._jobs[job.key] = Job(job.key, job.run, retry_at, job.attempts + 1)
                self._jobs.move_to_end(job.key, last=False)

    def next_at(self) -> float | None:
        """Return when the next job is due, or None if there is none."""
        with self._lock:
            return min((job.not_before for job in self._jobs.values()), default=None)

    def has(self, key: bytes) -> bool:
        """Whether there is a job for the session."""
        return key in self._jobs

    def discard(self, key: bytes) -> None:
        """Drop the session's job, if any."""
        with self._lock:
            self._jobs.pop(key, None)

    def clear(self) -> int:
        """Drop all jobs; return how many there were."""
        with self._lock:
            n = len(self._jobs)
            self._jobs.clear()
            return n

    def __len__(self) -> int:
        return len(self._jobs) + self._is_running

    def renew_after_fork(self) -> None:
        """Start empty in a forked child: its parent does what the parent's requests asked for."""
        self._lock = threading.Lock()
        self._jobs = OrderedDict()
        self._is_running = False
