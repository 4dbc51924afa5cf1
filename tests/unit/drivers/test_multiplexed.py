"""One connection that many tasks share, without a socket: what it writes is kept, what it hears is given to it."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from msm_fast import Node
from msm_fast._core import wire
from msm_fast.drivers.failures import ConnectionFailed
from msm_fast.drivers.multiplexed import MultiplexedConnection
from msm_fast.drivers.pipeline import PendingBatch, RoundTrip
from msm_fast.drivers.watch import Watch
from msm_fast.engine.effects import Batch, NodeFailure, Replies
from msm_fast.policies import Timeouts

GREETING = b"VERSION 1.6.45\r\nVA 2 c1 f0 t-1 O1\r\nxy\r\n"
SETTINGS = b"STAT item_size_max 1048576\r\nEND\r\n"
VALUES = [b"", b"plain", b"\n\n\r\n", b"HD c1 O5\r\nMN\r\n", b"\r\n" * 40]


class Transport(asyncio.Transport):
    """What a connection writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.connection: MultiplexedConnection | None = None
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def abort(self) -> None:
        self.close()

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            assert self.connection is not None
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)


class Owner:
    """Notes what a connection tells."""

    def __init__(self) -> None:
        self.resent: list[PendingBatch] = []
        self.told: list[str] = []
        self.has_suspected = False

    def opened(self, connection: MultiplexedConnection) -> None:
        self.told.append("opened")

    def suspected(self, connection: MultiplexedConnection) -> None:
        self.has_suspected = True
        connection.retire(60)

    def lost(self, connection: MultiplexedConnection, unsent: list[PendingBatch]) -> None:
        self.resent += unsent

    def closed(self, connection: MultiplexedConnection) -> None:
        self.told.append("closed")


class Line:
    """A greeted connection, and the round trips on it."""

    def __init__(self, patience_s: float = 60) -> None:
        self.watch = Watch(Timeouts(operation=60))
        self._round_trips: dict[PendingBatch, RoundTrip] = {}
        self.owner = Owner()
        self.transport = Transport()
        self.connection = MultiplexedConnection(Node("n1", "localhost"), self.owner, self.watch, None, patience_s)
        self.transport.connection = self.connection
        self.connection.connection_made(self.transport)
        self.connection.data_received(GREETING)
        self.connection.data_received(SETTINGS)
        self.connection.life = 1
        self.transport.writes.clear()

    def submit(self, *commands: wire.Command, life: int | None = None) -> PendingBatch:
        round_trip = RoundTrip([Batch("n1", commands, life)], math.inf, self.watch)
        (pending,) = round_trip.pending
        self._round_trips[pending] = round_trip
        self.connection.submit(pending)
        return pending

    def abandon(self, pending: PendingBatch) -> None:
        self._round_trips[pending].close()

    async def ask(self, *commands: wire.Command) -> PendingBatch:
        """Submit a batch and let it be written, in a write of its own."""
        pending = self.submit(*commands)
        await asyncio.sleep(0)
        return pending


def values_of(pending: PendingBatch) -> list[bytes | None]:
    assert isinstance(pending.outcome, Replies)
    return [reply.value for reply in pending.outcome]


def kind_of(pending: PendingBatch) -> str:
    assert isinstance(pending.outcome, NodeFailure)
    return pending.outcome.kind


def hit(opaque: int, value: bytes) -> bytes:
    return b"VA %d c5 f0 t-1 O%d\r\n%b\r\n" % (len(value), opaque, value)


GET = wire.get(b"key")


