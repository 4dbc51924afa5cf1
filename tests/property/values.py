"""Strategies for every value the codec carries."""

import datetime
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

zones = st.one_of(
    st.none(),
    st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("America/Port-au-Prince"), ZoneInfo("Etc/GMT+5")]),
    st.builds(
        datetime.timezone,
        st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23)),
    ),
    st.builds(
        datetime.timezone,
        st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23)),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    ),
)
folds = st.integers(0, 1)
integers = st.one_of(
    st.integers(),
    st.builds(
        lambda exponent, offset, sign: sign * (2**exponent + offset),
        st.integers(0, 130),
        st.integers(-2, 2),
        st.sampled_from([1, -1]),
    ),
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
hashable_scalars = st.one_of(
    st.none(),
    st.booleans(),
    integers,
    st.floats(),
    st.complex_numbers(),
    texts,
    st.binary(),
    st.builds(lambda moment, fold: moment.replace(fold=fold), st.datetimes(timezones=zones), folds),
    st.dates(),
    st.builds(lambda moment, fold: moment.replace(fold=fold), st.times(timezones=zones), folds),
    st.timedeltas(),
    st.decimals().filter(lambda number: not number.is_snan()),
    st.fractions(),
    st.uuids(),
)
keys = st.recursive(
    hashable_scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)),
    max_leaves=4,
)
values = st.recursive(
    st.one_of(hashable_scalars, st.binary().map(bytearray), st.decimals()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.sets(keys, max_size=5),
        st.frozensets(keys, max_size=5),
        st.dictionaries(keys, inner, max_size=5),
    ),
    max_leaves=15,
)
