"""A memcached node, and the text that names several."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from msm_fast.errors import ConfigurationError, harmless

__all__ = ["Node", "parse_failover_nodes", "parse_nodes"]

_NODE_ID = re.compile(r"[A-Za-z0-9_]{1,32}")
_ENTRY = re.compile(
    r"(?:(?P<node_id>[A-Za-z0-9_]{1,32}):)?"
    r"(?:(?P<path>/(?!/)[^\s,:]+)|(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5}))"
)
"""No path begins with two slashes: "redis://localhost" is a URL, not a socket of a node called redis."""
_SEPARATOR = re.compile(r"[\s,]+")
_ID_WORDS = "1-32 letters, digits or underscores, no dash"
_PORT_WORDS = "1 to 65535"
_LONGEST_PATH = 107
"""What a unix socket's address has room for, in bytes (on macOS four less)."""
_GRAMMAR = (
    f'entries "id:host:port" (or "id:/path/of/a/socket"), separated by commas or blanks, or Node objects; an id is '
    f"{_ID_WORDS}, a port {_PORT_WORDS}"
)


@dataclass(frozen=True, slots=True)
class Node:
    """One memcached server.

    node_id: 1-32 letters, digits or underscores, part of session ids; "" only for a node that is alone.
    host: a name, an IPv4 or IPv6 address, or the absolute path of a unix socket (then port is 0).
    port: 1-65535. weight: its share of new sessions relative to the others, over 0.
    Raises: ConfigurationError.
    """

    node_id: str
    host: str
    port: int = 11211
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.node_id, str) or (self.node_id and not _NODE_ID.fullmatch(self.node_id)):
            raise ConfigurationError("node_id", self.node_id, _ID_WORDS)
        object.__setattr__(self, "node_id", str.__str__(self.node_id))  # of a subclass, what is compiled takes none
        if not isinstance(self.host, str) or not self.host:
            raise ConfigurationError("host", self.host, "a host name, an address or the path of a unix socket")
        if self.is_unix:
            if len(self.host.encode(errors="replace")) > _LONGEST_PATH:
                raise ConfigurationError(
                    "host", self.host, f"for a unix socket a path of at most {_LONGEST_PATH} bytes"
                )
            object.__setattr__(self, "port", 0)
        elif isinstance(self.port, bool) or not isinstance(self.port, int) or not _is_port(self.port):
            raise ConfigurationError("port", self.port, _PORT_WORDS)
        if not (isinstance(self.weight, (int, float)) and math.isfinite(self.weight) and self.weight > 0):
            raise ConfigurationError("weight", self.weight, "a number over 0")

    @property
    def is_unix(self) -> bool:
        """Whether host is the path of a unix socket."""
        return self.host.startswith("/")

    @property
    def address(self) -> str:
        """Where it is: "10.0.0.1:11211", or the path of a unix socket."""
        if self.is_unix:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def label(self) -> str:
        """The name that logs and messages use: "n1 (10.0.0.1:11211)"."""
        return f"{self.node_id} ({self.address})" if self.node_id else self.address


def _is_port(number: int) -> bool:
    return 0 < number < 65536


def parse_nodes(nodes: str | Iterable[str | Node] | None) -> tuple[Node, ...]:
    """Return the nodes that text, or a sequence of texts and Node objects, names; nothing gives none.

    Raises: ConfigurationError for text outside the grammar, two nodes of one id or address, and a node without an
        id among several.
    """
    if nodes is None:
        return ()
    if isinstance(nodes, bytes) or not isinstance(nodes, Iterable):
        raise ConfigurationError("nodes", nodes, _GRAMMAR)
    entries = [e for e in _SEPARATOR.split(nodes) if e] if isinstance(nodes, str) else list(nodes)
    is_shown = harmless(entries) is entries  # a password may have been taken apart
    parsed = tuple(entry if isinstance(entry, Node) else _parse_entry(entry, is_shown) for entry in entries)
    if len(parsed) > 1 and not all(node.node_id for node in parsed):
        raise ConfigurationError("nodes", nodes, "an id for each node when there are several")
    for what, values in (
        ("id", [node.node_id for node in parsed]),
        ("address", [(node.host, node.port) for node in parsed]),
    ):
        if len(set(values)) != len(values):
            raise ConfigurationError("nodes", nodes, f"no two nodes of one {what}")
    return parsed


def _parse_entry(entry: object, is_shown: bool) -> Node:
    match = _ENTRY.fullmatch(entry) if isinstance(entry, str) else None
    if match is None or (match["port"] and not _is_port(int(match["port"]))):
        raise ConfigurationError("nodes", entry if is_shown else "…", _GRAMMAR)
    node_id = match["node_id"] or ""
    if match["path"]:
        return Node(node_id, match["path"])
    return Node(node_id, match["host"].strip("[]"), int(match["port"]))


def parse_failover_nodes(failover_nodes: str | Iterable[str] | None, nodes: tuple[Node, ...]) -> tuple[str, ...]:
    """Return the ids of the nodes that are used only when no other is up, checked against nodes.

    Raises: ConfigurationError for an unknown id, for a node that is alone, and when no primary node would be left.
    """
    if failover_nodes is None:
        return ()
    known = {node.node_id for node in nodes}
    accepted = f"ids of configured nodes: {', '.join(sorted(known)) or 'there is none'}"
    if isinstance(failover_nodes, bytes) or not isinstance(failover_nodes, Iterable):
        raise ConfigurationError("failover_nodes", failover_nodes, accepted)
    ids = _SEPARATOR.split(failover_nodes) if isinstance(failover_nodes, str) else list(failover_nodes)
    ids = [node_id for node_id in ids if node_id != ""]
    if not all(isinstance(node_id, str) and node_id in known for node_id in ids):
        raise ConfigurationError("failover_nodes", harmless(failover_nodes), accepted)
    if ids and known <= set(ids):
        raise ConfigurationError("failover_nodes", failover_nodes, "at least one node that is not a failover node")
    return tuple(dict.fromkeys(ids))
