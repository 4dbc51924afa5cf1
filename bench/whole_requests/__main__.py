"""`python -m bench.whole_requests`: whole requests under load; see `make bench-whole`."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.whole_requests.contenders import FRAMEWORKS
from bench.whole_requests.content import SIZES
from bench.whole_requests.load import find_wrk
from bench.whole_requests.page import markdown, summary
from bench.whole_requests.run import Plan, measure

PAGE = Path(__file__).parents[1] / "whole_requests.md"
MISSING = "Not measured: wrk is missing; install it (Debian, Ubuntu: apt-get install wrk; macOS: brew install wrk)."


def main() -> None:
    names = {framework.name.split()[0].lower(): framework for framework in FRAMEWORKS}
    parser = argparse.ArgumentParser(prog="bench.whole_requests", description=__doc__)
    parser.add_argument("--framework", choices=names, action="append", help="only this one; may be given again")
    parser.add_argument("--size", choices=SIZES, action="append", help="only sessions of this size; may be given again")
    parser.add_argument("--turns", type=int, default=5, help="turns of each contender in each case (default: 5)")
    parser.add_argument("--seconds", type=int, default=1, help="length of a turn (default: 1)")
    parser.add_argument("--check", action="store_true", help="measure nothing: see that all contenders answer rightly")
    parser.add_argument("--report", action="store_true", help="write bench/whole_requests.md")
    options = parser.parse_args()
    frameworks = [names[name] for name in options.framework or names]
    sizes = options.size or list(SIZES)
    if not options.check and find_wrk() is None:
        print(
            "Not measured: wrk is missing; install it (Debian, Ubuntu: apt-get install wrk; macOS: brew install wrk)."
        )
        return
    n_turns = 0 if options.check else options.turns
    plan = Plan(sizes, n_turns, options.seconds, lambda line: print(line, flush=True))
    outcome = measure(frameworks, plan)
    page = markdown(outcome, n_turns, options.seconds)
    if options.report and n_turns:
        PAGE.write_text(page)
        print(*summary(outcome), "Written: bench/whole_requests.md", sep="\n")
    elif n_turns:
        print(page)
    else:
        print("All contenders answer rightly.", *summary(outcome), sep="\n")


if __name__ == "__main__":
    main()
