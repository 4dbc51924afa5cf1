"""docs/msm.md says of each behaviour of the Java system what became of it, and the tests bear it out."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAST = 189
ROW = re.compile(r"^\| (\d{3})(?:-(\d{3}))? \| (.+?) \| (.+) \|$", re.MULTILINE)
STATES = ("kept", "improved", "does not apply")
TEST = re.compile(r"^def (test_msm_\w+)", re.MULTILINE)
NUMBERS = re.compile(r"test_msm_(\d{3}(?:_(?:to_)?\d{3})*)_[a-z]")


def _rows() -> list[tuple[list[int], str]]:
    """Return each row's numbers and what it says of them."""
    text = (ROOT / "docs" / "msm.md").read_text()
    return [(list(range(int(first), int(last or first) + 1)), here) for first, last, _, here in ROW.findall(text)]


def _numbers_in(name: str) -> set[int]:
    """Return the numbers in a test's name: 012_014 names two, 012_to_014 three."""
    match = NUMBERS.match(name)
    assert match, f"{name} names no number, or nothing that it tests"
    numbers: set[int] = set()
    for part in re.findall(r"\d{3}(?:_to_\d{3})?", match[1]):
        first, _, last = part.partition("_to_")
        assert int(first) < int(last or 1000), name
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def _tested() -> set[int]:
    files = list((ROOT / "tests" / "conformance").glob("test_*.py"))
    assert files
    return set().union(*(_numbers_in(name) for path in files for name in TEST.findall(path.read_text())))


def test_every_number_stands_in_the_table_once() -> None:
    assert [number for numbers, _ in _rows() for number in numbers] == list(range(1, LAST + 1))


def test_every_row_says_what_became_of_it() -> None:
    for numbers, here in _rows():
        assert here.startswith(STATES), f"{numbers}: {here}"
        assert here.startswith("kept") or ": " in here, f"{numbers}: say how, or why not"


def test_what_is_kept_or_improved_is_tested_and_nothing_else() -> None:
    promised = {number for numbers, here in _rows() if not here.startswith("does not apply") for number in numbers}
    assert sorted(promised - _tested()) == [], "said to be kept or improved, and no test has the number"
    assert sorted(_tested() - promised) == [], "tested, and the table says that it is not there"
