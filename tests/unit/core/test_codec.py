import copy
import datetime
import itertools
import struct
import sys
import tracemalloc
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from msm_fast._core.codec import dumps, loads, register_type
from msm_fast.errors import ConfigurationError, CorruptRecord


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return type(other) is Point and (self.x, self.y) == (other.x, other.y)

    __hash__ = None


class Box:
    """Holds one value, which may be the box itself."""

    def __init__(self, content):
        self.content = content


class Intruder:
    """Changes a container while it is encoded."""

    def __init__(self, act):
        self.act = act


register_type(Point, "test.Point", lambda point: (point.x, point.y), lambda xy: Point(*xy))
register_type(Box, "test.Box", lambda box: box.content, Box)
register_type(Intruder, "test.Intruder", lambda intruder: intruder.act(), Intruder)

VALUES = [
    None,
    True,
    False,
    *(
        sign * (2**exponent + offset)
        for sign in (1, -1)
        for exponent in (0, 5, 7, 8, 15, 16, 31, 32, 63, 64, 999)
        for offset in (-1, 0, 1)
    ),
    0.0,
    1.5,
    float("inf"),
    float("-inf"),
    1 - 2j,
    complex(0.0, float("inf")),
    complex(float("-inf"), -0.0),
    "",
    "x" * 31,
    "x" * 32,
    "x" * 255,
    "x" * 256,
    "ü" * 65536,
    b"",
    b"\0" * 255,
    b"\0" * 256,
    b"\0" * 65536,
    bytearray(b"abc"),
    [],
    [[]],
    list(range(15)),
    list(range(16)),
    list(range(65536)),
    (),
    (1, (2, [3])),
    {},
    {1: "a", "1": "b", (1, 2): None, frozenset({1}): [], None: 0, 2.5: 1},
    dict.fromkeys(range(15)),
    dict.fromkeys(range(16)),
    dict.fromkeys(range(65536)),
    set(),
    {1, "a", (2,)},
    frozenset({"x", frozenset()}),
    datetime.datetime(1, 1, 1),
    datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=datetime.timezone.utc),
    datetime.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=-3, microseconds=7))),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(0), "Zulu")),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(0), "")),
    datetime.date(2024, 2, 29),
    datetime.time(23, 59, 59, 1, fold=1),
    datetime.time(1, tzinfo=datetime.timezone.utc),
    datetime.timedelta.min,
    datetime.timedelta.max,
    datetime.timedelta(microseconds=-1),
    Decimal("1.20"),
    Decimal("-0E+3"),
    Decimal("Infinity"),
    Fraction(-7, 3),
    Fraction(2**80, 3),
    UUID("12345678-1234-5678-1234-567812345678"),
    Point(1, [2]),
    [Point(None, Point(1, 2))],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_equal_and_of_its_type(value):
    back = loads(dumps(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("text", ["nan", "-nan"])
def test_a_nan_comes_back_with_its_sign(text):
    assert dumps(loads(dumps(float(text)))) == dumps(float(text))
    assert loads(dumps(float(text))) != float(text)


@pytest.mark.parametrize("text", ["NaN", "-NaN123", "sNaN", "sNaN7"])
def test_a_decimal_nan_keeps_sign_kind_and_payload(text):
    assert str(loads(dumps(Decimal(text)))) == text


def test_negative_zero_stays_negative():
    assert str(loads(dumps(-0.0))) == "-0.0"


def test_a_zone_keeps_its_kind_name_and_fold():
    moment = datetime.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    back = loads(dumps(moment))
    assert back.tzinfo is moment.tzinfo
    assert back.fold == 1
    named = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "CET"))
    assert loads(dumps(named)).tzname() == "CET"
    assert loads(dumps(datetime.time(tzinfo=datetime.timezone.utc))).tzinfo is datetime.timezone.utc


def test_a_dict_keeps_its_order():
    keys = ["b", "a", 3, (1,), None]
    assert list(loads(dumps(dict.fromkeys(keys)))) == keys


def test_a_set_has_the_same_bytes_in_whatever_order_it_was_filled():
    elements = [0, 8, 16, 24, "a", (1, 2)]
    encodings = {dumps(set(order)) for order in itertools.permutations(elements)}
    assert len(encodings) == 1


def test_the_decimal_context_does_not_change_the_bytes():
    with localcontext(Context(capitals=0, prec=3)):
        encoded = dumps(Decimal("1.2345E+100"))
        assert loads(encoded) == Decimal("1.2345E+100")
    assert encoded == dumps(Decimal("1.2345E+100"))


class OwnStr(str):
    __slots__ = ()


class OwnDict(dict):
    pass


class OwnZone(datetime.tzinfo):
    pass


@pytest.mark.parametrize(
    "value",
    [
        object(),
        OwnStr("a"),
        OwnDict(),
        print,
        type,
        ...,
        range(3),
        memoryview(b""),
        [1, {"a": OwnStr()}],
        {OwnStr(): 1},
    ],
    ids=repr,
)
def test_an_unregistered_type_is_refused(value):
    with pytest.raises(TypeError):
        dumps(value)


