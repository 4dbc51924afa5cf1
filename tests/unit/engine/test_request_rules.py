"""What a request may do to its session, by its method and path."""

import pytest

from msm_fast import Settings
from msm_fast.engine.request_rules import ReadOnlyRequests, RequestRules
from tests.simulation.clock import VirtualClock


def rules_of(clock: VirtualClock | None = None, **settings: str) -> RequestRules:
    return RequestRules(Settings(**settings), (clock or VirtualClock()).monotonic)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("locking", "is_locked"), [("merge", False), ("none", False), ("all", True), ("auto", True), ("uri:/cart", False)]
)
def test_the_mode_says_whether_a_request_locks_its_session(locking: str, is_locked: bool) -> None:
    assert rules_of(locking=locking).needs_lock("GET", "/page") is is_locked


@pytest.mark.parametrize(
    ("pattern", "request_line", "is_locked"),
    [
        ("/cart.*", "GET /cart", True),
        ("/cart.*", "POST /cart/items", True),
        ("/cart.*", "GET /shop/cart", False),
        ("/cart", "GET /cart/items", False),
        ("POST /cart", "POST /cart", True),
        ("POST /cart", "GET /cart", False),
        (".* /path1.*", "GET /path1/x", True),
        (".* /path1.*", "GET /path2", False),
        ("/path1|/path2", "GET /path2", True),
    ],
)
def test_a_pattern_matches_the_whole_path_or_method_and_path(pattern: str, request_line: str, is_locked: bool) -> None:
    method, path = request_line.split()
    assert rules_of(locking=f"uri:{pattern}").needs_lock(method, path) is is_locked


def test_a_client_cannot_leave_a_pattern_by_a_line_feed_in_the_path() -> None:
    """Frameworks take any character but a slash for a part of a path: int("10\\n") is 10."""
    assert rules_of(locking="uri:/pay/.*").needs_lock("POST", "/pay/10\n")
    assert rules_of(locking="uri:(?!(GET )?/socket).*").needs_lock("POST", "/\n")


def test_a_pattern_of_the_java_system_means_what_it_meant() -> None:
    settings = Settings.from_msm(
        {"sticky": "false", "sessionBackupAsync": "false", "lockingMode": "uriPattern:.* /a.*"}
    )
    rules = RequestRules(settings, VirtualClock().monotonic)
    assert rules.needs_lock("GET", "/a/b")
    assert not rules.needs_lock("GET", "/b/a")


@pytest.mark.parametrize(
    ("path", "is_ignored"), [("/logo.png", True), ("/a/style.css", True), ("/", False), ("/a.png/edit", False)]
)
def test_requests_whose_whole_path_matches_are_ignored(path: str, is_ignored: bool) -> None:
    assert rules_of(ignore_requests=r".*\.(png|css)").is_ignored(path) is is_ignored
    assert not rules_of().is_ignored(path)


def test_auto_does_not_lock_a_request_that_was_seen_to_change_nothing() -> None:
    rules = rules_of(locking="auto")
    rules.learn("GET", "/page", has_changed=False)
    assert not rules.needs_lock("GET", "/page")
    assert rules.needs_lock("POST", "/page")
    assert rules.needs_lock("GET", "/page/2")


def test_a_request_that_once_changed_its_session_is_not_taken_for_read_only() -> None:
    rules = rules_of(locking="auto")
    rules.learn("GET", "/page", has_changed=False)
    rules.learn("GET", "/page", has_changed=True)
    assert rules.needs_lock("GET", "/page")
    rules.learn("GET", "/page", has_changed=False)
    assert rules.needs_lock("GET", "/page")


def test_what_was_learned_is_forgotten_after_six_hours() -> None:
    clock = VirtualClock()
    rules = rules_of(clock, locking="auto")
    rules.learn("GET", "/read", has_changed=False)
    rules.learn("GET", "/write", has_changed=True)
    clock.advance(6 * 3600 - 1)
    rules.learn("GET", "/read", has_changed=False)
    rules.learn("GET", "/write", has_changed=False)
    assert not rules.needs_lock("GET", "/read")
    assert rules.needs_lock("GET", "/write")
    clock.advance(2)
    assert rules.needs_lock("GET", "/read")
    rules.learn("GET", "/write", has_changed=False)
    assert not rules.needs_lock("GET", "/write")


def test_as_many_read_only_requests_are_remembered_as_said_those_in_use_longest() -> None:
    requests = ReadOnlyRequests(VirtualClock().monotonic)
    for n in range(1000):
        requests.learn(f"GET /{n}", has_changed=False)
    assert "GET /0" in requests
    requests.learn("GET /1000", has_changed=False)
    assert "GET /0" in requests
    assert "GET /1" not in requests
    assert "GET /1000" in requests
