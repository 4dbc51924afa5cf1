"""The soak, shortened; and that its checks can fail."""

import random
from typing import Any

import pytest

from tests.soak.__main__ import run
from tests.soak.browsers import Browser
from tests.soak.messages import Answer, Request
from tests.soak.report import Report, Sample


@pytest.mark.memcached
@pytest.mark.slow
@pytest.mark.parametrize("is_sticky", [False, True])
def test_nothing_acknowledged_is_lost_while_something_breaks_every_few_seconds(is_sticky: bool) -> None:
    report = run(duration_s=20, seed=5, is_sticky=is_sticky)
    print(report.table(), report.timeline(), sep="\n\n")
    assert not report.violations
    assert report.n_late == 0
    assert len(report.faults) >= 2
    assert len(report.samples) > 1000
    assert max(report.back_to_normal_s) < 1.5 + 1.0  # the longest wait for a probe, and a second
    assert report.highest("fds") < 100
    assert report.highest("threads") < 30


@pytest.fixture
def browser() -> Browser:
    """One whose session has a=5, acknowledged."""
    browser = Browser(7, random.Random(1))
    write = Request(None, "POST", {"a": 5, "owner": 7})
    browser.take([write], [Answer("id-n1", {}, "stored", n_copies=2, is_new=True)])
    assert browser.acknowledged == {"a": 5}
    return browser


GET = Request("id-n1")
LOGOUT = Request("id-n1", "POST", action="logout")


@pytest.mark.parametrize(
    ("found", "violation"),
    [
        ({"a": 4, "owner": 7}, "a=5 was acknowledged, 4 was found"),
        ({}, "a=5 was acknowledged, -1 was found"),
        ({"a": 5, "owner": 8}, "was given the session of browser 8"),
    ],
)
def test_a_browser_notices_what_was_lost_or_mixed_up(browser: Browser, found: dict[str, Any], violation: str) -> None:
    browser.take([GET], [Answer("id-n1", found, "unchanged")])
    assert len(browser.violations) == 1
    assert violation in browser.violations[0]


def test_a_browser_is_content_with_what_was_acknowledged_or_is_newer(browser: Browser) -> None:
    for value in (5, 6):
        browser.take([GET], [Answer("id-n1", {"a": value, "owner": 7}, "unchanged")])
    browser.take([GET, GET], [None, Answer(error="LockTimeout")])
    browser.take([GET], [Answer("id-n1", {}, "local", is_local=True)])
    assert not browser.violations


def test_a_browser_does_not_count_on_what_was_stored_without_a_backup(browser: Browser) -> None:
    write = Request("id-n1", "POST", {"a": 6, "owner": 7})
    browser.take([write], [Answer("id-n1", {"a": 5, "owner": 7}, "stored", n_copies=1)])
    browser.take([GET], [Answer("id-n1", {"a": 5, "owner": 7}, "unchanged")])
    assert not browser.violations
    browser.take([write], [Answer("id-n1", {"a": 5, "owner": 7}, "stored", n_copies=2)])
    browser.take([GET], [Answer("id-n1", {"a": 5, "owner": 7}, "unchanged")])
    assert len(browser.violations) == 1


def test_a_browser_notices_a_session_that_comes_back_after_its_end(browser: Browser) -> None:
    browser.take([LOGOUT], [Answer("new", {"a": 5, "owner": 7}, "invalidated")])
    assert browser.cookie is None
    browser.take([GET], [Answer("id-n1", {}, "unchanged")])
    assert not browser.violations
    browser.take([GET], [Answer("id-n1", {"a": 5, "owner": 7}, "unchanged", is_local=True)])
    assert browser.near_after_logout == 1
    browser.take([GET], [Answer("id-n1", {"a": 5, "owner": 7}, "unchanged")])
    assert len(browser.violations) == 1


def test_a_browser_notices_a_session_that_ended_without_its_doing(browser: Browser) -> None:
    write = Request("id-n1", "POST", {"a": 6, "owner": 7})
    browser.take([write], [Answer("id-n1", {"a": 5, "owner": 7}, "invalidated")])
    assert len(browser.violations) == 1


def test_the_timeline_marks_each_kind_of_fault_at_its_time() -> None:
    report = Report(100, 0.25, faults=[(10, 20, "n1 killed"), (50, 51, "n2 killed"), (70, 99, "all hang")])
    report.samples = [Sample(at, 0.001 * at, is_local=False) for at in range(100)]
    rate, p99, hang, killed, scale = report.timeline().splitlines()
    assert killed.index("x") - killed.index("|") == 11
    assert killed.count("x") == 13
    assert hang.count("x") == 30
    assert p99.endswith("0 to 99 ms")
    assert rate.endswith("0 to 1")
    assert scale.endswith("100 s")
    assert "2 node killed" in report.table()
