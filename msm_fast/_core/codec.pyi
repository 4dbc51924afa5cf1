from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["dumps", "loads", "register_type"]

_T = TypeVar("_T")

def dumps(value: object) -> bytes: ...
def loads(data: bytes) -> object: ...
def register_type(cls: type[_T], name: str, encode: Callable[[_T], object], decode: Callable[[Any], _T]) -> None: ...
