"""Every setting, its default and its check, in one place."""

from __future__ import annotations

import dataclasses
import os
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from msm_fast._core.keyring import SECRET_SIZE_MIN
from msm_fast._core.record_format import RecordFormat
from msm_fast._core.serializers import resolve_serializers
from msm_fast.errors import ConfigurationError, harmless
from msm_fast.node import Node, parse_failover_nodes, parse_nodes
from msm_fast.policies import PARTS, Breaker, NearCacheSettings, Reconnect, Retry, Timeouts, Tls, path_as_text

__all__ = ["Settings"]

_LONGEST_S = 2**32 - 1
"""Lifetimes are 32-bit seconds in the record (136 years)."""

_KEY_PREFIX = re.compile(r"(?!msm:lock:)[!-~]{0,80}")
"""With the longest id of 128 characters, and with what goes before it in a lock's key, this is under the 250 bytes that
memcached takes. No session's key begins as a lock's does."""


_KEY_PREFIX_WORDS = "up to 80 printable ASCII characters, no blanks, that do not begin with 'msm:lock:'"
_ROUTE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LOCKING = re.compile(r"merge|none|all|auto|uri:.+", re.DOTALL)
_CREDENTIALS = re.compile(r"[^\s:]+:\S+")
_CREDENTIALS_WORDS = (
    "'user:password' as in the server's authfile (memcached -Y), at most 250 bytes in UTF-8, with no blanks and no "
    "control characters"
)
_LONGEST_CREDENTIALS = 250
_LOCAL_STORE = re.compile(r"memory|sqlite:///.+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a manager works. Build one with `Settings.build`, which also takes nodes as text.

    Times are seconds. A field's meaning stands in README.md and in the class of its value.
    Raises: ConfigurationError naming the setting, the value and what is accepted.
    """

    nodes: tuple[Node, ...] = ()
    sticky: bool = False
    failover_nodes: tuple[str, ...] = ()
    route: str | None = None
    max_inactive: float | None = 1800
    absolute_lifetime: float | None = None
    locking: str = "merge"
    on_conflict: str = "merge"
    replicas: int = 1
    backup: str | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    retry: Retry = field(default_factory=Retry)
    breaker: Breaker = field(default_factory=Breaker)
    reconnect: Reconnect = field(default_factory=Reconnect)
    on_cluster_lost: str = "local"
    on_corrupt: str = "local"
    on_unserializable: str = "stop_application"
    on_stop: Callable[[], None] | Literal["end_process"] | None = None
    blacklist_path: str | os.PathLike[str] | None = None
    serializer: Any = "native"
    secrets: tuple[str | bytes, ...] = field(default=(), repr=False)
    encrypt: bool = False
    compress_over: int | None = None
    compression: str = "zlib"
    near_cache: NearCacheSettings = field(default_factory=NearCacheSettings)
    local_store: str = "memory"
    tls: Tls | ssl.SSLContext | bool | None = None
    credentials: str | None = field(default=None, repr=False)
    key_prefix: str = ""
    hash_ids: bool = False
    attribute_filter: str | None = None
    ignore_requests: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", parse_nodes(self.nodes))
        object.__setattr__(self, "failover_nodes", parse_failover_nodes(self.failover_nodes, self.nodes))
        for name in ("sticky", "encrypt", "hash_ids"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                # A long text was most likely meant to be the key.
                shown = "…" if isinstance(value, (str, bytes)) and len(value) >= SECRET_SIZE_MIN else value
                raise ConfigurationError(name, shown, "True or False")
        if self.route is not None and not (isinstance(self.route, str) and _ROUTE.fullmatch(self.route)):
            raise ConfigurationError("route", self.route, "1 to 64 letters, digits, underscores or dashes")
        if self.backup is None:
            object.__setattr__(self, "backup", "async" if self.sticky else "sync")
        for name, accepted in _CHOICES.items():
            _check_choice(name, getattr(self, name), accepted)
        for name in ("max_inactive", "absolute_lifetime"):
            _check_lifetime(name, getattr(self, name))
        if isinstance(self.tls, bool):
            object.__setattr__(self, "tls", Tls() if self.tls else None)
        if self.tls is not None and not isinstance(self.tls, (Tls, ssl.SSLContext)):
            # A mapping may hold the password of a key.
            shown = "…" if isinstance(self.tls, Mapping) else self.tls
            raise ConfigurationError("tls", shown, "True, a Tls(…), an ssl.SSLContext, or None: no TLS")
        _check_credentials(self.credentials)
        for name, kind in PARTS.items():
            if name != "tls" and not isinstance(getattr(self, name), kind):
                raise ConfigurationError(name, getattr(self, name), f"a {kind.__name__}(…)")
        if isinstance(self.replicas, bool) or not isinstance(self.replicas, int) or not 0 <= self.replicas <= 8:
            raise ConfigurationError("replicas", self.replicas, "0 to 8 backup copies")
        if not (isinstance(self.key_prefix, str) and _KEY_PREFIX.fullmatch(self.key_prefix)):
            raise ConfigurationError("key_prefix", self.key_prefix, _KEY_PREFIX_WORDS)
        for name in ("route", "key_prefix"):  # of a subclass, what is compiled takes none
            if getattr(self, name) is not None:
                object.__setattr__(self, name, str.__str__(getattr(self, name)))
        if not (isinstance(self.local_store, str) and _LOCAL_STORE.fullmatch(self.local_store)):
            raise ConfigurationError(
                "local_store", harmless(self.local_store), "'memory' or 'sqlite:////absolute/path/of/a/file'"
            )
        object.__setattr__(self, "blacklist_path", path_as_text("blacklist_path", self.blacklist_path))
        for name in ("attribute_filter", "ignore_requests"):
            _check_pattern(name, getattr(self, name))
        _check_locking(self.locking)
        if self.on_stop not in (None, "end_process") and not callable(self.on_stop):
            raise ConfigurationError(
                "on_stop", self.on_stop, "something to be called with no argument, or 'end_process'"
            )
        self._check_record_format()

    def _check_record_format(self) -> None:
        secrets = (self.secrets,) if isinstance(self.secrets, (str, bytes)) else self.secrets
        if not isinstance(secrets, (tuple, list)):
            raise ConfigurationError("secrets", "…", "a sequence of texts or bytes")
        object.__setattr__(self, "secrets", tuple(secrets))
        _check_size("compress_over", self.compress_over)
        self.record_format()
        _check_serializer(self.serializer, has_secrets=bool(secrets))

    def record_format(self) -> RecordFormat:
        """Return how records are written and which are trusted. Raises: ConfigurationError."""
        return RecordFormat(self.secrets, self.encrypt, self.compress_over, self.compression)

    @classmethod
    def build(
        cls,
        nodes: str | Iterable[str | Node] | None = None,
        *,
        failover_nodes: str | Iterable[str] | None = None,
        **settings: Any,
    ) -> Settings:
        """Return settings, with nodes and failover_nodes also taken as text ("n1:10.0.0.1:11211,n2:…")."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in settings:
            if name not in known:
                # Not with its value: it may be meant for secrets or credentials.
                raise ConfigurationError(name, "…", f"one of the settings {', '.join(sorted(known))}")
        return cls(nodes=nodes, failover_nodes=failover_nodes, **settings)  # type: ignore[arg-type]  # made so there

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Settings:
        """Return settings from a dict as a framework's configuration has it; timeouts, retry, … may be dicts in it."""
        from msm_fast.settings_sources import settings_of_mapping

        return cls.build(**settings_of_mapping(mapping))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, prefix: str = "MSM_FAST_") -> Settings:
        """Return settings from variables such as MSM_FAST_NODES and MSM_FAST_TIMEOUTS_REQUEST."""
        from msm_fast.settings_sources import settings_of_environment

        return cls.build(**settings_of_environment(environ, prefix))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Settings:
        """Return settings from the table [msm_fast] of a TOML file. Python 3.10 needs the extra msm-fast[toml]."""
        from msm_fast.settings_sources import settings_of_toml

        return cls.build(**settings_of_toml(path))

    @classmethod
    def from_msm(cls, attributes: Mapping[str, object]) -> Settings:
        """Return settings from the attributes of a memcached-session-manager <Manager> element, by their Java names."""
        from msm_fast.settings_sources import settings_of_msm

        return cls.build(**settings_of_msm(attributes))


