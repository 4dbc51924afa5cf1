import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.compression import expand
from msm_fast._core.record import decode_record, encode_record
from msm_fast._core.record_format import RecordFormat
from msm_fast.errors import CorruptRecord
from tests.property.values import texts, values
from tests.reference import codec
from tests.reference import record as reference

names = st.one_of(st.sampled_from("abcdefgh"), texts)
attributes = st.dictionaries(names, values, max_size=6)
u64 = st.integers(0, 2**64 - 1)
u62 = st.integers(0, 2**62 - 1)
u32 = st.integers(0, 2**32 - 1)
SECRET = "a secret of some length"


def encode(values):
    body, failures = AttributeMap(values).encode()
    assert failures == ()
    return body


@given(attributes)
def test_the_frames_are_those_of_the_reference(values):
    slow = reference.SlowAttributeMap()
    slow.values = values
    assert encode(values) == slow.encode()


@given(attributes)
def test_every_attribute_comes_back_with_its_type(values):
    back = AttributeMap.decode(encode(values))
    assert list(back) == list(values)
    assert all(codec.dumps(back[name]) == codec.dumps(values[name]) for name in values)
    assert back.failures == ()


@given(attributes, attributes, st.sets(names), st.sets(names))
def test_what_is_left_out_and_what_is_null_is_what_the_reference_says(stored, values, kept, refused):
    """A body that was loaded is changed, and some of its names may not be stored or only as null."""
    back = AttributeMap.decode(encode(stored))
    back.update(values)
    nulls = {name: frozenset({type_name(values.get(name))}) for name in refused}
    body, failures = back.encode(keep=kept.__contains__, nulls=nulls)
    slow = reference.SlowAttributeMap(encode(stored))
    slow.values |= values
    slow.values.update(dict.fromkeys(refused & values.keys()))
    changed, _ = slow.changed_names()
    # A name that is left out is a change only if it was stored, and then goes.
    if any(name in kept or name in stored for name in changed):
        slow.values = {name: value for name, value in slow.values.items() if name in kept}
        assert body == slow.encode()
    else:
        assert body == encode(stored)
    assert failures == ()
    assert {name: codec.dumps(back[name]) for name in values} == {n: codec.dumps(v) for n, v in values.items()}


def type_name(value):
    return f"{type(value).__module__}.{type(value).__qualname__}"


@given(st.lists(st.one_of(st.binary(max_size=3), st.sampled_from([b"user", b"cart"])), max_size=9))
def test_a_record_is_read_if_its_names_are_utf_8_and_each_another(names):
    body = b"".join(reference.FRAME.pack(len(name), 0, 1) + name + b"\x01" for name in names)
    data = encode_record(b"key", body, generation=1, created_ms=0, accessed_ms=0)
    if reference.has_good_names(body):
        assert decode_record(data, b"key").body == body
    else:
        with pytest.raises(CorruptRecord, match="a name"):
            decode_record(data, b"key")


lineages = st.lists(st.integers(1, 2**32 - 1), max_size=8).map(tuple)


@given(st.binary(max_size=250), attributes, u62, u62, u62, u32, u32, st.booleans(), lineages, u32)
def test_the_record_is_that_of_the_reference(
    key, values, generation, created, accessed, inactive, lifetime, is_tombstone, lineage, home
):
    body = encode(values)
    data = encode_record(
        key,
        body,
        generation=generation,
        created_ms=created,
        accessed_ms=accessed,
        max_inactive_s=inactive,
        absolute_lifetime_s=lifetime,
        is_tombstone=is_tombstone,
        lineage=lineage,
        home=home,
    )
    expected = (generation, created, accessed, inactive, lifetime, is_tombstone, lineage, home, body)
    assert data == reference.encode_record(key, body, *expected[:-1])
    assert reference.decode_record(data, key) == expected
    assert fields(decode_record(data, key)) == expected


@given(u64, u64, u64, st.booleans())
def test_a_number_that_no_session_has_is_corrupt_as_the_reference_says(generation, created, accessed, is_tombstone):
    data = encode_record(
        b"k", b"", generation=generation, created_ms=created, accessed_ms=accessed, is_tombstone=is_tombstone
    )
    try:
        expected = reference.decode_record(data, b"k")
    except reference.FormatError:
        with pytest.raises(CorruptRecord):
            decode_record(data, b"k")
    else:
        assert fields(decode_record(data, b"k")) == expected


def fields(record):
    times = (record.generation, record.created_ms, record.accessed_ms)
    lives = (record.max_inactive_s, record.absolute_lifetime_s)
    return (*times, *lives, record.is_tombstone, record.lineage, record.home, record.body)


formats = st.sampled_from(
    [
        RecordFormat(secrets=(SECRET,), encrypt=encrypt, compress_over=over, compression=method)
        for encrypt in (False, True)
        for over, method in ((None, "zlib"), (0, "zlib"), (0, "zstd"))
    ]
)


@given(formats, st.binary(max_size=250), attributes, u62, lineages, u32)
def test_a_sealed_record_comes_back_whatever_is_in_it(records, key, values, generation, lineage, home):
    body = encode(values)
    data = records.encode(
        key, body, generation=generation, created_ms=1, accessed_ms=2, lineage=lineage, home=home, is_tombstone=False
    )
    assert fields(records.decode(data, key)) == (generation, 1, 2, 0, 0, False, lineage, home, body)


