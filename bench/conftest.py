"""What the benchmarks share: how one contender is timed, and the table of ratios after the run.

The whole run is made in turns, each of which times every contender once: the speed of a machine drifts within
minutes, and so it drifts for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.report import ratio_lines

N_TURNS = 3
DEFAULTS = {"benchmark_max_time": "0.35", "benchmark_columns": ["min", "median", "iqr", "rounds"]}
Measure = Callable[..., None]


@pytest.fixture(params=range(1, N_TURNS + 1), ids="turn {}".format)
def turn(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def measure(benchmark: Any, turn: int) -> Measure:
    """Return a function that times one contender of a group.

    run: does n_operations operations in one call, so that the loop around them weighs little and is the same for all.
    """

    def time_it(group: str, contender: str, run: Callable[[], object], n_operations: int = 1) -> None:
        benchmark.group = group
        benchmark.name = f"{contender} ({turn})"
        benchmark.extra_info.update(contender=contender, n_operations=n_operations)
        benchmark(run)

    return time_it


def pytest_configure(config: pytest.Config) -> None:
    for option, value in DEFAULTS.items():
        flag = "--" + option.replace("_", "-")
        if not any(str(arg).startswith(flag) for arg in config.invocation_params.args):
            setattr(config.option, option, value)


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    items.sort(key=lambda item: item.callspec.params["turn"])


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    terminalreporter.section("per operation, and ours beside the others")
    for line in ratio_lines(session.benchmarks):
        terminalreporter.write_line(line)
