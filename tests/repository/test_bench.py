"""The benchmarks run, judge what they measured, and are what the committed report is about."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.report import markdown, summary
from bench.results import Results
from bench.rivals import rival
from bench.targets import NEAR_CACHE_HIT, OURS, STICKY, TARGETS

ROOT = Path(__file__).parents[2]


def _measured(group: str, contender: str, *medians_s: float) -> list[SimpleNamespace]:
    """Return what pytest-benchmark tells of turns that took so long for 10 operations."""
    return [
        SimpleNamespace(
            group=group,
            extra_info={"contender": contender, "turn": turn, "n_operations": 10},
            stats=SimpleNamespace(median=median_s, rounds=5),
        )
        for turn, median_s in enumerate(medians_s, 1)
    ]


@pytest.mark.memcached
def test_every_benchmark_runs_and_its_contenders_give_the_right_answers() -> None:
    command = [sys.executable, "-m", "pytest", "bench", "-o", "python_files=bench_*.py", "--benchmark-disable", "-q"]
    run = subprocess.run([*command, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_ratio_is_the_median_over_turns_of_which_each_compares_what_was_timed_in_it() -> None:
    # The machine was ten times as slow in the second turn.
    ours = _measured(NEAR_CACHE_HIT, OURS, 1.0, 10.0, 1.0)
    rows = Results.of(ours + _measured(NEAR_CACHE_HIT, "lru-dict", 2.0, 30.0, 4.0), {}).rows(NEAR_CACHE_HIT)
    assert [row.contender for row in rows] == [OURS, "lru-dict"]
    assert rows[1].ratio == (3.0, 2.0, 4.0)
    assert rows[0].seconds.median == 0.1


@pytest.mark.parametrize(
    ("group", "contender", "ours_s", "other_s", "verdict"),
    [
        (NEAR_CACHE_HIT, "lru-dict", 1.0, 1.1, "held"),
        (NEAR_CACHE_HIT, "lru-dict", 1.1, 1.0, "missed"),
        (NEAR_CACHE_HIT, "floor: dict", 1.2, 1.0, "held"),
        (NEAR_CACHE_HIT, "floor: dict", 1.4, 1.0, "missed"),
        (STICKY, OURS, 49e-6, 0, "held"),
        (STICKY, OURS, 51e-6, 0, "missed"),
    ],
)
def test_a_target_is_held_or_missed(group: str, contender: str, ours_s: float, other_s: float, verdict: str) -> None:
    measured = _measured(group, OURS, ours_s)
    if contender != OURS:
        measured += _measured(group, contender, other_s)
    results = Results.of(measured, {})
    assert [row.verdict for row in results.rows(group) if row.contender == contender] == [verdict]
    assert next(summary(results)) == f"{int(verdict == 'held')} of 1 targets held."
    assert ("Missed: " in "".join(summary(results))) == (verdict == "missed")


def test_the_report_names_who_was_left_out_and_what_is_therefore_not_known() -> None:
    results = Results.of(_measured(NEAR_CACHE_HIT, OURS, 1.0), {"lru-dict": "lru cannot be imported"})
    assert "Left out: lru-dict: lru cannot be imported." in list(summary(results))
    assert f"- Not measured: {NEAR_CACHE_HIT}; lru-dict: target at least 1x.\n" in markdown(results)


def test_a_rival_that_is_not_installed_is_left_out_with_a_word() -> None:
    with pytest.raises(pytest.skip.Exception, match="no_such_rival cannot be imported"):
        rival("no_such_rival")


def test_the_committed_report_judges_every_target_and_the_readme_shows_it() -> None:
    report, readme = ((ROOT / path).read_text() for path in ("bench/report.md", "README.md"))
    assert len(re.findall(r"\| (?:held|missed) \|$", report, re.MULTILINE)) == len(TARGETS)
    assert "Not measured: " not in report
    assert "](bench/report.md)" in readme
    assert "](bench/chart.svg)" in readme
    assert (ROOT / "bench" / "chart.svg").is_file()
