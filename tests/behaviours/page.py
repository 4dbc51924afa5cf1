"""What the tests have shown, and the page that says so, docs/behaviours.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import pytest

from tests.behaviours import BEHAVIOURS, FRAMEWORKS, shown_by

__all__ = ["Recorder", "markdown"]

INTRODUCTION = """\
# What users may expect

Each row is something that was measured to go wrong in session systems for Python on memcached. `make behaviours` runs
the tests that show it of each framework, on real memcached nodes, and has written this page: *yes* where all of them
pass, **NO** where one does not. Times are the longest that the tests have measured; what else the machine does is in
them.
"""


class Recorder:
    """A plugin that runs only tests that show a behaviour, and notes what each has shown."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: set[str] = set()
        self.measured: dict[str, dict[str, Any]] = defaultdict(dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what shows nothing."""
        items[:] = [item for item in items if item.get_closest_marker("shows")]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how one phase of a test has ended."""
        test = report.nodeid.partition("[")[0].rpartition("/")[2]
        if report.outcome != "passed":
            self.failed.add(test)
        elif report.when == "call":
            self.passed.add(test)
            of_test = self.measured[test]
            for key, value in report.user_properties:
                of_test[key] = max(of_test.get(key, value), value)

    def says(self, key: str, tests: Collection[str]) -> str:
        """Return what the tests have shown of a behaviour; one that was not run, or skipped, has shown nothing."""
        if not self.passed.difference(self.failed).issuperset(tests):
            return "**NO**"
        values = [self.measured[test][key] for test in tests if key in self.measured[test]]
        return BEHAVIOURS[key].outcome.format(_text(max(values, default=None)))


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f} s" if value >= 1 else f"{value * 1e3:.0f} ms"


def markdown(recorder: Recorder) -> str:
    """Return the page."""
    outcomes, tests = [], []
    for key, by_framework in shown_by().items():
        sentence = BEHAVIOURS[key].sentence
        outcomes.append([sentence, *(recorder.says(key, shown) for shown in by_framework.values())])
        tests.append([sentence, *("<br>".join(f"`{test}`" for test in shown) for shown in by_framework.values())])
    return f"{INTRODUCTION}\n{_table(outcomes)}\n## The tests\n\nIn tests/integration:\n\n{_table(tests)}"


def _table(rows: list[list[str]]) -> str:
    header = ["behaviour", *FRAMEWORKS]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [header, ["---"] * len(header), *rows])
