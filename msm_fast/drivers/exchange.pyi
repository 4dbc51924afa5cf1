from collections.abc import Sequence
from typing import Any, TypeVar

from msm_fast._core.replies import ReplyParser
from msm_fast._core.wire import Batch

__all__ = ["PlainConnection", "exchange", "give_back", "take"]

_C = TypeVar("_C", bound=PlainConnection)

class PlainConnection:
    fd: int
    life: int
    compares: bool
    opaque: int
    parser: ReplyParser | None
    unsent: memoryview | None

def take(idle: dict[str, list[_C]], batches: Sequence[Batch]) -> list[_C] | None: ...
def give_back(idle: dict[str, list[_C]], batches: Sequence[Batch], connections: list[_C], most: int) -> list[_C]: ...
def exchange(batches: Sequence[Batch], connections: list[_C], until_s: float) -> list[Any] | None: ...
