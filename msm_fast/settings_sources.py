"""Where settings are read from: a mapping, the environment, a TOML file, the attributes of the Java system."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from msm_fast.errors import ConfigurationError
from msm_fast.logs import Log
from msm_fast.policies import PARTS, Timeouts

__all__ = ["settings_of_environment", "settings_of_mapping", "settings_of_msm", "settings_of_toml"]

_log = Log("msm_fast.settings")

_TEXTS = {
    "credentials",
    "nodes",
    "failover_nodes",
    "route",
    "locking",
    "key_prefix",
    "local_store",
    "attribute_filter",
    "blacklist_path",
    "ignore_requests",
}


_OF_A_SERVICE = re.compile(
    r"([A-Z0-9_]+_)?(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""The variables, without PORT, that Kubernetes sets in each pod for a Service called msm-fast or msm-fast-memcached."""


def settings_of_environment(environ: Mapping[str, str], prefix: str) -> dict[str, Any]:
    """Return the settings that variables name: NODES, MAX_INACTIVE, TIMEOUTS_REQUEST… after the prefix.

    A value is read as JSON where it is JSON (1800, null; true and false in any case) and as text otherwise. SECRETS is
    one of them, digits perhaps, or a JSON list of them. TLS is on if a part of it is there, such as TLS_CA_FILE, unless
    TLS itself is false. BUILD, which setup.py reads, is left out, and so is what Kubernetes sets for a Service called
    msm-fast or msm-fast-something: SERVICE_HOST, SERVICE_PORT, PORT_11211_TCP… and PORT, if it is a URL.
    """
    given = {name[len(prefix) :]: value for name, value in environ.items() if name.startswith(prefix)}
    flat = {name.lower(): value for name, value in given.items() if not _is_foreign(name, value)}
    whole: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, text in flat.items():
        part = next((p for p in PARTS if name.startswith(p + "_")), None)
        if part is None:
            whole[name] = _value(name, text)
        else:
            nested.setdefault(part, {})[name[len(part) + 1 :]] = _json_or_text(text)
    for part, values in nested.items():
        switch = whole.get(part, True)
        if not isinstance(switch, bool) or (part != "tls" and part in whole):
            raise ConfigurationError(part, "…", f"nothing beside {', '.join(f'{part}_{name}' for name in values)}")
        if switch:
            whole[part] = values
    return settings_of_mapping(whole)


def _is_foreign(name: str, value: str) -> bool:
    return (
        name == "BUILD"
        or (f"_{name}".endswith("_PORT") and "://" in value)
        or _OF_A_SERVICE.fullmatch(name) is not None
    )


def _value(name: str, text: str) -> Any:
    if name in _TEXTS:
        return text
    return _secrets(text.strip()) if name == "secrets" else _json_or_text(text)


def _secrets(text: str) -> str | list[str]:
    """Return one secret, or those of a list.

    What begins as a list must be one: without its quotes, which a shell takes, it would work as one secret, until
    somebody relies on its parts to rotate them.
    """
    if not text.startswith("["):
        return text
    secrets = _json_or_text(text)
    if not isinstance(secrets, list) or not all(isinstance(secret, str) for secret in secrets):
        raise ConfigurationError("secrets", "…", 'one secret, or a JSON list of texts such as ["…", "…"]')
    return secrets


def _json_or_text(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return json.loads(text)
    except ValueError:
        return text


def settings_of_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings in the table [msm_fast] of the file at path."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise ConfigurationError("from_toml", os.fspath(path), "Python 3.11, or msm-fast[toml] installed") from None
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file).get("msm_fast")
    except OSError as error:
        raise ConfigurationError("from_toml", os.fspath(path), f"a file that can be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError("from_toml", os.fspath(path), f"a TOML file ({error})") from error
    if not isinstance(table, dict):
        raise ConfigurationError("from_toml", os.fspath(path), "a TOML file with a table [msm_fast]")
    return settings_of_mapping(table)


def settings_of_mapping(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with each nested mapping turned into its class."""
    built = dict(settings)
    for name, kind in PARTS.items():
        values = built.get(name)
        if not isinstance(values, Mapping):
            continue
        known = {f.name for f in dataclasses.fields(kind)}
        for key in values:
            if key not in known:
                raise ConfigurationError(f"{name}.{key}", "…", f"one of {', '.join(sorted(known))}")
        built[name] = kind(**values)
    return built


_WITHOUT_MEANING = {
    "className", "memcachedProtocol", "lockExpiration", "sessionBackupTimeout", "backupThreadCount",
    "transcoderFactoryClass", "copyCollectionsForSerialization", "customConverter", "enableStatistics",
    "processExpiresFrequency", "maxActiveSessions",
}  # fmt: skip


def settings_of_msm(attributes: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings that say what the Java attributes said; those without a meaning here are logged.

    An attribute that is absent has the Java system's default where the two differ: sticky=True, backup="async".
    Source: memcached-session-manager 2.3.3, SetupAndConfiguration.
    """
    given = {name: str(value).strip() for name, value in attributes.items()}
    for name in sorted(_WITHOUT_MEANING & given.keys()):
        _log.warning("%s has no meaning in msm_fast and is left out", name)
    settings: dict[str, Any] = {"sticky": True, "backup": "async"}
    for name, text in given.items():
        if name in _WITHOUT_MEANING:
            continue
        if name not in _MSM_ATTRIBUTES:
            raise ConfigurationError(name, "…", "an attribute of memcached-session-manager's Manager element")
        setting, convert = _MSM_ATTRIBUTES[name]
        settings[setting] = convert(name, text)
    if not settings.pop("enabled", True):
        settings.pop("nodes", None)
        settings.pop("failover_nodes", None)
    return settings


def _text(name: str, text: str) -> str | None:
    return text or None


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ConfigurationError(name, text, "true or false")
    return text.lower() == "true"


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(name, text, "a whole number") from None


def _locking(name: str, text: str) -> str:
    kind, colon, pattern = text.partition(":")
    if kind.lower() == "uripattern" and colon:
        return f"uri:{pattern}"
    if text.lower() in ("all", "auto"):
        return text.lower()
    if text.lower() == "none":
        return "merge"  # as free of locks, and it loses no update
    raise ConfigurationError(name, text, "none, all, auto or uriPattern:<regular expression>")


def _key_prefix(name: str, text: str) -> str:
    """Join the static tokens; host, context and webappVersion belong to a servlet container."""
    values = []
    for token in filter(None, text.split(",")):
        kind, _, value = token.partition(":")
        if kind == "static" and value:
            values.append(value)
        elif token != "webappVersion":
            raise ConfigurationError(name, text, "static:<value>, or webappVersion, which is empty outside a container")
    return ":".join(values) + "_" if values else ""


def _max_inactive(name: str, text: str) -> float | None:
    seconds = _whole_number(name, text)
    return seconds if seconds > 0 else None


_MSM_ATTRIBUTES: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "memcachedNodes": ("nodes", _text),
    "failoverNodes": ("failover_nodes", _text),
    "enabled": ("enabled", _boolean),
    "sticky": ("sticky", _boolean),
    "lockingMode": ("locking", _locking),
    "maxInactiveInterval": ("max_inactive", _max_inactive),
    "operationTimeout": ("timeouts", lambda name, text: Timeouts(operation=_whole_number(name, text) / 1000)),
    "requestUriIgnorePattern": ("ignore_requests", _text),
    "sessionAttributeFilter": ("attribute_filter", _text),
    "sessionBackupAsync": ("backup", lambda name, text: "async" if _boolean(name, text) else "sync"),
    "storageKeyPrefix": ("key_prefix", _key_prefix),
}
