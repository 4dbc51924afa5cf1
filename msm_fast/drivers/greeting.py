"""The first words on a new connection: can this server be used, in which of its lives is it, what are its limits."""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from msm_fast._core import wire
from msm_fast._core.replies import ProtocolError, Reply, ReplyParser
from msm_fast.drivers.access import Credentials
from msm_fast.drivers.failures import ConnectionFailed
from msm_fast.engine.effects import FailureKind

__all__ = ["FIRST_FREE_OPAQUE", "OLDEST_VERSION", "Dialogue", "Greeting", "greet"]

T = TypeVar("T")

Dialogue: TypeAlias = Generator[bytes, bytes, T]
"""Yields what is to be said to the server (b"": nothing more) and is sent what that says next.

It raises, and is thrown if the connection fails, ConnectionFailed.
"""

OLDEST_VERSION = (1, 6, 18)
_COMPARES_FROM = (1, 6, 40)
"""From here on `mg` with C leaves out a value whose CAS is that; older servers take the flag and send the value."""
_TOKEN_KEY = b"msm_fast:life:"
"""No session's key ends in a colon."""
FIRST_FREE_OPAQUE = 4
"""The greeting has used those before."""
_REFUSALS: dict[str, tuple[FailureKind, str]] = {
    "Too many open connections": ("refused", "it has too many connections; let it have more (memcached -c)"),
    "unauthenticated": ("unsupported", "it wants a password (memcached -Y): give it one with the setting credentials"),
    "authentication failure": (
        "unsupported",
        "it does not accept the setting credentials: its authfile (memcached -Y) has no such line",
    ),
}
_DOUBTS = {
    False: "does it want TLS, or only the binary protocol, or is it a proxy?",
    True: "does it accept this client's certificate (tls.certificate_file), or only the binary protocol?",
}
"""What may be wrong with a server that ends the connection at once, by whether TLS is spoken."""
_SETTINGS_END = re.compile(rb"^(END|ERROR|CLIENT_ERROR.*|SERVER_ERROR.*)\r\n\Z", re.MULTILINE)
_ITEM_LIMIT = re.compile(rb"^STAT item_size_max ([0-9]{1,18})\r\n", re.MULTILINE)
_HAS_NO_CAS = b"STAT cas_enabled no\r\n"
_MOST_SETTINGS = 1 << 16
_MOST_SAID = 200
_NOT_PRINTABLE = re.compile(r"[^ -~]")
"""As for all that a server says and a log shows."""


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


def greet(credentials: Credentials | None = None, *, is_secure: bool = False) -> Dialogue[Greeting]:
    """Greet the server; what it is told here may be said again and does no harm.

    is_secure: whether TLS is spoken.
    Raises: ConnectionFailed; its kind is "unsupported" for a server that is too old, has no CAS values, wants another
        password or is something else.
    """
    try:
        if credentials is not None:
            yield from _authenticate(credentials)
        version, token = yield from _ask_life(_DOUBTS[is_secure])
        return Greeting(token, version >= _COMPARES_FROM, (yield from _ask_settings()))
    except ConnectionFailed as failure:
        raise ConnectionFailed(failure.kind, False, failure.detail) from failure


def _authenticate(credentials: Credentials) -> Dialogue[None]:
    """Say who we are, before anything else: a server may close the connection of who does not.

    One that asks for no password takes that for a store, and may have no memory for it: one that asks refuses what
    follows.
    """
    heard = yield credentials.command()
    while not heard.endswith(b"\n") and len(heard) < _MOST_SETTINGS:
        heard += yield b""
    if heard != b"STORED\r\n" and not heard.startswith(b"SERVER_ERROR out of memory"):
        said = credentials.left_out_of(heard).strip()[:_MOST_SAID]
        raise _refused(_NOT_PRINTABLE.sub("?", said.decode("latin-1")))


def _refused(said: str) -> ConnectionFailed:
    """Return what it means that a server said this."""
    reasons = (reason for words, reason in _REFUSALS.items() if words in said)
    unknown: tuple[FailureKind, str] = ("unsupported", f"this is not a memcached server: {said}")
    kind, detail = next(reasons, unknown)
    return ConnectionFailed(kind, False, detail)


def _ask_life(doubt: str) -> Dialogue[tuple[tuple[int, ...], bytes | None]]:
    """Return the server's version, and the token of the life that it is in.

    The first connection to a server that has just been started leaves a random one there, which the others find.
    doubt: what may be wrong with one that says nothing.
    """
    questions = [wire.version(), wire.get(_TOKEN_KEY)]
    parser = ReplyParser(questions, 0)
    try:
        yield from _hear(parser, wire.encode(questions, 0))
    except ConnectionFailed as failure:
        if parser.replies:
            _check_version(parser.replies)  # one that is too old does not understand the rest
        elif failure.kind == "reset":
            raise ConnectionFailed("reset", False, f"{failure.detail}, before it said anything: {doubt}") from failure
        raise
    except ProtocolError as error:
        if parser.replies:
            _check_version(parser.replies)
        raise _refused(error.reason) from error
    version, token = _check_version(parser.replies), parser.replies[1].value
    if token is None:
        token = yield from _leave_token()
    return version, token


def _leave_token() -> Dialogue[bytes | None]:
    """Leave a token where there is none; return the one that is there then, ours or that of another connection.

    Only there: a server that has no memory for what is added (memcached -M) deletes what it has under that key.
    """
    token = secrets.token_hex(8).encode()
    commands = [wire.store(_TOKEN_KEY, token, 0, 0, add=True), wire.get(_TOKEN_KEY)]
    parser = ReplyParser(commands, 2)
    try:
        yield from _hear(parser, wire.encode(commands, 2))
    except ProtocolError as error:
        raise _refused(error.reason) from error
    return parser.replies[1].value


def _hear(parser: ReplyParser, asked: bytes) -> Dialogue[None]:
    """Ask this, and let the parser have all that is answered."""
    heard = yield asked
    while not parser.feed(heard):
        heard = yield b""


def _check_version(replies: Sequence[Reply]) -> tuple[int, ...]:
    """Return the version in the first reply. Raises: ConnectionFailed if it is too old, or none."""
    text = replies[0].text
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    version = tuple(map(int, match.groups())) if match else ()
    if version < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise ConnectionFailed("unsupported", False, f"memcached {text} is not supported; install {oldest} or newer")
    return version


def _ask_settings() -> Dialogue[int | None]:
    """Return the size of the largest item, if the server tells it.

    Raises: ConnectionFailed if items have no CAS values.
    """
    text = yield b"stats settings\r\n"
    while not _SETTINGS_END.search(text):
        text += yield b""
        if len(text) > _MOST_SETTINGS:
            raise ConnectionFailed("protocol", False, "it does not come to an end with its settings")
    if _HAS_NO_CAS in text:
        raise ConnectionFailed("unsupported", False, "its items have no CAS values; start it without -C (disable-cas)")
    found = _ITEM_LIMIT.search(text)
    return int(found[1]) if found else None
