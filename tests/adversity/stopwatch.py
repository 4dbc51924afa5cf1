"""Times what a thread does, less what the machine kept it waiting."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

_TICK_S = 0.002
_COUNTS_FROM_S = 0.010
"""A tick that is late by less is no stall: a thread that takes turns with a busy one waits 5 ms for the interpreter."""
_SCHEDULE = Path("/proc/thread-self/schedstat")


class Stopwatch:
    """Measures intervals on a machine that may stand still meanwhile.

    A thread of its own asks to be woken every 2 ms; by how much that is later than 10 ms counts as a stall of the
    machine or of the interpreter. On Linux the kernel tells as well how long the measuring thread itself was ready to
    run and had no processor. Of both the larger is taken off what the clock says. A library that computes or waits
    instead of giving up is not excused by either: the ticks go on while it does.
    """

    def __init__(self) -> None:
        self._stalled_s = 0.0
        self._last_tick = time.monotonic()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="stopwatch", daemon=True)
        self._thread.start()

    def start(self) -> Interval:
        """Begin an interval, to be ended by the same thread."""
        return Interval(self)

    def stalled_s(self) -> float:
        """Return how long this machine has stood still so far, the moment included that lasts on."""
        return self._stalled_s + self._late_by(time.monotonic())

    def close(self) -> None:
        self._is_over.set()
        self._thread.join(5)

    def _late_by(self, now: float) -> float:
        late_s = now - self._last_tick - _TICK_S
        return late_s if late_s > _COUNTS_FROM_S else 0.0

    def _tick(self) -> None:
        while not self._is_over.wait(_TICK_S):
            now = time.monotonic()
            self._stalled_s += self._late_by(now)
            self._last_tick = now


class Interval:
    """What goes on from now until it is asked."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._stalled_s = stopwatch.stalled_s()
        self._waited_s = _waited_for_a_processor_s()
        self._started = time.monotonic()

    def seconds(self) -> float:
        """Return how long it took, without what the machine is to blame for."""
        took_s = time.monotonic() - self._started
        stalled_s = self._stopwatch.stalled_s() - self._stalled_s
        waited_s = _waited_for_a_processor_s() - self._waited_s
        return took_s - max(stalled_s, waited_s)


def _waited_for_a_processor_s() -> float:
    with contextlib.suppress(OSError, IndexError):
        return int(_SCHEDULE.read_text().split()[1]) / 1e9
    return 0.0
