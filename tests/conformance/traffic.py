"""What is sent to simulated nodes."""

from __future__ import annotations

from collections import Counter

from msm_fast.engine.effects import Exchange
from tests.simulation.driver import SimulatedDriver


class Traffic:
    """Counts round trips, and commands by node and verb ("mg" reads, "ms" writes)."""

    def __init__(self, driver: SimulatedDriver) -> None:
        self.round_trips = 0
        self._commands: Counter[tuple[str, str]] = Counter()
        driver.before_exchange = self._note

    def count(self, verb: str | None = None, node: str | None = None) -> int:
        return sum(
            n
            for (to, what), n in self._commands.items()
            if (verb is None or what == verb) and (node is None or to == node)
        )

    def clear(self) -> None:
        self.round_trips = 0
        self._commands.clear()

    def _note(self, exchange: Exchange) -> None:
        self.round_trips += 1
        for batch in exchange.batches:
            for command in batch.commands:
                self._commands[batch.node, command.verb] += 1
