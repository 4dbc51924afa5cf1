# cython: annotation_typing=False
# Annotations are for the reader: the bodies refuse a wrong argument with an error that says what is accepted.
"""The value codec ``native``: MessagePack, and application extension types for what MessagePack lacks.

=====  ==========  =========================================================================
 code  type        payload (numbers big-endian, as everywhere in MessagePack)
=====  ==========  =========================================================================
    1  int         beyond 64 bits: two's complement, as few bytes as hold it
    2  complex     two float 64
    3  bytearray   its bytes
    4  tuple       an array
    5  set         an array, its elements in the order of their encodings
    6  frozenset   as set
    7  datetime    moments.pxd, then its zone: `msm_fast._core.zones`
    8  date        moments.pxd
    9  time        moments.pxd, then its zone: `msm_fast._core.zones`
   10  timedelta   moments.pxd
   11  Decimal     its text
   12  Fraction    an array of numerator and denominator
   13  UUID        16 bytes
   14  registered  an array of the registered name and the value that its encoder gave
=====  ==========  =========================================================================

Sets are sorted because their own order differs from process to process: a set that was only read
must give the bytes it came from.
"""

from collections.abc import Callable
from typing import Any

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from msm_fast._core.decoder cimport decode_value, decoders
from msm_fast._core.encoder cimport BUILT_IN, Writer, encode_value, encoders

from msm_fast.errors import ConfigurationError

__all__ = ["dumps", "loads", "register_type"]


def dumps(value: object) -> bytes:
    """Return value as one MessagePack value.

    Raises:  TypeError for a type that is neither built in nor registered (a subclass is neither); ValueError
             for more than 64 levels of nesting, text with a lone surrogate, a part beyond 4 GiB, more than 256
             keys of one hash, a Fraction with a part of more than 4096 bits; whatever a registered encoder raises.
    Source:  https://github.com/msgpack/msgpack/blob/master/spec.md; extension codes in the module's docstring.
    Thread-safety: a container another thread changes meanwhile is written as it stood at one moment.
    """
    cdef Writer out = Writer()
    encode_value(out, value)
    return PyBytes_FromStringAndSize(out.data, out.size)


def loads(bytes data not None) -> object:
    """Return the value that data holds, equal to what went into `dumps`, type included.

    Raises:  CorruptRecord, whatever is wrong; MemoryError. No length takes memory before it is known to fit the data.
    """
    return decode_value(<const uint8_t *> PyBytes_AS_STRING(data), 0, PyBytes_GET_SIZE(data))


def register_type(
    cls: type, name: str, encode: Callable[[Any], object], decode: Callable[[Any], Any]
) -> None:
    """Let the codec carry instances of exactly cls, under name.

    name: what stands in the record; keep it when the class is renamed or moved.
    encode: gives a value the codec can carry. decode: takes that value back to an instance.
    Raises:  ConfigurationError when cls or name is taken, cls is built in, or an argument is of another kind.
    Thread-safety: may be called at any time; meant for start-up, before the first session is read.
    """
    if not isinstance(cls, type) or cls in BUILT_IN or cls in encoders:
        raise ConfigurationError("cls", cls, "a class neither built into the codec nor registered already")
    if type(name) is not str or not name.isprintable() or not 0 < len(name) <= 255 or name in decoders:
        raise ConfigurationError("name", name, "1 to 255 printable characters not registered already")
    if not callable(encode) or not callable(decode):
        raise ConfigurationError("encode, decode", (encode, decode), "two callables")
    decoders[name] = decode
    encoders[cls] = (name, encode)
