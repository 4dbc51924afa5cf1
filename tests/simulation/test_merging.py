"""Two requests save one session at once: neither loses what the other has stored."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import ConflictError, SessionUnavailable
from msm_fast.engine.effects import Exchange
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import backup_of, holders, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]


def test_two_requests_that_change_different_attributes_both_win(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(a=0, b=0, c=0)
    first, second = loaded(one, session_id), loaded(two, session_id)
    first["a"] = 1
    second["b"] = 2
    del second["c"]
    second["d"] = 3
    assert one.save(first).status == "stored"
    assert two.save(second).status == "merged"
    assert read(one, session_id) == {"a": 1, "b": 2, "d": 3}
    assert dict(second) == {"a": 1, "b": 2, "d": 3}, "the request that merged sees the whole"
    copies = [driver.nodes[n].server.peek(key_of(session_id)) for n in holders(driver, session_id)]
    assert len({copy.value for copy in copies if copy}) == 1, "both copies are the merged one"


@pytest.mark.parametrize("name", ["max_inactive", "absolute_lifetime"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
def test_a_lifetime_that_one_of_them_sets_stays(make_worker: MakeWorker, name: str, is_first: bool) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(user="ada")
    first, second = loaded(one, session_id), loaded(two, session_id)
    setattr(first if is_first else second, name, 600)
    first["a"] = 1
    second["b"] = 2
    one.save(first)
    assert two.save(second).status == "merged"
    for session in (second, loaded(one, session_id)):
        assert getattr(session, name) == 600
    second["c"] = 3
    assert two.save(second).status == "stored"
    assert getattr(loaded(one, session_id), name) == 600


def test_of_two_lifetimes_that_are_set_the_later_stays(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(user="ada")
    first, second = loaded(one, session_id), loaded(two, session_id)
    first.max_inactive, second.max_inactive = 600, 700
    one.save(first)
    assert two.save(second).status == "merged"
    assert loaded(one, session_id).max_inactive == 700


def test_of_one_attribute_the_later_value_stays(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(a=0)
    first, second = loaded(one, session_id), loaded(two, session_id)
    first["a"], second["a"] = 1, 2
    one.save(first)
    two.save(second)
    assert read(one, session_id) == {"a": 2}


def test_a_slow_reader_rolls_nothing_back(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(cart=["apple"])
    slow = loaded(one, session_id)
    assert slow["cart"] == ["apple"]
    fast = loaded(two, session_id)
    fast["cart"].append("pear")
    two.save(fast)
    assert one.save(slow).status == "unchanged"
    assert read(two, session_id) == {"cart": ["apple", "pear"]}


def test_on_conflict_error_raises_and_saves_nothing(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker(on_conflict="error")
    session_id = one.store(a=0, b=0)
    first, second = loaded(one, session_id), loaded(two, session_id)
    first["a"], second["b"] = 1, 2
    one.save(first)
    with pytest.raises(ConflictError) as caught:
        two.save(second)
    assert session_id not in str(caught.value)
    assert read(one, session_id) == {"a": 1, "b": 0}


@pytest.mark.parametrize("changes", [False, True])
def test_on_conflict_error_fails_nobody_who_only_puts_back_a_copy_that_is_missing(
    driver: SimulatedDriver, make_worker: MakeWorker, changes: bool
) -> None:
    one, two = make_worker(), make_worker(on_conflict="error")
    session_id = one.store(a=0, cart=["apple"])
    driver.nodes[backup_of(driver, session_id)].server.evict(key_of(session_id))
    first, second = loaded(one, session_id), loaded(two, session_id)
    first["a"] = 1
    one.save(first)
    assert second.state.must_store
    if changes:
        second["cart"].append("pear")
        with pytest.raises(ConflictError):
            two.save(second)
    else:
        assert second["cart"] == ["apple"]
        assert two.save(second).status == "merged"
        assert dict(second) == {"a": 1, "cart": ["apple"]}
    assert read(one, session_id) == {"a": 1, "cart": ["apple"]}


@pytest.mark.parametrize("name", ["max_inactive", "absolute_lifetime"])
def test_on_conflict_error_holds_for_lifetimes_too(make_worker: MakeWorker, name: str) -> None:
    one, two = make_worker(), make_worker(on_conflict="error")
    session_id = one.store(a=0)
    first, second = loaded(one, session_id), loaded(two, session_id)
    first["a"] = 1
    one.save(first)
    setattr(second, name, 600)
    with pytest.raises(ConflictError):
        two.save(second)


def test_on_conflict_error_holds_for_a_new_id_too(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker(on_conflict="error")
    session_id = one.store(n=0)
    login, theirs = loaded(two, session_id), loaded(one, session_id)
    theirs["n"] = 1
    one.save(theirs)
    login["n"] = 2
    login.rotate_id()
    for _ in range(2):
        with pytest.raises(ConflictError):
            two.save(login)
    assert read(one, session_id) == {"n": 1}
    assert one.load(login.id) is None


def test_a_new_id_that_meets_a_change_counts_as_a_conflict(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(n=0)
    login, theirs = loaded(two, session_id), loaded(one, session_id)
    theirs["theirs"] = 1
    one.save(theirs)
    login["mine"] = 2
    login.rotate_id()
    two.save(login)
    assert read(one, login.id) == {"n": 0, "theirs": 1, "mine": 2}
    assert two.ctx.counters.snapshot().conflicts == 1


def outrun(driver: SimulatedDriver, other: Worker, session_id: str) -> None:
    """Let other store something before each write of anybody else, from now on."""

    def store_first(exchange: Exchange) -> None:
        if exchange.batches[0].commands[0].verb == "ms":
            driver.before_exchange = None
            session = loaded(other, session_id)
            session["n"] += 1
            other.save(session)
            driver.before_exchange = store_first

    driver.before_exchange = store_first


def test_who_is_always_outrun_by_others_is_told_so_at_the_end_of_the_requests_time(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(n=0)
    slow = loaded(one, session_id)
    slow["a"] = 1
    outrun(driver, two, session_id)
    started = driver.clock.monotonic()
    with pytest.raises(SessionUnavailable, match=r"in the request's time .* had changed it \d+ times") as caught:
        one.save(slow)
    assert driver.timeouts.request <= driver.clock.monotonic() - started < driver.timeouts.request + 0.02
    assert session_id not in str(caught.value)
    assert slow.id == session_id
    assert one.ctx.counters.snapshot().relocated == 0, "no node is at fault"
    assert one.ctx.counters.snapshot().conflicts > 10


def test_a_save_that_has_all_the_time_of_the_world_does_not_go_on_for_ever(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(n=0)
    slow = loaded(one, session_id)
    slow["a"] = 1
    outrun(driver, two, session_id)
    with pytest.raises(SessionUnavailable, match="had changed it 1000 times"):
        driver.run(one.keep(slow.state), math.inf)
    assert slow.id == session_id


def test_or_its_changes_are_kept_here_and_stored_with_the_next_request(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(on_cluster_lost="local"), make_worker()
    session_id = one.store(n=0)
    slow = loaded(one, session_id)
    slow["a"] = 1
    outrun(driver, two, session_id)
    assert one.save(slow).status == "local"
    driver.before_exchange = None
    n = loaded(two, session_id)["n"]
    again = loaded(one, session_id)
    one.save(again)
    assert read(two, session_id) == {"n": n, "a": 1}


def test_twenty_writers_of_one_session_lose_nothing(make_worker: MakeWorker) -> None:
    workers = [make_worker() for _ in range(20)]
    session_id = workers[0].store(start=True)
    sessions = [loaded(worker, session_id) for worker in workers]
    for i, (worker, session) in enumerate(zip(workers, sessions, strict=True)):
        session[f"by{i}"] = i
        worker.save(session)
    assert read(workers[0], session_id) == {"start": True, **{f"by{i}": i for i in range(20)}}


def test_a_rival_between_any_two_exchanges_of_a_save_loses_nothing(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    for moment in range(4):
        one, two = make_worker(), make_worker()
        session_id = one.store(a=0, b=0)
        session = loaded(one, session_id, expect_write=moment % 2 == 0)
        rivals = iter(range(100))

        def rival_saves(_: Exchange, moment: int = moment, rivals: Any = rivals, two: Worker = two) -> None:
            if next(rivals) == moment:
                driver.before_exchange = None
                other = loaded(two, session_id)  # noqa: B023 - called within this iteration
                other["b"] = 2
                two.save(other)

        driver.before_exchange = rival_saves
        session["a"] = 1
        one.save(session)
        happened = driver.before_exchange is None
        driver.before_exchange = None
        assert read(two, session_id) == {"a": 1, "b": 2 if happened else 0}


def test_a_save_that_others_outrun_again_and_again_gives_up_with_an_error(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(a=0, b=0)
    session = loaded(one, session_id)
    rounds = iter(range(1, 10_000))

    def rival_saves(exchange: Exchange) -> None:
        if any(command.verb == "ms" for batch in exchange.batches for command in batch.commands):
            driver.before_exchange = None
            other = loaded(two, session_id)
            other["b"] = next(rounds)
            two.save(other)
            driver.before_exchange = rival_saves

    driver.before_exchange = rival_saves
    session["a"] = 1
    with pytest.raises((ConflictError, SessionUnavailable)):
        one.save(session)
    driver.before_exchange = None
    assert read(two, session_id)["a"] == 0
