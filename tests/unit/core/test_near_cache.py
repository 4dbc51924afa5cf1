import gc
import math
import random
import sys
import threading
import weakref

import pytest

from msm_fast._core.near_cache import NearCache
from msm_fast.errors import ConfigurationError


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


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


def keys_of(cache, candidates):
    return [key for key in candidates if key in cache]


def test_a_value_is_found_under_its_key():
    cache = NearCache(10)
    cache.put("a", 1)
    assert cache.get("a") == 1
    assert cache.get("b") is None
    assert cache.get("b", "default") == "default"
    assert "a" in cache
    assert "b" not in cache
    assert (len(cache), cache.hits, cache.misses) == (1, 1, 2)


def test_the_least_recently_used_entry_goes_first():
    cache = NearCache(3)
    for key in "abc":
        cache.put(key, key)
    cache.get("a")
    cache.put("d", "d")
    assert keys_of(cache, "abcd") == ["a", "c", "d"]
    cache.put("c", "again")
    cache.put("e", "e")
    cache.put("f", "f")
    assert keys_of(cache, "abcdef") == ["c", "e", "f"]
    assert cache.evictions == 3


def test_looking_with_in_is_no_use():
    cache = NearCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert "a" in cache
    cache.put("c", 3)
    assert keys_of(cache, "abc") == ["b", "c"]
    assert (cache.hits, cache.misses) == (0, 0)


def test_bytes_are_kept_within_their_budget():
    cache = NearCache(100, max_bytes=100)
    for key in "abcd":
        cache.put(key, key, 30)
    assert keys_of(cache, "abcd") == ["b", "c", "d"]
    assert cache.nbytes == 90
    cache.put("b", "smaller", 10)
    assert cache.nbytes == 70
    cache.put("c", "bigger", 90)
    assert keys_of(cache, "abcd") == ["b", "c"]
    assert cache.nbytes == 100
    cache.put("e", "all", 100)
    assert keys_of(cache, "abcde") == ["e"]


def test_a_value_over_the_budget_is_not_kept_and_removes_the_older_one():
    cache = NearCache(100, max_bytes=100)
    cache.put("a", "old", 10)
    cache.put("b", "other", 10)
    cache.put("a", "new", 101)
    assert keys_of(cache, "ab") == ["b"]
    assert (cache.nbytes, cache.evictions) == (10, 0)


def test_an_expired_entry_is_a_miss_and_goes_when_it_is_met():
    clock = Clock()
    cache = NearCache(10, ttl=5, clock=clock)
    for key in "abc":
        cache.put(key, key, 1)
    clock.now += 4.999
    assert cache.get("a") == "a"
    clock.now += 0.001
    assert len(cache) == 3
    assert cache.get("a", "gone") == "gone"
    assert "b" not in cache
    assert cache.pop("c", "gone") == "gone"
    assert (len(cache), cache.nbytes, cache.hits, cache.misses, cache.evictions) == (0, 0, 1, 1, 0)


def test_an_entry_may_have_a_ttl_of_its_own():
    clock = Clock()
    cache = NearCache(10, ttl=5, clock=clock)
    cache.put("short", 1, ttl=1)
    cache.put("usual", 1)
    cache.put("long", 1, ttl=9)
    cache.put("ever", 1, ttl=math.inf)
    names = ["short", "usual", "long", "ever"]
    for seconds, left in ((2, 3), (4, 2), (4, 1), (10**9, 1)):
        clock.now += seconds
        assert keys_of(cache, names) == names[4 - left :]


def test_putting_again_sets_a_new_deadline():
    clock = Clock()
    cache = NearCache(10, clock=clock)
    cache.put("a", 1, ttl=5)
    clock.now += 4
    cache.put("a", 2, ttl=5)
    clock.now += 4
    assert cache.get("a") == 2
    cache.put("a", 3)
    clock.now += 1000
    assert cache.get("a") == 3


@pytest.mark.parametrize("ttl", [0, -1, -math.inf])
def test_a_value_whose_time_is_over_is_not_kept_and_removes_the_older_one(ttl):
    cache = NearCache(10)
    cache.put("a", "old")
    cache.put("a", "new", ttl=ttl)
    assert len(cache) == 0


