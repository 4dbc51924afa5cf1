"""Values that the codec writes and reads back, and those that it refuses to write."""

import copy
import datetime
import itertools
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from msm_fast._core.codec import dumps, loads, register_type
from msm_fast.errors import ConfigurationError


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
