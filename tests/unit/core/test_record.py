import pytest

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.record import Record, decode_record, encode_record
from msm_fast.errors import CorruptRecord, UnknownFormat
from tests.reference import record as reference

KEY = b"s:0123456789abcdef"
FIELDS = {
    "generation": 7,
    "created_ms": 1,
    "accessed_ms": 2,
    "max_inactive_s": 1800,
    "absolute_lifetime_s": 3600,
    "home": 0xFEDCBA98,
}
BODY, _ = AttributeMap({"user": 42, "cart": [1, "two"], "": None}).encode()


def record(**changes):
    return encode_record(KEY, BODY, **(FIELDS | changes))


def resealed(data):
    """Give changed bytes a trailer that fits them."""
    return data[:-8] + reference.digest(data[:-8], KEY).to_bytes(8, "little")


def test_a_record_comes_back_as_it_was():
    back = decode_record(record(is_tombstone=True, lineage=(3, 2**32 - 1)), KEY)
    assert {name: getattr(back, name) for name in FIELDS} == FIELDS
    assert back.is_tombstone is True
    assert back.lineage == (3, 2**32 - 1)
    assert back.body == BODY


def test_limits_default_to_none_and_the_record_to_no_tombstone():
    back = decode_record(encode_record(KEY, b"", generation=0, created_ms=0, accessed_ms=0), KEY)
    assert (back.max_inactive_s, back.absolute_lifetime_s, back.is_tombstone, back.body) == (0, 0, False, b"")


def test_a_lineage_names_eight_writes_at_most():
    assert decode_record(record(lineage=tuple(range(1, 20))), KEY).lineage == tuple(range(1, 9))
    with pytest.raises(OverflowError):
        record(lineage=(2**32,))


def test_the_record_of_another_key_is_corrupt():
    with pytest.raises(CorruptRecord, match="another key"):
        decode_record(record(), KEY + b"x")


def test_every_truncation_is_corrupt():
    data = record()
    for n_bytes in range(len(data)):
        with pytest.raises(CorruptRecord):
            decode_record(data[:n_bytes], KEY)


def test_bytes_after_the_record_are_corrupt():
    with pytest.raises(CorruptRecord):
        decode_record(record() + b"\0", KEY)


def test_every_change_of_one_byte_is_corrupt():
    data = record()
    for at in range(len(data)):
        for flip in range(1, 256):
            with pytest.raises(CorruptRecord):
                decode_record(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :], KEY)


@pytest.mark.parametrize(
    ("at", "byte"),
    # flags: both kinds of compression, both kinds of trailer, unknown ones; a key id without its trailer, the reverse
    [(4, 0), (4, 2), (5, 6), (5, 24), (5, 32), (5, 64), (5, 128), (6, 1), (7, 1), (5, 8), (5, 16)],
    ids=lambda number: f"{number:02x}",
)
def test_another_version_flag_or_key_id_is_an_unknown_format(at, byte):
    data = bytearray(record())
    data[at] = byte
    with pytest.raises(UnknownFormat):
        decode_record(resealed(bytes(data)), KEY)


def test_another_version_is_recognised_whatever_its_length():
    for n_bytes in (5, 20, 500):
        with pytest.raises(UnknownFormat):
            decode_record(b"\x89MSM\x02" + bytes(n_bytes), KEY)


def test_another_magic_is_corrupt_and_no_unknown_format():
    with pytest.raises(CorruptRecord) as caught:
        decode_record(resealed(b"\x88" + record()[1:]), KEY)
    assert type(caught.value) is CorruptRecord


def test_a_wrong_attribute_count_is_corrupt():
    data = bytearray(record())
    data[40] += 1
    with pytest.raises(CorruptRecord, match="number of attributes"):
        decode_record(resealed(bytes(data)), KEY)


def test_a_wrong_body_length_is_corrupt():
    data = bytearray(record())
    data[44] -= 1
    with pytest.raises(CorruptRecord, match="length"):
        decode_record(resealed(bytes(data)), KEY)


