"""The table of ratios: they survive a change of machine, nanoseconds do not."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import Any

OURS = "msm_fast"
FLOOR = "floor: "
"""How the names of the contenders begin; all others are rivals."""


def ratio_lines(benchmarks: Iterable[Any]) -> Iterator[str]:
    """Yield the lines of the table: per contender the median of its turns' medians, and its best time of all.

    benchmarks: pytest-benchmark's results, each with its group, extra_info and stats. Where the two ratios of a line
    differ much, the machine was not quiet: run it again.
    """
    turns: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for result in benchmarks:
        if result.stats.rounds:
            info = result.extra_info
            times = (result.stats.median / info["n_operations"], result.stats.min / info["n_operations"])
            turns.setdefault(result.group, {}).setdefault(info["contender"], []).append(times)
    for group, contenders in turns.items():
        yield f"{group:<52}{'median':>10}{'min':>10}   ratio by median (by min)"
        summary = {name: _summarize(times) for name, times in contenders.items()}
        for name, times in summary.items():
            durations = "".join(f"{_duration(time_s):>10}" for time_s in times)
            yield f"  {name:<50}{durations}   {_comparison(name, times, summary.get(OURS))}".rstrip()
        yield ""


def _summarize(times: list[tuple[float, float]]) -> tuple[float, float]:
    medians, minima = zip(*times, strict=True)
    return statistics.median(medians), min(minima)


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
