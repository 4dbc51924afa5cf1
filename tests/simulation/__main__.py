"""Run schedules: `python -m tests.simulation SEED` runs one and prints all of it; `--seeds 100000` runs many.

The exit status is 1 if an invariant was violated.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections import Counter, defaultdict

from tests.simulation.schedules.running import NAMES, Result, run_seed, run_seeds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=int, nargs="?")
    parser.add_argument("--seeds", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.seed is not None:
        return _show(run_seed(options.seed))
    return _run_many(range(options.first, options.first + options.seeds))


def _show(result: Result) -> int:
    print("\n".join(result.log))
    print(f"seed {result.seed}, {result.profile}: {dict(result.counts)}")
    for violation in result.violations:
        print(violation)
    return 1 if result.violations else 0


def _run_many(seeds: range) -> int:
    started = time.monotonic()
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    n_failed = 0
    for n, result in enumerate(run_seeds(seeds, os.cpu_count() or 1), 1):
        totals[result.profile].update(result.counts)
        totals[result.profile].update(schedules=1, violations=bool(result.violations))
        if result.violations:
            n_failed += 1
            print(f"seed {result.seed} ({result.profile}): {result.violations[0]}")
            print(f"    python -m tests.simulation {result.seed}", flush=True)
        if n % 10_000 == 0:
            print(f"{n:,} schedules, {n_failed} failed, {time.monotonic() - started:.0f} s", flush=True)
    print(_table(totals))
    return 1 if n_failed else 0


def _table(totals: dict[str, Counter[str]]) -> str:
    columns = ("schedules", "requests", "acknowledged", "served locally", "logouts", "unavailable", "violations")
    lines = [f"{'':<48}" + "".join(f"{column:>16}" for column in columns)]
    lines += [f"{name:<48}" + "".join(f"{totals[name][column]:>16,}" for column in columns) for name in NAMES]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
