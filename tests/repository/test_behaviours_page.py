"""docs/behaviours.md says what tests show, of each framework and behaviour."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.behaviours import BEHAVIOURS, FRAMEWORKS, shown_by
from tests.behaviours.page import Recorder

PAGE = Path(__file__).parents[2] / "docs" / "behaviours.md"


def tables() -> list[dict[str, list[str]]]:
    """Return the cells of each of the page's tables, by their row's first."""
    blocks = re.findall(r"(?:^\|.*\n)+", PAGE.read_text(), re.MULTILINE)
    rows = [[re.split(r" *\| *", line.strip("| \n")) for line in block.splitlines()[2:]] for block in blocks]
    return [{cells[0]: cells[1:] for cells in table} for table in rows]


def test_each_behaviour_is_shown_by_a_test_of_each_framework() -> None:
    for key, by_framework in shown_by().items():
        assert all(by_framework.values()), key


def test_the_page_has_what_each_has_shown() -> None:
    outcomes, _ = tables()
    assert list(outcomes) == [behaviour.sentence for behaviour in BEHAVIOURS.values()]
    for behaviour in BEHAVIOURS.values():
        form = re.escape(behaviour.outcome).replace(r"\{\}", r"(1, 2, 0|\d+ ms|\d+\.\d s)")
        cells = outcomes[behaviour.sentence]
        assert len(cells) == len(FRAMEWORKS)
        assert all(re.fullmatch(form, cell) for cell in cells), cells


def test_and_by_which_tests() -> None:
    _, tests = tables()
    for key, by_framework in shown_by().items():
        cells = tests[BEHAVIOURS[key].sentence]
        assert [re.findall("`(.+?)`", cell) for cell in cells] == list(by_framework.values())


def recorded(*reports: tuple[str, str, dict[str, object]]) -> Recorder:
    """Return what is noted of tests: their ends, outcomes and measurements."""
    recorder = Recorder()
    for end, outcome, measured in reports:
        nodeid = f"tests/integration/test_flask.py::{end}"
        recorder.pytest_runtest_logreport(
            pytest.TestReport(
                nodeid,
                (nodeid, 1, end),
                {},
                outcome,  # type: ignore[arg-type]
                None,
                "call",
                user_properties=measured.items(),
            )
        )
    return recorder


TEST = "test_flask.py::test_a"


def test_a_behaviour_is_there_if_each_of_its_tests_passes_and_the_largest_value_is_told() -> None:
    recorder = recorded(("test_a[down/1]", "passed", {"back": 0.25}), ("test_a[down/2]", "passed", {"back": 1.5}))
    assert recorder.says("nested", [TEST]) == "yes"
    assert recorder.says("back", [TEST]) == "after 1.5 s"


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_it_is_not_there_if_one_of_them_does_not_pass_whatever_its_parameters(outcome: str) -> None:
    recorder = recorded(("test_a[/in]", "passed", {}), ("test_a[/out]", outcome, {}))
    assert recorder.says("nested", [TEST]) == "**NO**"


def test_nor_if_one_was_not_run() -> None:
    assert recorded(("test_b", "passed", {})).says("nested", [TEST, "test_flask.py::test_b"]) == "**NO**"