@given(formats, attributes, st.data())
def test_no_changed_byte_of_a_sealed_record_is_accepted(records, values, data):
    sealed = bytearray(records.encode(b"k", encode(values), generation=1, created_ms=1, accessed_ms=1))
    for at in data.draw(st.sets(st.integers(0, len(sealed) - 1), min_size=1, max_size=3)):
        sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptRecord):
        records.decode(bytes(sealed), b"k")


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_body_or_corrupt_when_they_are_expanded(packed, is_zstd):
    try:
        expand(packed, is_zstd)
    except CorruptRecord:
        return


@given(st.binary())
def test_any_bytes_are_frames_or_corrupt_as_the_reference_says(body):
    try:
        n_frames = len(reference.split_frames(body))
    except reference.FormatError:
        with pytest.raises(CorruptRecord):
            AttributeMap.decode(body)
    else:
        assert len(AttributeMap.decode(body)) == n_frames


@given(attributes, st.data())
def test_a_changed_byte_in_the_frames_gives_a_value_a_failure_or_corrupt(values, data):
    body = bytearray(encode(values) or b"\0")
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        back = AttributeMap.decode(bytes(body))
        items = dict(back.items())
    except CorruptRecord:
        return
    assert all(items[failure.name] is None for failure in back.failures)


mutations = st.sampled_from(
    [
        lambda value: value.append(0) if type(value) is list else None,
        lambda value: value.update(x=[1]) if type(value) is dict else None,
        lambda value: value.clear() if type(value) in (dict, list, set, bytearray) else None,
        lambda value: value.extend(b"!") if type(value) is bytearray else None,
    ]
)


class MapLikeTheSlowOne(RuleBasedStateMachine):
    """Does the same to an AttributeMap and to its slow twin; both must stay alike."""

    def __init__(self):
        super().__init__()
        self.fast, self.slow = AttributeMap(), reference.SlowAttributeMap()
        self.body = b""

    @rule(values=attributes)
    def decode(self, values):
        self.body = encode(values)
        self.fast, self.slow = AttributeMap.decode(self.body), reference.SlowAttributeMap(self.body)

    @rule(name=names, value=values)
    def set(self, name, value):
        self.fast[name] = codec.loads(codec.dumps(value))
        self.slow.values[name] = value

    @precondition(lambda self: self.slow.values)
    @rule(data=st.data(), mutate=mutations)
    def change_inside(self, data, mutate):
        name = data.draw(st.sampled_from(list(self.slow.values)))
        mutate(self.fast[name])
        mutate(self.slow.values[name])

    @rule(name=names)
    def delete(self, name):
        assert (name in self.fast) == (name in self.slow.values)
        fast, slow = self.fast.pop(name, None), self.slow.values.pop(name, None)
        assert codec.dumps(fast) == codec.dumps(slow)

    @precondition(lambda self: self.slow.values)
    @rule(data=st.data())
    def set_again(self, data):
        name = data.draw(st.sampled_from(list(self.slow.values)))
        self.fast[name] = self.fast.pop(name)
        self.slow.values[name] = self.slow.values.pop(name)

    @rule()
    def clear(self):
        self.fast.clear()
        self.slow.values.clear()

    @rule()
    def go_on_with_a_copy(self):
        self.fast = self.fast.copy()

    @rule(name=names, value=values)
    def save_late(self, name, value):
        body, _ = self.fast.encode()
        self.set(name, value)
        self.save(body)

    @rule()
    def save_now(self):
        self.save(self.fast.encode()[0])

    def save(self, body):
        self.fast.mark_saved(body)
        self.slow.mark_saved(body)
        self.body = body

    @rule(name=names, value=values)
    def delete_between_encoding_and_saving(self, name, value):
        self.set(name, value)
        body, _ = self.fast.encode()
        self.delete(name)
        self.save(body)

    @rule(others=attributes, kept=st.sets(st.sampled_from("abcdefgh")))
    def rebase(self, others, kept):
        theirs = reference.decode_values(self.body)
        values = {name: theirs[name] for name in kept if name in theirs} | others
        self.body = encode(values)
        self.fast.rebase(self.body)
        self.slow.rebase(self.body)

    @invariant()
    def same_size(self):
        assert len(self.fast) == len(self.slow.values)

    @rule()
    def same_values(self):
        assert list(self.fast) == list(self.slow.values)
        assert all(codec.dumps(self.fast[name]) == codec.dumps(value) for name, value in self.slow.values.items())

    @rule()
    def same_frames_and_changes(self):
        body, failures = self.fast.encode()
        assert failures == ()
        assert body == self.slow.encode()
        assert self.fast.is_changed == (body != self.body)
        assert self.fast.changed_names() == self.slow.changed_names()
        if body == self.body:
            assert body is self.fast.encode()[0]


TestMapLikeTheSlowOne = MapLikeTheSlowOne.TestCase
TestMapLikeTheSlowOne.settings = settings(max_examples=25, stateful_step_count=25)
