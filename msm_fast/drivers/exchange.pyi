from msm_fast._core.replies import ReplyParser

__all__ = ["PlainConnection"]

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
