"""The thread that a manager has while there is something to do in the background."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from msm_fast.drivers.worker_thread import WorkerThread
from tests.integration.test_manager import wait_until


class Worker(WorkerThread):
    """Pauses for ever, counting how often it was woken, until it is closed."""

    def __init__(self) -> None:
        super().__init__("a worker", self._count)
        self.n_woken = 0

    def _count(self) -> None:
        while not self.ends(lambda: True):
            self.n_woken += self.pause(1000)


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    assert worker.close(10)


def test_it_runs_in_one_thread_however_often_it_is_started(worker: Worker) -> None:
    assert [worker.start() for _ in range(3)] == [None] * 3
    assert sum(thread.name == "a worker" for thread in threading.enumerate()) == 1


def test_who_wakes_it_ends_its_pause_or_starts_it(worker: Worker) -> None:
    worker.wake()
    wait_until(lambda: worker.n_woken == 1)
    worker.wake()
    wait_until(lambda: worker.n_woken == 2)


@pytest.mark.parametrize("failure", [RuntimeError("can't start new thread"), KeyboardInterrupt()])
def test_a_start_that_fails_or_is_broken_off_can_be_tried_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        if isinstance(failure, RuntimeError):
            assert worker.start() is failure
        else:
            with pytest.raises(KeyboardInterrupt):
                worker.start()
    worker.wake()
    wait_until(lambda: worker.n_woken == 1)


def test_closed_while_it_is_being_started_it_ends_at_once(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        assert worker.close(10)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    assert worker.start() is None
    wait_until(lambda: worker.thread is None)


def test_once_closed_it_does_not_start_again_not_in_a_forked_child_either(worker: Worker) -> None:
    worker.start()
    assert worker.close(10)
    worker.renew()
    worker.wake()
    assert worker.thread is None
