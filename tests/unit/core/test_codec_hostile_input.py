"""Corrupt and hostile input of the codec: refused, with time and memory in proportion to its bytes."""

import struct
import sys
import tracemalloc
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest

from msm_fast._core.codec import dumps, loads
from msm_fast.errors import CorruptRecord
from tests.unit.core.test_codec import Point

__all__ = ["Point"]  # registered as test.Point, which a malformed value names


@pytest.mark.parametrize(
    "prefix",
    [b"\x91", b"\x81\x00", b"\xdc\x00\x01"],
)
def test_deep_input_is_corrupt(prefix):
    with pytest.raises(CorruptRecord, match="64 levels"):
        loads(prefix * 65 + b"\x00")
    loads(prefix * 64 + b"\x00")


def test_reducing_a_fraction_that_is_too_large_is_not_even_tried(monkeypatch):
    def integer(n_bytes):
        return b"\xc9" + n_bytes.to_bytes(4, "big") + b"\x01" + b"\x5b" * n_bytes

    monkeypatch.setattr(Fraction, "__new__", lambda *_: pytest.fail("this would take seconds"))
    array = b"\x92" + integer(500_000) + integer(499_999)
    with pytest.raises(CorruptRecord, match="more than 4096 bits"):
        loads(b"\xc9" + len(array).to_bytes(4, "big") + b"\x0c" + array)


def test_deep_extensions_are_corrupt():
    data = b"\x90"
    for _ in range(100):
        data = b"\x91\xc9" + len(data).to_bytes(4, "big") + b"\x04" + data
    with pytest.raises(CorruptRecord, match="64 levels"):
        loads(data)


@pytest.mark.parametrize("code", [4, 5, 6, 12, 14])
def test_extensions_that_hold_nothing_but_each_other_are_corrupt_however_many(code):
    sizes = [1]
    while sizes[-1] < 2**20:
        sizes.append(sizes[-1] + 6)
    heads = [b"\xc9" + size.to_bytes(4, "big") + bytes([code]) for size in reversed(sizes)]
    with pytest.raises(CorruptRecord):
        loads(b"".join(heads) + b"\x90")


