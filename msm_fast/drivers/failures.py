"""What goes wrong with a connection, in the engine's words."""

from __future__ import annotations

import errno
import ssl

from msm_fast.engine.effects import FailureKind, NodeFailure

__all__ = [
    "GONE",
    "OUT_OF_TIME",
    "RESTARTED",
    "ConnectionFailed",
    "cannot_connect",
    "cannot_find",
    "handshake_failed",
]

_HOSTS_WORD = {errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOENT}  # the last: where a unix socket should be
_LACKING = {
    errno.EMFILE: "this process has no file descriptors left",
    errno.ENFILE: "this host has no file descriptors left",
    errno.ENOMEM: "this host has no memory left for a connection",
    errno.ENOBUFS: "this host has no memory left for a connection",
    errno.EADDRNOTAVAIL: "this host has no address or no port left for a connection",
}

GONE = NodeFailure("gone", False, "the node is not configured any more")
OUT_OF_TIME = "the request's time was over"
RESTARTED = NodeFailure("restarted", False, "the node has lost its memory since")


class ConnectionFailed(Exception):
    """The connection cannot be used any more. sent: whether something may have reached the node."""

    def __init__(self, kind: FailureKind, sent: bool, detail: str) -> None:
        super().__init__(detail)
        self.kind: FailureKind = kind
        self.sent = sent
        self.detail = detail

    @property
    def outcome(self) -> NodeFailure:
        """What the engine is told of a batch that was under way."""
        return NodeFailure(self.kind, self.sent, self.detail)


def cannot_connect(error: OSError) -> ConnectionFailed:
    """Return what an error of socket() or connect() means: the host's word, that it is not reached, or our own lack."""
    if error.errno in _LACKING:
        return _lacks(error)
    kind: FailureKind = "refused" if error.errno in _HOSTS_WORD else "unreachable"
    return ConnectionFailed(kind, False, f"cannot connect: {error}")


def cannot_find(host: str, error: OSError) -> ConnectionFailed:
    """Return what an error in the look-up of a host's name means."""
    if error.errno in _LACKING:
        return _lacks(error)
    return ConnectionFailed("unreachable", False, f"the address of {host} is not known: {error}")


def _lacks(error: OSError) -> ConnectionFailed:
    assert error.errno is not None
    return ConnectionFailed("exhausted", False, f"{_LACKING[error.errno]}: {error}")


def handshake_failed(error: Exception) -> ConnectionFailed:
    """Return what an error in the TLS handshake means: a server that is not to be trusted, or the network."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectionFailed("unsupported", False, f"its certificate is not accepted: {error.verify_message}")
    if isinstance(error, TimeoutError):
        return ConnectionFailed("timeout", False, "no end of the TLS handshake in time; does it speak TLS?")
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, (ssl.SSLError, ValueError)):
        return ConnectionFailed("reset", False, f"connection lost in the TLS handshake: {error}")
    return ConnectionFailed("unsupported", False, f"no TLS with it: {error}")
