"""The value codec in plain Python: slow, obvious, and written from the format's description alone."""

import datetime
import struct
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

DEPTH_LIMIT = 64
FRACTION_LIMIT = 2**4096

REGISTERED: dict[type, tuple[str, Callable[[Any], object], Callable[[Any], Any]]] = {}


class FormatError(Exception):
    pass


def dumps(value, depth=0):
    kind = type(value)
    if kind in (list, tuple, set, frozenset, dict, Fraction) or kind in REGISTERED:
        if depth >= DEPTH_LIMIT:
            raise ValueError("too deep")
        depth += 1
    if value is None:
        return b"\xc0"
    if kind is bool:
        return b"\xc3" if value else b"\xc2"
    if kind is int:
        return dump_int(value)
    if kind is float:
        return b"\xcb" + struct.pack(">d", value)
    if kind is str:
        data = value.encode()
        return head(len(data), {5: 0xA0}, 0xD9, 0xDA, 0xDB) + data
    if kind is bytes:
        return head(len(value), {}, 0xC4, 0xC5, 0xC6) + value
    if kind is list:
        return dump_array([dumps(item, depth) for item in value])
    if kind is dict:
        parts = [dumps(key, depth) + dumps(item, depth) for key, item in value.items()]
        return head(len(parts), {4: 0x80}, None, 0xDE, 0xDF) + b"".join(parts)
    return extension(*dump_extension(value, kind, depth))


def dump_int(value):
    if 0 <= value < 2**7:
        return struct.pack("B", value)
    if -(2**5) <= value < 0:
        return struct.pack("b", value)
    if value >= 0:
        forms = [(2**8, ">BB", 0xCC), (2**16, ">BH", 0xCD), (2**32, ">BI", 0xCE), (2**64, ">BQ", 0xCF)]
        for limit, form, byte in forms:
            if value < limit:
                return struct.pack(form, byte, value)
    else:
        forms = [(2**7, ">Bb", 0xD0), (2**15, ">Bh", 0xD1), (2**31, ">Bi", 0xD2), (2**63, ">Bq", 0xD3)]
        for limit, form, byte in forms:
            if value >= -limit:
                return struct.pack(form, byte, value)
    n_bytes = 9
    while not -(2 ** (8 * n_bytes - 1)) <= value < 2 ** (8 * n_bytes - 1):
        n_bytes += 1
    # 64 bits is where MessagePack ends: a negative number just below it still needs nine bytes.
    return extension(1, value.to_bytes(n_bytes, "big", signed=True))


def dump_extension(value, kind, depth):
    if kind is complex:
        return 2, struct.pack(">dd", value.real, value.imag)
    if kind is bytearray:
        return 3, bytes(value)
    if kind is tuple:
        return 4, dump_array([dumps(item, depth) for item in value])
    if kind in (set, frozenset):
        return 5 if kind is set else 6, dump_array(sorted(dumps(item, depth) for item in value))
    if kind is datetime.datetime:
        day = struct.pack(">HBB", value.year, value.month, value.day)
        return 7, day + dump_clock(value) + dump_zone(value.tzinfo)
    if kind is datetime.date:
        return 8, struct.pack(">HBB", value.year, value.month, value.day)
    if kind is datetime.time:
        return 9, dump_clock(value) + dump_zone(value.tzinfo)
    if kind is datetime.timedelta:
        return 10, struct.pack(">iII", value.days, value.seconds, value.microseconds)
    if kind is Decimal:
        return 11, str(value).encode()
    if kind is Fraction:
        if abs(value.numerator) >= FRACTION_LIMIT or value.denominator >= FRACTION_LIMIT:
            raise ValueError("too large")
        return 12, dump_array([dump_int(value.numerator), dump_int(value.denominator)])
    if kind is UUID:
        return 13, value.bytes
    if kind in REGISTERED:
        name, encode, _ = REGISTERED[kind]
        return 14, dump_array([dumps(name), dumps(encode(value), depth)])
    raise TypeError(kind)


def dump_clock(value):
    return struct.pack(">BBBBI", value.hour, value.minute, value.second, value.fold, value.microsecond)


def dump_zone(zone):
    if zone is None:
        return b""
    if type(zone) is ZoneInfo:
        return b"\x03" + zone.key.encode()
    if type(zone) is not datetime.timezone:
        raise TypeError(type(zone))
    offset = zone.utcoffset(None) // datetime.timedelta(microseconds=1)
    arguments = zone.__getinitargs__()
    if len(arguments) == 1:
        return struct.pack(">Bq", 1, offset)
    return struct.pack(">Bq", 2, offset) + arguments[1].encode()


def dump_array(parts):
    return head(len(parts), {4: 0x90}, None, 0xDC, 0xDD) + b"".join(parts)


def head(length, fixed, of_8, of_16, of_32):
    for n_bits, byte in fixed.items():
        if length < 2**n_bits:
            return bytes([byte | length])
    if length < 2**8 and of_8 is not None:
        return struct.pack(">BB", of_8, length)
    if length < 2**16:
        return struct.pack(">BH", of_16, length)
    return struct.pack(">BI", of_32, length)


