"""Django's settings, read the short way."""

from __future__ import annotations

from typing import Any

from django.conf import settings

__all__ = ["setting"]

_known = vars(settings)
"""Where Django's lazy object keeps what was read of it, and forgets what is set or overridden."""


def setting(name: str) -> Any:
    """Return getattr(settings, name), in a fifth of the time: each request reads ten of them."""
    try:
        return _known[name]
    except KeyError:
        return getattr(settings, name)
