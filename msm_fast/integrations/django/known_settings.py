"""Django's settings, read the short way."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from django.conf import settings

__all__ = ["CookieSettings", "cookie_settings", "request_settings", "setting"]


class CookieSettings(NamedTuple):
    """The settings of the session's cookie, as Django names them without SESSION_ in front."""

    cookie_name: str
    cookie_domain: str | None
    cookie_path: str
    cookie_secure: bool
    cookie_httponly: bool
    cookie_samesite: str | None


_NAMES = tuple([f"SESSION_{field.upper()}" for field in CookieSettings._fields])
_cookie_settings_in: Callable[[Any], tuple[Any, ...]] = itemgetter(*_NAMES)
_as_known = lru_cache(maxsize=8)(CookieSettings._make)
_request_settings_in: Callable[[Any], tuple[str, bool]] = itemgetter(
    "SESSION_COOKIE_NAME", "SESSION_SAVE_EVERY_REQUEST"
)

_known = vars(settings)
"""Where Django's lazy object keeps what was read of it, and forgets what is set or overridden."""


def setting(name: str) -> Any:
    """Return getattr(settings, name), in a fifth of the time: each request reads some."""
    try:
        return _known[name]
    except KeyError:
        return getattr(settings, name)


def request_settings() -> tuple[str, bool]:
    """Return SESSION_COOKIE_NAME and SESSION_SAVE_EVERY_REQUEST."""
    try:
        return _request_settings_in(_known)
    except KeyError:
        return settings.SESSION_COOKIE_NAME, settings.SESSION_SAVE_EVERY_REQUEST


def cookie_settings() -> CookieSettings:
    """Return what they are now; the same object as long as they are the same."""
    try:
        return _as_known(_cookie_settings_in(_known))
    except KeyError:
        return _as_known(tuple([getattr(settings, name) for name in _NAMES]))
