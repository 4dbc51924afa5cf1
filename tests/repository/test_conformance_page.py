"""docs/conformance.md is what `make conformance` wrote of the suites as they are run now."""

import importlib
from pathlib import Path

import pytest

from tests.suites import FRAMEWORKS, django
from tests.suites.page import Section

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_exclusion_stands_on_the_page_with_its_reason(framework: str) -> None:
    excluded: dict[str, str] = importlib.import_module(f"tests.suites.{framework}").EXCLUDED
    page = PAGE.read_text()
    assert f"## {framework.capitalize()}\n" in page
    for name, reason in excluded.items():
        assert f"| `{name}` | {reason} |" in page


def test_no_test_fails_on_the_page() -> None:
    assert "These fail" not in PAGE.read_text()


def test_an_exclusion_is_told_that_has_not_failed_but_not_one_of_a_test_that_this_django_does_not_have(
    tmp_path: Path,
) -> None:
    (tmp_path / "sessions_tests").mkdir()
    (tmp_path / "sessions_tests" / "tests.py").write_text("    def test_empty_session_saved(self):\n")
    name = "SessionMiddlewareTests.test_empty_session_saved"
    assert django.stale_exclusions(tmp_path, set()) == [name]
    assert django.stale_exclusions(tmp_path, {name}) == []


def test_the_section_of_one_framework_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for title, text in (
        ("Flask", "old"),
        ("Django", "d0"),
        ("Flask", "new\n\n| a | b |"),
        *[("Django", "d1\n\nd2")] * 3,
    ):
        Section(title, text, summary="", is_passed=True).write(page)
    assert page.read_text().partition("## ")[2] == "Django\n\nd1\n\nd2\n\n## Flask\n\nnew\n\n| a | b |\n"
