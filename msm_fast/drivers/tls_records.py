"""Where what is written over TLS is cut, so that memcached reads all of it."""

from __future__ import annotations

from collections.abc import Sequence

from msm_fast._core import wire
from msm_fast._core.wire import Command

__all__ = ["lengths_of_writes"]

_RECORD_BYTES = 1 << 14
"""The most that one record of TLS carries, and what memcached reads at once."""


def lengths_of_writes(data: bytes, commands: Sequence[Command], opaque: int) -> list[int]:
    """Return how many bytes of data, which is commands encoded from opaque on, to write at a time.

    When memcached has read a value, what came in the same record behind it stays with OpenSSL. It then waits for its
    socket, on which nothing more may arrive: the commands behind are not read, and not answered, until somebody writes
    again (seen in 1.6.18). So a value that does not fit into a record with all that goes before it is written alone;
    the last of its records ends with it. Other commands share a record.
    """
    if len(data) <= _RECORD_BYTES:
        return [len(data)]
    lengths = [0]
    for i, command in enumerate(commands):
        length = len(wire.encode([command], opaque + i))
        if lengths[-1] and lengths[-1] + length > _RECORD_BYTES:
            lengths.append(0)
        lengths[-1] += length
    return lengths