def test_what_is_submitted_in_one_turn_of_the_loop_leaves_in_one_write() -> None:
    async def test() -> None:
        line = Line()
        for _ in range(500):
            line.submit(GET)
        assert line.transport.writes == []
        await asyncio.sleep(0)
        (written,) = line.transport.writes
        assert written.count(b"mg key") == 500

    asyncio.run(test())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_however_the_stream_is_cut_each_batch_gets_its_own_replies(size: int) -> None:
    async def test() -> None:
        line = Line()
        batches = [await line.ask(*[GET] * (n % 3 + 1), wire.noop()) for n in range(12)]
        stream, expected, opaque = b"", [], 4
        for n in range(12):
            own = [VALUES[(n + i) % len(VALUES)] for i in range(n % 3 + 1)]
            stream += b"".join(hit(opaque + i, value) for i, value in enumerate(own)) + b"MN\r\n"
            expected.append([*own, None])
            opaque += len(own) + 1
        for at in range(0, len(stream), size):
            line.connection.data_received(stream[at : at + size])
        assert [values_of(pending) for pending in batches] == expected

    asyncio.run(test())


def test_a_batch_has_its_replies_before_those_to_others_have_arrived() -> None:
    async def test() -> None:
        line = Line()
        first, second = line.submit(GET), line.submit(GET)
        await asyncio.sleep(0)
        line.connection.data_received(hit(4, b"one") + b"VA 3 c5")
        assert values_of(first) == [b"one"]
        assert second.outcome is None

    asyncio.run(test())


def test_a_batch_that_is_abandoned_before_it_is_written_never_is() -> None:
    async def test() -> None:
        line = Line()
        abandoned, other = line.submit(wire.get(b"left")), line.submit(GET)
        line.abandon(abandoned)
        await asyncio.sleep(0)
        assert b"left" not in line.transport.writes[0]
        line.connection.data_received(hit(4, b"mine"))
        assert values_of(other) == [b"mine"]

    asyncio.run(test())


def test_while_the_buffer_is_full_what_is_submitted_waits_and_may_still_be_abandoned() -> None:
    async def test() -> None:
        line = Line()
        line.connection.pause_writing()
        abandoned = await line.ask(wire.get(b"left"))
        other = await line.ask(GET)
        assert line.transport.writes == []
        line.abandon(abandoned)
        line.connection.resume_writing()
        assert len(line.transport.writes) == 1
        assert b"left" not in line.transport.writes[0]
        line.connection.data_received(hit(4, b"mine"))
        assert values_of(other) == [b"mine"]

    asyncio.run(test())


@pytest.mark.parametrize("is_emptied", [True, False])
def test_a_buffer_that_stays_full_while_nothing_is_answered_makes_the_connection_suspect(is_emptied: bool) -> None:
    async def test() -> None:
        line = Line(patience_s=0.01)
        line.connection.pause_writing()
        waiting = await line.ask(GET)
        if is_emptied:
            line.connection.resume_writing()
        await asyncio.sleep(0.03)
        assert line.owner.has_suspected is not is_emptied
        line.connection.abort()
        await asyncio.sleep(0)
        assert (line.owner.resent == [waiting]) is not is_emptied

    asyncio.run(test())


def test_a_buffer_that_stays_full_makes_the_connection_suspect_though_nobody_waits_any_more() -> None:
    async def test() -> None:
        line = Line(patience_s=0.05)
        line.connection.pause_writing()
        line.abandon(await line.ask(GET))
        for _ in range(500):
            if line.owner.has_suspected:
                break
            await asyncio.sleep(0.01)
        assert line.owner.has_suspected

    asyncio.run(test())


@pytest.mark.parametrize("is_emptied", [True, False])
def test_the_clock_is_looked_at_no_longer_than_a_buffer_is_full(is_emptied: bool) -> None:
    async def test() -> None:
        line = Line()
        line.connection.pause_writing()
        assert line.watch.due
        if is_emptied:
            line.connection.resume_writing()
        else:
            line.connection.abort()
            await asyncio.sleep(0)
        assert not line.watch.due

    asyncio.run(test())