_CHOICES: dict[str, tuple[object, ...]] = {
    "on_conflict": ("merge", "error"),
    "backup": ("sync", "async"),
    "on_cluster_lost": ("local", "error"),
    "on_corrupt": ("local", "error"),
    "on_unserializable": ("stop_application", "local_session", "stop_distribution", "blacklist"),
}


def _check_choice(name: str, value: object, accepted: tuple[object, ...]) -> None:
    if value not in accepted:
        raise ConfigurationError(name, value, " or ".join(repr(choice) for choice in accepted))


def _check_lifetime(name: str, value: float | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= _LONGEST_S:
        raise ConfigurationError(name, value, f"1 to {_LONGEST_S} seconds, or None: no limit")


def _check_size(name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ConfigurationError(name, value, "a number of bytes, or None")


def _check_credentials(value: object) -> None:
    is_good = value is None or (
        isinstance(value, str)
        and _CREDENTIALS.fullmatch(value) is not None
        and value.isprintable()
        and len(value.encode()) <= _LONGEST_CREDENTIALS
    )
    if not is_good:
        raise ConfigurationError("credentials", "…", _CREDENTIALS_WORDS)


def _check_locking(value: object) -> None:
    accepted = "'merge', 'none', 'all', 'auto' or 'uri:' and a regular expression"
    if not (isinstance(value, str) and _LOCKING.fullmatch(value)):
        raise ConfigurationError("locking", value, accepted)
    try:
        re.compile(value.partition(":")[2])
    except re.error as error:
        raise ConfigurationError("locking", value, f"{accepted} ({error})") from error


def _check_pattern(name: str, value: object) -> None:
    if value is None:
        return
    accepted = "a regular expression, to match a whole name or path, or None"
    if not isinstance(value, str) or not value:
        raise ConfigurationError(name, value, accepted)
    try:
        re.compile(value)
    except re.error as error:
        raise ConfigurationError(name, value, f"{accepted} ({error})") from error


def _check_serializer(serializer: object, *, has_secrets: bool) -> None:
    names = serializer if isinstance(serializer, (tuple, list)) else (serializer,)
    if "pickle" in names and not has_secrets:
        raise ConfigurationError(
            "serializer", serializer, "pickle only with secrets: else whoever can write to memcached could run code"
        )
    resolve_serializers(serializer)
