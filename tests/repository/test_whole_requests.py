"""The benchmark of whole requests: its contenders do what is measured, and its page says what was."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results import Spread
from bench.whole_requests import load
from bench.whole_requests.contenders import (
    BASE,
    DJANGO,
    DJANGO_ON_PYLIBMC,
    DJANGO_ON_PYMEMCACHE,
    FLOOR,
    OURS,
    OURS_STICKY,
)
from bench.whole_requests.content import SIZES, attributes_of, serve, visits_in
from bench.whole_requests.outcome import (
    COST_OF_DJANGO,
    COST_OF_FASTEST,
    READ,
    THROUGHPUT,
    TIME_OF_DJANGO,
    TIME_OF_FASTEST,
    WRITE,
    Case,
    Comparison,
    Outcome,
    Sample,
)
from bench.whole_requests.page import markdown, summary
from bench.whole_requests.run import check
from bench.whole_requests.server import WrongAnswer
from bench.whole_requests.wire import Traffic, Wire
from tests.proxy import Link

ROOT = Path(__file__).parents[2]
CASE = Case(DJANGO, "1 KB", READ)


def _outcome(**cpu_us: list[float]) -> Outcome:
    """Return what was measured of contenders, by turn; whoever is twice as fast serves twice as many."""
    names = {"base": BASE, "ours": OURS, "pymemcache": DJANGO_ON_PYMEMCACHE, "pylibmc": DJANGO_ON_PYLIBMC}
    names["floor"] = FLOOR
    outcome = Outcome()
    for name, turns in cpu_us.items():
        for us in turns:
            outcome.add(CASE, names[name], Sample(1e6 / us, us / 1e5, us / 1e6))
    return outcome


@pytest.mark.memcached
@pytest.mark.parametrize("framework", ["django", "flask", "starlette"])
def test_every_contender_answers_rightly(framework: str) -> None:
    command = [sys.executable, "-m", "bench.whole_requests", "--check", "--size", "1 KB", "--framework", framework]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "All contenders answer rightly." in run.stdout


@pytest.mark.parametrize("size", SIZES)
def test_a_session_has_the_size_that_it_is_said_to_have_and_is_the_same_each_time(size: str) -> None:
    attributes = attributes_of(SIZES[size], 7)
    assert len(json.dumps(attributes)) == pytest.approx(SIZES[size], rel=0.05)
    assert attributes == attributes_of(SIZES[size], 7) != attributes_of(SIZES[size], 8)


def test_a_request_counts_its_visit_only_if_it_writes_and_fails_if_the_session_is_lost() -> None:
    session = attributes_of(1_000, 1)
    assert visits_in(serve(session, is_write=True)) == visits_in(serve(session, is_write=False)) == 1
    with pytest.raises(KeyError):
        serve({}, is_write=False)


def test_a_contender_that_does_not_keep_what_is_written_is_found_out() -> None:
    class Forgetful:
        def visits(self, cookie: str, method: str = "GET") -> int:
            return int(method == "POST")

    with pytest.raises(WrongAnswer, match="answered with 1, and then read as 0"):
        check(Forgetful(), "session=a")  # type: ignore[arg-type]


def test_the_load_s_report_is_read_and_anything_else_is_refused() -> None:
    text = "Running 1s test @ http://127.0.0.1:1\n  2 threads\nmeasured 4200 3 1000500 2750\n"
    assert load.read_report(text) == (4200, 3, 1.0005, 0.00275)
    with pytest.raises(load.LoadError, match="no line of the script's"):
        load.read_report("unable to connect\n\nmeasured nothing\n")


def test_the_load_takes_turns_in_the_cookies_of_its_sessions() -> None:
    script = load.script_for("POST", ["session=a", "session=b"])
    assert script.startswith("local COOKIES = {[[session=a]], [[session=b]]}\n")
    assert 'wrk.format("POST", "/", {["Cookie"] = cookie})' in script


def test_without_wrk_nothing_is_measured_and_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert load.find_wrk() is None
    run = subprocess.run(
        [sys.executable, "-m", "bench.whole_requests", "--report"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0
    assert run.stdout.startswith("Not measured: wrk is missing; install it")


@pytest.mark.slow
@pytest.mark.memcached
@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_one_turn_under_load_fills_every_row() -> None:
    options = ["--framework", "starlette", "--size", "1 KB", "--turns", "1"]
    run = subprocess.run(
        [sys.executable, "-m", "bench.whole_requests", *options], cwd=ROOT, capture_output=True, text=True, timeout=180
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "### Starlette, 1 KB, one write" in run.stdout
    has_rival = all(importlib.util.find_spec(name) for name in ("aiomcache", "starsessions"))
    assert run.stdout.count("| msm_fast, sticky |") == (4 if has_rival else 2)  # without one there is no verdict


def test_a_round_trip_counts_when_it_is_answered_however_many_connections_it_takes() -> None:
    wire, home, backup = Wire(), Link(None, None), Link(None, None)  # type: ignore[arg-type]

    def load_and_save() -> None:
        wire.note(home, 10, is_reply=False)
        wire.note(home, 1000, is_reply=True)
        for node in (home, backup):
            wire.note(node, 1000, is_reply=False)
        for node in (home, backup):
            wire.note(node, 5, is_reply=True)

    def write_and_go() -> None:
        wire.note(home, 1000, is_reply=False)

    assert wire.count(load_and_save, 2) == Traffic(2.0, 0.0, 3020.0)
    assert wire.count(write_and_go, 2) == Traffic(0.0, 0.0, 1000.0)


def test_a_session_s_own_cost_is_its_request_s_without_what_the_same_turn_costs_without_a_session() -> None:
    # The machine was ten times as slow in the second turn.
    outcome = _outcome(base=[100, 1000, 100], ours=[150, 1500, 150], pymemcache=[300, 3000, 300])
    rows = {row.contender: row for row in outcome.rows(CASE)}
    assert rows[OURS].own_cpu_s == rows[OURS].own_time_s == pytest.approx(50e-6)
    comparisons = {comparison.what: comparison for comparison in outcome.comparisons(CASE)}
    assert comparisons[COST_OF_DJANGO].ratio == pytest.approx((0.25, 0.25, 0.25))
    assert comparisons[THROUGHPUT].ratio.median == pytest.approx(2.0)


def test_its_own_time_counts_what_the_worker_waits_for_and_its_cpu_time_does_not() -> None:
    outcome = Outcome()
    for name, throughput, cpu_s in (
        (BASE, 10_000, 90e-6),
        (OURS, 5_000, 140e-6),
        (DJANGO_ON_PYMEMCACHE, 2_000, 190e-6),
    ):
        outcome.add(CASE, name, Sample(throughput, 1e-3, cpu_s))
    ratios = {comparison.what: comparison.ratio.median for comparison in outcome.comparisons(CASE)}
    assert ratios[TIME_OF_DJANGO] == ratios[TIME_OF_FASTEST] == pytest.approx(0.25)
    assert ratios[COST_OF_DJANGO] == ratios[COST_OF_FASTEST] == pytest.approx(0.5)


def test_the_rival_that_counts_is_the_hardest_one() -> None:
    outcome = _outcome(base=[100], ours=[200], pymemcache=[500], pylibmc=[240])
    comparisons = {comparison.what: comparison for comparison in outcome.comparisons(CASE)}
    assert {what: comparison.rival for what, comparison in comparisons.items()} == {
        THROUGHPUT: DJANGO_ON_PYLIBMC,
        TIME_OF_FASTEST: DJANGO_ON_PYLIBMC,
        COST_OF_FASTEST: DJANGO_ON_PYLIBMC,
        TIME_OF_DJANGO: DJANGO_ON_PYMEMCACHE,
        COST_OF_DJANGO: DJANGO_ON_PYMEMCACHE,
    }
    assert {what: comparison.is_held for what, comparison in comparisons.items()} == {
        THROUGHPUT: True,
        TIME_OF_FASTEST: False,
        COST_OF_FASTEST: False,
        TIME_OF_DJANGO: True,
        COST_OF_DJANGO: True,
    }


@pytest.mark.parametrize(
    ("what", "ratio", "is_held"),
    [
        (THROUGHPUT, 1.0, True),
        (THROUGHPUT, 0.99, False),
        (TIME_OF_FASTEST, 0.66, True),
        (TIME_OF_FASTEST, 0.67, False),
        (COST_OF_FASTEST, 0.66, True),
        (COST_OF_FASTEST, 0.67, False),
        (COST_OF_DJANGO, 0.33, True),
        (COST_OF_DJANGO, 0.34, False),
    ],
)
def test_a_target_is_held_or_missed(what: str, ratio: float, is_held: bool) -> None:
    assert Comparison(OURS, what, DJANGO_ON_PYLIBMC, Spread(ratio, ratio, ratio)).is_held == is_held


def test_a_rival_without_a_cost_of_its_own_speaks_against_us() -> None:
    outcome = _outcome(base=[100], ours=[101], pymemcache=[100])
    assert not any(comparison.is_held for comparison in outcome.comparisons(CASE) if comparison.what == COST_OF_DJANGO)


def test_the_floor_is_no_rival_and_stands_beside_a_target_that_was_missed() -> None:
    outcome = _outcome(base=[100], ours=[200], pymemcache=[500], pylibmc=[240], floor=[170])
    costs = {comparison.what: comparison for comparison in outcome.comparisons(CASE)}
    assert costs[COST_OF_FASTEST].rival == DJANGO_ON_PYLIBMC
    assert costs[COST_OF_FASTEST].floor == pytest.approx(0.5)
    assert costs[THROUGHPUT].floor is None
    page = markdown(outcome, 1, 1)
    assert "0.71x (0.71 to 0.71): missed, the floor: 0.50x | 0.25x (0.25 to 0.25): held |" in page
    assert "missed by the floor too" not in page


def test_a_target_that_the_floor_misses_too_is_counted_as_such() -> None:
    outcome = _outcome(base=[100], ours=[200], pymemcache=[500], pylibmc=[240], floor=[195])
    assert "0 of 1 for own CPU time, beside the cheapest rival, at most 0.67x (missed by the floor too: 1)" in markdown(
        outcome, 1, 1
    )


def test_over_several_cases_the_mean_of_their_ratios_stands_beside_how_many_are_held() -> None:
    outcome = _outcome(base=[100], ours=[200], pymemcache=[500])
    for contender, us in [(BASE, 100), (OURS, 200), (DJANGO_ON_PYMEMCACHE, 200)]:
        outcome.add(Case(DJANGO, "20 KB", READ), contender, Sample(1e6 / us, us / 1e5, us / 1e6))
    told = next(iter(summary(outcome)))
    assert "1 of 2 for own CPU time, beside the cheapest rival, at most 0.67x, 0.50x over all of them" in told


def test_the_page_has_each_figure_and_what_was_missed_and_who_was_left_out() -> None:
    outcome = _outcome(base=[100], ours=[200], pymemcache=[500], pylibmc=[240])
    outcome.add_traffic(CASE, OURS, Traffic(1.0, 0.0, 1016.0))
    outcome.left_out["somebody's sessions"] = "somebody cannot be imported"
    page = markdown(outcome, 1, 1)
    assert "| msm_fast | 5,000 (5,000 to 5,000) | 2.0 ms | 200 µs | 100 µs | 100 µs | 1.0 | 0.0 | 1,016 |" in page
    assert "| no session | 10,000 (10,000 to 10,000) | 1.0 ms | 100 µs |  |  |  |  |  |" in page
    missed = "0.71x (0.71 to 0.71): missed"
    assert f"| msm_fast | 1 KB, read only | 1.20x (1.20 to 1.20): held | {missed} | {missed} | 0.25x" in page
    assert "- Left out: somebody's sessions: somebody cannot be imported.\n" in page
    assert not any(line.startswith(OURS_STICKY) for line in summary(outcome))


def test_the_committed_page_has_every_case_and_the_readme_names_it() -> None:
    page, readme = ((ROOT / path).read_text() for path in ("bench/whole_requests.md", "README.md"))
    for framework in ("Django", "Flask", "Starlette"):
        for size in SIZES:
            assert all(f"### {framework}, {size}, {kind}\n" in page for kind in (READ, WRITE))
    assert "Left out: " not in page
    assert "](bench/whole_requests.md)" in readme
