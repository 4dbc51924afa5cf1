"""What turns one attribute's value into bytes and back, and the tag that says in each frame which one did."""

from __future__ import annotations

import json
import pickle
from typing import NamedTuple, Protocol, cast

from msm_fast._core import codec
from msm_fast.errors import ConfigurationError

__all__ = [
    "NATIVE",
    "AttributeFailure",
    "Serializer",
    "SerializerChain",
    "resolve_serializers",
]

_ACCEPTED = '"native", "json", "pickle", an object with name, dumps and loads, or a tuple of these'


class AttributeFailure(NamedTuple):
    """An attribute that could not be encoded, or not be decoded.

    type_name: the value's type, with its module; "unknown" where decoding failed. is_type_known: the native serializer
    can encode values of this type, as a rule: it is this value that is at fault, or what it contains.
    """

    name: str
    type_name: str
    cause: Exception
    is_type_known: bool = False


class Serializer(Protocol):
    """Turns a value into bytes and back. Either may raise any Exception: the attribute then counts as failed.

    name: stands in each frame the serializer wrote; 1 to 255 bytes of UTF-8.
    """

    @property
    def name(self) -> str: ...

    def dumps(self, value: object, /) -> bytes: ...

    def loads(self, data: bytes, /) -> object: ...


class _Native:
    name = "native"

    def dumps(self, value: object) -> bytes:
        return codec.dumps(value)

    def loads(self, data: bytes) -> object:
        return codec.loads(data)


class _Json:
    name = "json"

    def dumps(self, value: object) -> bytes:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        try:
            return text.encode()
        except UnicodeEncodeError:
            # A lone surrogate, which a visitor can send as JSON, has no UTF-8: with it everything is escaped.
            return json.dumps(value, separators=(",", ":")).encode()

    def loads(self, data: bytes) -> object:
        value: object = json.loads(data)
        return value


class _Pickle:
    name = "pickle"
    # The highest that every supported Python reads.
    protocol = 5

    def dumps(self, value: object) -> bytes:
        return pickle.dumps(value, self.protocol)

    def loads(self, data: bytes) -> object:
        value: object = pickle.loads(data)
        return value


NATIVE = _Native()
_JSON = _Json()
_PICKLE = _Pickle()
_BUILT_IN: dict[str, Serializer] = {built_in.name: built_in for built_in in (NATIVE, _JSON, _PICKLE)}
_TAGS = {NATIVE.name: 0, _JSON.name: 1, _PICKLE.name: 2}
_NAMED = 3


class SerializerChain(tuple[Serializer, ...]):
    """Serializers in the order in which they are tried on a value; made by `resolve_serializers`.

    heads: for each, the tag of its frames and what precedes the bytes it gave.
    """

    heads: tuple[tuple[int, bytes], ...]
    _readers: dict[int, Serializer]
    _named_readers: dict[bytes, Serializer]

    def __new__(cls, serializers: tuple[Serializer, ...]) -> SerializerChain:
        """Prepare what stands in the frames of each, and who reads which frame."""
        chain = super().__new__(cls, serializers)
        chain.heads = tuple(_frame_head(serializer.name) for serializer in chain)
        chain._readers = {_TAGS[s.name]: s for s in (NATIVE, _JSON, *chain) if s.name in _TAGS}
        chain._named_readers = {s.name.encode(): s for s in chain if s.name not in _TAGS}
        return chain

    def with_reader_of(self, tag: int) -> SerializerChain:
        """Return a chain in which what reads frames with tag writes as well, after all others."""
        reader = self._readers.get(tag)
        return self if reader is None or reader in self else SerializerChain((*self, reader))

    def loads(self, tag: int, data: bytes) -> object:
        """Return the value of a frame.

        Raises:  LookupError when no configured serializer reads such a frame; whatever its serializer raises.
        """
        if tag != _NAMED:
            if tag not in self._readers:
                raise LookupError(f"no serializer that is configured reads frames with tag {tag}")
            return self._readers[tag].loads(data)
        name = data[1 : 1 + data[0]] if data else b""
        if name not in self._named_readers:
            raise LookupError(f"no serializer named {name!r} is configured")
        return self._named_readers[name].loads(data[1 + len(name) :])


def _frame_head(name: str) -> tuple[int, bytes]:
    if name in _TAGS:
        return _TAGS[name], b""
    utf8 = name.encode()
    return _NAMED, bytes((len(utf8),)) + utf8


def resolve_serializers(spec: object) -> SerializerChain:
    """Return the serializers that spec names, in the order in which they are tried.

    spec: "native", "json", "pickle", a `Serializer`, or a tuple or list of these.
    Raises:  ConfigurationError for anything else, an empty chain, or a name that stands twice.
    """
    if isinstance(spec, SerializerChain):
        return spec
    if isinstance(spec, str) and spec in _CHAINS:
        return _CHAINS[spec]
    members = tuple(spec) if isinstance(spec, (tuple, list)) else (spec,)
    serializers = tuple(_resolve_one(member) for member in members)
    if not serializers or len({serializer.name for serializer in serializers}) < len(serializers):
        raise ConfigurationError("serializer", spec, _ACCEPTED)
    return SerializerChain(serializers)


# Most maps are made with one of these names: they need no new chain each.
_CHAINS = {name: SerializerChain((serializer,)) for name, serializer in _BUILT_IN.items()}


def _resolve_one(member: object) -> Serializer:
    if isinstance(member, str):
        if member not in _BUILT_IN:
            raise ConfigurationError("serializer", member, _ACCEPTED)
        return _BUILT_IN[member]
    if any(member is built_in for built_in in _BUILT_IN.values()) or _is_serializer(member):
        return cast("Serializer", member)
    raise ConfigurationError("serializer", member, _ACCEPTED)


def _is_serializer(member: object) -> bool:
    name = getattr(member, "name", None)
    # Printable text has no lone surrogate: it can be encoded.
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.encode()) <= 255:
        return False
    methods = getattr(member, "dumps", None), getattr(member, "loads", None)
    return name not in _BUILT_IN and all(map(callable, methods))
