"""The version of a node's copy: its CAS value, and the life of the node in which that was given.

memcached counts CAS values from the same start in each process, so after a restart they repeat.
Source: seen in memcached 1.6.18 and 1.6.45, where the first write after a restart got the CAS of the first one before.
"""

from __future__ import annotations

__all__ = ["cas_of", "life_of", "version"]

_CAS_BITS = 64


def version(life: int, cas: int) -> int:
    """Return the version of a copy with this CAS value in this life of its node; over 0, as both count from 1."""
    return life << _CAS_BITS | cas


def cas_of(version: int) -> int:
    """Return the CAS value of a version."""
    return version & ((1 << _CAS_BITS) - 1)


def life_of(version: int) -> int | None:
    """Return the life that a version belongs to; None for ABSENT and UNKNOWN, which belong to none."""
    return version >> _CAS_BITS if version > 0 else None
