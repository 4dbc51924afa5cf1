"""Where the nodes' hosts are: names are looked up in threads, so that a name server that hangs holds up no request."""

from __future__ import annotations

import concurrent.futures
import ipaddress
import socket
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from msm_fast.node import Node

__all__ = ["Address", "AddressBook"]

Address: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""One result of getaddrinfo: family, type, protocol, canonical name, and the address as a socket takes it."""


@dataclass(slots=True)
class _Entry:
    """What is known of one host.

    addresses: best first; empty until a lookup has found some. lookup: a call of getaddrinfo in a thread of its own.
    """

    addresses: list[Address] = field(default_factory=list)
    lookup: Future[list[Address]] | None = None


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
        found = self.ask(node)
        if isinstance(found, list):
            return found
        if not concurrent.futures.wait([found], timeout_s).done:
            raise TimeoutError(f"the address of {node.host} was not found in time")
        return found.result()

    def ask(self, node: Node) -> list[Address] | Future[list[Address]]:
        """Return the addresses to try, or if none is known the lookup that will find them, or end with an OSError.

        node: not one with a unix socket. The lookup is everybody's: cancelling it does nothing.
        """
        numeric = _numeric_address(node)
        if numeric is not None:
            return [numeric]
        with self._lock:
            entry = self._entries.setdefault((node.host, node.port), _Entry())
            known = list(entry.addresses)
        return known or self._look_up(node, entry)

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
        lookup = self.ask_again(node)
        if lookup is not None:
            concurrent.futures.wait([lookup], timeout_s)

    def ask_again(self, node: Node) -> Future[list[Address]] | None:
        """Look the host up again, whatever is known; return the lookup, or None where there is no name to look up."""
        if node.is_unix or _numeric_address(node) is not None:
            return None
        with self._lock:
            entry = self._entries.setdefault((node.host, node.port), _Entry())
        return self._look_up(node, entry)

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

    def _look_up(self, node: Node, entry: _Entry) -> Future[list[Address]]:
        """Return the host's lookup under way, or start one.

        Its thread is not started under the lock: that waits for the thread, and with gevent others run meanwhile.
        """
        with self._lock:
            if entry.lookup is not None:
                return entry.lookup
            lookup = entry.lookup = Future()
        lookup.set_running_or_notify_cancel()
        name = f"msm-fast-resolver-{node.host}"
        try:
            threading.Thread(target=self._resolve, args=(node, entry, lookup), name=name, daemon=True).start()
        except RuntimeError as error:  # too many threads, or the interpreter is ending
            with self._lock:
                entry.lookup = None
            lookup.set_exception(OSError(str(error)))
        return lookup

    def _resolve(self, node: Node, entry: _Entry, lookup: Future[list[Address]]) -> None:
        found: Sequence[Address] = ()
        error: BaseException = OSError(f"{node.host} has no address")
        try:
            found = socket.getaddrinfo(node.host, node.port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        except UnicodeError as failure:
            error = OSError(f"{node.host} is no host name: {failure}")
        except BaseException as failure:  # noqa: BLE001 - whoever waits for it is told
            error = failure
        with self._lock:
            if found:
                # Those that are known keep their order, in which the ones that failed are last.
                known = entry.addresses
                entry.addresses = sorted(found, key=lambda a: known.index(a) if a in known else len(known))
            entry.lookup = None
            addresses = list(entry.addresses)
        if found:
            lookup.set_result(addresses)
        else:
            lookup.set_exception(error)


def _numeric_address(node: Node) -> Address | None:
    """Return the address of a node whose host is an IP address, or None for a name.

    One with a zone ("fe80::1%eth0") is looked up: a socket takes its zone by number, which only a lookup knows.
    """
    try:
        ip = ipaddress.ip_address(node.host)
    except ValueError:
        return None
    if ip.version == 4:
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (node.host, node.port)
    if ip.scope_id is not None:
        return None
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (node.host, node.port, 0, 0)
