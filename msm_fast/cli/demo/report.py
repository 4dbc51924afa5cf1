"""What the demo measured: one column per phase, a verdict, and the table that shows both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.table import Table

__all__ = ["Phase", "Report", "percentile"]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of values that at least percent (0 to 100) of them do not exceed; nan for none."""
    if not values:
        return math.nan
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]


@dataclass
class Phase:
    """What happened between two events. Times in seconds; sessions by their index."""

    name: str
    latencies_s: list[float] = field(default_factory=list)
    """Of answered requests, as the client saw them: through the balancer, its retries included."""
    in_worker_s: list[float] = field(default_factory=list)
    """Of the same requests, from the worker's first look at the request to its status line."""
    failures: list[str] = field(default_factory=list)
    """One sentence for each request that was not answered with what was asked for."""
    n_retried: int = 0
    """Requests that the balancer gave to another worker because the first refused or broke off."""
    intact: set[int] = field(default_factory=set)
    lost: dict[int, str] = field(default_factory=dict)
    """Sessions whose content was not what had been acknowledged, and how it differed."""
    requests_counted: int = 0
    round_trips: int = 0
    """As the workers' own statistics count them."""

    @property
    def n_requests(self) -> int:
        """How many requests were made, failed ones included."""
        return len(self.latencies_s) + len(self.failures)

    @property
    def round_trips_per_request(self) -> float:
        """How many round trips to memcached a request cost on average; nan when none was counted."""
        return self.round_trips / self.requests_counted if self.requests_counted else math.nan

    def n_late(self, budget_s: float) -> int:
        """Return how many requests took a worker longer than budget_s."""
        return sum(elapsed_s > budget_s for elapsed_s in self.in_worker_s)


@dataclass
class Report:
    """All phases of one run, with what they are judged by."""

    n_sessions: int
    budget_s: float
    phases: list[Phase] = field(default_factory=list)

    @property
    def lost(self) -> dict[int, str]:
        """Sessions lost in any phase, each with its first loss; a session that was never seen again is lost."""
        lost: dict[int, str] = {}
        for phase in self.phases:
            for index in range(self.n_sessions):
                if index not in phase.intact:
                    how = phase.lost.get(index, "it was not answered for")
                    lost.setdefault(index, f"{phase.name}: {how}")
        return lost

    @property
    def n_failed(self) -> int:
        """Requests that failed, in all phases."""
        return sum(len(phase.failures) for phase in self.phases)

    @property
    def n_late(self) -> int:
        """Requests that took longer than the budget, in all phases."""
        return sum(phase.n_late(self.budget_s) for phase in self.phases)

    @property
    def is_well(self) -> bool:
        """Whether nothing was lost, failed or late, and something was measured at all."""
        return bool(self.phases) and not (self.lost or self.n_failed or self.n_late)

    def verdict(self) -> str:
        """Return the outcome in two sentences."""
        n_lost = len(self.lost)
        n_requests = sum(phase.n_requests for phase in self.phases)
        n_retried = sum(phase.n_retried for phase in self.phases)
        return (
            f"{self.n_sessions} sessions before, {self.n_sessions - n_lost} after: {n_lost} lost. "
            f"{n_requests} requests: {self.n_failed} failed, {self.n_late} over the budget of "
            f"{self.budget_s * 1000:.0f} ms, {n_retried} retried by the balancer."
        )

    def complaints(self, most: int = 10) -> list[str]:
        """Return at most that many sentences on what was lost or failed."""
        sentences = [f"Session {index} was lost, {how}" for index, how in self.lost.items()]
        sentences += [f"A request failed, {phase.name}: {how}" for phase in self.phases for how in phase.failures]
        return sentences[:most]

    def table(self) -> Table:
        """Return the table: a row per figure, a column per phase."""
        table = Table(title="Sessions and requests, phase by phase")
        table.add_column("")
        for phase in self.phases:
            table.add_column(phase.name, justify="right")
        rows: list[tuple[str, list[str]]] = [
            ("sessions intact", [f"{len(phase.intact)} of {self.n_sessions}" for phase in self.phases]),
            ("requests", [f"{phase.n_requests}" for phase in self.phases]),
            ("failed", [f"{len(phase.failures)}" for phase in self.phases]),
            (
                f"over the {self.budget_s * 1000:.0f} ms budget",
                [f"{p.n_late(self.budget_s)}" for p in self.phases],
            ),
            ("retried by the balancer", [f"{phase.n_retried}" for phase in self.phases]),
            ("client p50, ms", [_ms(phase.latencies_s, 50) for phase in self.phases]),
            ("client p99, ms", [_ms(phase.latencies_s, 99) for phase in self.phases]),
            ("worker p50, ms", [_ms(phase.in_worker_s, 50) for phase in self.phases]),
            ("worker p99, ms", [_ms(phase.in_worker_s, 99) for phase in self.phases]),
            ("worker slowest, ms", [_ms(phase.in_worker_s, 100) for phase in self.phases]),
            ("round trips per request", [f"{phase.round_trips_per_request:.2f}" for phase in self.phases]),
        ]
        for label, cells in rows:
            table.add_row(label, *cells)
        return table


def _ms(values_s: Sequence[float], percent: float) -> str:
    return f"{percentile(values_s, percent) * 1000:.1f}"
