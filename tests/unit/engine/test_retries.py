import random

from msm_fast import Reconnect
from msm_fast.engine.context import Context
from msm_fast.engine.exchanging import wait_after_conflict, wait_before_retry
from msm_fast.engine.retries import RetryBudget
from tests.simulation.clock import VirtualClock
from tests.simulation.worker import make_settings


def test_retries_are_a_share_of_requests() -> None:
    budget = RetryBudget(0.1)
    while budget.spend(1):
        pass
    for _ in range(100):
        budget.earn()
    assert sum(budget.spend(1) for _ in range(100)) in (9, 10)


def test_a_share_of_nothing_allows_none() -> None:
    budget = RetryBudget(0)
    budget.earn()
    assert not budget.spend(1)


def test_what_is_saved_up_is_bounded() -> None:
    budget = RetryBudget(1)
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend(1) for _ in range(1000)) == 10


def test_what_the_background_tries_again_and_again_is_spread_and_becomes_rarer_up_to_the_cap() -> None:
    settings = make_settings(reconnect=Reconnect(first=10, factor=2, cap=30))
    ctx = Context(settings, VirtualClock().as_clock(), random.Random(0))
    for attempt, wait in enumerate((1, 2, 4, 8, 16, 30, 30)):
        waits = [wait_before_retry(ctx, attempt) for _ in range(100)]
        assert 0.5 * wait <= min(waits) < 0.6 * wait
        assert 1.4 * wait < max(waits) <= 1.5 * wait


def test_who_loses_to_others_again_and_again_soon_waits_no_longer_for_it() -> None:
    ctx = Context(make_settings(), VirtualClock().as_clock(), random.Random(0))
    few, many = (max(wait_after_conflict(ctx, n_lost) for _ in range(100)) for n_lost in (2, 200))
    assert many < 1.2 * few


def test_what_was_spent_is_saved_up_again() -> None:
    budget = RetryBudget(1)
    assert budget.is_full
    assert budget.spend(2)
    for _ in range(2):
        assert not budget.is_full
        budget.earn()
    assert budget.is_full
