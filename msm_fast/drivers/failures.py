"""What goes wrong with a connection, in the engine's words."""

from __future__ import annotations

import errno
import ssl

from msm_fast.engine.effects import FailureKind, NodeFailure

__all__ = ["NOT_CONFIGURED", "OUT_OF_TIME", "RESTARTED", "ConnectionFailed", "cannot_connect", "handshake_failed"]

_NO_WAY_THERE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}

NOT_CONFIGURED = "the node is not configured any more"
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
    """Return what an error of connect() means: the host's word, or that it is not reached."""
    kind: FailureKind = "unreachable" if error.errno in _NO_WAY_THERE else "refused"
    return ConnectionFailed(kind, False, f"cannot connect: {error}")


def handshake_failed(error: Exception) -> ConnectionFailed:
    """Return what an error in the TLS handshake means: a server that is not to be trusted, or the network."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectionFailed("unsupported", False, f"its certificate is not accepted: {error.verify_message}")
    if isinstance(error, TimeoutError):
        return ConnectionFailed("timeout", False, "no end of the TLS handshake in time; does it speak TLS?")
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, (ssl.SSLError, ValueError)):
        return ConnectionFailed("reset", False, f"connection lost in the TLS handshake: {error}")
    return ConnectionFailed("unsupported", False, f"no TLS with it: {error}")
