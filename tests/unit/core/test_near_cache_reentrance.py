"""Keys and values that use the cache, the garbage collector, threads."""

import gc
import random
import sys
import threading
import weakref

import pytest

from msm_fast._core.near_cache import NearCache


class Key:
    """Equal to every other Key of its hash and name; runs a callback when it is compared."""

    def __init__(self, name, on_compare=lambda: None):
        self.name = name
        self.on_compare = on_compare

    def __hash__(self):
        return 7

    def __eq__(self, other):
        self.on_compare()
        return isinstance(other, Key) and self.name == other.name


class Value:
    """Runs a callback when it dies."""

    def __init__(self, on_death):
        self.on_death = on_death

    def __del__(self):
        self.on_death()


def test_keys_of_one_hash_are_told_apart_by_their_eq():
    cache = NearCache(100)
    for i in range(50):
        cache.put(Key(i), i)
    assert [cache.get(Key(i)) for i in range(51)] == [*range(50), None]
    assert [cache.pop(Key(i)) for i in range(50)] == list(range(50))


def test_an_error_from_eq_passes_through_and_the_cache_goes_on():
    def fail():
        raise KeyError("eq")

    cache, stored = NearCache(10), Key("a")
    cache.put(stored, 1)
    stored.on_compare = fail
    for call in (cache.get, cache.pop, cache.__contains__, lambda key: cache.put(key, 2)):
        with pytest.raises(KeyError, match="eq"):
            call(Key("a"))
    stored.on_compare = lambda: None
    assert cache.get(Key("a")) == 1


def test_an_error_from_the_clock_or_a_hash_passes_through_and_the_cache_goes_on():
    class Unhashable(Key):
        def __hash__(self):
            raise OSError("hash")

    def clock():
        if is_broken:
            raise OSError("clock")
        return 0.0

    is_broken = False
    cache = NearCache(10, ttl=60, clock=clock)
    cache.put("a", 1)
    for call in (cache.get, cache.pop, cache.__contains__, lambda key: cache.put(key, 2)):
        with pytest.raises(OSError, match="hash"):
            call(Unhashable("a"))
        is_broken = True
        with pytest.raises(OSError, match="clock"):
            call("a")
        is_broken = False
    assert cache.get("a") == 1
    assert (len(cache), cache.hits, cache.misses) == (1, 1, 0)


def test_the_clock_may_call_the_cache():
    def clock():
        calls.append(None)
        if len(calls) < 20:
            cache.put(len(calls), 1)
            cache.pop("b")
        return 0.0

    calls = []
    cache = NearCache(3, ttl=60, clock=clock)
    cache.put("a", 1)
    cache.get("a")
    assert cache.get("a") == 1
    assert len(cache) == 3


@pytest.mark.parametrize("action", ["get", "put", "pop", "clear", "evict"])
def test_eq_may_call_the_cache(action):
    cache = NearCache(3)
    calls = {
        "get": lambda: cache.get("x"),
        "put": lambda: cache.put("x", 1),
        "pop": lambda: cache.pop(Key("a")),
        "clear": cache.clear,
        "evict": lambda: [cache.put(i, i) for i in range(5)],
    }

    def once():
        stored.on_compare = asking.on_compare = lambda: None
        calls[action]()

    stored, asking = Key("a", once), Key("a", once)
    cache.put("x", 0)
    cache.put(stored, "value")
    found = cache.get(asking)
    assert found == (None if action in ("pop", "clear", "evict") else "value")
    assert (cache.hits, cache.misses) == (1 + (action == "get"), 0) if found else cache.misses == 1


def test_what_is_evicted_or_replaced_may_call_the_cache_as_it_dies():
    cache, deaths = NearCache(2, max_bytes=10), []

    def on_death():
        cache.put("grave", len(deaths))
        cache.get("a")
        cache.pop("b")
        deaths.append(len(cache))

    for remove in (
        lambda: cache.put("v", "another"),
        lambda: cache.put("v", "too big", 11),
        lambda: cache.pop("v"),
        lambda: cache.clear(),
        lambda: [cache.put(i, i) for i in range(3)],
    ):
        cache.put("v", Value(on_death))
        n = len(deaths)
        remove()
        assert len(deaths) == n + 1


