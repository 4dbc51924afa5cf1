from collections.abc import Collection, Iterable, Sequence
from typing import Any, final

from msm_fast._core.replies import ReplyParser
from msm_fast._core.wire import Batch
from msm_fast.drivers.connection import Connection
from msm_fast.drivers.node_lives import NodeLives

__all__ = ["IdleConnections", "PlainConnection"]

class PlainConnection:
    fd: int
    life: int
    compares: bool
    opaque: int
    parser: ReplyParser | None
    unsent: memoryview | None
    @property
    def misses(self) -> int: ...
    @property
    def rest(self) -> int: ...
    def set_waiting(self, operation_s: float, busy_poll_s: float) -> None: ...

@final
class IdleConnections:
    def __init__(self, nodes: Iterable[str], most: int, lives: NodeLives) -> None: ...
    def pop(self, node: str) -> Connection | None: ...
    def put(self, node: str, connection: Connection) -> bool: ...
    def take_all(self, node: str) -> list[Connection]: ...
    def change_nodes(self, nodes: Iterable[str], kept: Collection[str]) -> list[Connection]: ...
    def exchange(
        self, batches: Sequence[Batch], until_s: float
    ) -> tuple[list[Any], list[Connection] | None] | tuple[None, None]: ...
