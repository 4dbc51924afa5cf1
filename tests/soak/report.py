"""What the soak measured: a table, and a timeline with the faults marked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 100
LABEL = 15


@dataclass
class Sample:
    """One answered request: when, in seconds since the start, and how long it took."""

    at_s: float
    took_s: float
    is_local: bool


@dataclass
class Report:
    duration_s: float
    budget_s: float
    samples: list[Sample] = field(default_factory=list)
    faults: list[tuple[float, float, str]] = field(default_factory=list)
    """Began, ended, name."""
    back_to_normal_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    n_without_backup: int = 0
    violations: list[str] = field(default_factory=list)
    near_after_logout: int = 0
    not_told_yet: int = 0
    resources: list[dict[str, Any]] = field(default_factory=list)
    """What the workers used, in turn, while the soak ran."""
    statistics: Counter[str] = field(default_factory=Counter)

    @property
    def n_late(self) -> int:
        return sum(sample.took_s > self.budget_s + 0.1 for sample in self.samples)

    def highest(self, what: str) -> int:
        return max((int(measured[what]) for measured in self.resources), default=0)

    def table(self) -> str:
        took = sorted(sample.took_s for sample in self.samples)
        n_local = sum(sample.is_local for sample in self.samples)
        rows = [
            ("requests", f"{len(took):,} ({len(took) / self.duration_s:.0f}/s)"),
            ("served from this host in an outage", f"{n_local:,}"),
            ("took, median / p99 / longest", " / ".join(f"{_rank(took, q) * 1000:.1f} ms" for q in (0.5, 0.99, 1.0))),
            (f"over the budget of {self.budget_s * 1000:.0f} ms + 100 ms", f"{self.n_late}"),
            ("saves", ", ".join(f"{n:,} {status}" for status, n in self.statuses.most_common() if status)),
            ("faults", ", ".join(f"{n} {name}" for name, n in self._kinds().most_common())),
            ("back to normal after a fault, longest", f"{max(self.back_to_normal_s, default=0):.2f} s"),
            ("acknowledged without a backup, and not counted on", f"{self.n_without_backup:,}"),
            ("acknowledged writes lost, ids mixed up, ended sessions served", f"{len(self.violations)}"),
            ("ended elsewhere, then served from a near cache in an outage", f"{self.near_after_logout}"),
            ("ended, then served by a node that was still to be told of it", f"{self.not_told_yet}"),
            ("largest resident set", f"{self.highest('rss') / 1e6:.1f} MB"),
            ("most file descriptors / threads", f"{self.highest('fds')} / {self.highest('threads')}"),
            ("round trips", f"{self.statistics['round_trips']:,}"),
            ("retries / conflicts / relocations / repairs", " / ".join(
                f"{self.statistics[name]:,}" for name in ("retries", "conflicts", "relocated", "repaired"))),
        ]  # fmt: skip
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def timeline(self) -> str:
        """Return requests per second and p99 over the whole run, one character a slice, with the faults below."""
        slice_s = self.duration_s / WIDTH
        slices: list[list[float]] = [[] for _ in range(WIDTH)]
        for sample in self.samples:
            slices[min(int(sample.at_s / slice_s), WIDTH - 1)].append(sample.took_s)
        rates = [len(took) / slice_s for took in slices]
        p99 = [_rank(sorted(took), 0.99) * 1000 for took in slices]
        lines = [
            f"{'requests/s':<{LABEL}}|{_bars(rates)}| 0 to {max(rates):.0f}",
            f"{'p99':<{LABEL}}|{_bars(p99)}| 0 to {max(p99):.0f} ms",
        ]
        for kind in sorted(self._kinds()):
            marks = [" "] * WIDTH
            for began, ended, name in self.faults:
                if _kind(name) == kind:
                    first, last = int(began / slice_s), int(ended / slice_s)
                    marks[min(first, WIDTH - 1) : min(last + 1, WIDTH)] = "x" * (min(last + 1, WIDTH) - first)
            lines.append(f"{kind:<{LABEL}}|{''.join(marks[:WIDTH])}|")
        return "\n".join([*lines, f"{'':<{LABEL}} 0 s{self.duration_s:>{WIDTH - 6}.0f} s"])

    def _kinds(self) -> Counter[str]:
        return Counter(_kind(name) for _, _, name in self.faults)


def _kind(name: str) -> str:
    subject, what = name.split()
    return {"n": "node ", "w": "worker ", "a": "all "}[subject[0]] + what


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[max(math.ceil(len(ordered) * share) - 1, 0)] if ordered else 0.0


def _bars(values: Sequence[float]) -> str:
    most = max(values) or 1
    return "".join(BARS[math.ceil(value / most * (len(BARS) - 1))] for value in values)
