"""What the codec writes is MessagePack to two public libraries, and what they write it reads."""

import math

import msgpack
import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msm_fast._core.codec import dumps, loads
from tests.property.values import texts, values

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), texts, st.binary(max_size=300)
)
keys = st.one_of(st.integers(-(2**63), 2**64 - 1), texts, st.booleans(), st.none(), st.floats(allow_nan=False))
common = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=20), st.dictionaries(keys, inner, max_size=20)),
    max_leaves=30,
)
# Every width of a head: 31 and 32, 255 and 256, 65,535 and 65,536 bytes or values.
EDGES = [
    make(n + i)
    for make in (lambda n: "t" * n, lambda n: b"b" * n, lambda n: [None] * n, lambda n: dict.fromkeys(range(n)))
    for n in (15, 31, 255, 65535)
    for i in (0, 1)
]


def msgpack_loads(data):
    return msgpack.unpackb(data, strict_map_key=False)


def ormsgpack_dumps(value):
    return ormsgpack.packb(value, option=ormsgpack.OPT_NON_STR_KEYS)


def ormsgpack_loads(data):
    return ormsgpack.unpackb(data, option=ormsgpack.OPT_NON_STR_KEYS)


LIBRARIES = pytest.mark.parametrize(
    ("their_dumps", "their_loads"),
    [(msgpack.packb, msgpack_loads), (ormsgpack_dumps, ormsgpack_loads)],
    ids=["msgpack", "ormsgpack"],
)


@LIBRARIES
@given(common)
def test_common_values_have_the_bytes_that_the_library_gives_them(their_dumps, their_loads, value):
    assert dumps(value) == their_dumps(value)


@LIBRARIES
@given(common)
def test_common_values_are_read_by_the_library_and_from_it(their_dumps, their_loads, value):
    # Compared as bytes: nan is not equal to itself, and 1 is equal to True.
    assert dumps(their_loads(dumps(value))) == dumps(value)
    assert dumps(loads(their_dumps(value))) == dumps(value)


@LIBRARIES
@pytest.mark.parametrize("value", EDGES, ids=lambda value: f"{type(value).__name__} of {len(value)}")
def test_each_width_of_a_length_is_the_librarys_too(their_dumps, their_loads, value):
    assert dumps(value) == their_dumps(value)
    assert their_loads(dumps(value)) == value
    assert loads(their_dumps(value)) == value


@given(values)
def test_every_value_is_read_by_the_library_with_extensions_as_objects(value):
    same_content(value, msgpack_loads(dumps(value)))


def same_content(value, theirs):
    """Check what a reader that knows nothing of our extensions sees of value."""
    kind = type(value)
    if kind is dict:
        assert type(theirs) is dict
        for (key, item), (their_key, their_item) in zip(value.items(), theirs.items(), strict=True):
            same_content(key, their_key)
            same_content(item, their_item)
    elif kind is list:
        assert type(theirs) is list
        for item, their_item in zip(value, theirs, strict=True):
            same_content(item, their_item)
    elif kind is tuple:
        assert theirs.code == 4
        same_content(list(value), msgpack_loads(theirs.data))
    elif kind in (bytes, str, bool, type(None)) or (kind is int and -(2**63) <= value < 2**64):
        assert (type(theirs), theirs) == (kind, value)
    elif kind is float:
        assert type(theirs) is float
        assert theirs == value or (math.isnan(theirs) and math.isnan(value))
    else:
        assert type(theirs) is msgpack.ExtType
        assert 1 <= theirs.code <= 14
        assert dumps(loads(msgpack.packb(theirs))) == dumps(value)


def test_the_shorter_float_of_the_library_is_read():
    assert loads(msgpack.packb(1.5, use_single_float=True)) == 1.5


def test_an_extension_that_the_library_wrote_is_read():
    assert loads(msgpack.packb([msgpack.ExtType(4, msgpack.packb([1, "a"])), 2])) == [(1, "a"), 2]
    assert loads(ormsgpack.packb([ormsgpack.Ext(4, ormsgpack.packb([1, "a"])), 2])) == [(1, "a"), 2]
