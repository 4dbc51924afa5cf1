"""The queue of what is still to be done after the requests that asked for it."""

from collections.abc import Callable
from weakref import WeakSet

import pytest

from msm_fast.engine.behind import MOST_BYTES, MOST_JOBS, Job, WorkBehind
from msm_fast.engine.effects import Flow

Run = Callable[[], Flow[bool]]


def work(name: str) -> Run:
    """Return something to do that tells its name."""

    def run() -> Flow[bool]:
        raise AssertionError(name)
        yield

    run.__name__ = name
    return run


def taken(queue: WorkBehind, now: float = 0.0) -> Job:
    (job,) = queue.take(now, 1)
    return job


def drain(queue: WorkBehind, now: float = 0.0) -> list[str]:
    """Do all that is due; return the names."""
    names = []
    while jobs := queue.take(now):
        for job in jobs:
            names.append(job.run.__name__)
            queue.finish(job, None)
    return names


@pytest.fixture
def queue() -> WorkBehind:
    return WorkBehind(3)


def test_jobs_are_done_in_the_order_in_which_they_came(queue: WorkBehind) -> None:
    for key in (b"b", b"a", b"c"):
        assert queue.add(key, work(key.decode()))
    assert drain(queue) == ["b", "a", "c"]
    assert len(queue) == 0


def test_the_newest_write_of_a_session_takes_the_place_of_the_one_that_waits(queue: WorkBehind) -> None:
    queue.add(b"a", work("old"))
    queue.add(b"b", work("b"))
    queue.add(b"a", work("new"))
    assert drain(queue) == ["new", "b"]


def test_a_touch_does_not_take_the_place_of_a_write_but_a_write_that_of_a_touch(queue: WorkBehind) -> None:
    queue.add(b"a", work("write"))
    assert queue.add(b"a", work("touch"), is_write=False)
    queue.add(b"b", work("touch"), is_write=False)
    queue.add(b"b", work("write too"))
    assert drain(queue) == ["write", "write too"]


def test_what_is_more_than_fits_is_refused_unless_its_session_waits_already(queue: WorkBehind) -> None:
    for key in (b"a", b"b", b"c"):
        queue.add(key, work("first"))
    assert not queue.add(b"d", work("d"))
    assert queue.add(b"a", work("second"))
    assert drain(queue) == ["second", "first", "first"]


def test_what_failed_comes_back_when_it_is_time_and_counts_how_often(queue: WorkBehind) -> None:
    queue.add(b"a", work("a"))
    queue.finish(taken(queue), 5.0)
    assert queue.next_at() == 5.0
    assert queue.take(4.9) == []
    again = taken(queue, 5.0)
    assert (again.run.__name__, again.attempts) == ("a", 1)


def test_a_write_that_came_while_the_one_before_it_failed_is_what_is_tried_again(queue: WorkBehind) -> None:
    queue.add(b"a", work("old"))
    job = taken(queue)
    queue.add(b"a", work("new"))
    queue.finish(job, 5.0)
    assert queue.take(4.9) == [], "it waits as long as what failed"
    assert drain(queue, 5.0) == ["new"]


def test_a_touch_that_came_while_a_write_failed_does_not_replace_it(queue: WorkBehind) -> None:
    queue.add(b"a", work("write"))
    job = taken(queue)
    queue.add(b"a", work("touch"), is_write=False)
    queue.finish(job, 5.0)
    assert drain(queue, 5.0) == ["write"]


def test_one_that_waits_for_its_next_attempt_holds_nothing_else_up(queue: WorkBehind) -> None:
    queue.add(b"a", work("a"))
    queue.finish(taken(queue), 5.0)
    queue.add(b"b", work("b"))
    assert queue.next_at() == 0.0
    assert drain(queue, 1.0) == ["b"]
    assert queue.next_at() == 5.0


def test_no_more_is_taken_at_once_than_can_be_written_in_time() -> None:
    queue = WorkBehind(MOST_JOBS + 9)
    for n, size in enumerate((MOST_BYTES + 1, MOST_BYTES // 2, MOST_BYTES // 2, 1, *[0] * MOST_JOBS)):
        queue.add(b"%d" % n, work(str(n)), size=size)
    assert [len(queue.take(0.0)) for _ in range(5)] == [1, 2, MOST_JOBS, 1, 0]
    assert len(queue) == MOST_JOBS + 4


def test_a_job_that_was_discarded_is_not_done(queue: WorkBehind) -> None:
    queue.add(b"a", work("a"))
    queue.add(b"b", work("b"))
    queue.discard(b"a")
    queue.discard(b"unknown")
    assert drain(queue) == ["b"]
    assert queue.next_at() is None


def test_jobs_that_were_discarded_take_no_room_though_none_is_taken_for_long(queue: WorkBehind) -> None:
    queue.add(b"first", work("first"))
    runs: WeakSet[Run] = WeakSet()
    for _ in range(1000):
        run = work("a")
        runs.add(run)
        queue.add(b"a", run)
        queue.discard(b"a")
        del run
    queue.add(b"last", work("last"))
    assert len(runs) < 100
    assert drain(queue) == ["first", "last"]


def test_what_is_under_way_counts_as_not_done_until_it_has_finished(queue: WorkBehind) -> None:
    queue.add(b"a", work("a"))
    job = taken(queue)
    assert len(queue) == 1
    queue.finish(job, None)
    assert len(queue) == 0


def test_clearing_tells_how_many_writes_are_lost_and_touches_are_none(queue: WorkBehind) -> None:
    queue.add(b"a", work("a"))
    queue.finish(taken(queue), 5.0)
    queue.add(b"b", work("b"))
    queue.add(b"c", work("c"), is_write=False)
    assert queue.clear() == 2
    assert drain(queue, 9.0) == []


def test_a_closed_queue_takes_nothing_not_even_what_failed_since(queue: WorkBehind) -> None:
    queue.add(b"a", work("a"))
    job = taken(queue)
    queue.add(b"b", work("b"))
    assert queue.close() == 2
    queue.finish(job, 5.0)
    assert not queue.add(b"c", work("c"))
    assert drain(queue, 9.0) == []


def test_each_job_that_was_added_is_told_of(queue: WorkBehind) -> None:
    told = []
    queue.on_work = lambda: told.append(len(queue))
    queue.add(b"a", work("a"))
    queue.add(b"b", work("b"), is_write=False)
    assert told == [1, 2]


def test_a_forked_child_starts_with_nothing_of_its_parent_s(queue: WorkBehind) -> None:
    queue.add(b"a", work("a"))
    queue.add(b"b", work("b"))
    queue.take(0.0)
    queue.renew_after_fork()
    assert len(queue) == 0
    assert queue.add(b"c", work("c"))
    assert drain(queue) == ["c"]
