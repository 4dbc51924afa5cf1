from typing import final

from msm_fast._core.compression import Compressor
from msm_fast._core.keyring import Keyring

__all__ = ["DIGEST_SIZE", "GENERATION_MAX", "HEAD_SIZE", "Record", "decode_record", "encode_record", "value_sizes"]

DIGEST_SIZE: int
GENERATION_MAX: int
HEAD_SIZE: int

@final
class Record:
    def __init__(self, *args: object, **kwargs: object) -> None: ...
    @property
    def generation(self) -> int: ...
    @property
    def created_ms(self) -> int: ...
    @property
    def accessed_ms(self) -> int: ...
    @property
    def max_inactive_s(self) -> int: ...
    @property
    def absolute_lifetime_s(self) -> int: ...
    @property
    def is_tombstone(self) -> bool: ...
    @property
    def body(self) -> bytes: ...
    @property
    def lineage(self) -> tuple[int, ...]: ...
    @property
    def home(self) -> int: ...
    @property
    def key_id(self) -> int: ...
    @property
    def is_encrypted(self) -> bool: ...

def encode_record(
    storage_key: bytes,
    body: bytes,
    *,
    generation: int,
    created_ms: int,
    accessed_ms: int,
    max_inactive_s: int = 0,
    absolute_lifetime_s: int = 0,
    is_tombstone: bool = False,
    lineage: tuple[int, ...] = (),
    home: int = 0,
    keyring: Keyring | None = None,
    compressor: Compressor | None = None,
) -> bytes: ...
def decode_record(data: bytes, storage_key: bytes, *, keyring: Keyring | None = None) -> Record: ...
def value_sizes(body: bytes) -> dict[str, int]: ...
