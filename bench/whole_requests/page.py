"""The page of results, bench/whole_requests.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from statistics import geometric_mean

from bench.report import table, versions
from bench.results import Spread
from bench.whole_requests.contenders import ALL_OURS, BASE
from bench.whole_requests.load import N_CONNECTIONS
from bench.whole_requests.outcome import TARGETS, THROUGHPUT, Case, Comparison, Outcome, Row

COLUMNS = (
    "",
    "requests/s",
    "99 % within",
    "CPU time",
    "the session's own time",
    "and CPU time",
    "round trips",
    "connections",
    "bytes",
)
PACKAGES = (
    "aiomcache",
    "Django",
    "Flask",
    "Flask-Session",
    "gunicorn",
    "httptools",
    "pylibmc",
    "pymemcache",
    "starlette",
    "starsessions",
    "uvicorn",
    "uvloop",
)

INTRODUCTION = """\
# Whole requests

`make bench-whole` has written this page: one application in each framework, behind a real server with one worker and
one thread, with no session at all, with ours in three ways, and with those that people use instead. wrk asks over
{connections} connections that are kept open, for 16 sessions in rotation. A request reads two attributes; "one write"
counts a visit besides.

All contenders of a framework take turns within seconds, {turns} turns of {seconds} s in each case; figures are
medians over turns, ratios are the medians of the turns' ratios, with the lowest and the highest; over several cases,
the geometric mean of those. What else the machine does disturbs all of them, and requests per second most; CPU time is
the worker process's, per request. *The session's own* is what a request takes minus what the same request takes without
a session: in time, which is one second divided by the requests per second of a worker that always has a next one, and
in CPU time. Round trips, new connections and bytes to and from memcached were counted per request by proxies, apart
from the turns; round trips are those that a request waits for, bytes are also those that it leaves
behind.

- *msm_fast* is the default: not sticky, two nodes, each session on both of them. *One copy* is `replicas=0`, which is
  what the rivals do. *Sticky* keeps sessions in the worker and writes both copies behind the request.
- There is one worker, so what our near cache has of a session is always the newest. With several that is so of
  sessions which the others have not changed meanwhile.
- Only ours merges what two requests write at once, and extends a session's life by reading it, without writing it.
- Django and starsessions are as they come; Django closes pymemcache's connection at each request. Flask-Session
  stores a session at each request, which is its default. Its pymemcache has `no_delay` and awaits answers: without
  these two, a session of 20 KB waits 40 ms per request for TCP's delayed acknowledgement.
- starsessions has no store in memcached; here it has one of a get and a set.
- *The floor* is what a store costs that asks memcached for each request's session and does nothing else: the
  framework's own machinery over sessions in a dict, one bare round trip on a socket that brings no value for a load,
  and one that sends the session for a save; no encoding, no second copy, nothing that keeps a session safe. Where a
  target for a session's own time or CPU time is missed, the floor's ratio to the same rival stands beside it. Ours
  waits for answers awake in a thread, which costs CPU time and may serve more requests than the floor.
"""


def markdown(outcome: Outcome, n_turns: int, seconds: int) -> str:
    """Return the page."""
    introduction = INTRODUCTION.format(connections=N_CONNECTIONS, turns=n_turns, seconds=seconds)
    parts = [introduction, "\n", *(f"- {line}\n" for line in summary(outcome))]
    for framework in outcome.frameworks:
        parts.append(f"\n## {framework}\n")
        cases = outcome.cases(framework)
        parts.append(f"\n{_promises(outcome, cases)}")
        for case in cases:
            parts.append(f"\n### {framework.split()[0]}, {case.size}, {case.kind}\n\n")
            parts.append(table(COLUMNS, map(_cells, outcome.rows(case))))
    parts.append(f"\n## Measured with\n\n{table(('', 'version'), versions(PACKAGES))}")
    return "".join(parts)


def summary(outcome: Outcome) -> Iterator[str]:
    """Yield lines that say how many targets are held, and how far over all cases, and who did not take part."""
    every = [
        comparison
        for framework in outcome.frameworks
        for case in outcome.cases(framework)
        for comparison in outcome.comparisons(case)
    ]
    for ours in ALL_OURS:
        held = Counter(comparison.what for comparison in every if comparison.ours == ours and comparison.is_held)
        judged = Counter(comparison.what for comparison in every if comparison.ours == ours)
        beyond = Counter(
            comparison.what for comparison in every if comparison.ours == ours and comparison.is_out_of_reach
        )
        means = {what: _mean([c.ratio.median for c in every if (c.ours, c.what) == (ours, what)]) for what in judged}
        counts = "; ".join(
            f"{held[what]} of {n} for {what}, {limit(what)}"
            + (f" (missed by the floor too: {beyond[what]})" if beyond[what] else "")
            + f", {means[what]:.2f}x over all of them"
            for what, n in judged.items()
        )
        if counts:
            yield f"{ours}: targets held: {counts}."
    for contender, reason in sorted(outcome.left_out.items()):
        yield f"Left out: {contender}: {reason}."


def _mean(ratios: list[float]) -> float:
    """Return the geometric mean; noise may make next to nothing negative."""
    return geometric_mean(max(ratio, 0.01) for ratio in ratios)


def limit(what: str) -> str:
    """Return a target in words."""
    if what == THROUGHPUT:
        return f"at least {TARGETS[what]:g}x"
    return f"at most {TARGETS[what]:.2f}x"


def _promises(outcome: Outcome, cases: list[Case]) -> str:
    """Return the table of targets: a row for each case and each of our ways."""
    lines: dict[tuple[str, str], dict[str, Comparison]] = {}
    for ours in ALL_OURS:
        for case in cases:
            for comparison in outcome.comparisons(case):
                if comparison.ours == ours:
                    lines.setdefault((ours, f"{case.size}, {case.kind}"), {})[comparison.what] = comparison
    columns = list(dict.fromkeys(what for comparisons in lines.values() for what in comparisons))
    header = ["", "", *(f"{what}: {limit(what)}" for what in columns)]
    rows = ([*names, *(_judged(comparisons[what]) for what in columns)] for names, comparisons in lines.items())
    return table(header, rows)


def _judged(comparison: Comparison) -> str:
    verdict = "held" if comparison.is_held else "missed"
    if not comparison.is_held and comparison.floor is not None:
        verdict += f", the floor: {comparison.floor:.2f}x"
    ratio = comparison.ratio
    return f"{ratio.median:.2f}x ({ratio.low:.2f} to {ratio.high:.2f}): {verdict}"


def _cells(row: Row) -> list[str]:
    own = ["", ""] if row.contender == BASE else [_microseconds(row.own_time_s), _microseconds(row.own_cpu_s)]
    traffic = ["", "", ""]
    if row.traffic is not None:
        round_trips, connections, n_bytes = row.traffic
        traffic = [f"{round_trips:.1f}", f"{connections:.1f}", f"{n_bytes:,.0f}"]
    p99 = f"{row.p99_s * 1e3:.1f} ms"
    return [row.contender, _range(row.throughput), p99, _microseconds(row.cpu_s), *own, *traffic]


def _range(spread: Spread) -> str:
    return f"{spread.median:,.0f} ({spread.low:,.0f} to {spread.high:,.0f})"


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs"
