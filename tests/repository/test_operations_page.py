"""docs/operations.md names every event, at the level at which it is logged, and no count that there is not."""

from __future__ import annotations

import logging
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

from msm_fast import Statistics
from msm_fast.engine.events import _LEVELS, EventKind

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def test_each_kind_of_event_has_its_line_and_its_level() -> None:
    lines = re.findall(r"^\| `(\w+)` \| ([A-Z]+) \|", PAGE, re.MULTILINE)
    assert [kind for kind, _ in lines] == list(get_args(EventKind))
    assert dict(lines) == {kind: logging.getLevelName(level) for kind, level in _LEVELS.items()}


def test_the_counts_that_it_names_exist() -> None:
    (paragraph,) = re.findall(r"Worth a graph, as rates: (.*?)\. `manager", PAGE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", paragraph)) - {"nodes"} <= {field.name for field in fields(Statistics)}
