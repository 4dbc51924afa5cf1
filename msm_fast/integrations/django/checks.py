"""What manage.py check says about wrong settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import global_settings
from django.conf import settings as django_settings
from django.core import checks
from django.utils.module_loading import import_string

from msm_fast.drivers.access import Access
from msm_fast.errors import ConfigurationError
from msm_fast.integrations.django.managers import settings_of_django
from msm_fast.integrations.django.middleware import SessionMiddleware
from msm_fast.integrations.django.sessions import SessionStore
from msm_fast.settings import Settings

__all__ = ["check_cookie", "check_nodes", "check_settings"]

_ENGINE = "msm_fast.integrations.django"


def check_settings(app_configs: Sequence[Any] | None = None, **_: object) -> list[checks.CheckMessage]:
    """Return what is wrong with the settings that have to do with sessions."""
    try:
        settings = settings_of_django()
    except ConfigurationError as error:
        return [checks.Error(f"{_name_of(error)} is not accepted.", hint=_hint(error), id="msm_fast.E001")]
    return [*_check_engine(), *_check_middleware(settings), *_check_files(settings)]


def _check_engine() -> Iterator[checks.CheckMessage]:
    """Warn of sessions that are not ours, as settings for tests may want them, or have a serializer in vain."""
    if not _is_ours(f"{django_settings.SESSION_ENGINE}.SessionStore", SessionStore):
        yield checks.Warning(
            f"msm_fast is installed, but the sessions are those of {django_settings.SESSION_ENGINE}.",
            hint=f'Set SESSION_ENGINE = "{_ENGINE}", or take it out of INSTALLED_APPS.',
            id="msm_fast.W002",
        )
    elif django_settings.SESSION_SERIALIZER != global_settings.SESSION_SERIALIZER:
        yield checks.Warning(
            "SESSION_SERIALIZER has no meaning for the sessions of msm_fast.",
            hint='Take it out: MSM_FAST["serializer"] says how values are stored, msm_fast.register_type adds types.',
            id="msm_fast.W005",
        )


def _check_middleware(settings: Settings) -> Iterator[checks.CheckMessage]:
    by_request = [name for name in ("locking", "ignore_requests") if getattr(settings, name) not in (None, *_UNLOCKED)]
    has_ours = any(_is_ours(path, SessionMiddleware) for path in django_settings.MIDDLEWARE)
    if by_request and not has_ours:
        yield checks.Error(
            f"MSM_FAST: {' and '.join(by_request)} can have no effect: Django's middleware does not say which "
            "request a session is for.",
            hint=f'Put "{_ENGINE}.SessionMiddleware" in MIDDLEWARE, in place of Django\'s SessionMiddleware.',
            id="msm_fast.E003",
        )
    if _DJANGOS_MIDDLEWARE in django_settings.MIDDLEWARE and has_ours:
        yield checks.Warning(
            "MIDDLEWARE names msm_fast's SessionMiddleware and Django's: a request has its session from the one that "
            "is named last, and Django's deletes the cookie of a session that is not found.",
            hint=f'Take "{_DJANGOS_MIDDLEWARE}" out.',
            id="msm_fast.W008",
        )


def _check_files(settings: Settings) -> Iterator[checks.CheckMessage]:
    """Warn of files for TLS without which requests fail; a command that is run elsewhere may not need them."""
    try:
        Access.of(settings)
    except ConfigurationError as error:
        yield checks.Warning(f"{_name_of(error)} cannot be used here.", hint=_hint(error), id="msm_fast.W006")


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


def check_cookie(app_configs: Sequence[Any] | None = None, **_: object) -> list[checks.CheckMessage]:
    """Warn of a cookie that others may read; for `manage.py check --deploy`.

    Django does so only where its own app or middleware is named.
    """
    named = {*django_settings.INSTALLED_APPS, *django_settings.MIDDLEWARE}
    if named & _DJANGOS or not any(_is_ours(path, SessionMiddleware) for path in django_settings.MIDDLEWARE):
        return []
    return [
        checks.Warning(
            f"{name} is not True: {readers} the session cookie.", hint=f"Set {name} = True.", id="msm_fast.W007"
        )
        for name, readers in _READERS.items()
        if getattr(django_settings, name) is not True
    ]


_UNLOCKED = ("merge", "none")
_DJANGOS_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"
_DJANGOS = {"django.contrib.sessions", _DJANGOS_MIDDLEWARE}
_READERS = {
    "SESSION_COOKIE_SECURE": "who listens to a request that is not encrypted reads",
    "SESSION_COOKIE_HTTPONLY": "a script that somebody has put into a page reads",
}


def _name_of(error: ConfigurationError) -> str:
    """Return how the setting is found among Django's."""
    return error.setting if error.setting in ("MSM_FAST", "SESSION_COOKIE_AGE") else f"MSM_FAST: {error.setting}"


def _hint(error: ConfigurationError) -> str:
    return f"It is to be {error.accepted}."


def _is_ours(path: str, kind: type) -> bool:
    """Whether path names kind, or a class made of it; what cannot be imported is another check's."""
    try:
        found = import_string(path)
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, kind)
