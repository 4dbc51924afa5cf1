from collections.abc import Sequence
from typing import final

from msm_fast._core.wire import Command

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
class ReplyParser:
    def __new__(cls, commands: Sequence[Command], first_opaque: int) -> ReplyParser: ...
    @property
    def replies(self) -> list[Reply]: ...
    def feed(self, data: bytes) -> bool: ...
