"""docs/behaviours.md says what tests show, of each framework and behaviour."""

from __future__ import annotations

import re
from pathlib import Path

from tests.behaviours import BEHAVIOURS, FRAMEWORKS, shown_by

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
