"""A request of a session that lives in the worker: found, one attribute read, seen to be unchanged.

Beside it what a web framework's cheapest session would do: look the session up in a cache in this process, and put it
back. Sessions come in random order: in that of insertion the processor fetches ahead.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.attributes import mixed_attributes
from bench.conftest import Measure
from bench.rivals import rival
from bench.servers import PATIENT, nodes_setting
from bench.targets import STICKY
from msm_fast import SessionManager
from tests.memcached import Memcached

N_SESSIONS = 1_000
Run = Callable[[], Any]


@pytest.fixture(scope="session")
def manager(servers: list[Memcached]) -> Iterator[SessionManager]:
    nodes = nodes_setting(servers)
    with SessionManager(nodes, sticky=True, route="w1", max_inactive=24 * 3600, timeouts=PATIENT) as manager:
        yield manager


def in_random_order(ids: list[str]) -> list[str]:
    """Return equal texts that are not the same objects: as an id that comes with a request."""
    wanted = [text.encode().decode() for text in ids]
    random.Random(1).shuffle(wanted)
    return wanted


def take_over(manager: SessionManager) -> list[str]:
    """Store sessions by another worker and let this one take them over; return their ids."""
    ids = []
    with SessionManager(manager.settings) as other:
        for _ in range(N_SESSIONS):
            session = other.create()
            session.update(mixed_attributes())
            assert other.save(session).status == "queued"
            ids.append(session.id)
    for session_id in ids:
        assert manager.load(session_id) is not None
    return ids


def by_manager(manager: SessionManager) -> Run:
    wanted = in_random_order(take_over(manager))
    name = next(iter(mixed_attributes()))

    def run() -> None:
        for session_id in wanted:
            with manager.request(session_id, "GET", "/cart") as session:
                session[name]

    before = manager.statistics()
    run()
    after = manager.statistics()
    assert after.round_trips == before.round_trips
    assert after.unchanged - before.unchanged == N_SESSIONS
    return run


def by_cache(manager: SessionManager) -> Run:
    cache: Any = rival("lru").LRU(N_SESSIONS)
    ids = [f"{i:032x}-n1.w1" for i in range(N_SESSIONS)]
    for session_id in ids:
        cache[session_id] = mixed_attributes()
    wanted = in_random_order(ids)
    name = next(iter(mixed_attributes()))

    def run() -> None:
        for session_id in wanted:
            session = cache[session_id]
            session[name]
            cache[session_id] = session

    return run


CONTENDERS: dict[str, Callable[[SessionManager], Run]] = {
    "msm_fast": by_manager,
    "floor: two lru-dict operations": by_cache,
}


@pytest.mark.parametrize("contender", CONTENDERS)
def test_unchanged_request(contender: str, manager: SessionManager, measure: Measure) -> None:
    measure(STICKY, contender, CONTENDERS[contender](manager), N_SESSIONS)
