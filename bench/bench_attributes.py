"""A session's attributes to bytes and back.

The rivals give less than ours: pickle runs code that it reads; msgspec, ormsgpack and json give other types back (a
tuple as a list, a Decimal as text); none of them says which attribute could not be encoded, but a loop that encodes
one after the other.
"""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from bench.attributes import Attributes, mixed_attributes
from bench.conftest import Measure
from bench.rivals import rival
from bench.targets import CYCLE, ENCODE
from msm_fast import AttributeMap

SMALL = mixed_attributes()
LARGE = {name: value for i in range(10) for name, value in mixed_attributes(f"_{i}").items()}
READ, WRITTEN = "cart_4", "score_7"
EXACT = ("msm_fast", "pickle, whole dict", "pickle, per attribute")
FLOOR = "floor: a copy of our bytes"

Encode = Callable[[Any], Any]
Decode = Callable[[Any], Any]


class Codec(NamedTuple):
    """Both ways of one contender."""

    encode: Encode
    decode: Decode


def ours() -> Codec:
    # A new map each time: one that was encoded before would copy its bytes.
    return Codec(lambda attributes: AttributeMap(attributes).encode()[0], AttributeMap.decode)


def by_pickle() -> Codec:
    return Codec(functools.partial(pickle.dumps, protocol=pickle.HIGHEST_PROTOCOL), pickle.loads)


def as_plain(value: object) -> object:
    """Return what a serializer that does not know value's type can encode instead."""
    return list(value) if isinstance(value, set) else str(value)


def by_json() -> Codec:
    encode = json.JSONEncoder(separators=(",", ":"), default=as_plain).encode
    return Codec(lambda value: encode(value).encode(), json.loads)


def by_msgspec() -> Codec:
    msgpack = rival("msgspec").msgpack
    return Codec(msgpack.Encoder().encode, msgpack.Decoder().decode)


def by_ormsgpack() -> Codec:
    ormsgpack = rival("ormsgpack")
    return Codec(functools.partial(ormsgpack.packb, default=as_plain), ormsgpack.unpackb)


def per_attribute(codec: Codec, as_frame: Callable[[bytes], Any] = bytes) -> Encode:
    """Return an encoder that traps: it takes one attribute after the other, and goes on where one cannot be encoded."""

    def encode(attributes: Attributes) -> Any:
        frames, failures = {}, []
        for name, value in attributes.items():
            try:
                frames[name] = as_frame(codec.encode(value))
            except Exception as error:  # noqa: BLE001 - whatever a value does, the next one is encoded
                failures.append((name, type(value), error))
        assert not failures
        return codec.encode(frames)

    return encode


def with_frames_of_bytes(codec: Codec) -> Codec:
    """Return a codec of attributes that are encoded twice: each, and the bytes of all."""

    def decode(body: Any) -> Attributes:
        return {name: codec.decode(frame) for name, frame in codec.decode(body).items()}

    return Codec(per_attribute(codec), decode)


def with_raw_frames() -> Codec:
    """Return a codec of attributes that are encoded once, then put together as they are, which msgspec can."""
    codec = by_msgspec()
    return Codec(per_attribute(codec, rival("msgspec").Raw), codec.decode)


def a_copy() -> Codec:
    """Return the floor: an encoder that has nothing to do but to write the bytes somewhere."""
    bodies = {len(attributes): ours().encode(attributes) for attributes in (SMALL, LARGE)}
    return Codec(lambda attributes: bytearray(bodies[len(attributes)]), lambda body: AttributeMap.decode(bytes(body)))


CODECS: dict[str, Callable[[], Codec]] = {
    "msm_fast": ours,
    "pickle, whole dict": by_pickle,
    "pickle, per attribute": lambda: with_frames_of_bytes(by_pickle()),
    "msgspec, whole dict": by_msgspec,
    "msgspec, per attribute": with_raw_frames,
    "ormsgpack, whole dict": by_ormsgpack,
    "ormsgpack, per attribute": lambda: with_frames_of_bytes(by_ormsgpack()),
    "json, whole dict": by_json,
    FLOOR: a_copy,
}


@pytest.mark.parametrize("contender", CODECS)
def test_encode(contender: str, measure: Measure) -> None:
    encode, decode = CODECS[contender]()
    returned = decode(encode(SMALL))
    assert list(returned) == list(SMALL)
    assert returned["cart"] == SMALL["cart"]
    if contender in EXACT:
        assert dict(returned) == SMALL
    measure(ENCODE, contender, lambda: encode(SMALL))


Cycle = Callable[[Any], Any]


def touch(attributes: Any) -> None:
    attributes[READ][0]["quantity"] += 1
    attributes[WRITTEN] = 0.5


def whole(codec: Codec) -> Cycle:
    def cycle(body: Any) -> Any:
        attributes = codec.decode(body)
        touch(attributes)
        return codec.encode(attributes)

    return cycle


def cycle_ours(body: bytes) -> bytes:
    attributes = AttributeMap.decode(body)
    touch(attributes)
    return attributes.encode()[0]


def cycle_raw() -> Cycle:
    """Return what msgspec can do at its best: leave the values that nobody reads as bytes."""
    msgspec = rival("msgspec")
    encode, decode = by_msgspec()
    to_frames = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode

    def cycle(body: bytes) -> Any:
        attributes = to_frames(body)
        cart = decode(attributes[READ])
        cart[0]["quantity"] += 1
        attributes[READ] = msgspec.Raw(encode(cart))
        attributes[WRITTEN] = msgspec.Raw(encode(0.5))
        return encode(attributes)

    return cycle


CYCLES: dict[str, tuple[Callable[[], Cycle], str]] = {
    # contender: (the cycle, the codec that made what is loaded)
    "msm_fast": (lambda: cycle_ours, "msm_fast"),
    "pickle, whole dict": (lambda: whole(by_pickle()), "pickle, whole dict"),
    "msgspec, whole dict": (lambda: whole(by_msgspec()), "msgspec, whole dict"),
    "msgspec, values left as Raw": (cycle_raw, "msgspec, whole dict"),
    "ormsgpack, whole dict": (lambda: whole(by_ormsgpack()), "ormsgpack, whole dict"),
    "json, whole dict": (lambda: whole(by_json()), "json, whole dict"),
    FLOOR: (lambda: bytearray, "msm_fast"),
}


@pytest.mark.parametrize("contender", CYCLES)
def test_cycle(contender: str, measure: Measure) -> None:
    make, codec = CYCLES[contender]
    cycle, (encode, decode) = make(), CODECS[codec]()
    body = encode(LARGE)
    returned = decode(bytes(cycle(body)))
    assert list(returned) == list(LARGE)
    if contender != FLOOR:
        assert (returned[READ][0]["quantity"], returned[WRITTEN]) == (LARGE[READ][0]["quantity"] + 1, 0.5)
    if contender in EXACT:
        expected = pickle.loads(pickle.dumps(LARGE))
        touch(expected)
        assert dict(returned) == expected
    measure(CYCLE, contender, lambda: cycle(body))
