"""Carries flows out in an event loop, over one connection to each node that all tasks share."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from msm_fast.drivers.access import OPEN_ACCESS, Access
from msm_fast.drivers.dialing import Dialer
from msm_fast.drivers.event_loop import start_task
from msm_fast.drivers.failures import GONE, OUT_OF_TIME, ConnectionFailed
from msm_fast.drivers.multiplexed import MultiplexedConnection
from msm_fast.drivers.node_lives import NodeLives
from msm_fast.drivers.pipeline import PendingBatch, RoundTrip
from msm_fast.drivers.threads import Threads
from msm_fast.drivers.watch import Watch
from msm_fast.engine.effects import Batch, Budget, Effect, Exchange, Flow, NodeFailure, Outcome, Sleep
from msm_fast.node import Node
from msm_fast.policies import Timeouts

__all__ = ["AsyncDriver"]

T = TypeVar("T")


class AsyncDriver:
    """Runs flows; keeps a connection to each node.

    learn_item_limit: called with a node and the size of the largest item that it takes, when a connection is made.
    threads: where flows take their steps, if a step may block; None: in the loop. access: how connections are secured.
    Thread-safety: of one event loop. After a fork, or in another loop once the first is closed: `start_anew` first.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        timeouts: Timeouts,
        learn_item_limit: Callable[[str, int], None] = lambda node, item_bytes: None,
        threads: Threads | None = None,
        access: Access = OPEN_ACCESS,
    ) -> None:
        self._timeouts = timeouts
        self._threads = threads
        self._dialer = Dialer(timeouts, learn_item_limit, access)
        self._watch = Watch(timeouts)
        self._links = self.lives.nodes = {name: self._link(node) for name, node in nodes.items()}
        self._former: set[_Link] = set()
        self._abandoned: list[object] = []

    async def run(self, flow: Flow[T], deadline: float) -> T:
        """Carry out flow's effects until it returns. deadline: of time.monotonic(), for everything together.

        A flow that is broken off, by a cancelled task, is closed at once; replies that are still on their way to it
        are read and dropped.
        """
        return await self.run_within(flow, Budget(deadline - time.monotonic()))

    async def run_within(self, flow: Flow[T], budget: Budget) -> T:
        """As run, in what is left of a request's time.

        The time for which the application held up the loop meanwhile is not charged.
        """
        watch = self._watch
        deadline = watch.now() + budget.left_s
        watch.look_at(flow, math.inf)
        result: list[Outcome] | bool | None = None
        threads = self._threads
        try:
            while True:
                step: Effect | _Returned[T]
                if threads is not None:
                    step = await threads.call(_advance, flow, result)
                else:
                    try:
                        step = flow.send(result)
                    except StopIteration as stop:
                        value: T = stop.value
                        return value
                if isinstance(step, Exchange):
                    round_trip = self._begin(step.batches, deadline)
                    try:
                        await round_trip.has_ended
                        result = round_trip.outcomes
                        deadline = watch.now() + round_trip.left_s
                    finally:
                        round_trip.close()
                elif isinstance(step, Sleep):
                    result = await _sleep(step, deadline, watch)
                else:
                    return step.value
        finally:
            flow.close()
            watch.forget(flow)
            budget.left_s = deadline - watch.now()

    async def exchange(self, batches: Sequence[Batch], budget: Budget) -> list[Outcome]:
        """Write every batch, then wait for every reply: a single round trip, however many nodes.

        Charged as in run_within.
        """
        round_trip = self._begin(batches, self._watch.now() + budget.left_s)
        try:
            await round_trip.has_ended
            return round_trip.outcomes
        finally:
            budget.left_s = round_trip.left_s
            round_trip.close()

    def change_nodes(self, nodes: Mapping[str, Node]) -> None:
        """Talk to these nodes from now on; connections to others, or to other addresses, are closed when idle."""
        before = self._links
        kept = {name: before[name] for name, node in nodes.items() if name in before and before[name].node == node}
        self._links = self.lives.nodes = {name: kept.get(name) or self._link(node) for name, node in nodes.items()}
        self._dialer.keep_only(nodes.values())
        for name, link in before.items():
            if name not in kept:
                self._former.add(link)
                link.close()
        self._former = {link for link in self._former if link.is_open}

    async def look_up(self, node: str) -> None:
        """Look up again where a node is, and wait for that no longer than a connection may take."""
        link = self._links.get(node)
        if link is not None:
            await self._dialer.look_up(link.node)

    @property
    def lives(self) -> NodeLives:
        """Which life each node is in, as far as is known."""
        return self._dialer.lives

    def share_lives(self, lives: NodeLives) -> None:
        """Use the numbers of another driver of this process; before the first connection is made."""
        self._dialer.lives = lives

    async def close(self, timeout_s: float) -> None:
        """Close all connections, when what is on its way is answered or after timeout_s.

        Who comes later gets a connection for that once.
        """
        links = {*self._links.values(), *self._former}
        for link in links:
            link.close()
        for link in links:
            await link.wait_closed(timeout_s)

    def start_anew(self, *, after_fork: bool = False) -> None:
        """Forget all connections: they belong to a loop that is closed, or to the parent of this forked child.

        A parent's connections must not be closed here, nor taken out of the poll object that both share.
        """
        if after_fork:
            self._abandoned.append([self._links, self._former])
            self._dialer.renew_after_fork()
        self._watch = Watch(self._timeouts)
        self._links = {name: self._link(link.node) for name, link in self._links.items()}
        self._former = set()

    def _begin(self, batches: Sequence[Batch], deadline: float) -> RoundTrip:
        """Have every batch written in this turn of the loop: a single round trip, however many nodes.

        It is to be closed, however it ends.
        """
        round_trip = RoundTrip(batches, deadline, self._watch)
        is_too_late = round_trip.sent_at >= deadline
        for pending in round_trip.pending:
            link = self._links.get(pending.batch.node)
            if is_too_late:
                pending.end(NodeFailure("deadline", False, OUT_OF_TIME))
            elif link is None:
                pending.end(GONE)
            else:
                link.submit(pending)
        return round_trip

    def _link(self, node: Node) -> _Link:
        return _Link(node, self._dialer, self._watch, self._timeouts.operation)


