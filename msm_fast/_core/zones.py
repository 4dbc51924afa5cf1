"""Time zones as they stand at the end of an encoded datetime or time.

======  =====================================================================
 first  what follows (numbers big-endian)
======  =====================================================================
  none   nothing: the value is naive
     1   i64 offset from UTC in microseconds
     2   i64 offset from UTC in microseconds, the zone's given name in UTF-8
     3   the key of a ZoneInfo
======  =====================================================================
"""

from __future__ import annotations

import operator
import re
import struct
from datetime import timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

_OFFSET, _NAMED_OFFSET, _KEY = 1, 2, 3
_HEAD = struct.Struct(">Bq")
_MICROSECOND = timedelta(microseconds=1)
_UTC = _HEAD.pack(_OFFSET, 0)

# No dot and no empty part: a key can't lead out of the zone directory, whatever ZoneInfo itself refuses.
_is_key = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*").fullmatch


# A timezone tells whether it was given a name only by the arguments with which it would be pickled.
_constructor_arguments = operator.methodcaller("__getinitargs__")


def encode_zone(zone: tzinfo | None) -> bytes:
    """Return the bytes of zone.

    Raises:  TypeError for a zone that is neither None, a `timezone` nor a `ZoneInfo`; ValueError for a
             ZoneInfo without a key, which no other process could find again.
    """
    if zone is None:
        return b""
    if zone is timezone.utc:
        return _UTC
    if type(zone) is timezone:
        offset, *name = _constructor_arguments(zone)
        if name:
            given: bytes = name[0].encode()
            return _HEAD.pack(_NAMED_OFFSET, offset // _MICROSECOND) + given
        return _HEAD.pack(_OFFSET, offset // _MICROSECOND)
    if type(zone) is ZoneInfo:
        if not isinstance(zone.key, str) or not _is_key(zone.key):
            raise ValueError("a ZoneInfo without the key of a known zone cannot be encoded")
        return bytes((_KEY,)) + zone.key.encode()
    raise TypeError(f"a zone of type {type(zone).__module__}.{type(zone).__qualname__} cannot be encoded")


def decode_zone(data: bytes) -> tzinfo | None:
    """Return the zone that data holds.

    Raises:  ValueError, KeyError, OSError, struct.error: no zone, or none that this machine knows.
    """
    if not data:
        return None
    if data[0] == _KEY:
        key = data[1:].decode("ascii")
        if not _is_key(key):
            raise ValueError("not the key of a zone")
        return ZoneInfo(key)
    kind, microseconds = _HEAD.unpack_from(data)
    offset = timedelta(microseconds=microseconds)
    if kind == _OFFSET and len(data) == _HEAD.size:
        return timezone(offset)
    if kind == _NAMED_OFFSET:
        return timezone(offset, data[_HEAD.size :].decode())
    raise ValueError("no kind of zone")
