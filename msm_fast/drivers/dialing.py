"""Makes connections for an event loop: names are looked up in threads, nothing here holds the loop up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable

from msm_fast.drivers.access import OPEN_ACCESS, Access
from msm_fast.drivers.addresses import Address, AddressBook
from msm_fast.drivers.failures import ConnectionFailed, cannot_connect, cannot_find, handshake_failed
from msm_fast.drivers.keepalive import keep_alive
from msm_fast.drivers.multiplexed import ConnectionOwner, MultiplexedConnection
from msm_fast.drivers.node_lives import NodeLives
from msm_fast.drivers.pipeline import Agenda
from msm_fast.drivers.waiting import result_until, wait_until
from msm_fast.node import Node
from msm_fast.policies import Timeouts

__all__ = ["Dialer"]

_LATER_S = 60.0
"""asyncio has a limit of its own for a handshake, which is not to come first: its error looks like another one."""


class Dialer:
    """Connects to nodes and greets them.

    learn_item_limit: called with a node and the size of the largest item that it takes. access: how connections are
    secured.
    Thread-safety: of one event loop at a time.
    """

    def __init__(
        self, timeouts: Timeouts, learn_item_limit: Callable[[str, int], None], access: Access = OPEN_ACCESS
    ) -> None:
        self._timeouts = timeouts
        self._learn_item_limit = learn_item_limit
        self._access = access
        self._addresses = AddressBook()
        self.lives = NodeLives()

    async def connect(self, node: Node, owner: ConnectionOwner, clock: Agenda) -> MultiplexedConnection:
        """Return a connection that may be used. clock: by which there is a limit to that. Raises: ConnectionFailed."""
        connection, address = await self._dial(node, owner, clock)
        try:
            greeting = await connection.greeted(self._timeouts.connect)
        except BaseException as error:
            connection.abort()
            if isinstance(error, ConnectionFailed) and address is not None:
                self._addresses.note_failure(node, address)
            raise
        if greeting.item_limit is not None:
            self._learn_item_limit(node.node_id, greeting.item_limit)
        connection.life, connection.compares = self.lives.number(node.node_id, greeting.token), greeting.compares
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
        self.lives.renew_after_fork()

    async def _dial(
        self, node: Node, owner: ConnectionOwner, clock: Agenda
    ) -> tuple[MultiplexedConnection, Address | None]:
        """Connect to the first of the node's addresses that takes it; each has a fair share of what time is left."""
        until = clock.now() + self._timeouts.connect
        if node.is_unix:
            return await self._open(node, None, self._timeouts.connect, owner, clock), None
        addresses = await self._addresses_of(node, until, clock)
        failure: ConnectionFailed | None = None
        for i, address in enumerate(addresses):
            left_s = until - clock.now()
            if failure is not None and left_s <= 0:
                break
            try:
                return await self._open(node, address, left_s / (len(addresses) - i), owner, clock), address
            except ConnectionFailed as error:
                failure = failure if failure is not None and error.kind == "exhausted" else error
                self._addresses.note_failure(node, address)
        assert failure is not None
        raise failure

    async def _addresses_of(self, node: Node, until: float, clock: Agenda) -> list[Address]:
        found = self._addresses.ask(node)
        if isinstance(found, list):
            return found
        lookup = asyncio.wrap_future(found)
        await wait_until(clock, until, lookup)
        if not lookup.done():
            raise ConnectionFailed("timeout", False, f"the address of {node.host} was not found in time")
        try:
            return lookup.result()
        except OSError as error:
            raise cannot_find(node.host, error) from error

    async def _open(
        self, node: Node, address: Address | None, timeout_s: float, owner: ConnectionOwner, clock: Agenda
    ) -> MultiplexedConnection:
        """Connect to node at this address of its host, or to a unix socket if that is None. Raises: ConnectionFailed.

        timeout_s: for the TLS handshake too.
        """
        loop = asyncio.get_running_loop()
        until = clock.now() + timeout_s
        family, kind, protocol = (socket.AF_UNIX, socket.SOCK_STREAM, 0) if address is None else address[:3]
        sock: socket.socket | None = None
        try:
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            if address is None:
                sock.connect(node.host)  # at once or never: a loop takes it for connected where the server has no room
            else:
                keep_alive(sock)
                await result_until(clock, until, loop.sock_connect(sock, address[4]))
            return await self._speak(node, sock, until, owner, clock)
        except BaseException as error:
            if sock is not None:
                sock.close()
            if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
                raise ConnectionFailed("timeout", False, f"no connection within {timeout_s:.3f} s") from None
            if isinstance(error, OSError):
                raise cannot_connect(error) from error
            raise

    async def _speak(
        self, node: Node, sock: socket.socket, until: float, owner: ConnectionOwner, clock: Agenda
    ) -> MultiplexedConnection:
        """Make a connection of a socket that is connected, after the TLS handshake if there is to be one."""
        loop = asyncio.get_running_loop()
        context, credentials = self._access.context_for(node), self._access.credentials

        def make() -> MultiplexedConnection:
            return MultiplexedConnection(node, owner, clock, credentials, self._timeouts.operation)

        if context is None:
            return (await loop.create_connection(make, sock=sock))[1]
        handshake = loop.create_connection(
            make,
            sock=sock,
            ssl=context,
            server_hostname=self._access.name_of(node),
            ssl_handshake_timeout=self._timeouts.connect + _LATER_S,
        )
        try:
            return (await result_until(clock, until, handshake))[1]
        except asyncio.TimeoutError:
            raise handshake_failed(TimeoutError()) from None
        except (OSError, ValueError) as error:
            raise handshake_failed(error) from error