def test_the_replies_to_a_batch_that_is_abandoned_later_are_read_and_dropped() -> None:
    async def test() -> None:
        line = Line()
        abandoned, other = await line.ask(GET, GET), await line.ask(GET)
        line.connection.data_received(hit(4, b"not") + b"VA 6 c5")
        line.abandon(abandoned)
        line.connection.data_received(b" f0 t-1 O5\r\nwanted\r\n" + hit(6, b"mine"))
        assert abandoned.outcome is None
        assert values_of(other) == [b"mine"]
        assert not line.transport.is_closed

    asyncio.run(test())


@pytest.mark.parametrize(
    "nonsense",
    [hit(9, b"swapped"), b"MN\r\n", b"CLIENT_ERROR bad\r\n", b"VA 1 c5 f0 t-1 O4\r\nlong\r\n", b"\x00\n"],
    ids=["opaque", "status", "error", "length", "noise"],
)
def test_a_reply_that_makes_no_sense_ends_the_connection_and_is_told_as_such_to_one_batch(nonsense: bytes) -> None:
    async def test() -> None:
        line = Line()
        batches = [await line.ask(GET) for _ in range(3)]
        unsent = line.submit(GET)
        line.connection.data_received(nonsense)
        assert line.transport.is_closed
        assert [kind_of(pending) for pending in batches] == ["protocol", "reset", "reset"]
        assert all(pending.outcome.sent for pending in batches if isinstance(pending.outcome, NodeFailure))
        assert line.owner.resent == [unsent]
        line.connection.data_received(hit(4, b"too late"))
        await asyncio.sleep(0)
        assert line.owner.told[-1] == "closed"
        assert len(line.transport.writes) == 3

    asyncio.run(test())


def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    async def test() -> None:
        line = Line()
        line.connection.data_received(b"MN\r\n")
        assert line.transport.is_closed
        assert line.connection.failure is not None

    asyncio.run(test())


def test_a_batch_for_another_life_of_the_node_is_not_sent() -> None:
    async def test() -> None:
        line = Line()
        pending = line.submit(GET, life=7)
        await asyncio.sleep(0)
        assert kind_of(pending) == "restarted"
        assert line.transport.writes == []

    asyncio.run(test())


def test_a_retired_connection_closes_when_what_is_on_its_way_is_answered() -> None:
    async def test() -> None:
        line = Line()
        pending = await line.ask(GET)
        line.connection.retire(60)
        assert not line.transport.is_closed
        line.connection.data_received(hit(4, b"late"))
        assert values_of(pending) == [b"late"]
        assert line.transport.is_closed
        await line.connection.has_ended

    asyncio.run(test())


def test_a_retired_connection_closes_after_a_while_whatever_is_on_its_way() -> None:
    async def test() -> None:
        line = Line()
        pending = await line.ask(GET)
        line.connection.retire(0.01)
        await line.connection.has_ended
        assert kind_of(pending) == "reset"

    asyncio.run(test())


def test_a_server_that_goes_away_while_it_is_greeted_is_a_failed_connection() -> None:
    async def test() -> None:
        owner, transport = Owner(), Transport()
        connection = transport.connection = MultiplexedConnection(Node("n1", "localhost"), owner, Watch(Timeouts()))
        connection.connection_made(transport)
        connection.connection_lost(None)
        with pytest.raises(ConnectionFailed, match="closed the connection"):
            await connection.greeted(1)

    asyncio.run(test())


def test_a_server_that_is_too_old_is_told_so_even_if_it_says_no_more() -> None:
    async def test() -> None:
        owner, transport = Owner(), Transport()
        connection = transport.connection = MultiplexedConnection(Node("n1", "localhost"), owner, Watch(Timeouts()))
        connection.connection_made(transport)
        connection.data_received(b"VERSION 1.4.0\r\n")
        with pytest.raises(ConnectionFailed, match=r"1\.4\.0 is not supported"):
            await connection.greeted(0.01)
        assert transport.is_closed

    asyncio.run(test())
