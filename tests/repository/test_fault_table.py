"""docs/faults.md names for each row of the fault matrix the files that try it, and no others do."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAST = 52
ROW = re.compile(r"^\| (\d{2}) \| .+? \| .+? \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"^def test_row_((?:\d+_)+)", re.MULTILINE)


def _named() -> dict[int, set[str]]:
    """Return the files that the page names for each row."""
    rows = ROW.findall((ROOT / "docs" / "faults.md").read_text())
    return {int(row): set(re.findall(r"`(.+?)`", files)) for row, files in rows}


def _tried() -> dict[int, set[str]]:
    """Return the files that have tests of each row."""
    tried: dict[int, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for numbers in TEST.findall(path.read_text()):
            for number in numbers.rstrip("_").split("_"):
                tried.setdefault(int(number), set()).add(str(path.relative_to(ROOT / "tests")))
    return tried


def test_the_page_has_every_row_in_order() -> None:
    assert list(_named()) == list(range(1, LAST + 1))


def test_each_row_names_the_files_that_try_it() -> None:
    assert _named() == dict(sorted(_tried().items()))
