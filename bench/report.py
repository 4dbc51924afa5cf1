"""The table of ratios: they survive a change of machine, nanoseconds do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

OURS = "msm_fast"
FLOOR = "floor: "
"""How the names of the contenders begin; all others are rivals."""


def ratio_lines(benchmarks: Iterable[Any]) -> Iterator[str]:
    """Yield the lines of the table. benchmarks: pytest-benchmark's results, each with its group, name and stats."""
    groups: dict[str, dict[str, float]] = {}
    for result in benchmarks:
        if result.stats.rounds:
            per_operation_s = result.stats.median / result.extra_info["n_operations"]
            groups.setdefault(result.group, {})[result.name] = per_operation_s
    for group, times in groups.items():
        yield ""
        yield group
        ours = times.get(OURS)
        for name, time_s in times.items():
            yield f"  {name:<48}{_duration(time_s):>10}  {_comparison(name, time_s, ours)}".rstrip()


def _comparison(name: str, time_s: float, ours: float | None) -> str:
    if ours is None or name == OURS:
        return ""
    if name.startswith(FLOOR):
        return f"ours takes {ours / time_s:.2f} × the floor"
    return f"ours is {time_s / ours:.2f} × as fast"


def _duration(seconds: float) -> str:
    return f"{seconds * 1e9:.0f} ns" if seconds < 1e-5 else f"{seconds * 1e6:.1f} µs"
