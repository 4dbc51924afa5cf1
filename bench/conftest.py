"""What the benchmarks share: how one contender is timed, and the report after the run.

The whole run is made in turns, each of which times every contender once: the speed of a machine drifts within
minutes, and so it drifts for all of them. What is counted is the process's own CPU time, unless a group says
otherwise: others may be at work on the machine. All of it stays on one processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest

from bench.results import Results
from bench.servers import on_one_processor
from bench.targets import CPU_TIME, WALL_TIME
from tests.memcached import Memcached

N_TURNS = 7
DEFAULTS = {
    "benchmark_timer": "time.process_time",
    "benchmark_max_time": "0.2",
    "benchmark_min_time": "0.0002",
}
FOLDER = Path(__file__).parent
LEFT_OUT = pytest.StashKey[dict[str, str]]()
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
        benchmark.extra_info.update(contender=contender, turn=turn, n_operations=n_operations)
        benchmark(run)

    return time_it


@pytest.fixture(
    params=[
        pytest.param(CPU_TIME, marks=pytest.mark.benchmark(timer=time.process_time)),
        pytest.param(WALL_TIME, marks=pytest.mark.benchmark(timer=time.perf_counter)),
    ]
)
def clock(request: pytest.FixtureRequest) -> str:
    """Measure by both clocks: wall time has the servers' work in it, and others'."""
    return str(request.param)


@pytest.fixture(scope="session", autouse=True)
def processor(request: pytest.FixtureRequest) -> Iterator[None]:
    with nullcontext() if request.config.option.benchmark_disable else on_one_processor():
        yield


@pytest.fixture(scope="session")
def servers(processor: None) -> Iterator[list[Memcached]]:
    """Two nodes."""
    with ExitStack() as stack:
        started = []
        for _ in range(2):
            started.append(Memcached())
            stack.callback(started[-1].stop)
        yield started


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--report", action="store_true", help="write bench/report.md and bench/chart.svg")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = {}
    for option, value in DEFAULTS.items():
        flag = "--" + option.replace("_", "-")
        if not any(str(arg).startswith(flag) for arg in config.invocation_params.args):
            setattr(config.option, option, value)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Order by turn; a run that measures nothing has only one."""
    n_turns = 1 if config.option.benchmark_disable else N_TURNS
    items[:] = sorted((item for item in items if _turn(item) <= n_turns), key=_turn)


def _turn(item: pytest.Function) -> int:
    return int(item.callspec.params["turn"])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.skipped and call.excinfo is not None:
        item.config.stash[LEFT_OUT][str(item.callspec.params["contender"])] = call.excinfo.value.msg
    return report


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    from bench.report import markdown, terminal_lines

    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    results = Results.of(session.benchmarks, config.stash[LEFT_OUT])
    terminalreporter.section("per operation, and ours beside the others")
    for line in terminal_lines(results):
        terminalreporter.write_line(line)
    if config.getoption("report"):
        from bench.chart import draw

        (FOLDER / "report.md").write_text(markdown(results))
        draw(results, FOLDER / "chart.svg")
        terminalreporter.write_line("Written: bench/report.md, bench/chart.svg")
