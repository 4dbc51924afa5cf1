"""What was measured, and what it says of us: ratios within turns, since a machine's speed drifts from turn to turn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

from bench.results import Spread
from bench.whole_requests.contenders import ALL_OURS, BASE, DJANGO_ON_PYMEMCACHE, FLOOR, NO_RIVALS
from bench.whole_requests.wire import Traffic

READ, WRITE = "read only", "one write"
METHODS = {READ: "GET", WRITE: "POST"}

THROUGHPUT = "requests per second, beside the best rival"
TIME_OF_FASTEST = "own time, beside the fastest rival"
TIME_OF_DJANGO = "own time, beside Django on pymemcache"
COST_OF_FASTEST = "own CPU time, beside the cheapest rival"
COST_OF_DJANGO = "own CPU time, beside Django on pymemcache"
TARGETS = {
    THROUGHPUT: 1.0,
    TIME_OF_FASTEST: 2 / 3,
    COST_OF_FASTEST: 2 / 3,
    TIME_OF_DJANGO: 1 / 3,
    COST_OF_DJANGO: 1 / 3,
}
"""Of requests per second at least so many times the rival's; of time and CPU time at most so many times."""


class Case(NamedTuple):
    """What requests were made: of which framework's application, of sessions of which size, reading or writing."""

    framework: str
    size: str
    kind: str


class Sample(NamedTuple):
    """One turn of one contender. cpu_s: the worker's CPU time per request."""

    throughput: float
    p99_s: float
    cpu_s: float

    @property
    def time_s(self) -> float:
        """For how long a request has the worker, which always has a next one."""
        return 1 / self.throughput


Measure = Callable[[Sample], float]
_TIME: Measure = attrgetter("time_s")
_CPU: Measure = attrgetter("cpu_s")


class Row(NamedTuple):
    """A contender in a case. own_time_s, own_cpu_s: without the base's; traffic: None where there is none."""

    contender: str
    throughput: Spread
    p99_s: float
    cpu_s: float
    own_time_s: float
    own_cpu_s: float
    traffic: Traffic | None


class Comparison(NamedTuple):
    """How one of our ways compares with a rival, and what was promised of that.

    floor: of time and CPU time, how the floor compares with the rival; None where it was not measured.
    """

    ours: str
    what: str
    rival: str
    ratio: Spread
    floor: float | None = None

    @property
    def is_held(self) -> bool:
        """Whether the median of the turns is what was promised."""
        limit = TARGETS[self.what]
        return self.ratio.median >= limit if self.what == THROUGHPUT else self.ratio.median <= limit

    @property
    def is_out_of_reach(self) -> bool:
        """Whether it was missed, and the floor misses it too."""
        return not self.is_held and self.floor is not None and self.floor > TARGETS[self.what]


class Outcome:
    """All samples and counts of a run. left_out: contenders that could not take part, and why."""

    def __init__(self) -> None:
        self._samples: dict[Case, dict[str, list[Sample]]] = {}
        self._traffic: dict[Case, dict[str, Traffic]] = {}
        self.left_out: dict[str, str] = {}

    def add(self, case: Case, contender: str, sample: Sample) -> None:
        """Take one turn's sample; each contender of a case has one in each turn."""
        self._samples.setdefault(case, {}).setdefault(contender, []).append(sample)

    def add_traffic(self, case: Case, contender: str, traffic: Traffic) -> None:
        """Take what a request of the contender's moves."""
        self._traffic.setdefault(case, {})[contender] = traffic

    def cases(self, framework: str) -> list[Case]:
        """Return the framework's cases, as they were measured."""
        return [case for case in self._samples if case.framework == framework]

    @property
    def frameworks(self) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(case.framework for case in self._samples))

    def rows(self, case: Case) -> list[Row]:
        """Return the case's rows, in the order in which contenders are listed."""
        return [self._row(case, contender) for contender in self._samples[case]]

    def comparisons(self, case: Case) -> Iterator[Comparison]:
        """Yield what is promised of each of our ways, with the rival that it is hardest to keep against."""
        contenders = self._samples[case]
        rivals = [name for name in contenders if name not in NO_RIVALS]
        if not rivals:
            return
        fastest = max(rivals, key=lambda name: _median(sample.throughput for sample in contenders[name]))
        cheapest = min(rivals, key=lambda name: _median(self._own(case, name, _CPU)))
        for ours in (name for name in ALL_OURS if name in contenders):
            pairs = zip(contenders[ours], contenders[fastest], strict=True)
            throughput = Spread.over(own.throughput / other.throughput for own, other in pairs)
            yield Comparison(ours, THROUGHPUT, fastest, throughput)
            yield self._cost(case, ours, TIME_OF_FASTEST, fastest, _TIME)
            yield self._cost(case, ours, COST_OF_FASTEST, cheapest, _CPU)
            if DJANGO_ON_PYMEMCACHE in rivals:
                yield self._cost(case, ours, TIME_OF_DJANGO, DJANGO_ON_PYMEMCACHE, _TIME)
                yield self._cost(case, ours, COST_OF_DJANGO, DJANGO_ON_PYMEMCACHE, _CPU)

    def _cost(self, case: Case, ours: str, what: str, rival: str, measure: Measure) -> Comparison:
        has_floor = FLOOR in self._samples[case]
        floor = self._ratio_of_cost(case, FLOOR, rival, measure).median if has_floor else None
        return Comparison(ours, what, rival, self._ratio_of_cost(case, ours, rival, measure), floor)

    def _ratio_of_cost(self, case: Case, contender: str, rival: str, measure: Measure) -> Spread:
        """Return how many times as much as the rival the contender takes for a session."""
        pairs = zip(self._own(case, contender, measure), self._own(case, rival, measure), strict=True)
        # Noise may leave a rival no cost at all in some turn: that turn speaks against us.
        return Spread.over(own / other if other > 0 else math.inf for own, other in pairs)

    def _row(self, case: Case, contender: str) -> Row:
        samples = self._samples[case][contender]
        return Row(
            contender,
            Spread.over(sample.throughput for sample in samples),
            _median(sample.p99_s for sample in samples),
            _median(sample.cpu_s for sample in samples),
            _median(self._own(case, contender, _TIME)),
            _median(self._own(case, contender, _CPU)),
            self._traffic.get(case, {}).get(contender),
        )

    def _own(self, case: Case, contender: str, measure: Measure) -> list[float]:
        """Return by turn what a request takes with the session minus what it takes without."""
        samples = self._samples[case]
        return [measure(own) - measure(base) for own, base in zip(samples[contender], samples[BASE], strict=True)]


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
