"""How connections to nodes are secured: the TLS context that the settings ask for, and what proves who we are."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from msm_fast.drivers.tls_files import TlsFiles
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

    def left_out_of(self, answer: bytes) -> bytes:
        """Return an answer without the password, which a server may repeat."""
        return answer.replace(self._said.partition(b" ")[2], b"...")


@dataclass(frozen=True, slots=True)
class Access:
    """How a connection is secured before anything else is said on it.

    tls: what a program brought, or files; None: not encrypted. server_hostname: the name in the servers' certificates;
    None: the host of the node. credentials: None: none are given.
    """

    tls: ssl.SSLContext | TlsFiles | None = None
    server_hostname: str | None = None
    credentials: Credentials | None = None

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """Return what settings ask for; files are read now, too. Raises: ConfigurationError."""
        credentials = None if settings.credentials is None else Credentials(settings.credentials)
        tls = settings.tls
        if not isinstance(tls, Tls):
            return cls(tls if isinstance(tls, ssl.SSLContext) else None, None, credentials)
        return cls(TlsFiles(tls), tls.server_hostname, credentials)

    def context_for(self, node: Node) -> ssl.SSLContext | None:
        """Return the context for a connection to node; None for a unix socket, which nobody can listen to."""
        if node.is_unix:
            return None
        return self.tls.context() if isinstance(self.tls, TlsFiles) else self.tls

    def name_of(self, node: Node) -> str:
        """Return the name that node's certificate must have."""
        return self.server_hostname or node.host


OPEN_ACCESS = Access()
"""Neither encrypted nor with a password."""
