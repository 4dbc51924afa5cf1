"""Plain values that say how the library behaves under faults, and the words for what it did."""

from __future__ import annotations

import enum
import math
import os
from dataclasses import dataclass, fields
from typing import Literal

from msm_fast.errors import ConfigurationError

__all__ = [
    "PARTS",
    "Breaker",
    "DistributionState",
    "NearCacheSettings",
    "Reconnect",
    "Retry",
    "SaveResult",
    "SaveStatus",
    "Timeouts",
    "Tls",
    "path_as_text",
]

_LONGEST_BUSY_POLL_S = 0.01
_LONGEST_S = 24 * 3600
"""What is far longer the system's own calls refuse."""
_LARGEST = 2**63 - 1

SaveStatus = Literal["stored", "unchanged", "merged", "queued", "local", "failed", "invalidated"]


class DistributionState(enum.Enum):
    """Where sessions are kept now."""

    DISTRIBUTED = "distributed"
    """Every node is up."""
    DEGRADED = "degraded"
    """A node is down; its sessions are served from the others."""
    LOCAL = "local"
    """No node is configured, or none can be reached."""
    STOPPED = "stopped"
    """Stopped, by a policy or an operator."""


@dataclass(frozen=True, slots=True)
class SaveResult:
    """What a save did. node: the id of the node that holds the primary copy. backups: those with backup copies.

    status: "stored". "merged": stored, with what others have stored meanwhile. "unchanged": there was nothing to store.
    "queued": it is written behind the request. "local": it is kept on this host. "invalidated": the session was ended,
    by this request or by another, and nothing is stored. "failed": it stood for one that could not be reached and can
    be now, and is not stored.
    """

    status: SaveStatus
    node: str | None = None
    backups: tuple[str, ...] = ()