def test_the_clock_is_not_asked_while_nothing_can_expire():
    def clock():
        raise AssertionError("asked")

    cache = NearCache(10, clock=clock)
    cache.put("a", 1)
    assert cache.get("a") == 1
    with pytest.raises(AssertionError, match="asked"):
        cache.put("b", 1, ttl=1)
    assert keys_of(NearCache(1), "a") == []


def test_pop_removes_and_returns():
    cache = NearCache(10)
    cache.put("a", 1, 5)
    assert cache.pop("a") == 1
    assert cache.pop("a") is None
    assert cache.pop("a", "default") == "default"
    assert (len(cache), cache.nbytes, cache.hits, cache.misses) == (0, 0, 0, 0)


def test_clear_empties_and_keeps_counting():
    cache = NearCache(1000)
    for round_ in range(3):
        for i in range(500):
            cache.put(i, str(i), 2)
        cache.clear()
        assert (len(cache), cache.nbytes, cache.get(3, "gone")) == (0, 0, "gone")
        assert cache.misses == round_ + 1


def test_none_is_a_value_and_a_key():
    cache = NearCache(10)
    cache.put(None, None)
    assert None in cache
    assert cache.get(None, "default") is None
    assert cache.hits == 1


def test_many_entries_are_found_again():
    cache, numbers = NearCache(5000), list(range(0, 1 << 60, 1 << 48))
    for number in numbers:
        cache.put(str(number), number)
        cache.put(number, str(number))
    assert len(cache) == 5000
    kept = numbers[-2500:]
    assert all(cache.get(str(number)) == number and cache.get(number) == str(number) for number in kept)
    assert cache.evictions == 2 * len(numbers) - 5000


def test_keys_compare_as_in_a_dict():
    cache = NearCache(10)
    cache.put(1, "one")
    cache.put("".join(["ab", "c"]), "text")
    nan = math.nan
    cache.put(nan, "nan")
    assert cache.get(1.0) == cache.get(True) == "one"
    assert cache.get("abc") == "text"
    assert cache.get(b"abc") is None
    assert cache.get(nan) == "nan"
    assert cache.get(float("nan")) is None


def test_keys_of_one_hash_are_told_apart_by_their_eq():
    cache = NearCache(100)
    for i in range(50):
        cache.put(Key(i), i)
    assert [cache.get(Key(i)) for i in range(51)] == [*range(50), None]
    assert [cache.pop(Key(i)) for i in range(50)] == list(range(50))


def test_an_unhashable_key_is_a_type_error():
    cache = NearCache(10)
    for call in (cache.get, cache.pop, cache.__contains__, lambda key: cache.put(key, 1)):
        with pytest.raises(TypeError, match="unhashable"):
            call([])


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


@pytest.mark.parametrize(
    "settings",
    [
        {"max_entries": 0},
        {"max_entries": -1},
        {"max_entries": 1.5},
        {"max_entries": "10"},
        {"max_entries": None},
        {"max_entries": 2**64},
        {"max_entries": 1, "max_bytes": 0},
        {"max_entries": 1, "max_bytes": -1},
        {"max_entries": 1, "max_bytes": "1M"},
        {"max_entries": 1, "ttl": 0},
        {"max_entries": 1, "ttl": -1.0},
        {"max_entries": 1, "ttl": math.nan},
        {"max_entries": 1, "ttl": "soon"},
        {"max_entries": 1, "clock": None},
    ],
)
def test_a_setting_that_makes_no_sense_is_a_configuration_error(settings):
    with pytest.raises(ConfigurationError):
        NearCache(**settings)


@pytest.mark.parametrize("arguments", [{"size": -1}, {"ttl": math.nan}])
def test_a_negative_size_or_a_ttl_of_nan_is_a_value_error(arguments):
    cache = NearCache(10)
    cache.put("a", 1)
    with pytest.raises(ValueError, match=next(iter(arguments))):
        cache.put("a", 2, **arguments)
    assert cache.get("a") == 1
