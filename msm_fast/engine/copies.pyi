from typing import final

from msm_fast._core.record import Record
from msm_fast._core.record_format import RecordFormat
from msm_fast._core.replies import Replies
from msm_fast._core.session_id import SessionId
from msm_fast._core.state import NearCopy, SessionState
from msm_fast._core.wire import Batch, Command
from msm_fast.engine.context import Context
from msm_fast.engine.essentials import Essentials
from msm_fast.engine.health import NodeHealth
from msm_fast.errors import CorruptRecord, UnknownFormat

__all__ = [
    "Copy",
    "encode_state",
    "encode_stored",
    "encode_tombstone",
    "is_over",
    "last_access_ms",
    "next_generation",
    "put",
    "question",
    "read_copy",
    "tell_corrupt",
    "tell_unreadable",
]

@final
class Copy:
    @property
    def size(self) -> int: ...
    @property
    def record(self) -> Record: ...
    @property
    def version(self) -> int: ...
    @property
    def nonce(self) -> int: ...
    def __init__(self, size: int, record: Record, version: int, nonce: int) -> None: ...

def read_copy(ctx: Context, replies: Replies, key: bytes) -> Copy: ...
def is_over(own: Essentials, record: Record) -> bool: ...
def last_access_ms(own: Essentials, record: Record, ttl_s: int) -> int: ...
def next_generation(generation: int, n_steps: int = 1) -> int: ...
def tell_corrupt(ctx: Context, node: str, error: CorruptRecord) -> None: ...
def tell_unreadable(ctx: Context, node: str | None, error: UnknownFormat) -> None: ...
def encode_state(
    own: Essentials,
    records: RecordFormat,
    key: bytes,
    state: SessionState,
    body: bytes,
    generation: int,
    lineage: tuple[int, ...],
) -> bytes: ...
def encode_stored(ctx: Context, key: bytes, state: SessionState, home: int = 0) -> bytes: ...
def encode_tombstone(ctx: Context, key: bytes, session_id: SessionId, max_inactive_s: int) -> bytes: ...
def question(
    healths: dict[str, NodeHealth],
    validate_over: int,
    near: NearCopy | None,
    node: str,
    key: bytes,
    exptime: int | None,
) -> Command: ...
def put(node: str, key: bytes, record: bytes, nonce: int, exptime: int, expected: int) -> Batch: ...