MALFORMED = {
    "nothing": b"",
    "the unused byte": b"\xc1",
    "two values": b"\xc0\xc0",
    "array of 4 G values": b"\xdd\xff\xff\xff\xff\x00\x00\x00\x00\x00",
    "map of 4 G pairs": b"\xdf\xff\xff\xff\xff\x00\x00\x00\x00\x00",
    "text of 4 GiB": b"\xdb\xff\xff\xff\xffabcde",
    "extension of 4 GiB": b"\xc9\xff\xff\xff\xff\x04abcd",
    "no UTF-8": b"\xa1\xff",
    "an encoded surrogate": b"\xa3\xed\xa0\x80",
    "list as a key": b"\x81\x90\xc0",
    "a key twice": b"\x82\x01\x01\x01\x02",
    "equal keys of two types": b"\x82\x01\x01\xc3\x02",
    "an element twice": b"\xd6\x05\x93\x01\x02\x01",
    "unknown extension": b"\xd4\x63\x00",
    "MessagePack's timestamp": b"\xd6\xff\x00\x00\x00\x00",
    "tuple that is text": b"\xd5\x04\xa1a",
    "tuple and more": b"\xd5\x04\x90\xc0",
    "empty tuple payload": b"\xc7\x00\x04",
    "short complex": b"\xd7\x02" + bytes(8),
    "month 13": b"\xd6\x08\x07\xe8\x0d\x01",
    "year 0": b"\xd6\x08\x00\x00\x01\x01",
    "short date": b"\xd5\x08\x07\xe8",
    "date with a zone": b"\xc7\x05\x08\x07\xe8\x01\x01\x01",
    "hour 24": b"\xd7\x09\x18\x00\x00\x00\x00\x00\x00\x00",
    "fold 2": b"\xd7\x09\x00\x00\x00\x02\x00\x00\x00\x00",
    "microsecond 2**31": b"\xd7\x09\x00\x00\x00\x00\x80\x00\x00\x00",
    "timedelta of 2**31 - 1 days": b"\xc7\x0c\x0a\x7f\xff\xff\xff" + bytes(8),
    "no decimal": b"\xc7\x03\x0babc",
    "decimal with blanks": b"\xc7\x03\x0b 1 ",
    "decimal with underscores": b"\xc7\x03\x0b1_1",
    "fraction with denominator 0": b"\xc7\x03\x0c\x92\x01\x00",
    "fraction not in lowest terms": b"\xc7\x03\x0c\x92\x02\x04",
    "timedelta of a day in seconds": b"\xc7\x0c\x0a" + struct.pack(">iII", 0, 86_400, 0),
    "timedelta of a second in microseconds": b"\xc7\x0c\x0a" + struct.pack(">iII", 0, 0, 1_000_000),
    "fraction of floats": b"\xc7\x13\x0c\x92" + 2 * (b"\xcb" + bytes(8)),
    "fraction over the limit": b"\xc8\x02\x07\x0c\x92\xc8\x02\x01\x01\x01" + bytes(512) + b"\x01",
    "fraction under the limit": b"\xc8\x02\x07\x0c\x92\x01\xc8\x02\x01\x01\x01" + bytes(512),
    "fraction of one": b"\xd5\x0c\x91\x01",
    "short UUID": b"\xd7\x0d" + bytes(8),
    "unregistered name": b"\xc7\x04\x0e\x92\xa1?\x00",
    "name that is a list": b"\xd6\x0e\x92\x90\x00\x00",
    "payload the decoder refuses": b"\xc7\x0d\x0e\x92\xaatest.Point\x00",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_input_is_corrupt(data):
    with pytest.raises(CorruptRecord) as caught:
        loads(data)
    assert 0 <= caught.value.offset <= len(data)


def zoned(zone):
    payload = bytes(8) + zone
    return b"\xc7" + bytes([len(payload)]) + b"\x09" + payload


@pytest.mark.parametrize(
    "zone",
    [
        b"\x03",
        b"\x03../../etc/passwd",
        b"\x03/etc/passwd",
        b"\x03Europe/../Europe/Berlin",
        b"\x03Europe//Berlin",
        b"\x03Europe/",
        b"\x03Europe",
        b"\x03Europe/Berlin\x00",
        b"\x03Europe/Berlin\n",
        b"\x03Nowhere/Atlantis",
        b"\x03" + b"x" * 200,
        b"\x03Europe\\Berlin",
        b"\x01\x00",
        b"\x01" + (86_400_000_000).to_bytes(8, "big"),
        b"\x01" + (2**63 - 1).to_bytes(8, "big"),
        b"\x01" + bytes(9),
        b"\x02" + bytes(8) + b"\xff",
        b"\x04" + bytes(8),
    ],
)
def test_a_zone_that_is_none_is_corrupt(zone):
    with pytest.raises(CorruptRecord):
        loads(zoned(zone))


def test_a_zone_key_with_a_path_trick_never_reaches_zoneinfo(monkeypatch):
    from msm_fast._core import zones

    asked = []
    monkeypatch.setattr(zones, "ZoneInfo", asked.append)
    for key in (b"../x", b"/x", b"a/../b", b"a//b", b".", b"a\x00"):
        with pytest.raises(CorruptRecord):
            loads(zoned(b"\x03" + key))
    assert asked == []


def test_announced_lengths_take_no_memory():
    # Each level announces as many values as bytes are left; together they must not reserve more than once.
    data = b"\xdd\x00\x04\x00\x00" * 60 + b"\x00" * 2**18
    tracemalloc.start()
    try:
        with pytest.raises(CorruptRecord):
            loads(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * len(data)


def test_only_bytes_are_decoded():
    for data in (bytearray(b"\xc0"), "\xc0", None, memoryview(b"\xc0")):
        with pytest.raises(TypeError):
            loads(data)


# Every multiple of this is another number with the hash 0: of how Python hashes numbers on 64-bit machines.
MODULUS = sys.hash_info.modulus
SAME_HASH = {
    "ints": [i * MODULUS for i in range(1, 20_001)],
    "fractions": [Fraction(i * MODULUS, 2 * i + 1) for i in range(1, 2001)],
    "decimals": [Decimal(i * MODULUS) for i in range(1, 2001)],
    "complex numbers": [complex(-sys.hash_info.imag * i, i) for i in range(1, 2001)],
    "UUIDs": [UUID(int=i * MODULUS) for i in range(1, 2001)],
    "tuples": [(i * MODULUS, "a") for i in range(1, 2001)],
}


def array(items):
    return b"\xdd" + len(items).to_bytes(4, "big") + b"".join(map(dumps, items))


def as_dict(keys):
    return b"\xdf" + len(keys).to_bytes(4, "big") + b"".join(dumps(key) + b"\xc0" for key in keys)


def as_set(elements):
    return dumps_extension(5, array(elements))


def as_frozenset(elements):
    return dumps_extension(6, array(elements))


def dumps_extension(code, payload):
    return b"\xc9" + len(payload).to_bytes(4, "big") + bytes([code]) + payload


@pytest.mark.parametrize("keys", SAME_HASH.values(), ids=SAME_HASH.keys())
@pytest.mark.parametrize("write", [as_dict, as_set, as_frozenset])
def test_keys_made_to_share_one_hash_are_corrupt_before_they_cost_quadratic_time(keys, write):
    assert len({hash(key) for key in keys}) == 1
    data = write(keys)
    with pytest.raises(CorruptRecord, match="one hash") as caught:
        loads(data)
    assert 0 < caught.value.offset <= len(data)


@pytest.mark.parametrize("make", [dict.fromkeys, set, frozenset], ids=["dict", "set", "frozenset"])
def test_what_could_not_be_read_for_its_hashes_is_not_written(make):
    keys = SAME_HASH["ints"]
    assert loads(dumps(make(keys[:200]))) == make(keys[:200])
    with pytest.raises(ValueError, match="one hash"):
        dumps(make(keys[:300]))


@pytest.mark.parametrize("make", [dict.fromkeys, set, frozenset], ids=["dict", "set", "frozenset"])
def test_large_collections_of_ordinary_keys_come_back(make):
    for keys in (
        range(-1500, 1500),
        [2**i for i in range(3000)],
        [2.0**i for i in range(-1000, 1000)],
        [2**63 + i for i in range(3000)],
        [complex(i, j) for i in range(50) for j in range(50)],
        [(i, j) for i in range(50) for j in range(50)],
        [UUID(int=i) for i in range(3000)],
        [str(i) for i in range(3000)],
    ):
        assert loads(dumps(make(keys))) == make(keys)


@pytest.mark.parametrize(
    "item",
    [
        b"\xc0",
        b"\x90",
        b"\x80",
        b"\xa0",
        b"\xc4\x00",
        b"\x91\x90",
        b"\xd4\x04\x90",
        b"\xd4\x05\x90",
        b"\xd4\x01\x05",
        b"\xcb" * 9,
    ],
    ids=bytes.hex,
)
def test_the_memory_that_a_value_takes_is_in_proportion_to_its_bytes(item):
    n_items = 2**18 // len(item)
    data = b"\xdd" + n_items.to_bytes(4, "big") + item * n_items
    tracemalloc.start()
    try:
        assert len(loads(data)) == n_items
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 * len(data)
