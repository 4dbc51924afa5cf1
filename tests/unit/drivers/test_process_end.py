import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from msm_fast import SerializationError, SessionManager
from msm_fast.drivers import process_end


@pytest.fixture
def ended() -> Iterator[threading.Event]:
    """Whether this process was told to end."""
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    yield told
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long the end was put off, each time; it never comes."""
    waits: list[float] = []

    class Timer:
        def __init__(self, wait_s: float, *_: Any) -> None:
            waits.append(wait_s)

        def start(self) -> None: ...

    monkeypatch.setattr(process_end, "Timer", Timer)
    return waits


def store_what_cannot_be_stored(manager: SessionManager) -> None:
    session = manager.create()
    session["handle"] = object()
    with pytest.raises(SerializationError):
        manager.save(session)


def test_a_process_that_was_stopped_is_told_to_end(ended: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_end, "_began", time.monotonic() - process_end.LEAST_AGE_S)
    store_what_cannot_be_stored(SessionManager(on_stop="end_process"))
    assert ended.wait(10)


def test_unless_the_settings_say_so_it_stays(waits: list[float]) -> None:
    store_what_cannot_be_stored(SessionManager())
    assert waits == []


def test_a_young_process_waits_until_it_is_old_enough(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_end, "_began", time.monotonic())
    store_what_cannot_be_stored(SessionManager(on_stop="end_process"))
    (wait_s,) = waits
    assert process_end.LEAST_AGE_S - 5 < wait_s <= process_end.LEAST_AGE_S


def test_a_forked_child_is_young_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_end, "_began", time.monotonic() - 1000)
    child = os.fork()
    if child == 0:
        os._exit(time.monotonic() - process_end._began > 900)
    assert os.waitpid(child, 0)[1] == 0
