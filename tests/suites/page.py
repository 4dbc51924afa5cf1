"""docs/conformance.md: a section per framework, each written by the run of its suite."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_HEAD = """\
# The suites of the frameworks

Django and Flask come with suites that judge any session backend. `make conformance` runs them with sessions of
msm_fast in two real memcached nodes, each test as it stands in the source package on PyPI, and writes this page. A test
that fails and is not excluded here, or is excluded and passes, makes it fail.
"""


@dataclass(frozen=True)
class Section:
    """What became of one framework's suite. summary: one line for the terminal."""

    title: str
    text: str
    summary: str
    is_passed: bool

    def write(self, page: Path) -> None:
        """Put the section on the page, in the place of the one with its title; sections stand in alphabetical order."""
        old = page.read_text() if page.exists() else ""
        sections = dict(re.findall(r"^## (.*?)\n\n(.*?)(?=^## |\Z)", old, re.MULTILINE | re.DOTALL))
        sections[self.title] = self.text
        parts = [f"## {title}\n\n{text.strip()}\n" for title, text in sorted(sections.items())]
        page.write_text("\n".join([_HEAD, *parts]))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
