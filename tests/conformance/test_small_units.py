"""The near cache, times sent to memcached, and the counters."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import NearCache, SerializationError, SessionId, SessionUnavailable
from msm_fast._core import wire
from tests.simulation.clock import EPOCH, VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import backup_of, home_of, key_of
from tests.simulation.test_saving import loaded
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]

THIRTY_DAYS = 30 * 24 * 3600


@pytest.mark.parametrize(
    ("ttl_s", "sent"),
    [(0, 0), (1, 1), (THIRTY_DAYS, THIRTY_DAYS), (THIRTY_DAYS + 1, int(EPOCH) + THIRTY_DAYS + 1)],
)
def test_msm_051_a_lifetime_over_thirty_days_is_sent_as_a_point_in_time(ttl_s: int, sent: int) -> None:
    assert wire.exptime(ttl_s, EPOCH) == sent


def test_msm_052_reading_an_entry_makes_it_the_newest() -> None:
    cache = NearCache(3)
    for key in ("a", "b", "c"):
        cache.put(key, key)
    cache.get("a")
    for key in ("d", "e"):
        cache.put(key, key)
    assert [key in cache for key in "abcde"] == [True, False, False, True, True]


def test_msm_053_removing_an_entry_returns_its_value() -> None:
    cache = NearCache(2)
    cache.put("a", 1)
    assert cache.pop("a") == 1
    assert "a" not in cache
    assert cache.pop("a") is None


def test_msm_054_a_full_cache_drops_the_oldest_entry() -> None:
    cache = NearCache(1)
    cache.put("a", 1)
    cache.put("b", 2)
    assert "a" not in cache
    assert cache.get("b") == 2


def test_msm_055_an_entry_is_gone_when_its_time_is_over() -> None:
    clock = VirtualClock()
    cache = NearCache(10, ttl=0.1, clock=clock.monotonic)
    cache.put("a", 1)
    clock.advance(0.09)
    assert cache.get("a") == 1
    clock.advance(0.03)
    assert cache.get("a") is None
    assert "a" not in cache, "looking with `in` goes by the time as well"


def test_msm_057_clearing_empties_the_cache() -> None:
    cache = NearCache(10, clock=time.monotonic)
    cache.put("a", 1)
    cache.clear()
    assert len(cache) == 0
    assert cache.get("a") is None


# -- counters


def _load(driver: SimulatedDriver, worker: Worker, session_id: str) -> None:
    loaded(worker, session_id)


def _look_for_an_unknown_id(driver: SimulatedDriver, worker: Worker, session_id: str) -> None:
    worker.load(str(SessionId.generate("n1")))


def _come_with_an_id_of_no_node(driver: SimulatedDriver, worker: Worker, session_id: str) -> None:
    worker.load("0123456789abcdef" * 2 + "-n9")


def _create(driver: SimulatedDriver, worker: Worker, session_id: str) -> None:
    worker.store(user="grace")


def _only_read(driver: SimulatedDriver, worker: Worker, session_id: str) -> None:
    session = loaded(worker, session_id)
    assert session["user"] == "ada"
    worker.save(session)


def _change(driver: SimulatedDriver, worker: Worker, session_id: str) -> None:
    session = loaded(worker, session_id)
    session["user"] = "grace"
    worker.save(session)


def _fail_to_store(driver: SimulatedDriver, worker: Worker, session_id: str) -> None:
    session = loaded(worker, session_id)
    session["user"] = "grace"
    for node in driver.nodes.values():
        node.fault = "refused"
    with pytest.raises(SessionUnavailable):
        worker.save(session)


def _lose_the_home(driver: SimulatedDriver, worker: Worker, session_id: str) -> None:
    driver.nodes[home_of(session_id)].fault = "refused"
    loaded(worker, session_id)


def _lose_the_backup_copy(driver: SimulatedDriver, worker: Worker, session_id: str) -> None:
    driver.nodes[backup_of(driver, session_id)].server.evict(key_of(session_id))
    loaded(worker, session_id)


def _fail_to_encode(driver: SimulatedDriver, worker: Worker, session_id: str) -> None:
    with pytest.raises(SerializationError):
        worker.store(thing=object())


@pytest.mark.parametrize(
    ("counter", "act"),
    [
        ("loaded", _load),
        ("not_found", _look_for_an_unknown_id),
        ("refused_ids", _come_with_an_id_of_no_node),
        ("created", _create),
        ("unchanged", _only_read),
        ("stored", _change),
        ("unavailable", _fail_to_store),
        ("relocated", _lose_the_home),
        ("repaired", _lose_the_backup_copy),
        ("unserializable", _fail_to_encode),
    ],
)
def test_msm_060_each_thing_that_happens_is_counted_once(
    driver: SimulatedDriver, worker: Worker, counter: str, act: Callable[..., Any]
) -> None:
    session_id = worker.store(user="ada")
    before = getattr(worker.ctx.counters.snapshot(), counter)
    act(driver, worker, session_id)
    assert getattr(worker.ctx.counters.snapshot(), counter) == before + 1
