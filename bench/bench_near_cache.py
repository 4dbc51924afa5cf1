"""A hit in the near cache, keys in random order: in the order of insertion the processor fetches ahead."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from bench.conftest import Measure
from bench.rivals import rival
from bench.targets import NEAR_CACHE_HIT
from msm_fast import NearCache

N_ENTRIES = 10_000
CAPACITY = 2 * N_ENTRIES


def ours(values: dict[str, int]) -> NearCache:
    cache = NearCache(CAPACITY)
    for key, value in values.items():
        cache.put(key, value)
    return cache


def filled(cache: Any, values: dict[str, int]) -> Any:
    for key, value in values.items():
        cache[key] = value
    return cache


def theine(values: dict[str, int]) -> Any:
    cache = rival("theine").Cache(CAPACITY)
    for key, value in values.items():
        cache.set(key, value)
    return cache


CONTENDERS: dict[str, Callable[[dict[str, int]], Any]] = {
    "msm_fast": ours,
    "lru-dict": lambda values: filled(rival("lru").LRU(CAPACITY), values),
    "cachebox LRUCache": lambda values: filled(rival("cachebox").LRUCache(CAPACITY), values),
    "cachetools LRUCache": lambda values: filled(rival("cachetools").LRUCache(CAPACITY), values),
    "theine Cache": theine,
    "floor: dict": dict,
}


@pytest.mark.parametrize("contender", CONTENDERS)
def test_get_hit(contender: str, measure: Measure) -> None:
    source = random.Random(1)
    values = {f"{source.getrandbits(128):032x}": i for i in range(N_ENTRIES)}
    # Equal to the keys in the cache, not the same objects: as a key that comes with a request.
    wanted = [key.encode().decode() for key in values]
    source.shuffle(wanted)
    cache = CONTENDERS[contender](values)
    get = cache.get
    answers = [get(key) for key in wanted]
    assert answers == [(values[key], True) if contender == "theine Cache" else values[key] for key in wanted]
    measure(NEAR_CACHE_HIT, contender, lambda: deque(map(get, wanted), 0), N_ENTRIES)
    if contender == "theine Cache":
        cache.close()
