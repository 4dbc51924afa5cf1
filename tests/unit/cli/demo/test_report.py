import io
import math

import pytest
from rich.console import Console

from msm_fast.cli.demo.report import Phase, Report, percentile


def phase(name, *, intact=range(3), lost=(), failures=(), in_worker_s=(0.001, 0.002)):
    return Phase(
        name,
        latencies_s=[2 * value for value in in_worker_s],
        in_worker_s=list(in_worker_s),
        failures=list(failures),
        intact=set(intact),
        lost=dict(lost),
        requests_counted=4,
        round_trips=6,
    )


def printed(table):
    text = io.StringIO()
    Console(file=text, width=80).print(table)
    return text.getvalue()


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (50.5, 51), (99, 99), (99.1, 100), (100, 100)]
)
def test_a_percentile_is_a_value_that_was_measured(percent, expected):
    assert percentile(list(range(100, 0, -1)), percent) == expected


def test_a_percentile_of_one_value_is_that_value():
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0


def test_a_percentile_of_nothing_is_not_a_number():
    assert math.isnan(percentile([], 50))


def test_all_sessions_intact_in_all_phases_is_well():
    report = Report(3, 0.25, [phase("before"), phase("after")])
    assert report.is_well
    assert report.verdict() == (
        "3 sessions before, 3 after: 0 lost. 4 requests: 0 failed, 0 over the budget of 250 ms, "
        "0 retried by the balancer."
    )


def test_a_session_lost_in_one_phase_stays_lost_though_it_is_intact_later():
    report = Report(3, 0.25, [phase("during", intact={0, 2}, lost={1: "tea is 0 and not 3"}), phase("after")])
    assert report.lost == {1: "during: tea is 0 and not 3"}
    assert "3 sessions before, 2 after: 1 lost." in report.verdict()
    assert not report.is_well
    assert report.complaints() == ["Session 1 was lost, during: tea is 0 and not 3"]


def test_a_session_that_was_never_checked_counts_as_lost():
    report = Report(3, 0.25, [phase("before"), phase("after", intact={0, 1})])
    assert report.lost == {2: "after: it was not answered for"}


def test_a_failed_request_is_a_request_and_is_not_well():
    report = Report(3, 0.25, [phase("before", failures=["GET /cart: refused"])])
    assert report.n_failed == 1
    assert report.phases[0].n_requests == 3
    assert not report.is_well
    assert report.complaints() == ["A request failed, before: GET /cart: refused"]


def test_a_request_over_the_budget_is_not_well():
    report = Report(3, 0.25, [phase("before", in_worker_s=(0.25, 0.2501))])
    assert report.n_late == 1
    assert not report.is_well


def test_a_run_without_phases_is_not_well():
    assert not Report(3, 0.25).is_well


def test_complaints_are_bounded():
    report = Report(3, 0.25, [phase("before", failures=["no"] * 50)])
    assert len(report.complaints(most=10)) == 10


def test_round_trips_per_request_are_the_workers_own_count():
    assert phase("before").round_trips_per_request == 1.5
    assert math.isnan(Phase("empty").round_trips_per_request)


def test_the_table_has_a_column_for_each_phase_and_fits_a_terminal():
    names = ["all up", "n2 killed", "n2 back", "w1 killed"]
    text = printed(Report(3, 0.25, [phase(name) for name in names]).table())
    assert all(name in text for name in names)
    assert "3 of 3" in text
    assert max(map(len, text.splitlines())) <= 80
