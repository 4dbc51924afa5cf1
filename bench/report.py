"""The table of ratios: they survive a change of machine, nanoseconds do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

OURS = "msm_fast"
FLOOR = "floor: "
"""How the names of the contenders begin; all others are rivals."""


def ratio_lines(benchmarks: Iterable[Any]) -> Iterator[str]:
    """Yield the lines of the table. benchmarks: pytest-benchmark's results, each with its group, name and stats.

    Where the ratio of the medians and that of the minima differ much, the machine was not quiet: run it again.
    """
    groups: dict[str, dict[str, tuple[float, float]]] = {}
    for result in benchmarks:
        if result.stats.rounds:
            n_operations = result.extra_info["n_operations"]
            times = (result.stats.median / n_operations, result.stats.min / n_operations)
            groups.setdefault(result.group, {})[result.name] = times
    for group, times_of in groups.items():
        yield f"{group:<52}{'median':>10}{'min':>10}   ratio by median (by min)"
        ours = times_of.get(OURS)
        for name, times in times_of.items():
            durations = "".join(f"{_duration(time_s):>10}" for time_s in times)
            yield f"  {name:<50}{durations}   {_comparison(name, times, ours)}".rstrip()
        yield ""


def _comparison(name: str, times: tuple[float, float], ours: tuple[float, float] | None) -> str:
    if ours is None or name == OURS:
        return ""
    if name.startswith(FLOOR):
        by_median, by_min = (own / floor for own, floor in zip(ours, times, strict=True))
        return f"ours takes {by_median:.2f}x the floor ({by_min:.2f}x)"
    by_median, by_min = (rival / own for own, rival in zip(ours, times, strict=True))
    return f"ours is {by_median:.2f}x as fast ({by_min:.2f}x)"


def _duration(seconds: float) -> str:
    return f"{seconds * 1e9:.0f} ns" if seconds < 1e-5 else f"{seconds * 1e6:.1f} us"
