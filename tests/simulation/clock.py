"""Time that passes only when it is told to."""

from __future__ import annotations

from msm_fast.engine.context import Clock

EPOCH = 1_700_000_000.0


class VirtualClock:
    """Monotonic and wall-clock seconds that move together."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def advance(self, seconds: float) -> None:
        self.elapsed += seconds

    def monotonic(self) -> float:
        return self.elapsed

    def wall(self) -> float:
        return EPOCH + self.elapsed

    def as_clock(self) -> Clock:
        return Clock(monotonic=self.monotonic, wall=self.wall)
