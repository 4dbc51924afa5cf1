from msm_fast.engine.retries import RetryBudget


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
