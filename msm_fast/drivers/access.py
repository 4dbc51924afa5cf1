"""How connections to nodes are secured: the TLS context that the settings ask for, and what proves who we are."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

from msm_fast.errors import ConfigurationError
from msm_fast.node import Node
from msm_fast.policies import Tls
from msm_fast.settings import Settings

__all__ = ["OPEN_ACCESS", "Access", "Credentials"]


class Credentials:
    """What a server is told of user and password; shown by nothing, also where local variables are.

    text: "user:password".
    """

    __slots__ = ("_said",)

    def __init__(self, text: str) -> None:
        self._said = " ".join(text.split(":", 1)).encode()

    def command(self) -> bytes:
        """Return what the server is to be told first.

        It has the form of a store; a server that asks for no password takes it for one. So the item expires at once:
        nobody can read it there.
        Source: memcached, doc/protocol.txt, "Authentication".
        """
        return b"set msm_fast:auth: 0 -1 %d\r\n%b\r\n" % (len(self._said), self._said)


@dataclass(frozen=True, slots=True)
class Access:
    """How a connection is secured before anything else is said on it.

    tls: None: not encrypted. server_hostname: the name in the servers' certificates; None: the host of the node.
    credentials: None: none are given.
    """

    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None
    credentials: Credentials | None = None

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """Return what settings ask for; files are read now. Raises: ConfigurationError."""
        credentials = None if settings.credentials is None else Credentials(settings.credentials)
        tls = settings.tls
        if not isinstance(tls, Tls):
            return cls(tls if isinstance(tls, ssl.SSLContext) else None, None, credentials)
        return cls(_context(tls), tls.server_hostname, credentials)

    def context_for(self, node: Node) -> ssl.SSLContext | None:
        """Return the context for a connection to node; None for a unix socket, which nobody can listen to."""
        return None if node.is_unix else self.tls

    def name_of(self, node: Node) -> str:
        """Return the name that node's certificate must have."""
        return self.server_hostname or node.host


OPEN_ACCESS = Access()
"""Neither encrypted nor with a password."""


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:  # ssl.SSLError too
        raise ConfigurationError("tls.ca_file", tls.ca_file, f"a file of certificates, as PEM ({error})") from error
    context.check_hostname = tls.check_hostname
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    if tls.certificate_file is not None:
        _load_certificate(context, tls.certificate_file, tls.key_file)
    return context


def _load_certificate(context: ssl.SSLContext, certificate_file: str, key_file: str | None) -> None:
    for name, path in (("tls.certificate_file", certificate_file), ("tls.key_file", key_file)):
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigurationError(name, path, "a file that is there and that this user may read")
    try:
        # Without this function OpenSSL would ask for a password on the terminal, and wait.
        context.load_cert_chain(certificate_file, key_file, password=_no_password)
    except (OSError, ValueError) as error:
        accepted = f"a certificate, as PEM, whose key is there or in key_file and needs no password ({error})"
        raise ConfigurationError("tls.certificate_file", certificate_file, accepted) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted")
