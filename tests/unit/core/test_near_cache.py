import math
import random
from collections import OrderedDict

import pytest

from msm_fast._core.near_cache import NearCache
from msm_fast.errors import ConfigurationError


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


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


def test_the_order_of_use_is_exact_among_many():
    cache, model, choose = NearCache(200), OrderedDict(), random.Random(1)
    for n in range(20_000):
        key = choose.randrange(300)
        if choose.random() < 0.5:
            assert cache.get(key) == model.get(key)
        elif choose.random() < 0.9:
            cache.put(key, n)
            model[key] = n
        else:
            assert cache.pop(key) == model.pop(key, None)
        if key in model:
            model.move_to_end(key)
        if len(model) > 200:
            model.popitem(last=False)
    assert sorted(cache.keys()) == sorted(model)


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


def test_an_unhashable_key_is_a_type_error():
    cache = NearCache(10)
    for call in (cache.get, cache.pop, cache.__contains__, lambda key: cache.put(key, 1)):
        with pytest.raises(TypeError, match="unhashable"):
            call([])


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