def extension(code, payload):
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}
    if len(payload) in fixed:
        return bytes([fixed[len(payload)], code]) + payload
    return head(len(payload), {}, 0xC7, 0xC8, 0xC9) + bytes([code]) + payload


def loads(data):
    try:
        value, rest = load(data, 0)
    except FormatError:
        raise
    except Exception as error:
        raise FormatError from error
    if rest:
        raise FormatError
    return value


def take(data, n_bytes):
    if len(data) < n_bytes:
        raise FormatError
    return data[:n_bytes], data[n_bytes:]


def load_number(data, form):
    part, rest = take(data, struct.calcsize(form))
    return struct.unpack(form, part)[0], rest


def load(data, depth):
    byte, rest = load_number(data, "B")
    if byte <= 0x7F:
        return byte, rest
    if byte >= 0xE0:
        return byte - 0x100, rest
    if byte <= 0x8F:
        return load_map(rest, byte & 0x0F, depth)
    if byte <= 0x9F:
        return load_array(rest, byte & 0x0F, depth)
    if byte <= 0xBF:
        part, rest = take(rest, byte & 0x1F)
        return part.decode(), rest
    if byte in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[byte], rest
    numbers = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
    numbers |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
    if byte in numbers:
        return load_number(rest, numbers[byte])
    if 0xD4 <= byte <= 0xD8:
        return load_extension(rest, 2 ** (byte - 0xD4), depth)
    lengths = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xC7: ">B", 0xC8: ">H", 0xC9: ">I"}
    lengths |= {0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}
    if byte not in lengths:
        raise FormatError
    length, rest = load_number(rest, lengths[byte])
    if byte <= 0xC6:
        return take(rest, length)
    if byte <= 0xC9:
        return load_extension(rest, length, depth)
    if byte <= 0xDB:
        part, rest = take(rest, length)
        return part.decode(), rest
    return (load_array if byte <= 0xDD else load_map)(rest, length, depth)


def load_array(data, length, depth):
    if depth >= DEPTH_LIMIT or length > len(data):
        raise FormatError
    items = []
    for _ in range(length):
        item, data = load(data, depth + 1)
        items.append(item)
    return items, data


def load_map(data, length, depth):
    items, data = load_array(data, 2 * length, depth)
    pairs = dict(zip(items[::2], items[1::2], strict=True))
    if len(pairs) != length:
        raise FormatError
    return pairs, data


def load_extension(data, length, depth):
    code, data = load_number(data, "b")
    payload, data = take(data, length)
    return load_payload(code, payload, depth), data


def load_payload(code, payload, depth):
    if code == 1:
        return int.from_bytes(payload, "big", signed=True)
    if code == 2:
        return complex(*struct.unpack(">dd", payload))
    if code == 3:
        return bytearray(payload)
    if code in (4, 5, 6, 12, 14):
        return load_nested(code, payload, depth)
    if code == 7:
        year, month, day, *clock = struct.unpack_from(">HBBBBBBI", payload)
        return load_clock(lambda *rest, **zone: datetime.datetime(year, month, day, *rest, **zone), clock, payload[12:])
    if code == 8:
        return datetime.date(*struct.unpack(">HBB", payload))
    if code == 9:
        return load_clock(datetime.time, struct.unpack_from(">BBBBI", payload), payload[8:])
    if code == 10:
        days, seconds, microseconds = struct.unpack(">iII", payload)
        if seconds >= 24 * 3600 or microseconds >= 10**6:
            raise FormatError
        return datetime.timedelta(days, seconds, microseconds)
    if code == 11:
        number = Decimal(payload.decode("ascii"))
        if str(number).encode() != payload:
            raise FormatError
        return number
    if code == 13:
        return UUID(bytes=payload)
    raise FormatError


def load_nested(code, payload, depth):
    items, rest = load(payload, depth)
    if rest or type(items) is not list:
        raise FormatError
    if code == 4:
        return tuple(items)
    if code in (5, 6):
        unique = set(items) if code == 5 else frozenset(items)
        if len(unique) != len(items):
            raise FormatError
        return unique
    first, second = items
    if code == 12:
        if type(first) is not int or type(second) is not int or second <= 0:
            raise FormatError
        if abs(first) >= FRACTION_LIMIT or second >= FRACTION_LIMIT:
            raise FormatError
        if Fraction(first, second).denominator != second:
            raise FormatError
        return Fraction(first, second)
    for name, _, decode in REGISTERED.values():
        if type(first) is str and first == name:
            return decode(second)
    raise FormatError


def load_clock(make, clock, zone):
    hour, minute, second, fold, microsecond = clock
    return make(hour, minute, second, microsecond, tzinfo=load_zone(zone), fold=fold)


def load_zone(data):
    if not data:
        return None
    if data[0] == 3:
        key = data[1:].decode("ascii")
        if not all(part and set(part) <= KEY_CHARACTERS for part in key.split("/")):
            raise FormatError
        return ZoneInfo(key)
    kind, microseconds = struct.unpack_from(">Bq", data)
    offset = datetime.timedelta(microseconds=microseconds)
    if kind == 1 and len(data) == 9:
        return datetime.timezone(offset)
    if kind == 2:
        return datetime.timezone(offset, data[9:].decode())
    raise FormatError


KEY_CHARACTERS = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-")
