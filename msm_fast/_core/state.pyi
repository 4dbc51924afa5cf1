from typing import Final, Literal, final

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.record import Record
from msm_fast._core.record_format import RecordFormat
from msm_fast._core.session_id import SessionId

__all__ = ["ABSENT", "UNKNOWN", "NearCopy", "SessionState", "Stored"]

_LocalKind = Literal["local", "provisional", "tagged", "ended"]

ABSENT: Final[int]
UNKNOWN: Final[int]

@final
class Stored:
    generation: int
    lineage: tuple[int, ...]
    copies: dict[str, int]
    body: bytes
    corrupt: frozenset[str]
    lifetimes: tuple[int, int] | None
    def __init__(
        self,
        generation: int,
        lineage: tuple[int, ...],
        copies: dict[str, int],
        body: bytes,
        corrupt: frozenset[str] = ...,
        lifetimes: tuple[int, int] | None = None,
    ) -> None: ...
    @property
    def nonce(self) -> int: ...

@final
class NearCopy:
    content: Record | bytes
    size: int
    generation: int
    nonce: int
    max_inactive_s: int
    copies: dict[str, int]
    asked_at: float
    has_lasted: bool
    def __init__(
        self,
        content: Record | bytes,
        size: int,
        generation: int,
        nonce: int,
        max_inactive_s: int,
        copies: dict[str, int],
        asked_at: float,
        has_lasted: bool = False,
    ) -> None: ...
    def record(self, records: RecordFormat, key: bytes) -> Record: ...
    def is_copy(self, node: str, version: int, nonce: int) -> bool: ...

@final
class SessionState:
    session_id: SessionId
    attributes: AttributeMap
    created_ms: int
    accessed_ms: int
    max_inactive_s: int
    absolute_lifetime_s: int
    stored_max_inactive_s: int
    stored_absolute_lifetime_s: int
    stored: Stored | None
    body: bytes
    local_kind: _LocalKind | None
    local_generation: int
    unencodable: dict[str, object] | None
    must_store: bool
    is_being_saved: bool
    must_store_again: bool
    moved_from: str | None
    retired: tuple[SessionId, ...]
    retired_max_inactive_s: int
    is_new: bool
    is_ended: bool
    rotated_from: Stored | None
    is_live: bool
    was_ended: bool
    used_at: float | None
    touch_at: float
    revision: int
    written_revision: int
    turn: object
    own_nonces: frozenset[int]
    unsettled: SessionState | None
    merge_base: bytes | None
    epoch: int
    def __init__(
        self,
        session_id: SessionId,
        attributes: AttributeMap,
        created_ms: int,
        accessed_ms: int,
        max_inactive_s: int,
        absolute_lifetime_s: int,
        *,
        stored: Stored | None = None,
        body: bytes = b"",
        local_kind: _LocalKind | None = None,
        local_generation: int = 0,
        must_store: bool = False,
        moved_from: str | None = None,
        is_new: bool = True,
        is_live: bool = False,
        merge_base: bytes | None = None,
        epoch: int = 0,
        used_at: float | None = None,
        revision: int = 0,
    ) -> None: ...
    @property
    def is_kept(self) -> bool: ...
    @property
    def keeps_id(self) -> bool: ...
    @property
    def may_need_saving(self) -> bool: ...
    def note_lifetimes_stored(self) -> int: ...
    def longest_max_inactive_s(self) -> int: ...
    def take_lifetimes(self, max_inactive_s: int, absolute_lifetime_s: int) -> None: ...
    def part_with(self) -> SessionState: ...
