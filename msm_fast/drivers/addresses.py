"""Where the nodes' hosts are: names are looked up in threads, so that a name server that hangs holds up no request."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from msm_fast.node import Node

__all__ = ["Address", "AddressBook"]

Address: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""One result of getaddrinfo: family, type, protocol, canonical name, and the address as a socket takes it."""


@dataclass(slots=True)
class _Lookup:
    """One call of getaddrinfo in a thread of its own. error: why it found nothing, once it has ended."""

    has_ended: threading.Event = field(default_factory=threading.Event)
    error: OSError | None = None


@dataclass(slots=True)
class _Entry:
    """What is known of one host. addresses: best first; empty until a lookup has found some."""

    addresses: list[Address] = field(default_factory=list)
    lookup: _Lookup | None = None


class AddressBook:
    """The addresses of hosts, kept from the last lookup that found any.

    A lookup may hang for as long as a name server lets it: each host has a thread of its own, one at a time, that lives
    only as long as its lookup.
    Thread-safety: shared by all threads; its lock is never held during a lookup.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, int], _Entry] = {}
        self._lock = threading.Lock()

    def of(self, node: Node, timeout_s: float) -> list[Address]:
        """Return the addresses to try, in this order; wait for a lookup only if none is known.

        node: not one with a unix socket.
        Raises: TimeoutError if the lookup takes longer than timeout_s, OSError if it finds nothing.
        """
        numeric = _numeric_address(node)
        if numeric is not None:
            return [numeric]
        with self._lock:
            entry = self._entries.setdefault((node.host, node.port), _Entry())
            if entry.addresses:
                return list(entry.addresses)
            lookup = self._look_up(node, entry)
        if not lookup.has_ended.wait(timeout_s):
            raise TimeoutError(f"the address of {node.host} was not found in time")
        if lookup.error is not None:
            raise lookup.error
        with self._lock:
            return list(entry.addresses)

    def note_failure(self, node: Node, address: Address) -> None:
        """Try this address last from now on, and look the host up again in the background: it may have moved."""
        with self._lock:
            entry = self._entries.get((node.host, node.port))
            if entry is None:
                return
            if address in entry.addresses:
                entry.addresses.remove(address)
                entry.addresses.append(address)
            self._look_up(node, entry)

    def refresh(self, node: Node, timeout_s: float) -> None:
        """Look the host up again and wait at most timeout_s for it; what was known stays if that finds nothing."""
        if node.is_unix or _numeric_address(node) is not None:
            return
        with self._lock:
            lookup = self._look_up(node, self._entries.setdefault((node.host, node.port), _Entry()))
        lookup.has_ended.wait(timeout_s)

    def keep_only(self, nodes: Iterable[Node]) -> None:
        """Forget the hosts of other nodes."""
        hosts = {(node.host, node.port) for node in nodes}
        with self._lock:
            self._entries = {host: entry for host, entry in self._entries.items() if host in hosts}

    def renew_after_fork(self) -> None:
        """Make a forked child safe: the threads of the parent's lookups did not come along, nor who held the lock."""
        self._lock = threading.Lock()
        for entry in self._entries.values():
            entry.lookup = None

    def _look_up(self, node: Node, entry: _Entry) -> _Lookup:
        """Return the host's lookup under way, or start one. Called under the lock."""
        if entry.lookup is not None:
            return entry.lookup
        lookup = entry.lookup = _Lookup()
        name = f"msm-fast-resolver-{node.host}"
        try:
            threading.Thread(target=self._resolve, args=(node, entry, lookup), name=name, daemon=True).start()
        except RuntimeError as error:  # too many threads, or the interpreter is ending
            entry.lookup = None
            lookup.error = OSError(str(error))
            lookup.has_ended.set()
        return lookup

    def _resolve(self, node: Node, entry: _Entry, lookup: _Lookup) -> None:
        found: Sequence[Address] = ()
        try:
            found = socket.getaddrinfo(node.host, node.port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        except OSError as error:
            lookup.error = error
        except UnicodeError as error:
            lookup.error = OSError(f"{node.host} is no host name: {error}")
        finally:
            with self._lock:
                if found:
                    # Those that are known keep their order, in which the ones that failed are last.
                    known = entry.addresses
                    entry.addresses = sorted(found, key=lambda a: known.index(a) if a in known else len(known))
                elif lookup.error is None:
                    lookup.error = OSError(f"{node.host} has no address")
                entry.lookup = None
            lookup.has_ended.set()


def _numeric_address(node: Node) -> Address | None:
    """Return the address of a node whose host is an IP address, or None for a name."""
    try:
        ip = ipaddress.ip_address(node.host)
    except ValueError:
        return None
    if ip.version == 4:
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (node.host, node.port)
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (node.host, node.port, 0, 0)
