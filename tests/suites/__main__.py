"""Run frameworks' own suites: `python -m tests.suites flask`, or all of them; `make conformance`.

Each writes its section of docs/conformance.md. The exit status is 1 if a test has failed that is not excluded, or an
excluded one has passed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from tests.suites import FRAMEWORKS
from tests.suites.page import Section

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.suites", description=__doc__)
    parser.add_argument("frameworks", nargs="*", choices=[*FRAMEWORKS, []], help="none named: all")
    names = parser.parse_args().frameworks or FRAMEWORKS
    cache = ROOT / "build" / "suites"
    cache.mkdir(parents=True, exist_ok=True)
    is_passed = True
    for name in names:
        section: Section = importlib.import_module(f"tests.suites.{name}").run(cache)
        section.write(ROOT / "docs" / "conformance.md")
        print(section.summary)
        is_passed &= section.is_passed
    return 0 if is_passed else 1


sys.exit(main())
