"""The session cookie: how it is read, and how it is set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from msm_fast._core.session_id import SessionId
from msm_fast.errors import ConfigurationError

__all__ = [
    "CookieSettings",
    "is_never_stored",
    "never_stored",
    "read_cookie",
    "varied_by_cookie",
    "vary_by_cookie",
]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PATH = re.compile(r"/[ -:<-~]*")
_DOMAIN = re.compile(r"[!-:<-~]*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*("|$)')
_BLANKS = " \t"
"""What may stand around names and values. str.strip() takes away more, and by that would make a name that a browser
guards, as __Host-session, of one that any page of a sibling domain can set."""
_NEVER_STORED = re.compile(r"(?:^|,)\s*(?:no-store|no-cache|private)\s*(?:,|$)", re.IGNORECASE)
"""These directives without a value: with one, they are about the headers that it names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieSettings:
    """The cookie's name and attributes.

    secure: None sets it when the request came over https. max_age: seconds; None makes it end with the browser.
    rolling: set it again with each response that used the session, so that max_age counts from the last of them.
    Raises: ConfigurationError.
    Source: RFC 6265bis.
    """

    name: str = "session"
    path: str = "/"
    domain: str | None = None
    secure: bool | None = None
    http_only: bool = True
    same_site: Literal["Lax", "Strict", "None"] | None = "Lax"
    max_age: int | None = None
    partitioned: bool = False
    rolling: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and _TOKEN.fullmatch(self.name)):
            raise ConfigurationError("cookie name", self.name, "letters, digits and !#$%&'*+-.^_`|~")
        if not (isinstance(self.path, str) and _PATH.fullmatch(self.path)):
            raise ConfigurationError("cookie path", self.path, "'/' and printable ASCII without a semicolon")
        if self.domain is not None and not (isinstance(self.domain, str) and _DOMAIN.fullmatch(self.domain)):
            raise ConfigurationError("cookie domain", self.domain, "a domain, or None: of this host only")
        if self.max_age is not None and not (type(self.max_age) is int and self.max_age > 0):
            raise ConfigurationError("cookie max_age", self.max_age, "a whole number of seconds over 0, or None")
        if self.secure is not None and not isinstance(self.secure, bool):
            raise ConfigurationError("cookie secure", self.secure, "True or False, or None: as the request came")
        for setting in ("http_only", "partitioned", "rolling"):
            if not isinstance(getattr(self, setting), bool):
                raise ConfigurationError(f"cookie {setting}", getattr(self, setting), "True or False")
        if self.same_site not in ("Lax", "Strict", "None", None):
            raise ConfigurationError("cookie same_site", self.same_site, "'Lax', 'Strict', 'None' or None")
        if self.same_site == "None" and self.secure is False:
            raise ConfigurationError("cookie secure", self.secure, "True or None with same_site='None'")
        if self.name.startswith("__Host-") and (self.domain or self.path != "/"):
            raise ConfigurationError("cookie name", self.name, "path '/' and no domain with the prefix __Host-")

    def header(self, value: str, is_https: bool) -> str:
        """Return the value of the Set-Cookie header that gives the client this session id."""
        return self._render(value, is_https, self.max_age)

    def deletion(self, is_https: bool) -> str:
        """Return the value of the Set-Cookie header that makes the client forget the cookie."""
        return self._render("", is_https, 0) + "; Expires=Thu, 01 Jan 1970 00:00:00 GMT"

    def _render(self, value: str, is_https: bool, max_age: int | None) -> str:
        is_secure = is_https if self.secure is None else self.secure
        is_secure = is_secure or self.same_site == "None" or self.partitioned
        is_secure = is_secure or self.name.startswith(("__Host-", "__Secure-"))
        parts = (
            f"{self.name}={value}",
            self.domain and f"Domain={self.domain}",
            f"Path={self.path}",
            max_age is not None and f"Max-Age={max_age}",
            is_secure and "Secure",
            self.http_only and "HttpOnly",
            self.same_site and f"SameSite={self.same_site}",
            self.partitioned and "Partitioned",
        )
        return "; ".join(part for part in parts if part)


def read_cookie(header: str, name: str) -> str | None:
    """Return the session id that a Cookie header carries under name, or what stands there if it is none, or None.

    A client sends several cookies of one name when they were set for several paths: the first that may be an id of
    ours counts.
    Nothing is unquoted: an id has no character that would need it, and a quoted control character must stay one text.
    """
    first: str | None = None
    for pair in header.split(";"):
        key, equals, value = pair.partition("=")
        if not equals or key.strip(_BLANKS) != name:
            continue
        value = value.strip(_BLANKS)
        if SessionId.parse_issued(value) is not None:
            return value
        if first is None:
            first = value
    return first


def vary_by_cookie(headers: list[tuple[str, str]], *, sets_cookie: bool) -> None:
    """Add to headers what keeps a shared cache from handing one user's page, or cookie, to another."""
    values = [value for key, value in headers if key.lower() == "vary"]
    if values:
        _replace(headers, "Vary", varied_by_cookie(values))
    else:
        headers.append(("Vary", "Cookie"))
    if sets_cookie:
        controls = [value for key, value in headers if key.lower() == "cache-control"]
        _replace(headers, "Cache-Control", never_stored(controls))


def _replace(headers: list[tuple[str, str]], name: str, value: str | None) -> None:
    if value is not None:
        headers[:] = [(key, other) for key, other in headers if key.lower() != name.lower()]
        headers.append((name, value))


def varied_by_cookie(values: Sequence[str]) -> str | None:
    """Return what Vary is to say once the session was looked at, or None: what it says is enough."""
    for value in values:
        if not {name.strip().lower() for name in value.split(",")}.isdisjoint(("cookie", "*")):
            return None
    return ", ".join([*values, "Cookie"])


def never_stored(values: Sequence[str]) -> str | None:
    """Return what Cache-Control is to say of a response that sets the cookie, or None: what it says is enough.

    Such a response must not be stored at all; what the application says stays only if it says as much.
    """
    return None if is_never_stored(", ".join(values)) else "no-store"


def is_never_stored(cache_control: str) -> bool:
    """Whether a Cache-Control header keeps a response out of shared caches, or from being used there unasked.

    Source: RFC 9111, 5.2.2.
    """
    return _NEVER_STORED.search(_QUOTED.sub('""', cache_control)) is not None
