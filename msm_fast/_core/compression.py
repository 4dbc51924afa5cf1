"""Bodies of records made smaller, and what comes out of them again, within a bound."""

from __future__ import annotations

import sys
import zlib
from types import ModuleType
from typing import Any

from msm_fast.errors import ConfigurationError, CorruptRecord, UnknownFormat

__all__ = ["BODY_SIZE_MAX", "Compressor", "expand"]

BODY_SIZE_MAX = 8 << 20
"""What a compressed body may hold. A larger one is stored as it is, which is too large for an item of 1 MiB.

This bounds the bytes of a body, and so how many values a small item can hold: as many as eight that are full and not
compressed. Values take up to a hundred times their bytes in memory, so that it may still be most of a gigabyte.
"""

_WINDOW_LOG_MAX = 23
"""Of zstd, whose default would let 128 MiB be taken for a few bytes: as many bits as BODY_SIZE_MAX needs."""

_FASTEST = 1


class Compressor:
    """Compresses bodies over a size.

    over: bytes. method: "zlib" or "zstd".
    Raises:  ConfigurationError for another method, and for zstd where no library for it is installed.
    Thread-safety: immutable.
    """

    def __init__(self, over: int, method: str = "zlib") -> None:
        if method not in ("zlib", "zstd"):
            raise ConfigurationError("compression", method, "'zlib' or 'zstd'")
        if method == "zstd":
            try:
                _zstd()
            except ImportError as error:
                accepted = "'zlib', or 'zstd' with the extra zstd: pip install 'msm-fast[zstd]'"
                raise ConfigurationError("compression", method, accepted) from error
        self._over = over
        self.is_zstd = method == "zstd"

    def pack(self, body: bytes) -> bytes | None:
        """Return body made smaller, or None if it is to be stored as it is."""
        if not self._over < len(body) <= BODY_SIZE_MAX:
            return None
        packed: bytes = _zstd().compress(body) if self.is_zstd else zlib.compress(body, _FASTEST)
        return packed if len(packed) < len(body) else None


def expand(packed: bytes, is_zstd: bool) -> bytes:
    """Return the body that a compressor made packed of.

    Raises:  CorruptRecord for anything else, or a body over BODY_SIZE_MAX; UnknownFormat for zstd where no library for
             it is installed.
    Cost:    takes memory as the body grows, and hardly more than BODY_SIZE_MAX.
    """
    expander, error_type = _zstd_expander() if is_zstd else (zlib.decompressobj(), zlib.error)
    try:
        # One byte more than may be, so that the end of a body as large as can be is seen.
        body: bytes = expander.decompress(packed, BODY_SIZE_MAX + 1)
    except error_type as error:
        raise CorruptRecord(f"the compressed body cannot be read: {error}") from error
    if len(body) > BODY_SIZE_MAX or not expander.eof or expander.unused_data:
        raise CorruptRecord(f"the compressed body is cut, is followed by bytes, or is over {BODY_SIZE_MAX >> 20} MiB")
    return body


def _zstd_expander() -> tuple[Any, type[Exception]]:
    try:
        zstd = _zstd()
    except ImportError as error:
        raise UnknownFormat("a body compressed with zstd, for which no library is installed", 5) from error
    options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
    return zstd.ZstdDecompressor(options=options), zstd.ZstdError


def _zstd() -> ModuleType:
    """Return the standard library's module, or for older interpreters its backport. Raises: ImportError."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
