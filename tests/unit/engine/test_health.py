import random
from typing import Any

import pytest

from msm_fast import Breaker, Reconnect
from msm_fast.engine.effects import FailureKind
from msm_fast.engine.health import ClusterHealth

Change = tuple[str, bool, str]


@pytest.fixture
def changes() -> list[Change]:
    return []


@pytest.fixture
def health(changes: list[Change]) -> ClusterHealth:
    return ClusterHealth(
        ["n1", "n2"],
        Breaker(timeouts=3),
        Reconnect(first=1, factor=2, cap=5),
        random.Random(1),
        on_change=_recorder(changes),
        on_restart=lambda node: changes.append((node, True, "restarted")),
    )


def _recorder(changes: list[Change]) -> Any:
    return lambda node, is_up, detail: changes.append((node, is_up, detail))


@pytest.mark.parametrize("kind", ["refused", "reset", "unsupported"])
def test_one_refused_or_lost_connection_opens_the_breaker(
    health: ClusterHealth, changes: list[Change], kind: Any
) -> None:
    health.failed("n1", kind, "no", 0)
    assert not health.is_up("n1")
    assert health.is_up("n2")
    assert changes == [("n1", False, "no")]


@pytest.mark.parametrize("kind", ["timeout", "protocol"])
def test_three_timeouts_in_a_row_open_it(health: ClusterHealth, kind: Any) -> None:
    for _ in range(2):
        health.failed("n1", kind, "late", 0)
    assert health.is_up("n1")
    assert not health.is_steady("n1")
    health.failed("n1", kind, "late", 0)
    assert not health.is_up("n1")


def test_an_answer_between_timeouts_starts_the_count_anew(health: ClusterHealth) -> None:
    for _ in range(5):
        health.failed("n1", "timeout", "late", 0)
        health.failed("n1", "timeout", "late", 0)
        health.succeeded("n1", 1, 0)
    assert health.is_up("n1")


def test_an_answer_from_before_a_node_went_down_does_not_bring_it_back(health: ClusterHealth) -> None:
    health.failed("n1", "refused", "no", 0)
    health.succeeded("n1", 1, 0)
    assert not health.is_up("n1")
    health.returned("n1", 1, 0)
    assert health.is_up("n1")


def test_a_node_that_lost_its_memory_is_told_once(health: ClusterHealth, changes: list[Change]) -> None:
    for life in (1, 1, 2, 2, 1):
        health.succeeded("n1", life, 0)
    assert changes == [("n1", True, "restarted")]
    assert not health.has_returned_within("n1", None, 0)


def test_what_a_node_can_do_belongs_to_its_life(health: ClusterHealth) -> None:
    health.succeeded("n1", 1, 0, compares=True)
    assert health.of("n1").compares
    health.succeeded("n1", 2, 0, compares=False)
    health.succeeded("n1", 1, 0, compares=True)  # a late answer
    assert not health.of("n1").compares


@pytest.mark.parametrize("kind", ["deadline", "exhausted"])
def test_what_a_request_or_this_process_lacks_says_nothing_about_a_node(
    health: ClusterHealth, kind: FailureKind
) -> None:
    for _ in range(10):
        health.failed("n1", kind, "nothing left", 0)
    assert health.is_up("n1")
    assert health.is_steady("n1")


def test_what_was_meant_for_a_node_that_is_gone_says_nothing_about_a_later_one_of_its_name(
    health: ClusterHealth,
) -> None:
    health.failed("n1", "gone", "not configured any more", 0)
    assert health.is_up("n1")
    assert health.is_steady("n1")


@pytest.mark.parametrize("kind", ["deadline", "exhausted", "gone"])
def test_a_node_that_must_be_told_something_first_is_taken_out_of_use_whatever_kept_it_from_being_told(
    health: ClusterHealth, kind: FailureKind
) -> None:
    health.failed("n1", kind, "missed a logout", 0, opens_at_once=True)
    assert not health.is_up("n1")


def test_what_this_process_lacks_is_shown_where_one_looks_for_the_cause(health: ClusterHealth) -> None:
    health.failed("n1", "exhausted", "no file descriptors left", 0)
    assert health.of("n1").last_failure == "no file descriptors left"


def test_a_node_that_is_down_is_told_once(health: ClusterHealth, changes: list[Change]) -> None:
    for _ in range(10):
        health.failed("n1", "refused", "no", 0)
    assert len(changes) == 1


def test_a_probe_that_is_answered_closes_it_and_the_node_has_returned(
    health: ClusterHealth, changes: list[Change]
) -> None:
    health.failed("n1", "refused", "no", 0)
    assert not health.has_returned_within("n1", 1800, 0)
    health.returned("n1", 1, 10)
    assert health.is_up("n1")
    assert changes[-1] == ("n1", True, "answers again after: no")
    assert health.has_returned_within("n1", 1800, 1809)
    assert not health.has_returned_within("n1", 1800, 1811)
    assert health.has_returned_within("n1", None, 10**9)
    assert not health.has_returned_within("n2", None, 10)


def test_probes_are_spread_and_become_rarer_up_to_the_cap(health: ClusterHealth) -> None:
    assert health.next_probe_at() is None
    health.failed("n1", "refused", "no", 0)
    waits = []
    now = 0.0
    for _ in range(8):
        due = health.next_probe_at()
        assert due is not None
        waits.append(due - now)
        now = due
        assert health.due_probes(now) == ["n1"]
        assert health.due_probes(now) == [], "one probe at a time"
    for wait, planned in zip(waits, [1, 2, 4, 5, 5, 5, 5, 5], strict=True):
        assert planned * 0.5 <= wait <= planned * 1.5
    assert len(set(waits)) == len(waits)


def test_other_nodes_leave_those_that_stay_as_they_are_and_take_one_at_another_address_for_up(
    health: ClusterHealth,
) -> None:
    for node in ("n1", "n2"):
        health.failed(node, "refused", "no", 0)
    health.change_nodes(["n1", "n2", "n3"], {"n2"}, lambda node: False, 1)
    assert health.down() == ["n1"]
