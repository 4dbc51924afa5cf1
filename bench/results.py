"""Ratios out of durations: they survive a change of machine, nanoseconds do not.

Each turn gives one ratio between two contenders that were timed within seconds of each other. What counts is the
median of the turns' ratios; the lowest and the highest stand beside it, and tell how quiet the machine was.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bench.targets import FLOOR, OURS, TARGETS, Target

Turns = dict[int, float]
"""Seconds per operation, the median of one turn's rounds, by the turn's number."""


class Spread(NamedTuple):
    """The median of the turns, and their range."""

    median: float
    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float]) -> Spread:
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])


class Row(NamedTuple):
    """A contender, and how it compares with ours.

    ratio: how many times as fast ours is; against a floor how many times its duration ours takes; None for ours.
    verdict: "held", "missed", or "" where nothing is promised.
    """

    contender: str
    seconds: Spread
    ratio: Spread | None
    target: Target | None
    verdict: str


class Results:
    """What was measured: seconds per operation by group, contender and turn.

    left_out: contenders that could not take part, and why.
    """

    def __init__(self, groups: Mapping[str, Mapping[str, Turns]], left_out: Mapping[str, str]) -> None:
        self._groups = groups
        self.left_out = dict(left_out)

    @classmethod
    def of(cls, benchmarks: Iterable[Any], left_out: Mapping[str, str]) -> Results:
        """Read pytest-benchmark's results. benchmarks: each with its group, extra_info and stats."""
        groups: dict[str, dict[str, Turns]] = {}
        for result in benchmarks:
            if result.stats.rounds:
                info = result.extra_info
                turns = groups.setdefault(result.group, {}).setdefault(info["contender"], {})
                turns[info["turn"]] = result.stats.median / info["n_operations"]
        return cls(groups, left_out)

    @property
    def groups(self) -> list[str]:
        """In the order in which they were measured."""
        return list(self._groups)

    def rows(self, group: str) -> list[Row]:
        """Return the group's rows: ours, the rivals from the slowest to the fastest, and the floors."""
        rows = [self._row(group, contender) for contender in self._groups[group]]
        return sorted(rows, key=lambda row: (row.contender != OURS, _is_floor(row), -row.seconds.median))

    def not_measured(self) -> list[Target]:
        """Return the targets of which this run can say nothing."""
        return [
            target
            for target in TARGETS
            if OURS not in (measured := self._groups.get(target.group, {})) or target.contender not in (None, *measured)
        ]

    def _row(self, group: str, contender: str) -> Row:
        turns = self._groups[group][contender]
        target = self._target(group, contender)
        seconds, ratio = Spread.over(turns.values()), self._ratio(group, contender)
        verdict = ""
        if target is not None and (value := seconds if contender == OURS else ratio) is not None:
            verdict = "held" if target.is_held_by(value.median) else "missed"
        return Row(contender, seconds, ratio, target, verdict)

    def _target(self, group: str, contender: str) -> Target | None:
        wanted = None if contender == OURS else contender
        return next((target for target in TARGETS if (target.group, target.contender) == (group, wanted)), None)

    def _ratio(self, group: str, contender: str) -> Spread | None:
        ours, other = self._groups[group].get(OURS, {}), self._groups[group][contender]
        both = ours.keys() & other.keys()
        if contender == OURS or not both:
            return None
        if contender.startswith(FLOOR):
            return Spread.over(ours[turn] / other[turn] for turn in both)
        return Spread.over(other[turn] / ours[turn] for turn in both)


def _is_floor(row: Row) -> bool:
    return row.contender.startswith(FLOOR)
