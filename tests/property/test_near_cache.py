from hypothesis import given
from hypothesis import strategies as st

from msm_fast._core.near_cache import NearCache
from tests.reference import near_cache as reference

# 1 and True are one key, as in a dict; 2**61 - 1 more is another integer with the same hash.
KEYS = st.sampled_from(["a", "b", "c", "d", "ä", b"a", 1, True, 2**61, (1, "a"), (1.0, "a"), None])
TTLS = st.sampled_from([None, -1.0, 0.0, 1, 2.5, float("inf")])
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.integers(), st.integers(0, 12), TTLS),
    st.tuples(st.just("get"), KEYS, st.just("default")),
    st.tuples(st.just("pop"), KEYS, st.just("default")),
    st.tuples(st.just("__contains__"), KEYS),
    st.tuples(st.just("clear")),
    st.tuples(st.just("wait"), st.floats(0, 3)),
)
SETTINGS = st.tuples(
    st.integers(1, 6), st.sampled_from([None, 1, 10, 30]), st.sampled_from([None, 0.5, 2.0, float("inf")])
)
COUNTERS = ("nbytes", "hits", "misses", "evictions")


@given(SETTINGS, st.lists(OPERATIONS, max_size=60))
def test_any_sequence_of_calls_gives_what_the_oracle_gives(settings, operations):
    now = 100.0

    def clock():
        return now

    cache, expected = NearCache(*settings, clock), reference.NearCache(*settings, clock)
    for name, *arguments in operations:
        if name == "wait":
            now += arguments[0]
            continue
        assert getattr(cache, name)(*arguments) == getattr(expected, name)(*arguments)
        assert len(cache) == len(expected)
        assert [getattr(cache, counter) for counter in COUNTERS] == [getattr(expected, counter) for counter in COUNTERS]
