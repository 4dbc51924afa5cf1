"""Run the tests that show what users may expect, and write what they say: `make behaviours`.

The exit status is 1 if one of them fails.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.behaviours import FOLDER, FRAMEWORKS
from tests.behaviours.page import Recorder, markdown

PAGE = Path(__file__).parents[2] / "docs" / "behaviours.md"


def main() -> int:
    recorder = Recorder()
    modules = [str(FOLDER / module) for modules in FRAMEWORKS.values() for module in modules]
    status = pytest.main(["-q", *modules], plugins=[recorder])
    if status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        PAGE.write_text(markdown(recorder))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
