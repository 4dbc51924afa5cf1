"""The errors, one tree, branched by who must act.

::

    MsmError
    ├── ConfigurationError (ValueError)    the deployer: a setting is wrong, or what it needs is not installed
    ├── InvalidSessionId (ValueError)      the caller: text that is no session id was passed where one is required
    ├── WrongEventLoop (RuntimeError)      the caller: a manager was used in two event loops at once
    ├── NodeUnavailable                    the network: one node refused, reset or answered nonsense
    │   └── NodeTimeout                    … or did not answer in time: the outcome is unknown
    ├── SessionUnavailable                 the network: no copy of the session could be reached; *not* "no session"
    ├── SerializationError                 the data: an attribute cannot be encoded
    │   └── SessionTooLarge                … or the whole session is over the item limit
    ├── CorruptRecord (ValueError)         the data: an item in memcached is not what this library wrote
    │   └── UnknownFormat                  … or was written by another version: leave it alone
    ├── ConflictError                      the policy: another request changed the session first
    ├── LockTimeout                        the policy: the session's lock could not be had in time
    └── ApplicationStopped                 the policy: a serialization failure has stopped the manager

This module imports nothing of the package; everything else may import it.
"""

from __future__ import annotations

import copyreg
from typing import Any

__all__ = [
    "ApplicationStopped",
    "ConfigurationError",
    "ConflictError",
    "CorruptRecord",
    "InvalidSessionId",
    "LockTimeout",
    "MsmError",
    "NodeTimeout",
    "NodeUnavailable",
    "SerializationError",
    "SessionTooLarge",
    "SessionUnavailable",
    "UnknownFormat",
    "WrongEventLoop",
    "harmless",
]


class MsmError(Exception):
    """The root of every error this library raises. A copy, or one that comes from another process, says the same."""

    # An exception is remade by a call of its class with its message, and most of these want more, or other things.
    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class ConfigurationError(MsmError, ValueError):
    """A setting has a value that is not accepted.

    setting: its name. value: what was given. accepted: what would be, in words.
    """

    def __init__(self, setting: str, value: object, accepted: str) -> None:
        super().__init__(f"{setting}={value!r} is not accepted: {accepted}")
        self.setting = setting
        self.value = value
        self.accepted = accepted


class WrongEventLoop(MsmError, RuntimeError):
    """An `AsyncSessionManager` was used under trio, or in a second event loop while its first is not closed yet."""


class InvalidSessionId(MsmError, ValueError):
    """Text that is not a session id was passed where a caller must pass one."""


class NodeUnavailable(MsmError):
    """One node could not be used. node: its id. kind: what happened, in one word."""

    def __init__(self, node: str, kind: str, message: str) -> None:
        super().__init__(message)
        self.node = node
        self.kind = kind


class NodeTimeout(NodeUnavailable):
    """One node did not answer in time; whether it applied a write is unknown."""


class SessionUnavailable(MsmError):
    """No copy of the session could be reached. It may well exist: keep the cookie and try later.

    session: the digest that logs carry, never the id. nodes: the nodes that were tried or are known to be down.
    """

    def __init__(self, message: str, *, session: str | None = None, nodes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.session = session
        self.nodes = nodes


class SerializationError(MsmError):
    """An attribute cannot be encoded. session: digest. attribute: its name. type_name: the value's type."""

    def __init__(
        self,
        message: str,
        *,
        session: str | None = None,
        attribute: str | None = None,
        type_name: str | None = None,
    ) -> None:
        super().__init__(message)
        self.session = session
        self.attribute = attribute
        self.type_name = type_name


class SessionTooLarge(SerializationError):
    """The encoded session is over the item limit; it was refused before sending. size, limit: bytes.

    settings.on_unserializable says what then happens. With "blacklist" the largest attributes are stored as null, and
    this is raised only if the names of the attributes alone are too large.
    """

    def __init__(self, message: str, *, size: int, limit: int, session: str | None = None) -> None:
        super().__init__(message, session=session)
        self.size = size
        self.limit = limit


class CorruptRecord(MsmError, ValueError):
    """Bytes from memcached are not a record of this session. offset: where reading stopped, in bytes."""

    def __init__(self, reason: str, offset: int = 0) -> None:
        super().__init__(f"{reason} (at byte {offset})")
        self.reason = reason
        self.offset = offset


class UnknownFormat(CorruptRecord):
    """The record was written by a version with another format; it is left alone, never deleted."""


class ConflictError(MsmError):
    """Another request changed the session first, and settings.on_conflict is "error". session: digest."""

    def __init__(self, message: str, *, session: str | None = None) -> None:
        super().__init__(message)
        self.session = session


class LockTimeout(MsmError):
    """Other requests held the session's lock for all of timeouts.lock: come again later. session: digest."""

    def __init__(self, message: str, *, session: str | None = None) -> None:
        super().__init__(message)
        self.session = session


class ApplicationStopped(MsmError):
    """The manager was stopped by the policy on_unserializable="stop_application"; it serves no more."""


def harmless(value: object) -> object:
    """Return value as an error may show it: not at all, if a password may stand in it as in "user:password@host"."""
    return "…" if "@" in str(value) else value