def test_the_refusal_names_the_type():
    with pytest.raises(TypeError, match=r"test_codec\.OwnStr"):
        dumps(OwnStr("a"))


LARGEST_PART = 2**4096 - 1


@pytest.mark.parametrize(
    "fraction", [Fraction(LARGEST_PART, 2), Fraction(-LARGEST_PART, LARGEST_PART - 1), Fraction(1, LARGEST_PART)]
)
def test_a_fraction_of_4096_bits_comes_back(fraction):
    assert loads(dumps(fraction)) == fraction


@pytest.mark.parametrize(
    "fraction", [Fraction(2**4096), Fraction(-(2**4096), 3), Fraction(1, 2**4096)], ids=["over", "below", "under"]
)
def test_a_larger_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match="more than 4096 bits"):
        dumps([fraction])


def test_a_foreign_zone_is_refused():
    with pytest.raises(TypeError, match="OwnZone"):
        dumps(datetime.datetime(2024, 1, 1, tzinfo=OwnZone()))


def test_lone_surrogates_are_refused():
    for value in ("\ud800", ["ok", "\udfff"], {"\ud800": 1}):
        with pytest.raises(UnicodeEncodeError):
            dumps(value)


def nest(levels, wrap):
    value = 1
    for _ in range(levels):
        value = wrap(value)
    return value


WRAPS = [
    lambda inner: [inner],
    lambda inner: (inner,),
    lambda inner: {"k": inner},
    lambda inner: frozenset({inner}),
    lambda inner: Box(inner),
]


@pytest.mark.parametrize("wrap", WRAPS)
def test_sixty_four_levels_pass_and_one_more_is_refused(wrap):
    encoded = dumps(nest(64, wrap))
    assert dumps(loads(encoded)) == encoded
    with pytest.raises(ValueError, match="64 levels"):
        dumps(nest(65, wrap))


def test_what_is_an_array_inside_needs_a_level_for_it():
    """Else it is written where no reader takes it."""
    value = nest(63, lambda inner: [inner])
    innermost = value
    while type(innermost[0]) is list:
        innermost = innermost[0]
    for content in (Fraction(1, 3), (), set(), Box(1)):
        innermost[0] = content
        encoded = dumps(value)
        assert dumps(loads(encoded)) == encoded
        innermost[0] = [content]
        with pytest.raises(ValueError, match="64 levels"):
            dumps(value)


def test_a_cycle_is_refused():
    cycle = []
    cycle.append({"again": (cycle,)})
    box = Box(None)
    box.content = [box]
    for value in (cycle, box):
        with pytest.raises(ValueError, match="contains itself"):
            dumps(value)


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


def test_any_messagepack_number_form_is_read():
    assert loads(b"\xcf\x00\x00\x00\x00\x00\x00\x00\x01") == 1
    assert loads(b"\xd3\xff\xff\xff\xff\xff\xff\xff\xff") == -1
    assert loads(b"\xca\x3f\xc0\x00\x00") == 1.5
    assert loads(b"\xdb\x00\x00\x00\x01a") == "a"


def test_a_registration_that_is_taken_or_wrong_is_refused():
    class Fresh:
        pass

    with pytest.raises(ConfigurationError):
        register_type(Point, "test.other", str, str)
    with pytest.raises(ConfigurationError):
        register_type(Fresh, "test.Point", str, str)
    for built_in in (str, dict, type(None), datetime.datetime, Decimal, set):
        with pytest.raises(ConfigurationError):
            register_type(built_in, "test.built_in", str, str)
    for wrong in (
        (Fresh(), "x", str, str),
        (Fresh, "", str, str),
        (Fresh, b"x", str, str),
        (Fresh, "x", 1, str),
    ):
        with pytest.raises(ConfigurationError):
            register_type(*wrong)
    with pytest.raises(TypeError):
        dumps(Fresh())


def test_an_encoder_may_change_the_container_it_stands_in():
    grown, shrunk, mapped, unique = [], [], {}, set()
    grown += [Intruder(lambda: grown.extend(range(100))), 1]
    shrunk += [Intruder(shrunk.clear), 1, 2]
    mapped.update(a=Intruder(lambda: mapped.update(dict.fromkeys(range(100)))), b=1)
    for value in (grown, shrunk, mapped, unique):
        n_items = len(value)
        assert len(loads(dumps(value))) == n_items


def test_an_encoder_may_call_the_codec():
    assert loads(loads(dumps(Box(dumps([1])))).content) == [1]


def test_an_encoder_that_raises_is_heard():
    def refuse():
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        dumps([Intruder(refuse)])


def test_a_decoded_value_shares_nothing_with_another():
    encoded = dumps({"a": [1]})
    first, second = loads(encoded), loads(encoded)
    first["a"].append(2)
    assert second == {"a": [1]}
    assert copy.deepcopy(second) == second


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