def test_a_frame_that_is_cut_is_corrupt_and_the_offset_tells_where():
    data = bytearray(record())
    data[84 + 3] = 255
    with pytest.raises(CorruptRecord, match="cut") as caught:
        decode_record(resealed(bytes(data)), KEY)
    assert caught.value.offset == 84


def named(*names):
    """Return the record of as many frames with these names, as bytes."""
    body = b"".join(reference.FRAME.pack(len(name), 0, 1) + name + b"\x01" for name in names)
    return encode_record(KEY, body, **FIELDS)


MANY = [b"name-%d" % i for i in range(300)]


@pytest.mark.parametrize(
    ("names", "offset"),
    [
        ([b"user", b"cart", b"user"], 84 + 2 * 12),
        ([b"", b""], 84 + 8),
        ([b"\xc3\xbc", b"a", b"\xc3\xbc"], 84 + 10 + 9),
        ([*MANY[:200], MANY[0]], None),
        ([*MANY, MANY[299]], None),
    ],
    ids=["", "empty", "not ASCII", "two hundred", "three hundred"],
)
def test_a_name_that_stands_twice_is_corrupt(names, offset):
    with pytest.raises(CorruptRecord, match="stands twice") as caught:
        decode_record(named(*names), KEY)
    assert offset in (None, caught.value.offset)


@pytest.mark.parametrize("name", [b"\xff", b"ab\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"x" * 300 + b"\x80"])
def test_a_name_that_is_not_utf_8_is_corrupt(name):
    with pytest.raises(CorruptRecord, match="not UTF-8") as caught:
        decode_record(named(b"a", name, b"b"), KEY)
    assert caught.value.offset == 84 + 9 + 7


@pytest.mark.parametrize(
    "names",
    [
        [b""],
        [b"a", b"A", b"aa", b""],
        ["ü".encode(), "ü".encode() * 2, b"u"],
        MANY[:256],
        MANY,
        [b"x" * 65535, b"x" * 65534],
    ],
    ids=["empty", "alike", "not ASCII", "many", "more", "long"],
)
def test_names_that_differ_are_read_however_many_and_long(names):
    body = decode_record(named(*names), KEY).body
    assert list(AttributeMap.decode(body)) == [name.decode() for name in names]


def test_a_body_that_is_no_frames_is_not_encoded():
    with pytest.raises(CorruptRecord):
        encode_record(KEY, b"x", **FIELDS)


@pytest.mark.parametrize("field", FIELDS)
def test_a_number_outside_its_field_is_refused(field):
    for number in (-1, 2**64):
        with pytest.raises(OverflowError):
            record(**{field: number})


@pytest.mark.parametrize("field", ["generation", "created_ms", "accessed_ms"])
def test_a_number_that_no_session_has_is_corrupt(field):
    assert getattr(decode_record(record(**{field: 2**62 - 1}), KEY), field) == 2**62 - 1
    for number in (2**62, 2**63, 2**64 - 1):
        with pytest.raises(CorruptRecord, match="no session has"):
            decode_record(record(**{field: number}), KEY)


def test_a_tombstone_has_the_largest_generation_of_all():
    assert decode_record(record(generation=2**64 - 1, is_tombstone=True), KEY).generation == 2**64 - 1


def test_only_bytes_are_taken():
    with pytest.raises(TypeError):
        decode_record(bytearray(record()), KEY)
    with pytest.raises(TypeError):
        decode_record(record(), KEY.decode())
    with pytest.raises(TypeError):
        encode_record(KEY, None, **FIELDS)


def test_a_record_is_read_only_and_not_made_by_hand():
    back = decode_record(record(), KEY)
    with pytest.raises(AttributeError):
        back.generation = 8
    with pytest.raises(TypeError):
        Record()


def test_the_repr_of_a_record_shows_no_content():
    assert "cart" not in repr(decode_record(record(), KEY))
    assert "generation=7" in repr(decode_record(record(), KEY))
