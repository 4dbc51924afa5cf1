import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msm_fast._core.codec import dumps, loads
from msm_fast.errors import CorruptRecord
from tests.property.values import values
from tests.reference import codec as reference


@given(values)
def test_the_bytes_are_those_of_the_reference(value):
    assert dumps(value) == reference.dumps(value)


@given(values)
def test_what_comes_back_is_what_went_in_type_included(value):
    back = loads(dumps(value))
    assert type(back) is type(value)
    assert reference.dumps(back) == reference.dumps(value)


@given(values)
def test_both_decoders_read_the_same_value(value):
    data = reference.dumps(value)
    assert reference.dumps(loads(data)) == reference.dumps(reference.loads(data))


@given(values, st.data())
@settings(max_examples=200)
def test_a_changed_byte_gives_what_the_reference_gives(value, data):
    encoded = bytearray(reference.dumps(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    assert_same_outcome(bytes(encoded))


@given(st.binary())
@settings(max_examples=300)
def test_any_bytes_give_what_the_reference_gives(data):
    assert_same_outcome(data)


@given(values, st.data())
def test_no_proper_prefix_is_a_value(value, data):
    encoded = reference.dumps(value)
    with pytest.raises(CorruptRecord):
        loads(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


def assert_same_outcome(data):
    try:
        expected = reference.loads(data)
    except reference.FormatError:
        with pytest.raises(CorruptRecord):
            loads(data)
    else:
        assert reference.dumps(loads(data)) == reference.dumps(expected)
