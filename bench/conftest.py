"""What the benchmarks share: how one contender is timed, and the table of ratios after the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.report import ratio_lines

Measure = Callable[..., None]


@pytest.fixture
def measure(benchmark: Any) -> Measure:
    """Return a function that times one contender of a group.

    run: does n_operations operations in one call, so that the loop around them weighs little and is the same for all.
    """

    def time_it(group: str, contender: str, run: Callable[[], object], n_operations: int = 1) -> None:
        benchmark.group = group
        benchmark.name = contender
        benchmark.extra_info["n_operations"] = n_operations
        benchmark(run)

    return time_it


def pytest_configure(config: pytest.Config) -> None:
    if not any(str(arg).startswith("--benchmark-columns") for arg in config.invocation_params.args):
        config.option.benchmark_columns = ["min", "median", "iqr", "rounds"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    terminalreporter.section("per operation, and ours beside the others")
    for line in ratio_lines(session.benchmarks):
        terminalreporter.write_line(line)
