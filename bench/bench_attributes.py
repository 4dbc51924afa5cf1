"""A session's attributes to bytes and back.

The rivals give less than ours: pickle runs code that it reads, msgspec and json give other types back (a tuple as a
list, a datetime as text), none of them says which attribute could not be encoded.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import pickle
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bench.conftest import Measure
from msm_fast import AttributeMap

Attributes = dict[str, Any]


def mixed_attributes(suffix: str = "") -> Attributes:
    """Return 20 attributes such as applications keep in sessions."""
    attributes = {
        "user_id": 4_711_042,
        "user_name": "Zoë Müller",
        "email": "zoe.mueller@example.org",
        "is_admin": False,
        "locale": "de_CH",
        "csrf_token": "8c1f0f3f5b6a4c7e9d2b1a0f8e7d6c5b4a392817",
        "logged_in_at": dt.datetime(2024, 5, 17, 8, 30, 12, 345678, dt.timezone.utc),
        "birthday": dt.date(1987, 11, 3),
        "credit": decimal.Decimal("1042.50"),
        "tenant": uuid.UUID("5f0c6d1e-8f0a-4b52-9d1b-3c0e7c9f2a11"),
        "cart": [{"sku": f"A-{i}", "quantity": i, "price": 9.95 * i} for i in range(1, 4)],
        "recently_seen": list(range(1000, 1016)),
        "messages": ["Your order was sent.", "Welcome back."],
        "preferences": {"theme": "dark", "page_size": 50, "columns": ["name", "price"], "beta": True},
        "position": (47.3769, 8.5417),
        "avatar": bytes(range(64)),
        "referrer": None,
        "score": 0.875,
        "roles": {"reader", "editor"},
        "next_url": "/account/orders?page=2&sort=date",
    }
    return {name + suffix: value for name, value in attributes.items()}


SMALL = mixed_attributes()
LARGE = {name: value for i in range(10) for name, value in mixed_attributes(f"_{i}").items()}
READ, WRITTEN = "cart_4", "score_7"

to_msgpack = msgspec.msgpack.Encoder().encode
from_msgpack = msgspec.msgpack.Decoder().decode
from_msgpack_frames = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode


def pickled(value: object) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def to_json(value: object) -> bytes:
    def default(value: object) -> object:
        return list(value) if isinstance(value, set) else str(value)

    return json.dumps(value, separators=(",", ":"), default=default).encode()


def encode_ours(attributes: Attributes) -> bytes:
    # A new map each time: one that was encoded before would copy its bytes.
    return AttributeMap(attributes).encode()[0]


def encode_msgspec_frames(attributes: Attributes) -> bytes:
    return to_msgpack({name: msgspec.Raw(to_msgpack(value)) for name, value in attributes.items()})


def encode_pickled_frames(attributes: Attributes) -> bytes:
    return pickled({name: pickled(value) for name, value in attributes.items()})


ENCODE: dict[str, tuple[Callable[[Attributes], bytes], Callable[[bytes], Any]]] = {
    # contender: (encode, the way back for the check)
    "msm_fast": (encode_ours, AttributeMap.decode),
    "pickle, whole dict": (pickled, pickle.loads),
    "pickle, per attribute": (encode_pickled_frames, pickle.loads),
    "msgspec MessagePack, whole dict": (to_msgpack, from_msgpack),
    "msgspec MessagePack, per attribute": (encode_msgspec_frames, from_msgpack),
    "json, whole dict": (to_json, json.loads),
}


@pytest.mark.parametrize("contender", ENCODE)
def test_encode(contender: str, measure: Measure) -> None:
    encode, decode = ENCODE[contender]
    returned = decode(encode(SMALL))
    assert list(returned) == list(SMALL)
    assert returned["cart"] == (pickled(SMALL["cart"]) if contender == "pickle, per attribute" else SMALL["cart"])
    if contender in ("msm_fast", "pickle, whole dict"):
        assert dict(returned) == SMALL
    measure("encode 20 mixed attributes", contender, lambda: encode(SMALL))


def touch(attributes: Any) -> None:
    attributes[READ][0]["quantity"] += 1
    attributes[WRITTEN] = 0.5


def cycle_ours(body: bytes) -> bytes:
    attributes = AttributeMap.decode(body)
    touch(attributes)
    return attributes.encode()[0]


def cycle_of(decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]) -> Callable[[bytes], bytes]:
    def cycle(body: bytes) -> bytes:
        attributes = decode(body)
        touch(attributes)
        return encode(attributes)

    return cycle


def cycle_msgspec_frames(body: bytes) -> bytes:
    attributes = from_msgpack_frames(body)
    cart = from_msgpack(attributes[READ])
    cart[0]["quantity"] += 1
    attributes[READ] = msgspec.Raw(to_msgpack(cart))
    attributes[WRITTEN] = msgspec.Raw(to_msgpack(0.5))
    return to_msgpack(attributes)


CYCLE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    # contender: (the cycle, the contender of the other group that made what is loaded)
    "msm_fast": (cycle_ours, "msm_fast"),
    "pickle, whole dict": (cycle_of(pickle.loads, pickled), "pickle, whole dict"),
    "msgspec MessagePack, whole dict": (cycle_of(from_msgpack, to_msgpack), "msgspec MessagePack, whole dict"),
    "msgspec MessagePack, per attribute as Raw": (cycle_msgspec_frames, "msgspec MessagePack, whole dict"),
    "json, whole dict": (cycle_of(json.loads, to_json), "json, whole dict"),
}


@pytest.mark.parametrize("contender", CYCLE)
def test_cycle(contender: str, measure: Measure) -> None:
    cycle, maker = CYCLE[contender]
    encode, decode = ENCODE[maker]
    body = encode(LARGE)
    returned = decode(cycle(body))
    assert list(returned) == list(LARGE)
    assert (returned[READ][0]["quantity"], returned[WRITTEN]) == (LARGE[READ][0]["quantity"] + 1, 0.5)
    if contender in ("msm_fast", "pickle, whole dict"):
        expected = pickle.loads(pickled(LARGE))
        touch(expected)
        assert dict(returned) == expected
    measure("load 200 attributes, touch 2, save", contender, lambda: cycle(body))