@dataclass(frozen=True, slots=True)
class _Returned(Generic[T]):
    """What a flow has returned: a future cannot carry a StopIteration."""

    value: T


class _Link:
    """The way to one node: its connection, or the attempt to make one and the batches that wait for it.

    A connection on which an answer did not come in time gets no more batches; those on it may still be answered.
    """

    def __init__(self, node: Node, dialer: Dialer, clock: Watch, patience_s: float) -> None:
        self.node = node
        self._dialer = dialer
        self._clock = clock
        self._patience_s = patience_s
        self._connection: MultiplexedConnection | None = None
        self._open: set[MultiplexedConnection] = set()
        self._waiting: list[PendingBatch] = []
        self._attempt: asyncio.Task[None] | None = None
        self._is_closed = False

    def submit(self, pending: PendingBatch) -> None:
        """Send a batch, as soon as there is a connection."""
        if self._connection is not None:
            self._connection.submit(pending)
            return
        self._waiting.append(pending)
        if self._attempt is None:
            attempt = start_task(self._connect(), f"msm-fast-connect-{self.node.label}")
            if not attempt.done():  # an eager task may have failed already
                self._attempt = attempt

    @property
    def is_open(self) -> bool:
        """Whether a connection is open, or being made."""
        return self._attempt is not None or bool(self._open)

    def close(self) -> None:
        """Close the connections when they are idle. Who comes later gets one for that once."""
        self._is_closed = True
        if self._connection is not None:
            self.suspected(self._connection)

    async def wait_closed(self, timeout_s: float) -> None:
        """Wait until the connections are closed; after timeout_s close them, whatever is on its way."""
        deadline = time.monotonic() + timeout_s
        if self._attempt is not None:
            await asyncio.wait([self._attempt], timeout=timeout_s)
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        if self._open:
            left_s = max(deadline - time.monotonic(), 0)
            await asyncio.wait([connection.has_ended for connection in self._open], timeout=left_s)
        for connection in list(self._open):
            connection.abort()
            await asyncio.wait([connection.has_ended])

    # -- for its connections

    def opened(self, connection: MultiplexedConnection) -> None:
        """Note that there is a connection; it is still to be greeted."""
        self._open.add(connection)

    def suspected(self, connection: MultiplexedConnection) -> None:
        """Give a connection no more batches."""
        if self._connection is connection:
            self._connection = None
        connection.retire(self._patience_s)

    def lost(self, connection: MultiplexedConnection, unsent: list[PendingBatch]) -> None:
        """Send elsewhere what was not written yet."""
        if self._connection is connection:
            self._connection = None
        for pending in unsent:
            self.submit(pending)

    def closed(self, connection: MultiplexedConnection) -> None:
        """Forget a connection."""
        self._open.discard(connection)

    # -- inside

    async def _connect(self) -> None:
        failure: ConnectionFailed | None = ConnectionFailed("gone", False, "its connection is not wanted any more")
        try:
            connection = await self._dialer.connect(self.node, self, self._clock)
            failure = connection.failure
        except ConnectionFailed as error:
            failure = error
        finally:
            self._attempt = None
            waiting, self._waiting = self._waiting, []
            if failure is not None:
                for pending in waiting:
                    pending.end(failure.outcome)
        if failure is None:
            self._connection = connection
            for pending in waiting:
                connection.submit(pending)
            if self._is_closed:
                self.suspected(connection)


def _advance(flow: Flow[T], result: list[Outcome] | bool | None) -> Effect | _Returned[T]:
    """Let a flow go on until it wants something, or returns."""
    try:
        return flow.send(result)
    except StopIteration as stop:
        return _Returned(stop.value)


async def _sleep(effect: Sleep, deadline: float, watch: Watch) -> bool:
    await asyncio.sleep(max(min(effect.seconds, deadline - watch.now()), 0))
    return watch.now() < deadline
