"""Fuzz the kernels: python -m tests.fuzz [--seconds 60] [TARGET...]."""

import argparse
import re
import sys
from pathlib import Path

from tests.fuzz import building

FOUND = Path("build/fuzz")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(building.TARGETS)}; none: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(building.TARGETS):
        parser.error(f"no target is named {', '.join(sorted(unknown))}; there are {', '.join(building.TARGETS)}")
    if reason := building.missing():
        print(reason, file=sys.stderr)
        return 2
    return max([run(target, arguments.seconds) for target in arguments.targets or building.TARGETS])


def run(target: str, seconds: int) -> int:
    program = building.build(target, FOUND)
    done = building.fuzz(program, FOUND / f"{target}.found", seconds)
    print(f"{target:12} {summary(done.stderr)}" if done.returncode == 0 else done.stderr[-5000:], flush=True)
    if done.returncode:
        print(f"{target}: a property does not hold; the input is in {FOUND / target}.found", flush=True)
    return min(done.returncode, 1)


def summary(log: str) -> str:
    runs, rate = (
        int(re.findall(rf"stat::{name}:\s+(\d+)", log)[-1])
        for name in ("number_of_executed_units", "average_exec_per_sec")
    )
    edges, features, n_inputs = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", log)[-1]
    return (
        f"{runs:>11,} inputs, {rate:>7,} a second; {edges} edges, {features} features from {n_inputs} inputs; "
        "nothing found"
    )


if __name__ == "__main__":
    raise SystemExit(main())
