"""Makes connections for an event loop: names are looked up in threads, nothing here holds the loop up."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable

from msm_fast.drivers.addresses import Address, AddressBook
from msm_fast.drivers.failures import ConnectionFailed, cannot_connect
from msm_fast.drivers.multiplexed import ConnectionOwner, MultiplexedConnection
from msm_fast.drivers.node_lives import NodeLives
from msm_fast.node import Node
from msm_fast.policies import Timeouts

__all__ = ["Dialer"]


class Dialer:
    """Connects to nodes and greets them.

    learn_item_limit: called with a node and the size of the largest item that it takes.
    Thread-safety: of one event loop at a time.
    """

    def __init__(self, timeouts: Timeouts, learn_item_limit: Callable[[str, int], None]) -> None:
        self._timeouts = timeouts
        self._learn_item_limit = learn_item_limit
        self._addresses = AddressBook()
        self._lives = NodeLives()

    async def connect(self, node: Node, owner: ConnectionOwner) -> MultiplexedConnection:
        """Return a connection that may be used. Raises: ConnectionFailed."""
        connection, address = await self._dial(node, owner, time.monotonic() + self._timeouts.connect)
        try:
            greeting = await connection.greeted(self._timeouts.connect)
        except BaseException as error:
            connection.abort()
            if isinstance(error, ConnectionFailed) and address is not None:
                self._addresses.note_failure(node, address)
            raise
        if greeting.item_limit is not None:
            self._learn_item_limit(node.node_id, greeting.item_limit)
        connection.life, connection.compares = self._lives.number(node.node_id, greeting.token), greeting.compares
        return connection

    async def look_up(self, node: Node) -> None:
        """Look up again where a node is, and wait for that no longer than a connection may take."""
        lookup = self._addresses.ask_again(node)
        if lookup is not None:
            await asyncio.wait([asyncio.wrap_future(lookup)], timeout=self._timeouts.connect)

    def keep_only(self, nodes: Iterable[Node]) -> None:
        """Forget where other nodes are."""
        self._addresses.keep_only(nodes)

    def renew_after_fork(self) -> None:
        """Make a forked child safe: its parent's threads did not come along."""
        self._addresses.renew_after_fork()
        self._lives.renew_after_fork()

    async def _dial(
        self, node: Node, owner: ConnectionOwner, until: float
    ) -> tuple[MultiplexedConnection, Address | None]:
        """Connect to the first of the node's addresses that takes it; each has a fair share of what time is left."""
        if node.is_unix:
            return await _open(node, None, until - time.monotonic(), owner), None
        addresses = await self._addresses_of(node, until - time.monotonic())
        failure: ConnectionFailed | None = None
        for i, address in enumerate(addresses):
            left_s = until - time.monotonic()
            if failure is not None and left_s <= 0:
                break
            try:
                return await _open(node, address, left_s / (len(addresses) - i), owner), address
            except ConnectionFailed as error:
                failure = error
                self._addresses.note_failure(node, address)
        assert failure is not None
        raise failure

    async def _addresses_of(self, node: Node, timeout_s: float) -> list[Address]:
        found = self._addresses.ask(node)
        if isinstance(found, list):
            return found
        lookup = asyncio.wrap_future(found)
        if not (await asyncio.wait([lookup], timeout=timeout_s))[0]:
            raise ConnectionFailed("timeout", False, f"the address of {node.host} was not found in time")
        try:
            return lookup.result()
        except OSError as error:
            raise ConnectionFailed("unreachable", False, f"the address of {node.host} is not known: {error}") from error


async def _open(node: Node, address: Address | None, timeout_s: float, owner: ConnectionOwner) -> MultiplexedConnection:
    """Connect to node at this address of its host, or to a unix socket if that is None. Raises: ConnectionFailed."""
    loop = asyncio.get_running_loop()
    family, kind, protocol = (socket.AF_UNIX, socket.SOCK_STREAM, 0) if address is None else address[:3]
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        where = node.host if address is None else address[4]
        await asyncio.wait_for(loop.sock_connect(sock, where), max(timeout_s, 0.001))
        _, connection = await loop.create_connection(lambda: MultiplexedConnection(node, owner), sock=sock)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
            raise ConnectionFailed("timeout", False, f"no connection within {timeout_s:.3f} s") from None
        if isinstance(error, OSError):
            raise cannot_connect(error) from error
        raise
    return connection
