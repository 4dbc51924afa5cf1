"""docs/faults.md says of each fault what it costs, and cites the tests that show it; no test is left out."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAST = 52
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
CITATION = re.compile(r"`([\w/]+\.py)::(test_row_(\d\d)\w*)`")
NUMBER = re.compile(r"test_row_(\d\d)_[a-z]")


def _rows() -> list[tuple[int, str, str]]:
    """Return each row's number, and the tests that it cites in the cluster and for sticky sessions."""
    text = (ROOT / "docs" / "faults.md").read_text()
    return [(int(number), cluster, sticky) for number, _, _, _, cluster, sticky in ROW.findall(text)]


def _tests() -> dict[tuple[str, str], str]:
    """Return the source of each test of a row, its parameters included, by file and name."""
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text()
        if "def test_row_" not in text:
            continue
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_row_"):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                source = "\n".join(lines[first - 1 : node.end_lineno])
                found[path.relative_to(ROOT / "tests").as_posix(), node.name] = source
    return found


def _cited(cell: str, tests: dict[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Return the tests that a cell cites."""
    cited = []
    for file, start, _ in CITATION.findall(cell):
        meant = [test for test in tests if test[0] == file and f"{test[1]}_".startswith(start)]
        assert meant, f"{file} has no test that begins with {start}"
        cited += meant
    return cited


def test_every_row_of_the_fault_matrix_stands_in_the_table_once() -> None:
    assert sorted(number for number, _, _ in _rows()) == list(range(1, LAST + 1))


def test_every_row_cites_tests_for_both_modes_or_says_why_it_has_none() -> None:
    tests = _tests()
    for number, *cells in _rows():
        assert any(CITATION.search(cell) for cell in cells), f"row {number} has no test"
        for cell in cells:
            assert _cited(cell, tests) or re.fullmatch(r"— [^`]+", cell), f"row {number}: {cell}"
            assert all(int(of) == number for _, _, of in CITATION.findall(cell)), f"row {number}: {cell}"


def test_what_is_cited_for_sticky_sessions_has_sticky_sessions() -> None:
    tests = _tests()
    for number, _, sticky in _rows():
        for file, name in _cited(sticky, tests):
            assert re.search(r"sticky|\bmode\b", file + tests[file, name]), f"row {number}: {name}"


def test_every_test_of_a_row_is_cited_by_it() -> None:
    tests = _tests()
    cited = {test for _, *cells in _rows() for cell in cells for test in _cited(cell, tests)}
    assert sorted(set(tests) - cited) == []
    for _, name in tests:
        assert NUMBER.match(name), f"{name} names no row, or nothing that it tests"
