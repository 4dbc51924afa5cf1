"""What manage.py check says about wrong settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings as django_settings
from django.core import checks
from django.utils.module_loading import import_string

from msm_fast.errors import ConfigurationError
from msm_fast.integrations.django.managers import settings_of_django
from msm_fast.integrations.django.middleware import SessionMiddleware
from msm_fast.integrations.django.sessions import SessionStore

__all__ = ["check_nodes", "check_settings"]

_ENGINE = "msm_fast.integrations.django"


def check_settings(app_configs: Sequence[Any] | None = None, **_: object) -> list[checks.CheckMessage]:
    """Return what is wrong with the settings that have to do with sessions."""
    try:
        settings = settings_of_django()
    except ConfigurationError as error:
        return [
            checks.Error(
                f"MSM_FAST: {error.setting} is not accepted.",
                hint=f"It is to be {error.accepted}.",
                id="msm_fast.E001",
            )
        ]
    found: list[checks.CheckMessage] = []
    if not _is_ours(f"{django_settings.SESSION_ENGINE}.SessionStore", SessionStore):
        found.append(
            checks.Error(
                f"msm_fast is installed, but the sessions are those of {django_settings.SESSION_ENGINE}.",
                hint=f'Set SESSION_ENGINE = "{_ENGINE}", or take it out of INSTALLED_APPS.',
                id="msm_fast.E002",
            )
        )
    by_request = [name for name in ("locking", "ignore_requests") if getattr(settings, name) not in (None, *_UNLOCKED)]
    if by_request and not any(_is_ours(path, SessionMiddleware) for path in django_settings.MIDDLEWARE):
        found.append(
            checks.Error(
                f"MSM_FAST: {' and '.join(by_request)} can have no effect: Django's middleware does not say which "
                "request a session is for.",
                hint=f'Put "{_ENGINE}.SessionMiddleware" in MIDDLEWARE, in place of Django\'s SessionMiddleware.',
                id="msm_fast.E003",
            )
        )
    return found


def check_nodes(app_configs: Sequence[Any] | None = None, **_: object) -> list[checks.CheckMessage]:
    """Return a warning if nothing is distributed; for `manage.py check --deploy`."""
    try:
        has_nodes = bool(settings_of_django().nodes)
    except ConfigurationError:
        return []
    if has_nodes:
        return []
    return [
        checks.Warning(
            "MSM_FAST names no nodes: each process keeps sessions of its own, and they end with it.",
            hint='Name the memcached servers: MSM_FAST = {"nodes": "n1:10.0.0.1:11211,n2:10.0.0.2:11211"}.',
            id="msm_fast.W004",
        )
    ]


_UNLOCKED = ("merge", "none")


def _is_ours(path: str, kind: type) -> bool:
    """Whether path names kind, or a class made of it; what cannot be imported is another check's."""
    try:
        found = import_string(path)
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, kind)