def test_a_key_may_call_the_cache_as_it_dies():
    deaths = []

    class MortalKey(Key):
        def __del__(self):
            deaths.append(cache.get("a", "none"))

    cache = NearCache(1)
    cache.put(MortalKey("k"), 1)
    cache.put("a", 2)
    assert deaths == [2]


def test_a_chain_of_deaths_ends():
    cache = NearCache(1)

    def again(n):
        return Value(lambda: n and cache.put(n, again(n - 1)))

    cache.put("start", again(50))
    cache.clear()
    assert len(cache) == 1


def test_a_cycle_through_the_cache_is_collected():
    class Node:
        pass

    cache = NearCache(1000)
    nodes = [Node() for _ in range(100)]
    for node in nodes:
        node.cache = cache
        cache.put(node, node)
    grave = [weakref.ref(nodes[0]), weakref.ref(cache)]
    del cache, nodes, node
    gc.collect()
    assert [ref() for ref in grave] == [None, None]


def test_a_cycle_through_the_clock_is_collected():
    class Owner:
        def clock(self):
            return 0.0

    owner = Owner()
    owner.cache = NearCache(10, clock=owner.clock)
    grave = weakref.ref(owner)
    del owner
    gc.collect()
    assert grave() is None


def test_finalizers_of_a_collected_cycle_may_use_the_cache():
    class Node:
        def __del__(self):
            self.cache.put("late", self.cache.get("a"))
            seen.append(len(self.cache))

    seen = []
    cache = NearCache(10)
    for key in "abc":
        node = Node()
        node.cache = cache
        cache.put(key, node)
    del cache, node
    gc.collect()
    assert len(seen) == 3


def test_the_collector_can_run_at_any_allocation():
    threshold = gc.get_threshold()
    cache = NearCache(8)
    gc.set_threshold(1)
    try:
        for i in range(300):
            cycle = [Value(lambda: cache.put("from the collector", 1))]
            cycle.append(cycle)
            del cycle
            cache.put(i, [i])
            cache.get(i)
    finally:
        gc.set_threshold(*threshold)
    assert len(cache) == 8


def test_a_cache_that_the_collector_has_cleared_is_empty():
    cache = NearCache(10)
    for key in "abc":
        cache.put(key, key, 1)
    (owned,) = [referent for referent in gc.get_referents(cache) if type(referent) is list]
    owned.clear()  # as the collector does it
    assert cache.get("a") is None
    assert (len(cache), cache.nbytes) == (0, 0)
    cache.put("a", 2)
    assert cache.get("a") == 2


def test_nothing_is_leaked_or_freed_twice():
    marker = object()
    before = sys.getrefcount(marker)
    cache = NearCache(10, max_bytes=100)
    for i in range(200):
        cache.put(i % 17, marker, i % 30)
        cache.get(i % 13)
        cache.pop(i % 7)
        cache.put(("big", i), marker, 1000)
    cache.clear()
    assert sys.getrefcount(marker) == before
    cache.put("a", marker)
    del cache
    assert sys.getrefcount(marker) == before


def test_threads_may_share_a_cache():
    cache = NearCache(50, max_bytes=400, ttl=1000)

    def work(seed):  # pytest makes an error in a thread an error of the test
        chance = random.Random(seed)
        for _ in range(3000):
            number = chance.randrange(100)
            key = chance.choice([number, str(number), Key(number % 5)])
            action = chance.random()
            if action < 0.4:
                cache.put(key, (number, Value(lambda: cache.get("x"))), chance.randrange(20))
            elif action < 0.45:
                cache.pop(key)
            elif action < 0.455:
                cache.clear()
            else:
                found, _ = cache.get(key, (number, None))
                assert found % 5 == number % 5 if isinstance(key, Key) else found == number

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(cache) <= 50
    assert cache.nbytes <= 400
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)
