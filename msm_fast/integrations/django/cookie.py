"""The session's cookie in Django's responses, made and rendered with a fraction of the work of `set_cookie`."""

from __future__ import annotations

import time
from collections.abc import Container
from functools import lru_cache
from http.cookies import Morsel

from django.http import HttpResponse
from django.utils.http import http_date

from msm_fast.integrations.django.known_settings import CookieSettings

__all__ = ["SessionCookie", "session_cookie"]

_VALUE, _EXPIRES = "value-of-the-cookie", "date-of-its-end"

_http_date = lru_cache(maxsize=64)(http_date)
"""Many responses of one second say the same date."""


class SessionCookie(Morsel[str]):
    """A cookie that knows how it reads; one that was changed since it was made is rendered anew."""

    _text: str | None = None
    _made_of: tuple[object, ...] = ()

    def note_text(self, text: str) -> None:
        """Take text for how it reads now."""
        self._text, self._made_of = text, (self.value, *self.values())

    def OutputString(self, attrs: Container[str] | None = None) -> str:  # noqa: N802 - the standard library's name
        """Return the value of the header Set-Cookie; attrs: which attributes to name, None: all."""
        if attrs is None and self._text is not None and (self.value, *self.values()) == self._made_of:
            return self._text
        return super().OutputString(attrs)  # type: ignore[arg-type, unused-ignore]


class _Template:
    """What the cookies of one site have in common."""

    def __init__(self, made: Morsel[str]) -> None:
        self._name = made.key
        self._attributes = dict(made)
        self._before_value, self._rest = made.OutputString().split(_VALUE)

    def cookie(self, value: str, expires: str) -> SessionCookie:
        cookie = SessionCookie.__new__(SessionCookie)
        state = {"key": self._name, "value": value, "coded_value": value}
        cookie.__setstate__(state)  # type: ignore[attr-defined] # public, as pickling has it; set() would check it all
        dict.update(cookie, self._attributes, expires=expires)
        cookie.note_text(self._before_value + value + self._rest.replace(_EXPIRES, expires))
        return cookie


def session_cookie(settings: CookieSettings, value: str, max_age: int | None) -> SessionCookie:
    """Return the cookie that `response.set_cookie` would make, as the settings SESSION_COOKIE_… say.

    value: of characters that need no quoting. max_age: seconds; None: it ends with the browser.
    """
    expires = "" if max_age is None else _http_date(int(time.time() + max_age))
    return _template(settings, max_age).cookie(value, expires)


@lru_cache(maxsize=64)
def _template(settings: CookieSettings, max_age: int | None) -> _Template:
    response = HttpResponse()
    response.set_cookie(
        settings.cookie_name,
        _VALUE,
        max_age=max_age,
        expires=None if max_age is None else _EXPIRES,
        domain=settings.cookie_domain,
        path=settings.cookie_path,
        secure=bool(settings.cookie_secure),
        httponly=bool(settings.cookie_httponly),
        samesite=settings.cookie_samesite,
    )
    return _Template(response.cookies[settings.cookie_name])
