"""One connection to one node that all tasks of an event loop share: batches are written together, in a pipeline."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol, cast

from msm_fast._core import wire
from msm_fast._core.replies import ProtocolError, ReplyParser
from msm_fast.drivers.access import Credentials
from msm_fast.drivers.failures import RESTARTED, ConnectionFailed
from msm_fast.drivers.greeting import FIRST_FREE_OPAQUE, Greeting, greet
from msm_fast.drivers.tls_records import lengths_of_writes
from msm_fast.engine.effects import Batch, NodeFailure, Outcome, Replies
from msm_fast.node import Node

__all__ = ["ConnectionOwner", "MultiplexedConnection", "PendingBatch"]


class BatchOwner(Protocol):
    """Who waits for a batch; told of each step once, and of none after `abandon`."""

    def batch_sent(self) -> None:
        """Note that the batch was written."""

    def batch_ended(self, was_sent: bool) -> None:
        """Note that the batch has an outcome."""


class PendingBatch:
    """A batch on its way, until it has an outcome or nobody wants one any more.

    connection: on which it was sent; None: on none yet.
    """

    __slots__ = ("_owner", "batch", "connection", "is_over", "outcome")

    def __init__(self, batch: Batch, owner: BatchOwner) -> None:
        self.batch = batch
        self.connection: MultiplexedConnection | None = None
        self.outcome: Outcome | None = None
        self.is_over = False
        self._owner: BatchOwner | None = owner

    def sent_on(self, connection: MultiplexedConnection) -> None:
        """Note that it was written; from now on a failure leaves it unknown whether it was carried out."""
        self.connection = connection
        if self._owner is not None:
            self._owner.batch_sent()

    def end(self, outcome: Outcome) -> None:
        """Give the outcome; a second one is dropped."""
        if self._owner is not None and not self.is_over:
            self.is_over = True
            self.outcome = outcome
            self._owner.batch_ended(self.connection is not None)

    def fail(self, failure: ConnectionFailed) -> None:
        """Give a failure as the outcome."""
        self.end(NodeFailure(failure.kind, failure.sent, failure.detail))

    def abandon(self) -> None:
        """Want no outcome any more: not sent yet, it never is; else its replies are read and dropped."""
        self.is_over = True
        self._owner = None  # it refers to this one: a cycle would be left to the garbage collector


class _Group:
    """Batches that were written together: one write, one parser, replies in their order."""

    __slots__ = ("_batches", "_n_commands", "_n_given", "_parser")

    def __init__(self, batches: Sequence[PendingBatch], opaque: int) -> None:
        commands = [command for pending in batches for command in pending.batch.commands]
        self._batches = deque(batches)
        self._n_commands = len(commands)
        self._n_given = 0
        self._parser = ReplyParser(commands, opaque)

    @property
    def n_awaited(self) -> int:
        """How many replies are still to come."""
        return self._n_commands - len(self._parser.replies)

    def feed(self, data: bytes, life: int, compares: bool) -> bool:
        """Take a piece of the stream, and give the batches their replies that are complete; return whether any were.

        Raises: ProtocolError.
        """
        n_before = self._n_given
        self._parser.feed(data)
        replies, batches = self._parser.replies, self._batches
        while batches:
            end = self._n_given + len(batches[0].batch.commands)
            if end > len(replies):
                break
            batches.popleft().end(Replies(replies[self._n_given : end], life, compares))
            self._n_given = end
        return self._n_given > n_before

    def pop_all(self) -> list[PendingBatch]:
        """Return and forget the batches that have no outcome yet."""
        left = [pending for pending in self._batches if not pending.is_over]
        self._batches.clear()
        return left


class ConnectionOwner(Protocol):
    """Who gives a connection its batches."""

    def opened(self, connection: MultiplexedConnection) -> None:
        """Note that there is a connection; it is still to be greeted."""

    def suspected(self, connection: MultiplexedConnection) -> None:
        """Note that an answer did not come in time: give it no more batches."""

    def lost(self, connection: MultiplexedConnection, unsent: list[PendingBatch]) -> None:
        """Note that it cannot be used any more, and what was not written yet."""

    def closed(self, connection: MultiplexedConnection) -> None:
        """Note that its socket is closed."""


class MultiplexedConnection(asyncio.Protocol):
    """A connection on which batches are written without waiting for the replies to those before.

    What is submitted in one turn of the loop leaves in one write. Replies come in the order of the commands; each
    carries the opaque of its command, so that a stream that went wrong is noticed. Nobody who goes away takes the
    connection along: replies that nobody wants are read and dropped. A reply that makes no sense ends it.

    credentials: what the server is told first.
    Thread-safety: of one event loop.
    """

    def __init__(self, node: Node, owner: ConnectionOwner, credentials: Credentials | None = None) -> None:
        self.node = node
        self.life = 0
        """The number of the life that the node is in, which the driver gives."""
        self.compares = False
        """Whether it leaves out values that have not changed, which the driver learns from its greeting."""
        self.answered_at = 0.0
        """When it last gave a batch its replies, of time.monotonic()."""
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._dialogue = greet(credentials)
        self._greeting: asyncio.Future[Greeting] = self._loop.create_future()
        self._has_ended: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._is_secure = False
        self._failure: ConnectionFailed | None = None
        self._unsent: list[PendingBatch] = []
        self._groups: deque[_Group] = deque()
        self._opaque = FIRST_FREE_OPAQUE
        self._is_retired = False
        self._patience: asyncio.TimerHandle | None = None

    # -- for the driver

    async def greeted(self, timeout_s: float) -> Greeting:
        """Return what the server says of itself. Raises: ConnectionFailed, the connection is closed then."""
        await asyncio.wait([self._greeting], timeout=timeout_s)
        if not self._greeting.done():
            self._lose(ConnectionFailed("timeout", False, "no answer in time"))
        return self._greeting.result()

    @property
    def failure(self) -> ConnectionFailed | None:
        """Why it cannot be used any more, if it cannot."""
        return self._failure

    def submit(self, pending: PendingBatch) -> None:
        """Write a batch with all others of this turn of the loop, unless it is for another life of the node."""
        if pending.batch.life not in (None, self.life):
            pending.end(RESTARTED)
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(pending)

    def suspect(self) -> None:
        """Note that an answer did not come in time."""
        self._owner.suspected(self)

    def retire(self, after_s: float) -> None:
        """Take no more batches, and close when those on their way are answered, or after so many seconds."""
        if not self._is_retired:
            self._is_retired = True
            self._patience = self._loop.call_later(after_s, self.abort)
            self._close_if_idle()

    def abort(self) -> None:
        """Close the connection now; what is on its way is lost."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def has_ended(self) -> asyncio.Future[None]:
        """Done once the socket is closed."""
        return self._has_ended

    # -- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the server."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases
        self._is_secure = transport.get_extra_info("sslcontext") is not None
        self._owner.opened(self)
        self._transport.write(next(self._dialogue))

    def data_received(self, data: bytes) -> None:
        """Give each batch its replies."""
        if not self._greeting.done():
            self._go_on_greeting(data)
            return
        try:
            self._take(data)
        except ProtocolError as error:
            self._lose(ConnectionFailed("protocol", True, f"the answer makes no sense: {error.reason}"))
        self._close_if_idle()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what was on its way."""
        detail = "the server closed the connection" if error is None else f"connection lost: {error}"
        self._lose(ConnectionFailed("reset", True, detail))
        if self._patience is not None:
            self._patience.cancel()
        if not self._has_ended.done():
            self._has_ended.set_result(None)
        self._owner.closed(self)

    # -- inside

    def _go_on_greeting(self, heard: bytes | ConnectionFailed) -> None:
        """Let the dialogue go on with what was heard, or with the failure to hear anything."""
        assert self._transport is not None
        try:
            said = self._dialogue.throw(heard) if isinstance(heard, ConnectionFailed) else self._dialogue.send(heard)
        except StopIteration as stop:
            self._greeting.set_result(stop.value)
        except ConnectionFailed as failure:
            self._greeting.set_exception(failure)
            self._greeting.exception()  # who waited for it may be gone
            self.abort()
        else:
            if said:
                self._transport.write(said)

    def _take(self, data: bytes) -> None:
        """Cut the stream into what belongs to each group.

        Every reply ends with a line end, so that as many lines as a group still awaits replies cannot be more than
        its own; what follows after them may be. A value may have line ends too: then this takes some more turns.
        """
        at = 0
        while at < len(data):
            if not self._groups:
                raise ProtocolError("bytes that nobody asked for")
            group = self._groups[0]
            end = len(data) if len(self._groups) == 1 else _end_of_lines(data, at, group.n_awaited)
            if group.feed(data[at:end], self.life, self.compares):
                self.answered_at = time.monotonic()
            at = end
            if not group.n_awaited:
                self._groups.popleft()

    def _flush(self) -> None:
        """Write what was submitted and is still wanted."""
        batches = [pending for pending in self._unsent if not pending.is_over]
        self._unsent.clear()
        if not batches or self._failure is not None:
            self._close_if_idle()
            return
        assert self._transport is not None
        self._groups.append(_Group(batches, self._opaque))
        commands = [command for pending in batches for command in pending.batch.commands]
        data, first = wire.encode(commands, self._opaque), self._opaque
        self._opaque += len(commands)
        for pending in batches:
            pending.sent_on(self)
        if not self._is_secure:
            self._transport.write(data)
            return
        at = 0
        for length in lengths_of_writes(data, commands, first):
            self._transport.write(data[at : at + length])
            at += length

    def _lose(self, failure: ConnectionFailed) -> None:
        """Give up the connection. The batch whose turn it was is told why, those behind it that it was lost."""
        if self._failure is not None:
            return
        self._failure = failure
        self.abort()
        if not self._greeting.done():
            self._go_on_greeting(ConnectionFailed(failure.kind, False, failure.detail))
        unsent, self._unsent = [pending for pending in self._unsent if not pending.is_over], []
        lost = [pending for group in self._groups for pending in group.pop_all()]
        self._groups.clear()
        self._owner.lost(self, unsent)
        for pending in lost:
            pending.fail(failure)
            if failure.kind != "reset":
                failure = ConnectionFailed("reset", True, f"connection lost, by another request: {failure.detail}")

    def _close_if_idle(self) -> None:
        if self._is_retired and not self._groups and not self._unsent and self._transport is not None:
            self._transport.close()


def _end_of_lines(data: bytes, at: int, n: int) -> int:
    """Return where the n-th line from at ends, or the end of data if it has not so many."""
    for _ in range(n):
        at = data.find(b"\n", at) + 1
        if not at:
            return len(data)
    return at
