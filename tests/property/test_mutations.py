"""Damaged encodings at every entry that reads bytes from outside: the documented error, or a value that is whole."""

from hypothesis import given, settings
from hypothesis import strategies as st

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.codec import dumps, loads
from msm_fast._core.record import decode_record, encode_record, value_sizes
from msm_fast._core.record_format import RecordFormat
from msm_fast._core.session_id import SessionId
from msm_fast.errors import CorruptRecord
from tests.property.mutations import damaged
from tests.property.test_wire import CUTS, cut, exchanges, read
from tests.property.values import texts, values
from tests.reference import codec as slow_codec
from tests.reference import record as slow_record
from tests.reference import session_id as slow_session_id
from tests.reference import wire as slow_wire

attributes = st.dictionaries(texts, values, max_size=5)
bodies = attributes.map(lambda values: AttributeMap(values).encode()[0])
records = bodies.map(lambda body: encode_record(b"k", body, generation=1, created_ms=2, accessed_ms=3, lineage=(4, 5)))
ids = st.from_regex(slow_session_id.GRAMMAR, fullmatch=True).map(str.encode)
more_examples = settings(max_examples=300)


def outcome(call, *arguments):
    """Return what call gives, or "corrupt" for the documented error, which says where the fault is."""
    try:
        return call(*arguments)
    except CorruptRecord as error:
        return "corrupt" if 0 <= error.offset <= len(arguments[0]) else f"an offset of {error.offset}"


@more_examples
@given(damaged(values.map(dumps)))
def test_a_damaged_value_is_what_the_reference_says(data):
    try:
        expected = slow_codec.loads(data)
    except slow_codec.FormatError:
        assert outcome(loads, data) == "corrupt"
    else:
        assert slow_codec.dumps(loads(data)) == slow_codec.dumps(expected)


@more_examples
@given(damaged(bodies), st.data())
def test_damaged_frames_are_corrupt_or_a_map_that_can_be_used_and_saved(body, data):
    back = outcome(AttributeMap.decode, body)
    if back == "corrupt":
        return
    assert len(back) == len(slow_record.split_frames(body))
    try:
        names = list(back)
        sizes = value_sizes(body)
    except CorruptRecord:
        return  # names that stand twice, or are no text: found when names are asked for
    assert [*sizes] == names
    read = dict(back)
    failed = {failure.name for failure in back.failures}
    encoded, failures = back.encode()
    assert failures == ()
    for before, after in zip(slow_record.split_frames(body), slow_record.split_frames(encoded), strict=True):
        # What nobody has changed stays as it was, but a number inside a value may get its shortest form.
        assert after == before or after == (*before[:2], dumps(read[before[0].decode()]))
    assert all(read[name] is None for name in failed)
    back["new"] = data.draw(values)
    again = AttributeMap.decode(back.encode()[0])
    assert {name: dumps(value) for name, value in again.items()} == {name: dumps(value) for name, value in back.items()}
    assert {failure.name for failure in again.failures} == failed - {"new"}


@more_examples
@given(damaged(records))
def test_a_damaged_record_is_corrupt_even_when_its_trailer_fits(data):
    try:
        expected = slow_record.decode_record(data, b"k")
    except slow_record.FormatError:
        assert outcome(decode_record, data, b"k") == "corrupt"
    else:
        assert decode_record(data, b"k").body == expected[-1]
    resealed = data[:-8] + slow_record.digest(data[:-8], b"k").to_bytes(8, "little")
    try:
        expected = slow_record.decode_record(resealed, b"k")
    except slow_record.FormatError:
        assert outcome(decode_record, resealed, b"k") == "corrupt"
    else:
        back = decode_record(resealed, b"k")
        assert (back.generation, back.lineage, back.home, back.body) == (expected[0], *expected[-3:])


SEALED = {encrypt: RecordFormat(secrets=("a secret of some length",), encrypt=encrypt) for encrypt in (False, True)}


@given(st.booleans(), bodies, st.data())
def test_a_damaged_record_that_was_sealed_is_never_accepted(encrypt, body, data):
    format_ = SEALED[encrypt]
    sealed = format_.encode(b"k", body, generation=1, created_ms=1, accessed_ms=1)
    broken = data.draw(damaged(st.just(sealed)))
    if broken != sealed:
        assert outcome(format_.decode, broken, b"k") == "corrupt"


@more_examples
@given(damaged(ids))
def test_a_damaged_id_is_what_the_reference_says(data):
    text = data.decode("latin-1")
    parsed = SessionId.parse(text)
    assert (parsed and (parsed.plain, parsed.node, parsed.route)) == slow_session_id.parse(text)


@more_examples
@given(exchanges(), st.data(), CUTS)
def test_a_damaged_stream_of_replies_is_what_the_reference_says(exchange, data, cuts):
    verbs, first_opaque, stream = exchange
    broken = data.draw(damaged(st.just(stream)))
    assert read(verbs, first_opaque, cut(broken, cuts)) == slow_wire.parse(verbs, first_opaque, broken)
