"""The table of ratios: on the terminal, and as the page that the README names."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata

from bench.results import Results, Row, Spread
from bench.targets import FLOOR, OURS, Target
from tests.memcached import find_memcached

COLUMNS = ("", "time", "ours beside it", "lowest to highest", "target", "")
WIDTHS = (44, 10, 24, 19, 16, 6)

PACKAGES = (
    "cachebox",
    "cachetools",
    "Django",
    "Flask-Session",
    "libmc",
    "lru-dict",
    "meta-memcache",
    "msgspec",
    "ormsgpack",
    "pylibmc",
    "pymemcache",
    "theine",
    "uhashring",
    "xxhash",
)

INTRODUCTION = """\
# How msm_fast compares

`make bench` has written this page. Every contender of a table was timed in the same run, in turns, so that what
disturbs the machine disturbs all of them. The ratio is the median of the turns' ratios, beside it the lowest and the
highest. A *floor* is not a rival: it does less than anyone must, a bare socket or one hash call. Times are CPU time of
the process, per operation, unless the title says otherwise; targets are about that.

![ratios to the rivals and to the floors](chart.svg)
"""


def terminal_lines(results: Results) -> Iterator[str]:
    """Yield the lines of all tables, then what was missed and what was left out."""
    for group in results.groups:
        yield _aligned([group, *COLUMNS[1:]])
        for row in results.rows(group):
            yield _aligned(_cells(row))
        yield ""
    yield from summary(results)


def summary(results: Results) -> Iterator[str]:
    """Yield lines that say which targets are held, which are missed, and who did not take part."""
    rows = [(group, row) for group in results.groups for row in results.rows(group) if row.verdict]
    missed = [(group, row) for group, row in rows if row.verdict == "missed"]
    yield f"{len(rows) - len(missed)} of {len(rows)} targets held."
    for group, row in missed:
        assert row.target is not None
        yield f"Missed: {group}; {row.contender}: {_value(row)}, target {_limit(row.target)}."
    for contender, reason in sorted(results.left_out.items()):
        yield f"Left out: {contender}: {reason}."


def markdown(results: Results) -> str:
    """Return the page."""
    parts = [INTRODUCTION, "\n", *(f"- {line}\n" for line in summary(results))]
    for target in results.not_measured():
        parts.append(f"- Not measured: {target.group}; {target.contender or OURS}: target {_limit(target)}.\n")
    for group in results.groups:
        parts.append(f"\n## {group[0].upper()}{group[1:]}\n\n{table(COLUMNS, map(_cells, results.rows(group)))}")
    parts.append(f"\n## Measured with\n\n{table(('', 'version'), versions(PACKAGES))}")
    return "".join(parts)


def _cells(row: Row) -> list[str]:
    comparison = "" if row.ratio is None else f"{_value(row)} {'the floor' if _is_floor(row) else 'as fast'}"
    limit = "" if row.target is None else _limit(row.target)
    return [row.contender, _duration(row.seconds.median), comparison, _range(row), limit, row.verdict]


def _is_floor(row: Row) -> bool:
    return row.contender.startswith(FLOOR)


def _value(row: Row) -> str:
    return _duration(row.seconds.median) if row.ratio is None else f"{_figure(row.ratio.median)}x"


def _range(row: Row) -> str:
    if row.ratio is None:
        return _between(row.seconds, _duration)
    return _between(row.ratio, _figure)


def _between(spread: Spread, write: Callable[[float], str]) -> str:
    return f"{write(spread.low)} to {write(spread.high)}"


def _limit(target: Target) -> str:
    side = "at least" if target.is_minimum else "at most"
    return f"{side} {_duration(target.limit) if target.contender is None else f'{target.limit:g}x'}"


def _figure(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def _duration(seconds: float) -> str:
    if seconds < 1e-6:
        return f"{seconds * 1e9:.0f} ns"
    return f"{seconds * 1e6:.{2 if seconds < 1e-5 else 1}f} µs"


def _aligned(cells: Iterable[str]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    columns = list(header)
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def versions(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what the figures depend on: the interpreter, the system, memcached, and these packages."""
    yield platform.python_implementation(), platform.python_version()
    yield "system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    output = subprocess.run([find_memcached(), "-V"], capture_output=True, text=True, check=True).stdout
    yield "memcached", output.split()[-1]
    for package in packages:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            yield package, "not installed"
