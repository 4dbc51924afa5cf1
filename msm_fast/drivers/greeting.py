"""The first words on a new connection: can this server be used, in which of its lives is it, what are its limits."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from msm_fast._core import wire
from msm_fast.drivers.connection import Connection, ConnectionFailed
from msm_fast.engine.effects import FailureKind, Replies

__all__ = ["Greeting", "greet"]

_OLDEST_VERSION = (1, 6, 18)
_COMPARES_FROM = (1, 6, 40)
"""From here on `mg` with C leaves out a value whose CAS is that; older servers take the flag and send the value."""
_TOKEN_KEY = b"msm_fast:life:"
"""No session's key ends in a colon."""
_REFUSALS: dict[str, tuple[FailureKind, str]] = {
    "Too many open connections": ("refused", "it has too many connections; let it have more (memcached -c)"),
    "unauthenticated": ("unsupported", "it wants a password (memcached -Y), which this version cannot give"),
}
_SETTINGS_END = re.compile(rb"^(END|ERROR|CLIENT_ERROR.*|SERVER_ERROR.*)\r\n\Z", re.MULTILINE)
_ITEM_LIMIT = re.compile(rb"^STAT item_size_max ([0-9]{1,18})\r\n", re.MULTILINE)
_MOST_SETTINGS = 1 << 16


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server said of itself.

    token: tells this life of it from others; None: it would not say. compares: it leaves out a value that has not
    changed, if a command says which CAS value is known. item_limit: the largest item that it takes, in bytes, with
    header and key; None: it did not say.
    """

    token: bytes | None
    compares: bool
    item_limit: int | None


def greet(connection: Connection, deadline: float) -> Greeting:
    """Greet the server; what it is told here may be said again and does no harm. deadline: of time.monotonic().

    Raises: ConnectionFailed; its kind is "unsupported" for a server that is too old, wants a password or is something
        else.
    """
    try:
        version, token = _ask_life(connection, deadline)
        return Greeting(token, version >= _COMPARES_FROM, _ask_item_limit(connection, deadline))
    except ConnectionFailed as failure:
        raise ConnectionFailed(failure.kind, False, failure.detail) from failure


def _ask_life(connection: Connection, deadline: float) -> tuple[tuple[int, ...], bytes | None]:
    """Return the server's version, and the token of the life that it is in.

    The first connection to a server that has just been started leaves a random one there, which the others find.
    """
    token = secrets.token_hex(8).encode()
    connection.start([wire.version(), wire.store(_TOKEN_KEY, token, 0, 0, add=True), wire.get(_TOKEN_KEY)])
    try:
        replies = connection.finish(deadline)
    except ConnectionFailed as failure:
        if connection.answered:
            _check_version(connection.answered)  # one that is too old does not understand the rest
        if failure.kind != "protocol":
            raise
        reasons = (reason for words, reason in _REFUSALS.items() if words in failure.detail)
        unknown: tuple[FailureKind, str] = ("unsupported", f"this is not a memcached server: {failure.detail}")
        kind, detail = next(reasons, unknown)
        raise ConnectionFailed(kind, False, detail) from failure
    return _check_version(replies), replies[2].value


def _check_version(replies: Replies) -> tuple[int, ...]:
    """Return the version in the first reply. Raises: ConnectionFailed if it is too old, or none."""
    text = replies[0].text
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    version = tuple(map(int, match.groups())) if match else ()
    if version < _OLDEST_VERSION:
        oldest = ".".join(map(str, _OLDEST_VERSION))
        raise ConnectionFailed("unsupported", False, f"memcached {text} is not supported; install {oldest} or newer")
    return version


def _ask_item_limit(connection: Connection, deadline: float) -> int | None:
    connection.write(b"stats settings\r\n")
    text = b""
    while not _SETTINGS_END.search(text):
        text += connection.read(deadline)
        if len(text) > _MOST_SETTINGS:
            raise ConnectionFailed("protocol", False, "it does not come to an end with its settings")
    found = _ITEM_LIMIT.search(text)
    return int(found[1]) if found else None
