"""The thread that does what requests left behind."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from msm_fast import Event, Retry, Settings
from msm_fast.drivers import background, write_behind
from msm_fast.drivers.background import WriterTask
from msm_fast.drivers.event_loop import LoopHome
from msm_fast.drivers.write_behind import Outcomes, WriteBehind
from msm_fast.engine.context import Clock, Context
from msm_fast.engine.effects import Flow
from msm_fast.engine.exchanging import wait_before_retry
from tests.integration.test_manager import wait_until

THREAD = "msm-fast-write-behind"


@pytest.fixture
def ctx() -> Context:
    settings = Settings.build("n1:127.0.0.1:1", sticky=True, retry=Retry(base=0.001, cap=0.001))
    return Context(settings, Clock(monotonic=time.monotonic, wall=time.time), random.Random(1))


@pytest.fixture
def strict() -> Context:
    settings = Settings.build("n1:127.0.0.1:1", sticky=True, on_cluster_lost="error")
    return Context(settings, Clock(monotonic=time.monotonic, wall=time.time), random.Random(1))


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def writer(ctx: Context) -> Iterator[WriteBehind]:
    writer = WriteBehind(ctx, lambda flow, deadline: end_of(flow))
    yield writer
    writer.close(1)


def job(action: Callable[[], Any]) -> Callable[[], Flow[bool]]:
    """Return a job that does something and is done if that is not False."""

    def run() -> Flow[bool]:
        return action() is not False
        yield

    return run


def end_of(flow: Flow[Outcomes]) -> Outcomes:
    """Return what jobs that do not wait have come to."""
    try:
        next(flow)
    except StopIteration as stop:
        outcomes: Outcomes = stop.value
        return outcomes
    raise AssertionError("a job of these tests does not wait")


def is_running() -> bool:
    return any(thread.name == THREAD for thread in threading.enumerate())


def test_what_is_added_is_done_in_another_thread(ctx: Context, writer: WriteBehind) -> None:
    threads: list[str] = []
    assert ctx.behind.add(b"a", job(lambda: threads.append(threading.current_thread().name)))
    wait_until(lambda: threads == [THREAD])


def test_no_thread_lives_while_there_is_nothing_to_do(
    ctx: Context, writer: WriteBehind, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_behind, "_IDLE_S", 0.02)
    assert not is_running()
    ctx.behind.add(b"a", job(lambda: done.append("a")))
    wait_until(lambda: done == ["a"])
    wait_until(lambda: not is_running())
    ctx.behind.add(b"b", job(lambda: done.append("b")))
    wait_until(lambda: done == ["a", "b"])


def test_a_job_that_fails_is_tried_again(ctx: Context, writer: WriteBehind, done: list[str]) -> None:
    def fail_twice() -> bool:
        done.append("tried")
        return len(done) == 3

    ctx.behind.add(b"a", job(fail_twice))
    wait_until(lambda: len(ctx.behind) == 0)
    assert done == ["tried"] * 3


def test_an_error_in_a_job_is_logged_and_ends_neither_the_thread_nor_the_job(
    ctx: Context, writer: WriteBehind, done: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail_once() -> None:
        done.append("tried")
        if len(done) == 1:
            raise RuntimeError("a bug")

    ctx.behind.add(b"a", job(fail_once))
    wait_until(lambda: len(ctx.behind) == 0)
    assert done == ["tried"] * 2
    assert "a bug" in caplog.text


def test_a_job_that_was_tried_for_a_day_is_still_tried_again(
    ctx: Context, writer: WriteBehind, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_behind, "wait_before_retry", lambda ctx, n: 0 * wait_before_retry(ctx, 5000 + n))

    def fail_once() -> bool:
        done.append("tried")
        return len(done) == 2

    ctx.behind.add(b"a", job(fail_once))
    wait_until(lambda: len(ctx.behind) == 0)
    assert done == ["tried"] * 2


def test_an_error_while_expired_sessions_are_dropped_is_logged_and_nothing_stays_unwritten(
    ctx: Context, done: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    writer = WriteBehind(ctx, lambda flow, deadline: end_of(flow), fail)
    ctx.behind.add(b"a", job(lambda: done.append("a")))
    wait_until(lambda: "a bug" in caplog.text)
    ctx.behind.add(b"b", job(lambda: done.append("b")))
    wait_until(lambda: done == ["a", "b"])
    writer.close(1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whatever_ends_the_thread_the_next_job_starts_another(
    ctx: Context, writer: WriteBehind, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        monkeypatch.undo()
        raise SystemExit

    monkeypatch.setattr(write_behind, "finish", die)
    ctx.behind.add(b"a", job(lambda: done.append("a")))
    wait_until(lambda: done == ["a"] and not is_running())
    ctx.behind.add(b"b", job(lambda: done.append("b")))
    wait_until(lambda: done == ["a", "b"])


def test_what_comes_while_others_are_written_waits_for_more_of_it(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_behind, "GATHERED_FOR_S", 0.2)
    together: list[int] = []

    def run(flow: Flow[Outcomes], deadline: float) -> Outcomes:
        if not together:
            ctx.behind.add(b"b", job(lambda: True))
        outcomes = end_of(flow)
        together.append(len(outcomes))
        return outcomes

    writer = WriteBehind(ctx, run)
    try:
        ctx.behind.add(b"a", job(lambda: True))
        wait_until(lambda: len(together) == 1)
        ctx.behind.add(b"c", job(lambda: True))
        wait_until(lambda: len(ctx.behind) == 0)
    finally:
        writer.close(1)
    assert together == [1, 2]


def test_in_an_event_loop_it_waits_too(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "GATHERED_FOR_S", 0.2)
    together: list[int] = []

    async def run(flow: Flow[Outcomes], deadline: float) -> Outcomes:
        if not together:
            ctx.behind.add(b"b", job(lambda: True))
        outcomes = end_of(flow)
        together.append(len(outcomes))
        return outcomes

    async def work() -> None:
        home = LoopHome(lambda: None)
        home.enter()
        writer = WriterTask(ctx, home, run)
        ctx.behind.add(b"a", job(lambda: True))
        while not together:
            await asyncio.sleep(0.001)
        ctx.behind.add(b"c", job(lambda: True))
        while len(ctx.behind):
            await asyncio.sleep(0.001)
        await writer.close(1)

    asyncio.run(asyncio.wait_for(work(), 10))
    assert together == [1, 2]


def test_closing_does_what_is_left_before_it_returns(ctx: Context, writer: WriteBehind, done: list[str]) -> None:
    slow = threading.Event()
    ctx.behind.add(b"slow", job(lambda: slow.wait(1)))
    for n in range(20):
        ctx.behind.add(b"%d" % n, job(lambda n=n: done.append(n)))
    slow.set()
    writer.close(5)
    assert len(done) == 20
    assert not is_running()


def test_what_cannot_be_done_until_the_timeout_is_counted_and_told(ctx: Context, writer: WriteBehind) -> None:
    told: list[Event] = []
    ctx.events.subscribe(told.append)
    ctx.behind.add(b"a", job(lambda: False))
    ctx.behind.add(b"b", job(lambda: False))
    started = time.monotonic()
    writer.close(0.1)
    assert time.monotonic() - started < 1
    assert ctx.counters.snapshot().dropped == 2
    assert [event.kind for event in told] == ["dropped"]
    assert "2 session(s)" in told[0].detail


def test_while_the_cluster_is_not_used_nothing_is_tried_and_all_is_done_after(
    ctx: Context, writer: WriteBehind, done: list[str]
) -> None:
    ctx.distribution.stop("for a test")
    ctx.behind.add(b"a", job(lambda: done.append("a")))
    time.sleep(0.05)
    assert done == []
    ctx.distribution.start()
    ctx.distribution.reconnected(has_leftovers=False)
    writer.wake()
    wait_until(lambda: done == ["a"])


def test_while_no_node_is_up_nothing_is_tried_either_where_an_outage_is_an_error(
    strict: Context, done: list[str]
) -> None:
    strict.health.failed("n1", "refused", "a test", time.monotonic())
    assert strict.distribution.is_on
    writer = WriteBehind(strict, lambda flow, deadline: end_of(flow))
    strict.behind.add(b"a", job(lambda: done.append("a")))
    time.sleep(0.05)
    assert done == []
    strict.health.returned("n1", 1, time.monotonic())
    writer.wake()
    wait_until(lambda: done == ["a"])
    writer.close(1)


def test_in_an_event_loop_nothing_is_tried_then(strict: Context, done: list[str]) -> None:
    strict.health.failed("n1", "refused", "a test", time.monotonic())

    async def run(flow: Flow[Outcomes], deadline: float) -> Outcomes:
        return end_of(flow)

    async def work() -> None:
        home = LoopHome(lambda: None)
        home.enter()
        writer = WriterTask(strict, home, run)
        strict.behind.add(b"a", job(lambda: done.append("a")))
        await asyncio.sleep(0.05)
        assert done == []
        strict.health.returned("n1", 1, time.monotonic())
        writer.wake()
        while not done:
            await asyncio.sleep(0.001)
        await writer.close(1)

    asyncio.run(asyncio.wait_for(work(), 10))


def test_the_live_sessions_are_swept_while_there_is_work(ctx: Context) -> None:
    swept: list[bool] = []
    writer = WriteBehind(ctx, lambda flow, deadline: [True], lambda: swept.append(True))
    try:
        ctx.behind.add(b"a", job(lambda: True))
        wait_until(lambda: len(swept) > 0)
    finally:
        writer.close(1)
