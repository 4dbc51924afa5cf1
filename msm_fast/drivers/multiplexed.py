"""One connection to one node that all tasks of an event loop share: batches are written together, in a pipeline."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol, cast

from msm_fast._core.replies import ProtocolError
from msm_fast.drivers.access import Credentials
from msm_fast.drivers.failures import RESTARTED, ConnectionFailed
from msm_fast.drivers.greeting import FIRST_FREE_OPAQUE, Dialogue, Greeting, greet
from msm_fast.drivers.pipeline import Agenda, PendingBatch, Pipeline
from msm_fast.drivers.tls_records import lengths_of_writes
from msm_fast.drivers.waiting import wait_until
from msm_fast.node import Node

__all__ = ["ConnectionOwner", "MultiplexedConnection"]


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

    What is submitted in one turn of the loop leaves in one write. Nobody who goes away takes the connection along:
    replies that nobody wants are read and dropped. A reply that makes no sense ends it.

    While its buffer is full, batches wait here, where who gives up takes its own back: of a node that is slower than
    what is written to it, nothing but what nobody wants any more would be in a buffer that grows for ever.

    clock: by which it waits. credentials: what the server is told first. patience_s: for how long a full buffer may
    wait for a node that answers nothing.
    Thread-safety: of one event loop.
    """

    def __init__(
        self,
        node: Node,
        owner: ConnectionOwner,
        clock: Agenda,
        credentials: Credentials | None = None,
        patience_s: float = 1.0,
    ) -> None:
        self.node = node
        self.life = 0
        """The number of the life that the node is in, which the driver gives."""
        self.compares = False
        """Whether it leaves out values that have not changed, which the driver learns from its greeting."""
        self.answered_at = 0.0
        """When it last gave a batch its replies, by its clock."""
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._clock = clock
        self._credentials = credentials
        self._dialogue: Dialogue[Greeting]
        self._greeting: asyncio.Future[Greeting] = self._loop.create_future()
        self._has_ended: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._is_secure = False
        self._failure: ConnectionFailed | None = None
        self._pipeline = Pipeline(FIRST_FREE_OPAQUE)
        self._is_retired = False
        self._patience: asyncio.TimerHandle | None = None
        self._patience_s = patience_s
        self._full: asyncio.TimerHandle | None = None
        """What looks after it while its buffer is full."""
        self._full_since = 0.0

    # -- for the driver

    async def greeted(self, timeout_s: float) -> Greeting:
        """Return what the server says of itself. Raises: ConnectionFailed, the connection is closed then."""
        await wait_until(self._clock, self._clock.now() + timeout_s, self._greeting)
        if not self._greeting.done():
            self._lose(ConnectionFailed("timeout", False, "no answer in time"))
        return self._greeting.result()

    @property
    def failure(self) -> ConnectionFailed | None:
        """Why it cannot be used any more, if it cannot."""
        return self._failure

    def submit(self, pending: PendingBatch) -> None:
        """Write a batch with all others of this turn of the loop, unless it is for another life of the node."""
        life = pending.batch.life
        if life is not None and life != self.life:
            pending.end(RESTARTED)
        elif self._pipeline.add(pending):
            self._loop.call_soon(self._flush)

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
        self._dialogue = greet(self._credentials, is_secure=self._is_secure)
        self._owner.opened(self)
        self._transport.write(next(self._dialogue))

    def data_received(self, data: bytes) -> None:
        """Give each batch its replies."""
        if not self._greeting.done():
            self._go_on_greeting(data)
            return
        try:
            if self._pipeline.take(data, self.life, self.compares):
                self.answered_at = self._clock.now()
        except ProtocolError as error:
            self._lose(ConnectionFailed("protocol", True, f"the answer makes no sense: {error.reason}"))
        if self._is_retired:
            self._close_if_idle()

    def pause_writing(self) -> None:
        """Write nothing more until the buffer is emptier."""
        self._clock.look_at(self, math.inf)  # also when nobody waits any more: while it stands still no time is over
        self._full_since = self._clock.now()
        self._full = self._loop.call_later(self._patience_s, self._look_if_stuck)

    def resume_writing(self) -> None:
        """Write what has waited and is still wanted."""
        self._clock.forget(self)
        if self._full is not None:
            self._full.cancel()
            self._full = None
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what was on its way."""
        detail = "the server closed the connection" if error is None else f"connection lost: {error}"
        self._lose(ConnectionFailed("reset", True, detail))
        self._clock.forget(self)
        for timer in (self._patience, self._full):
            if timer is not None:
                timer.cancel()
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

    def _flush(self) -> None:
        """Write what was submitted and is still wanted, unless the buffer is full."""
        if self._full is not None:
            return
        written = self._pipeline.write(self) if self._failure is None else None
        if written is None:
            self._close_if_idle()
            return
        assert self._transport is not None
        data, commands, first_opaque = written
        if not self._is_secure:
            self._transport.write(data)
            return
        at = 0
        for length in lengths_of_writes(data, commands, first_opaque):
            self._transport.write(data[at : at + length])
            at += length

    def _look_if_stuck(self) -> None:
        """Give the connection no more batches if the node has neither taken nor answered anything for too long.

        None of those that wait here ever would: their time for an answer has not begun.
        """
        left_s = max(self._full_since, self.answered_at) + self._patience_s - self._clock.now()
        if left_s <= 0:
            self.suspect()
        else:
            self._full = self._loop.call_later(left_s, self._look_if_stuck)

    def _lose(self, failure: ConnectionFailed) -> None:
        """Give up the connection. The batch whose turn it was is told why, those behind it that it was lost."""
        if self._failure is not None:
            return
        self._failure = failure
        self.abort()
        if not self._greeting.done():
            self._go_on_greeting(ConnectionFailed(failure.kind, False, failure.detail))
        sent = self._pipeline.pop_sent()
        self._owner.lost(self, self._pipeline.pop_unsent())
        for pending in sent:
            pending.end(failure.outcome)
            if failure.kind != "reset":
                failure = ConnectionFailed("reset", True, f"connection lost, by another request: {failure.detail}")

    def _close_if_idle(self) -> None:
        if self._is_retired and self._pipeline.is_idle and self._transport is not None:
            self._transport.close()
