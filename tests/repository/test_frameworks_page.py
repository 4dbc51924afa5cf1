"""docs/frameworks.md cites, for each framework and behaviour, tests that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CITATION = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def test_each_behaviour_has_a_test_in_each_framework() -> None:
    table = (ROOT / "docs" / "frameworks.md").read_text().partition("| behaviour |")[2]
    rows = [line.strip("|").split("|") for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(rows) >= 10
    for behaviour, *cells in rows:
        for cell in cells:
            cited = CITATION.findall(cell)
            assert cited, behaviour
            for file, name in cited:
                source = (ROOT / "tests" / "integration" / file).read_text()
                assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{file} has no {name}"
