from collections.abc import Iterable, Sequence
from typing import final

from msm_fast._core.wire import Command

__all__ = ["ProtocolError", "Replies", "Reply", "ReplyParser"]

class ProtocolError(Exception):
    reason: str
    def __init__(self, reason: str) -> None: ...

@final
class Reply:
    def __init__(
        self,
        status: str,
        value: bytes | None = None,
        cas: int = 0,
        client_flags: int = 0,
        ttl_s: int = -1,
        text: str = "",
    ) -> None: ...
    @property
    def status(self) -> str: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def cas(self) -> int: ...
    @property
    def client_flags(self) -> int: ...
    @property
    def ttl_s(self) -> int: ...
    @property
    def text(self) -> str: ...

@final
class Replies(list[Reply]):
    def __init__(self, replies: Iterable[Reply] = (), life: int = 1, compares: bool = False) -> None: ...
    @property
    def life(self) -> int: ...
    @property
    def compares(self) -> bool: ...

@final
class ReplyParser:
    def __init__(self, commands: Sequence[Command], first_opaque: int) -> None: ...
    @property
    def replies(self) -> list[Reply]: ...
    def feed(self, data: bytes) -> bool: ...
