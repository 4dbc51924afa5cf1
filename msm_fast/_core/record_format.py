"""How the records of one deployment are written: sealed or not, compressed or not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from msm_fast._core.compression import Compressor
from msm_fast._core.keyring import Keyring
from msm_fast._core.record import DIGEST_SIZE, HEAD_SIZE, Record, decode_record, encode_record
from msm_fast.errors import ConfigurationError

__all__ = ["RecordFormat"]


class RecordFormat:
    """Writes records as settings say, and reads those that it may trust.

    secrets, encrypt: as for `Keyring`; no secrets: records are protected against damage, not against forgery.
    compress_over: bytes of a body from which on it is compressed if that makes it smaller; None: never. compression: as
    for `Compressor`. What is compressed is read in any case.

    Attributes: encode and decode, as `encode_record` and `decode_record`; overhead, bytes beside the body.
    Raises:  ConfigurationError.
    Thread-safety: immutable.
    """

    def __init__(
        self,
        secrets: Sequence[str | bytes] = (),
        encrypt: bool = False,
        compress_over: int | None = None,
        compression: str = "zlib",
    ) -> None:
        if encrypt and not secrets:
            raise ConfigurationError("encrypt", encrypt, "False, or secrets to encrypt with")
        compressor = Compressor(0 if compress_over is None else compress_over, compression)
        self._keyring = Keyring(secrets, encrypt) if secrets else None
        self._compressor = compressor if compress_over is not None else None
        # Nothing stands between the engine and the functions themselves where nothing is asked for.
        self.encode = encode_record
        self.decode = decode_record
        if self._keyring is not None or self._compressor is not None:
            self.encode = partial(encode_record, keyring=self._keyring, compressor=self._compressor)
        if self._keyring is not None:
            self.decode = partial(decode_record, keyring=self._keyring)
        self.overhead = HEAD_SIZE + (DIGEST_SIZE if self._keyring is None else self._keyring.seal_size)

    @property
    def seals(self) -> bool:
        """Whether records are signed or encrypted."""
        return self._keyring is not None

    @property
    def compresses(self) -> bool:
        """Whether a body may take less than its own bytes."""
        return self._compressor is not None

    def size(self, body: bytes) -> int:
        """Return how many bytes the record of body takes. Cost: that of compressing it, if it is to be."""
        packed = self._compressor.pack(body) if self._compressor is not None else None
        return self.overhead + len(body if packed is None else packed)

    def is_current(self, record: Record) -> bool:
        """Whether a record that was read is sealed as it would be now: by the first secret, and in the same way."""
        if self._keyring is None:
            return True
        return record.key_id == self._keyring.key_id and record.is_encrypted == self._keyring.encrypts
