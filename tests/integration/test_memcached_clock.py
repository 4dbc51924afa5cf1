"""memcached dates items by a count of seconds: it may be a second old, and leaps by two when its timer is late."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from msm_fast import SessionManager
from tests.integration.test_manager import loaded, store
from tests.memcached import Memcached
from tests.timeouts import UNHURRIED

pytestmark = pytest.mark.memcached

TICKS_AT = 0.75
"""When in each second of the system's clock the server counts on: a second after it was started, and so on."""
SLEEPS_S = 0.3


def sleep_until(phase: float) -> None:
    """Sleep until the next time that a second of the monotonic clock has gone so far."""
    time.sleep((phase - time.monotonic()) % 1)


@pytest.fixture
def server() -> Iterator[Memcached]:
    sleep_until(TICKS_AT)
    server = Memcached()
    sleep_until(TICKS_AT - 0.05)
    yield server
    server.stop()


@pytest.fixture
def leap(server: Memcached) -> Callable[[], None]:
    """Return a function that, called just before the server counts on, has it wake in the next second."""

    def leap() -> None:
        server.pause()
        time.sleep(SLEEPS_S)
        server.resume()

    return leap


@pytest.fixture
def manager(server: Memcached) -> Iterator[SessionManager]:
    timeouts = replace(UNHURRIED, lock_ttl=1)
    manager = SessionManager(f"n1:{server.address}", replicas=0, max_inactive=1, locking="all", timeouts=timeouts)
    yield manager
    manager.close()


def test_a_session_lives_as_long_as_it_is_to_where_the_clock_leaps(
    manager: SessionManager, leap: Callable[[], None]
) -> None:
    session_id = store(manager, user="ada")
    leap()
    assert loaded(manager, session_id)["user"] == "ada"


def test_a_lock_outlives_a_leap_of_the_clock(manager: SessionManager, leap: Callable[[], None]) -> None:
    session_id = store(manager, n=0)
    with manager.request(session_id) as session:
        session["n"] += 1
        leap()
    assert loaded(manager, session_id)["n"] == 1
    assert manager.statistics().locks_lost == 0