def require_positive(setting: str, value: object) -> None:
    """Raise ConfigurationError unless value is a finite number over 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise ConfigurationError(setting, value, "a number over 0")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits in seconds, a day at most.

    connect: one connection. operation: one round trip. request: all a request may spend. lock: what it may spend,
    besides, on waiting for its session's lock. lock_ttl: for how long a lock outlives a worker that died with it, 1 or
    more; while its request runs it is renewed. busy_poll: for how long a thread waits for an answer without sleeping,
    up to 0.01; 0: never. Where nobody answers that soon it is hardly ever tried.
    """

    connect: float = 0.1
    operation: float = 0.1
    request: float = 0.25
    lock: float = 5.0
    lock_ttl: float = 30.0
    busy_poll: float = 0.0001

    def __post_init__(self) -> None:
        for name in ("connect", "operation", "request", "lock", "lock_ttl"):
            require_positive(f"timeouts.{name}", getattr(self, name))
            if getattr(self, name) > _LONGEST_S:
                raise ConfigurationError(f"timeouts.{name}", getattr(self, name), f"at most {_LONGEST_S} seconds")
        if not (isinstance(self.busy_poll, (int, float)) and 0 <= self.busy_poll <= _LONGEST_BUSY_POLL_S):
            raise ConfigurationError("timeouts.busy_poll", self.busy_poll, f"0 to {_LONGEST_BUSY_POLL_S} seconds")
        if self.lock_ttl < 1:
            raise ConfigurationError("timeouts.lock_ttl", self.lock_ttl, f"1 to {_LONGEST_S} seconds")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how long after, an exchange whose connection was lost is tried again.

    attempts: further tries after the first, 0 or more. base, cap: the wait before the n-th further try but one is
    random between 0 and min(cap, base * 2**n) seconds. budget: retries allowed per request on average, 0 to 1.
    """

    attempts: int = 1
    base: float = 0.002
    cap: float = 0.05
    budget: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 0:
            raise ConfigurationError("retry.attempts", self.attempts, "a whole number, 0 or more")
        require_positive("retry.base", self.base)
        require_positive("retry.cap", self.cap)
        if not (isinstance(self.budget, (int, float)) and 0 <= self.budget <= 1):
            raise ConfigurationError("retry.budget", self.budget, "a number from 0 to 1")


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a node is taken for down: at once if it refuses or resets, else after so many timeouts in a row.

    suspect_self: when more than half of three or more nodes are silent, neither answering nor refusing, take this host
    for cut off and serve locally, rather than trust what the others say.
    """

    timeouts: int = 3
    suspect_self: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.timeouts, bool) or not isinstance(self.timeouts, int) or self.timeouts < 1:
            raise ConfigurationError("breaker.timeouts", self.timeouts, "a whole number, 1 or more")
        if not isinstance(self.suspect_self, bool):
            raise ConfigurationError("breaker.suspect_self", self.suspect_self, "True or False")


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a node that is down is probed: first after `first` seconds, then `factor` times later up to `cap`.

    Both are a day at most. Each wait is varied at random by up to half of itself, so that workers do not probe in step.
    on_reconnect: when the cluster was lost and can be used again, "discard" what was kept locally, or "replay" it:
    store it first, at most replay_rate sessions per second.
    """

    on_reconnect: Literal["discard", "replay"] = "discard"
    first: float = 1.0
    factor: float = 1.5
    cap: float = 30.0
    replay_rate: float = 500.0

    def __post_init__(self) -> None:
        if self.on_reconnect not in ("discard", "replay"):
            raise ConfigurationError("reconnect.on_reconnect", self.on_reconnect, "'discard' or 'replay'")
        require_positive("reconnect.replay_rate", self.replay_rate)
        if self.replay_rate < 1 / _LONGEST_S:
            raise ConfigurationError("reconnect.replay_rate", self.replay_rate, "one a day or more")
        for name in ("first", "cap"):
            require_positive(f"reconnect.{name}", getattr(self, name))
            if getattr(self, name) > _LONGEST_S:
                raise ConfigurationError(f"reconnect.{name}", getattr(self, name), f"at most {_LONGEST_S} seconds")
        if not (isinstance(self.factor, (int, float)) and math.isfinite(self.factor) and self.factor >= 1):
            raise ConfigurationError("reconnect.factor", self.factor, "a number, 1 or more")


@dataclass(frozen=True, slots=True)
class NearCacheSettings:
    """What one process keeps in memory. max_sessions: entries. max_bytes: of encoded sessions.

    validate_over: bytes of an encoded session over which memcached before 1.6.40 is first asked whether it has changed.
    Unchanged, it is not transferred; changed, it takes one more round trip. Newer servers do both in one.
    """

    max_sessions: int = 10_000
    max_bytes: int = 64 << 20
    validate_over: int = 64 << 10

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
                raise ConfigurationError(f"near_cache.{field.name}", value, f"a whole number, 1 to {_LARGEST}")


@dataclass(frozen=True, slots=True)
class Tls:
    """How connections to memcached are encrypted, and which servers are trusted. Each file has the form PEM.

    ca_file: the authorities whose word is taken; None: those of the operating system. certificate_file, key_file: what
    this client shows of itself, with its chain, for servers that ask; key_file: None: the key is in certificate_file.
    A key is read without a password. check_hostname: a server's certificate must name the host that its node is
    configured with, or server_hostname if that is given, for nodes that are configured by their addresses.
    """

    ca_file: str | os.PathLike[str] | None = None
    certificate_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None
    check_hostname: bool = True
    server_hostname: str | None = None

    def __post_init__(self) -> None:
        for name in ("ca_file", "certificate_file", "key_file"):
            object.__setattr__(self, name, path_as_text(f"tls.{name}", getattr(self, name)))
        if self.key_file is not None and self.certificate_file is None:
            raise ConfigurationError("tls.key_file", self.key_file, "only with certificate_file")
        if not isinstance(self.check_hostname, bool):
            raise ConfigurationError("tls.check_hostname", self.check_hostname, "True or False")
        hostname = self.server_hostname
        if not _is_text_or_none(hostname) or (hostname or "").startswith("."):
            raise ConfigurationError("tls.server_hostname", hostname, "the name in the servers' certificates, or None")


def path_as_text(setting: str, value: object) -> str | None:
    """Return the path of a file as text, given as that or as a pathlib.Path; None, if there is none, as it is.

    Raises: ConfigurationError.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if text is not None and not (isinstance(text, str) and _is_text_or_none(text)):
        raise ConfigurationError(setting, value, "the path of a file, or None")
    return text


def _is_text_or_none(value: object) -> bool:
    return value is None or (isinstance(value, str) and value != "" and "\0" not in value)


PARTS: dict[str, type] = {
    "timeouts": Timeouts,
    "retry": Retry,
    "breaker": Breaker,
    "reconnect": Reconnect,
    "near_cache": NearCacheSettings,
    "tls": Tls,
}
"""The settings that have settings of their own, and the class of each."""
